"""NVAE: every field with its default. The paper is 2007.03898.

Source: the flags of NVlabs/NVAE. `MGP123` are the differences of mgp123/nvae, a second public
implementation.
"""

from typing import Any

import ml_collections

from configs.systems import trainer

# The differences of mgp123/nvae that are no hyper-parameters.
MGP123 = dict(
  likelihood='gaussian',
  input_centering=False,
  weight_norm='gain',
  weight_norm_in_cells=False,
  se='half',
  skip_down_shift=False,
  skip_up_bias=True,
  post_up_last=True,
  prior_init='normal',
  temper_whole_std=False,
  flow_weight_norm=False,
  flow_bias=True,
  flow_mask_side='right',
  flow_in_encode=False,
  kl_without_flows='sampled',
  kl_schedule='epochs',
  regulariser='power',
)


def base() -> ml_collections.ConfigDict:
  """Fields without a comment have the default of the reference's flags."""
  config = trainer.base()
  config.model = dict(
    name='nvae',
    image_size=32,
    image_channels=3,
    num_channels_enc=32,
    num_channels_dec=32,
    channel_multiplier=2,
    num_process_blocks=1,  # num_preprocess_blocks = num_postprocess_blocks
    num_preprocess_cells=2,
    num_postprocess_cells=2,
    num_latent_scales=1,
    num_groups_per_scale=10,
    group_divider=1,  # 2: ada_groups
    min_groups_per_scale=1,
    num_cells_enc=1,  # num_cell_per_cond_enc
    num_cells_dec=1,
    zdim=20,  # num_latent_per_group
    num_flows=0,  # num_nf
    arch_instance='res_mbconv',
    residual_posterior=True,  # res_dist, which is off by default but on in all published runs
    likelihood='dmol',  # or normal (num_mixture_dec=1), bernoulli
    num_mixtures=10,  # num_mixture_dec
    num_bits=8,  # num_x_bits
    dmol_upper_edge=0.99,  # 0.999: masses that sum to 1
    output_temperature=1.0,
    output_statistic='sample',  # of the pixels of pictures; mean: their expectation
    target_crop=0,
    input_centering=True,
    weight_norm='log',
    weight_norm_in_cells=True,
    se='sixteenth',  # use_se; none leaves it out
    skip_down_shift=True,
    skip_up_bias=False,
    post_up_last=False,
    prior_init='uniform',
    temper_whole_std=True,
    flow_weight_norm=True,
    flow_bias=False,
    flow_mask_side='left',
    flow_in_encode=True,
    fixed_flows=False,
    kl_without_flows='analytic',
    kl_schedule='steps',  # or epochs, which reads kl_warmup_epochs and steps_per_epoch
    kl_anneal_steps=1000.0,  # kl_anneal_portion of the run
    kl_const_steps=0.0,  # kl_const_portion of the run
    kl_min=1e-4,  # kl_const_coeff
    kl_warmup_epochs=30,
    steps_per_epoch=1,
    kl_balance='square',  # or equal, linear, sqrt
    kl_weight=1.0,
    regulariser='spectral',
    weight_decay_norm=0.0,
    weight_decay_norm_init=0.0,  # 0: not annealed
    dtype='float32',
    depthwise='auto',  # conv, shifts; auto: conv on TPU and GPU, shifts on CPU
    remat='auto',  # none, blocks, convs; auto: blocks on TPU and GPU, none on CPU
    unroll='auto',  # full or a number; auto: 1 on TPU and GPU, full on CPU
  )
  config.optimizer = dict(
    name='adamax_l2',
    schedule='cosine_epochs',  # or constant, cosine
    learning_rate=1e-2,
    warmup_steps=0,
    steps_per_epoch=1,
    cosine_start=5,  # warmup_epochs
    cosine_epochs=0,  # 0: those between the start and the last
    min_learning_rate=1e-4,
    b1=0.9,
    b2=0.999,
    eps=1e-3,
    weight_decay=3e-4,  # added to the gradient, of all parameters
    clip_norm=0.0,
  )
  for mode in (config.sample, config.explore, config.pick, config.quality, config.report):
    mode.refresh_iterations = 20  # as mgp123/nvae; the reference has 0 or 500
  config.train.precision = 'default'  # the reference computes in float16
  config.train.progress_metrics = ('bpd', 'kl_bpd', 'grad_norm')
  return config


