"""VDVAE: every field with its default. Source: openai/vdvae, `hps.py`; the paper is 2011.10650."""

import itertools

import ml_collections

from configs.systems import trainer


def base() -> ml_collections.ConfigDict:
  """Fields without a comment have the value of the release's parser or of its first preset."""
  config = trainer.base()
  config.model = dict(
    name='vdvae',
    image_size=32,
    image_channels=3,
    width=384,
    custom_width_str='',  # 'res:width,...'; others have `width`
    zdim=16,
    bottleneck_multiple=0.25,
    enc_blocks='',  # required: RxN blocks, RdK a block with pooling by K
    dec_blocks='',  # required: RxN blocks, RmM a block that adds resolution M
    no_bias_above=64,
    input_mean=127.5,  # of the training pixels, 0..255
    input_std=127.5,
    likelihood='dmol_torch',  # or dmol_exact (vdvae-jax), bernoulli
    num_mixtures=10,
    num_bits=8,  # of the target: 8 or 5
    dmol_5bit_normalised=False,  # published 5-bit numbers are with bins that overlap
    target_crop=0,
    kl_weight=1.0,  # loss weight, in training only
    gelu_approximate=False,  # True: vdvae-jax
    kernel_init='torch',  # lecun: vdvae-jax
    output_temperature=1.0,
    output_statistic='sample',  # of the pixels of pictures; mean: their expectation
    sample_rounding='round',  # the release truncates
    sample_snap=False,
    dtype='float32',
    remat='auto',  # none, blocks, convs; auto: blocks on TPU and GPU, none on CPU
    unroll='auto',  # full or a number; auto: 1 on TPU and GPU, full on CPU
  )
  config.optimizer = dict(
    name='adamw',
    schedule='constant',
    learning_rate=2e-4,
    warmup_steps=100,
    b1=0.9,
    b2=0.9,
    eps=1e-8,
    weight_decay=0.01,  # of all tensors, biases too
    clip_norm=200.0,
  )
  config.train.ema_decay = 0.9999
  config.train.progress_metrics = ('bpd', 'kl_bpd', 'grad_norm')
  config.evals.histograms.every = 10_000
  return config


def debug(config: ml_collections.ConfigDict) -> dict:
  """A network of the same form that trains for seconds on a CPU."""
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
