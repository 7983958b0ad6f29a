"""EfficientMORL: every field with its default. The paper is 2106.03630.

Source: pemami4911/EfficientMORL, its configurations. Fields of the model keep their names, but for
`num_slots` (K), `zdim` (z_size), `geco_target` (geco_reconstruction_target), `prior`
(reverse_prior_plusplus, bottom_up_prior) and `likelihood` (Gaussian is gaussian, GMM mixture).
"""

import ml_collections

from configs.systems import trainer


def base() -> ml_collections.ConfigDict:
  """Fields without a comment have the value of all published configurations."""
  config = trainer.base()
  config.data.fields = ('image', 'segmentation')
  config.model = dict(
    name='efficient_morl',
    image_size=35,
    image_channels=3,
    num_slots=4,
    zdim=64,
    stochastic_layers=3,
    use_dual_gru=True,
    image_decoder='iodine',  # or small, big (96 px only)
    likelihood='gaussian',  # or mixture
    log_scale=-2.3025859,  # a deviation of 0.1
    prior='reversed_plus',  # or reversed, bottom_up
    refinement_iters=1,  # outside of training
    refinement_curriculum=((-1, 3), (100_000, 1)),  # (from which step on, refinements)
    refine_weighting='early',  # of iterations in the loss; or uniform, late (IODINE)
    # Pictures that the loss of a refinement is averaged over; the reference: those of one GPU.
    refine_loss_reduction=0,  # 0: those of the global batch
    kl_beta=1.0,
    use_geco=True,
    geco_target=-1.0,  # required where use_geco; nats per dimension
    geco_warm_start=1000,  # steps before the multiplier moves
    geco_ema_alpha=0.99,
    geco_beta_stepsize=1e-6,
    geco_step_size_acceleration=1.0,  # of the multiplier's way back, where the target is reached
    dtype='float32',
    remat='auto',  # of the decoder: none, blocks, convs; auto: blocks on TPU and GPU, none on CPU
    # Of fresh networks; preserving: signals keep their size, so that slots learn far sooner.
    init_weights='published',
  )
  config.optimizer = dict(
    name='adam',
    schedule='warm_exponential',
    learning_rate=4e-4,
    warmup_steps=10_000,
    decay_steps=100_000,
    decay_rate=0.5,
    min_learning_rate=0.0,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    clip_norm=5.0,
  )
  config.train.batch_size = 32
  config.train.num_steps = 300_001  # the reference's loop includes its last number
  config.train.log_every = 100
  config.train.save_every = 25_000
  config.train.best_metric = 'segmentation/mse'
  config.train.progress_metrics = ('nll', 'kl', 'mse', 'geco_beta', 'grad_norm')
  config.evals.batch_size = 32
  config.evals.pictures.every = 0
  config.evals.segmentation.every = 5000
  config.evals.names = ('segmentation',)
  return config


def debug(config: ml_collections.ConfigDict) -> dict:
  """A network of the same form that trains for seconds on a CPU."""
  return dict(
    model=dict(zdim=4, image_decoder='small', refinement_curriculum=((-1, 2), (10, 1))),
    optimizer=dict(warmup_steps=2),
    train=dict(batch_size=8, num_steps=20, log_every=5, save_every=10, precision='default'),
    evals=dict(batch_size=8, elbo=dict(every=20), segmentation=dict(every=20, num=2)),
  )
