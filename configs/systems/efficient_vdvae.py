"""Efficient-VDVAE (arXiv 2203.13751): its defaults, and the lists that describe its networks.

Source: Rayhane-mamah/Efficient-VDVAE, `hparams.cfg` of its JAX form. Fields of the model have its
names, but for `zdim` (`down_latent_variates`) and `beta_*` (`vae_beta_*`).
"""

from typing import Any

import ml_collections

from configs.systems import trainer
from hvae_tpu import models


def base() -> ml_collections.ConfigDict:
  """Returns the defaults: the values of all published configurations, or of most."""
  config = trainer.base()
  config.model = models.defaults('efficient_vdvae')
  config.optimizer.update(
    name='adamax',  # or adam, adamw, radam
    # Or constant, noam, exponential (the reference's raises; this is what it meant), cosine_torch
    # (what its PyTorch form does, which rises again at the end).
    schedule='cosine',
    learning_rate=1e-3,
    warmup_steps=100,
    decay_start=50_000,
    min_learning_rate=1e-4,
    weight_decay_exclude=(
      'bias',
      'scale_bias',
      'trainable_h',
      'input_conv',
      'output_conv',
      'skip_projection',
      'z_projection',
      'prior_projection',
      'posterior_projection',
    ),
  )
  config.train.num_steps = 800_000
  config.train.clock = 'applied'
  config.train.ema_decay = 0.9999
  config.train.skip_threshold = 800.0
  config.train.precision = 'default'  # the reference computes in TF32
  config.train.progress_metrics = ('bpd', 'kl_bpd', 'grad_norm')
  config.evals.histograms.every = 10_000
  config.evals.weights = 'both'  # the reference validates the raw ones, and publishes the average
  return config


# Views of the published runs, and their transforms.
VIEWS = dict(
  train_split='efficient_vdvae/train',
  valid_split='efficient_vdvae/valid',
  test_split='efficient_vdvae/test',
  train_transforms=('flip',),
)


def lists(
  levels: dict[int, int],
  *,
  widths: dict[int, int],
  ratios: dict[int, float],
  pointwise: tuple[int, ...] = (1,),
  down: dict[int, tuple[int, ...]] | None = None,
  up: dict[int, int] | None = None,
) -> dict[str, Any]:
  """Returns the lists of a model whose levels are equal within a resolution: fields of `model`.

  Args:
    levels: side of the maps -> number of levels, from coarse to fine. The first level of a
      resolution upsamples to it.
    widths: side -> channels.
    ratios: side -> bottleneck channels, as a fraction of the channels.
    pointwise: sides with 1x1 kernels; the others have 3x3.
    down: side -> further top-down blocks at the first level of that resolution, the second, ...
    up: side -> bottom-up blocks without a skip, at the first (finest) level of that resolution.
  """
  sides, up, down = list(levels), up or {}, down or {}
  coarser = dict(zip(sides, [sides[0], *sides], strict=False))
  rate = {side: side // other for side, other in coarser.items()} | {sides[0]: sides[0]}
  further = {side: (*down.get(side, ()), *[0] * n) for side, n in levels.items()}
  # Every level as (side, number within the resolution, from coarse to fine).
  places = [(side, i) for side, n in levels.items() for i in range(n)]
  down_lists = dict(
    down_strides=[1 if i else rate[side] for side, i in places],
    down_n_blocks_per_res=[further[side][i] for side, i in places],
    down_filters=[widths[side] for side, _ in places],
    down_mid_filters_ratio=[ratios[side] for side, _ in places],
    down_kernel_size=[1 if side in pointwise else 3 for side, _ in places],
  )
  up_lists = dict(
    up_n_blocks_per_res=[up.get(side, 0) if i == levels[side] - 1 else 0 for side, i in places],
    up_filters=[widths[side if i else coarser[side]] for side, i in places],
    up_mid_filters_ratio=down_lists['down_mid_filters_ratio'],
    up_kernel_size=down_lists['down_kernel_size'],
  )
  return dict(
    input_conv_filters=widths[sides[-1]],
    **{name: tuple(values) for name, values in down_lists.items()},
    **{name: tuple(reversed(values)) for name, values in up_lists.items()},
  )


def debug(config: ml_collections.ConfigDict) -> dict:
  """Returns differences: a network of the same form that trains for seconds on a CPU."""
  strides, side = [], config.model.image_size
  while side > 1:
    strides.append(4 if side >= 16 else min(side, 2))
    side //= strides[-1]
  # Coarse to fine, with one level that does not resample.
  strides = (1, *reversed(strides))
  return dict(
    model=dict(
      input_conv_filters=8,
      up_n_blocks_per_res=(0,),
      up_filters=(8,),
      up_mid_filters_ratio=(0.5,),
      up_kernel_size=(3,),
      down_strides=strides,
      down_n_blocks_per_res=(1, *[0] * (len(strides) - 1)),
      down_filters=(8,),
      down_mid_filters_ratio=(0.5,),
      down_kernel_size=(3,),
      zdim=2,
      num_mixtures=2,
      beta_start=1,
      beta_steps=10,
      gamma_max_steps=5,
    ),
    optimizer=dict(warmup_steps=2, decay_start=5, decay_steps=0),
    train=dict(batch_size=8, num_steps=20, log_every=5, save_every=10, precision='default'),
    evals=dict(
      batch_size=8, elbo=dict(every=20), pictures=dict(every=20, num=4), histograms=dict(every=20)
    ),
    sample=dict(num=4),
  )
