"""Efficient-VDVAE: every field with its default. The paper is 2203.13751.

Source: Rayhane-mamah/Efficient-VDVAE, `hparams.cfg` of its JAX form. Fields of the model keep their
names, but for `zdim` (`down_latent_variates`) and `beta_*` (`vae_beta_*`).
"""

from typing import Any

import ml_collections

from configs.systems import trainer


def base() -> ml_collections.ConfigDict:
  """Fields without a comment have the value of all published configurations, or of most."""
  config = trainer.base()
  config.model = dict(
    name='efficient_vdvae',
    image_size=32,
    image_channels=3,
    # Lists have an entry per level, or one for all: up_* from fine to coarse, down_* from coarse to
    # fine. The strides of the bottom-up side are `down_strides`, reversed.
    input_conv_filters=512,
    input_kernel_size=1,
    up_n_blocks_per_res=(0,),
    up_n_blocks=(1,),
    up_n_layers=(2,),
    up_filters=(512,),
    up_mid_filters_ratio=(0.25,),
    up_kernel_size=(3,),
    down_strides=(1,),  # required
    down_n_blocks_per_res=(0,),
    down_n_blocks=(1,),
    down_n_layers=(2,),
    down_filters=(512,),
    down_mid_filters_ratio=(0.25,),
    down_kernel_size=(3,),
    output_kernel_size=1,
    use_1x1_conv=True,
    zdim=32,
    stable_init=True,
    initialize_prior_weights_as_zero=False,
    distribution_base='std',  # or logstd
    gradient_smoothing_beta=0.6931472,  # ln 2
    use_residual_distribution=False,
    legacy_jax_logstd_kl=False,  # True: the reference's JAX form for logstd, which is no KL
    likelihood='dmol',  # or bernoulli
    num_mixtures=10,
    num_bits=8,  # or 5
    output_distribution_base='std',
    output_gradient_smoothing_beta=0.6931472,
    min_mol_logscale=-250.0,
    output_temperature=1.0,
    output_statistic='sample',  # of the pixels of pictures; mean: their expectation
    target_crop=0,
    beta_schedule='linear',  # or logistic, none
    beta_start=21,
    beta_steps=5000,
    beta_min=1e-4,
    beta_activation_step=10_000,
    beta_growth_rate=1e-5,
    use_gamma_schedule=True,
    gamma_max_steps=10_000,
    scaled_gamma=True,
    latent_active_threshold=1e-4,  # bits per latent dimension; only counted
    dtype='float32',
    remat='auto',  # none, blocks, convs; auto: blocks on TPU and GPU, none on CPU
    unroll='auto',  # full or a number; auto: 1 on TPU and GPU, full on CPU
  )
  config.optimizer = dict(
    name='adamax',  # or adam, adamw, radam
    # Or constant, noam, exponential (the reference's raises; this is what it meant), cosine_torch
    # (what its PyTorch form does, which rises again at the end).
    schedule='cosine',
    learning_rate=1e-3,
    warmup_steps=100,
    decay_start=50_000,
    decay_steps=0,  # 0: to the end of the training
    min_learning_rate=1e-4,
    decay_rate=0.5,  # of schedule exponential
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    weight_decay_exclude=(  # names of modules and tensors
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
    clip_norm=0.0,
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


def lists(
  levels: dict[int, int],
  *,
  widths: dict[int, int],
  ratios: dict[int, float],
  pointwise: tuple[int, ...] = (1,),
  down: dict[int, tuple[int, ...]] | None = None,
  up: dict[int, int] | None = None,
) -> dict[str, Any]:
  """The lists of a model whose levels are equal within a resolution: fields of `model`.

  Args:
    levels: side of the maps -> number of levels, from coarse to fine. The first level of a
      resolution upsamples to it.
    widths: side -> channels.
    ratios: side -> bottleneck channels, as a part of those.
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
  """A network of the same form that trains for seconds on a CPU."""
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