def schedule(
  examples: int,
  batch_size: int,
  epochs: int,
  warmup_epochs: int,
  norm: float,
  norm_init: float = 0.0,
  learning_rate: float = 1e-2,
) -> dict[str, Any]:
  """The sections that follow from the length of a training.

  Args:
    examples: of the training view; the rest of an epoch that fills no batch is not counted.
    batch_size: global.
    epochs: of the training.
    warmup_epochs: of the learning rate.
    norm, norm_init: weight of the regularisers, and what it is annealed from (0: not).
  """
  per_epoch = examples // batch_size
  total = epochs * per_epoch
  return dict(
    model=dict(
      # Portions 0.3 and 1e-4 of the run.
      kl_anneal_steps=0.3 * total,
      kl_const_steps=1e-4 * total,
      weight_decay_norm=norm,
      weight_decay_norm_init=norm_init,
      steps_per_epoch=per_epoch,
    ),
    optimizer=dict(
      learning_rate=learning_rate,
      warmup_steps=warmup_epochs * per_epoch,
      cosine_start=warmup_epochs,
      steps_per_epoch=per_epoch,
    ),
    train=dict(batch_size=batch_size, num_steps=total),
  )


def merged(*differences: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
  """Differences of a data set, section by section; a later one wins."""
  found: dict[str, dict[str, Any]] = {}
  for difference in differences:
    for section, fields in difference.items():
      found[section] = {**found.get(section, {}), **fields}
  return found


# What all published runs share.
VIEWS = dict(
  # Any: FFHQ was dealt out without a seed, and forms of ImageNet differ by a few pictures.
  require=dict(split_sha256=''),
  train_split='nvae/train',
  valid_split='nvae/test',
  test_split='nvae/test',
)
IWAE = dict(names=('elbo', 'iwae'))
FACES_256 = dict(
  num_channels_enc=30,
  num_channels_dec=30,
  num_latent_scales=5,
  num_groups_per_scale=16,
  group_divider=2,
  min_groups_per_scale=4,
  num_cells_enc=2,
  num_cells_dec=2,
  num_flows=2,
  num_bits=5,
)


def debug(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """A network of the same form that trains for seconds on a CPU."""
  scales = 2 if config.model.num_latent_scales > 1 else 1
  halvings = max((config.model.image_size // 8).bit_length() - 1 - (scales - 1), 1)
  return dict(
    model=dict(
      num_channels_enc=4,
      num_channels_dec=4,
      channel_multiplier=1 if config.model.image_size > 32 else 2,
      num_process_blocks=halvings,
      num_preprocess_cells=1,
      num_postprocess_cells=1,
      num_latent_scales=scales,
      num_groups_per_scale=2,
      min_groups_per_scale=1,
      num_cells_enc=1,
      num_cells_dec=1,
      zdim=2,
      num_mixtures=2,
      kl_anneal_steps=10.0,
      kl_const_steps=1.0,
      kl_warmup_epochs=2,
    ),
    optimizer=dict(warmup_steps=2, cosine_start=2, cosine_epochs=0, steps_per_epoch=2),
    train=dict(
      batch_size=8,
      num_steps=20,
      num_epochs=None,
      log_every=5,
      save_every=10,
      save_epochs=None,
      precision='default',
    ),
    evals=dict(batch_size=8, elbo=dict(every=20), pictures=dict(every=20, num=4)),
    sample=dict(num=4),
  )
