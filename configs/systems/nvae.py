"""NVAE (arXiv 2007.03898): its defaults, and pieces that its published runs share.

Source: the flags of NVlabs/NVAE. Fields of the model have its names but for:

    num_process_blocks      num_preprocess_blocks = num_postprocess_blocks
    group_divider           2 for ada_groups
    num_cells_enc           num_cell_per_cond_enc
    num_cells_dec           num_cell_per_cond_dec
    zdim                    num_latent_per_group
    num_flows               num_nf
    residual_posterior      res_dist, off by default but on in all published runs
    likelihood              normal for num_mixture_dec=1
    num_mixtures            num_mixture_dec
    num_bits                num_x_bits
    se                      use_se; none leaves it out
    kl_anneal_steps         kl_anneal_portion of the run
    kl_const_steps          kl_const_portion of the run
    kl_min                  kl_const_coeff

`MGP123` are the differences of mgp123/nvae, a second public implementation.
"""

from typing import Any

import ml_collections

from configs.systems import trainer
from hvae_tpu import models

# Differences of mgp123/nvae that are not hyper-parameters of its files.
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
  """Returns the defaults; those without a comment are the defaults of the reference's flags."""
  config = trainer.base()
  config.model = models.defaults('nvae')
  config.optimizer.update(
    name='adamax_l2',
    schedule='cosine_epochs',  # or constant, cosine
    learning_rate=1e-2,
    cosine_start=5,  # warmup_epochs
    min_learning_rate=1e-4,
    eps=1e-3,
    weight_decay=3e-4,  # added to the gradient, of all parameters
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
  """Returns the sections that follow from the length of a training.

  Args:
    examples: number of training examples; the incomplete last batch of an epoch is dropped.
    batch_size: global.
    epochs: of the training.
    warmup_epochs: epochs in which the learning rate rises.
    norm: weight of the regularisers.
    norm_init: weight that `norm` is annealed from; 0 = not annealed.
    learning_rate: peak.
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
  """Merges differences, section by section; a later one wins."""
  sections: dict[str, dict[str, Any]] = {}
  for difference in differences:
    for section, fields in difference.items():
      sections[section] = {**sections.get(section, {}), **fields}
  return sections


# Views of the published runs.
VIEWS = dict(
  # Any split: FFHQ was split without a seed, and forms of ImageNet differ by a few pictures.
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


# Small networks for two CPU cores.
DEMO = dict(
  model=dict(
    num_preprocess_cells=1,
    num_postprocess_cells=1,
    num_latent_scales=2,
    num_groups_per_scale=4,
    group_divider=2,
    zdim=8,
    weight_decay_norm=1e-2,
    steps_per_epoch=100,
  ),
  optimizer=dict(learning_rate=5e-3, warmup_steps=100, cosine_start=1, steps_per_epoch=100),
)


def debug(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns differences: a network of the same form that trains for seconds on a CPU."""
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
