"""VDVAE (arXiv 2011.10650): its defaults. Source: openai/vdvae, `hps.py`."""

import itertools

import ml_collections

from configs.systems import trainer
from hvae_tpu import models


def base() -> ml_collections.ConfigDict:
  """Returns the defaults: those of the release's parser, or of its first preset."""
  config = trainer.base()
  config.model = models.defaults('vdvae')
  config.optimizer.update(
    name='adamw',
    learning_rate=2e-4,
    warmup_steps=100,
    b2=0.9,
    weight_decay=0.01,  # of all tensors, biases too
    clip_norm=200.0,
  )
  config.train.ema_decay = 0.9999
  config.train.progress_metrics = ('bpd', 'kl_bpd', 'grad_norm')
  config.evals.histograms.every = 10_000
  return config


# Views of the release.
VIEWS = dict(train_split='vdvae/train', valid_split='vdvae/valid', test_split='vdvae/test')
IMAGENET = dict(  # 32x32 and 64x64
  require=dict(
    variant='van_den_oord',
    split_sha256='83658f997c9dd8ba894078a9a7ba6a3328b858fb7e12961b123fd68ad161660c',
  ),
  **VIEWS,
)


def debug(config: ml_collections.ConfigDict) -> dict:
  """Returns differences: a network of the same form that trains for seconds on a CPU."""
  sides = [config.model.image_size]
  while sides[-1] > 1:
    sides.append(sides[-1] // 4 if sides[-1] > 8 else 1)
  pairs = list(itertools.pairwise(sides))
  pools = [f'{fine}x1,{fine}d{fine // coarse}' for fine, coarse in pairs]
  grows = [f'{fine}m{coarse},{fine}x1' for fine, coarse in pairs]
  return dict(
    model=dict(
      width=8,
      custom_width_str='',
      zdim=2,
      num_mixtures=2,
      enc_blocks=','.join([*pools, '1x1']),
      dec_blocks=','.join(['1x1', *reversed(grows)]),
    ),
    train=dict(batch_size=8, num_steps=20, log_every=5, save_every=10, precision='default'),
    evals=dict(batch_size=8, elbo=dict(every=20), pictures=dict(every=20, num=4)),
    sample=dict(num=4),
  )
