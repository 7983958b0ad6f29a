"""EfficientMORL (arXiv 2106.03630): its defaults.

Source: pemami4911/EfficientMORL, its configurations. Fields of the model have its names, but for
`num_slots` (K), `zdim` (z_size), `geco_target` (geco_reconstruction_target), `prior`
(reverse_prior_plusplus, bottom_up_prior) and `likelihood` (Gaussian is gaussian, GMM mixture).
"""

import ml_collections

from configs.systems import trainer
from hvae_tpu import models


def base() -> ml_collections.ConfigDict:
  """Returns the defaults: the values of all published configurations."""
  config = trainer.base()
  config.data.fields = ('image', 'segmentation')
  config.model = models.defaults('efficient_morl')
  config.optimizer.update(
    schedule='warm_exponential',
    learning_rate=4e-4,
    warmup_steps=10_000,
    decay_steps=100_000,
    clip_norm=5.0,
  )
  config.train.num_steps = 300_001  # the reference's loop includes its last number
  config.train.log_every = 100
  config.train.save_every = 25_000
  config.train.best_metric = 'segmentation/mse'
  config.train.progress_metrics = ('nll', 'kl', 'mse', 'geco_beta', 'grad_norm')
  config.evals.pictures.every = 0
  config.evals.segmentation.every = 5000
  config.evals.names = ('segmentation',)
  return config


def large_scenes(geco_target: float) -> dict[str, dict]:
  """Returns the differences of scenes at 128x128 with up to ten objects; target in nats a dim."""
  return dict(
    model=dict(
      likelihood='mixture',
      refinement_iters=2,
      refinement_curriculum=((-1, 3), (100_000, 2), (200_000, 2)),
      geco_target=geco_target,
      geco_step_size_acceleration=5.0,
    ),
    evals=dict(batch_size=8, names=('segmentation', 'textures')),
  )


def demo(batch_size: int, eval_batch_size: int) -> dict[str, dict]:
  """Returns the differences of small runs for two CPU cores; batch sizes are global."""
  return dict(
    optimizer=dict(learning_rate=1e-3, warmup_steps=200),
    train=dict(
      batch_size=batch_size, num_steps=5000, precision='default', log_every=50, save_every=500
    ),
    evals=dict(
      batch_size=eval_batch_size,
      elbo=dict(every=0),
      segmentation=dict(every=500, max_batches=4),
    ),
  )


def debug(config: ml_collections.ConfigDict) -> dict:
  """Returns differences: a network of the same form that trains for seconds on a CPU."""
  return dict(
    model=dict(zdim=4, image_decoder='small', refinement_curriculum=((-1, 2), (10, 1))),
    optimizer=dict(warmup_steps=2),
    train=dict(batch_size=8, num_steps=20, log_every=5, save_every=10, precision='default'),
    evals=dict(batch_size=8, elbo=dict(every=20), segmentation=dict(every=20, num=2)),
  )
