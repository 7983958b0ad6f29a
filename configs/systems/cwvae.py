"""Clockwork VAE: every field with its default. The paper is 2102.09532.

Source: vaibhavsaxena11/cwvae and its JAX port juliuskunze/cwvae-jax. Fields of the model keep their
names.
"""

import ml_collections
from ml_collections import config_dict

from configs.systems import trainer


def base() -> ml_collections.ConfigDict:
  """Fields without a comment have the value of all published configurations."""
  config = trainer.base()
  config.data.fields = ('video',)
  config.data.seq_len = 100
  config.model = dict(
    name='cwvae',
    image_size=64,
    image_channels=3,
    levels=3,
    tmp_abs_factor=6,
    filters=32,
    channels_mult=1,
    enc_dense_layers=3,
    enc_dense_embed_size=1000,
    cell_type='RSSMCell',
    cell_stoch_size=20,
    cell_deter_size=200,
    cell_embed_size=200,
    cell_min_stddev=1e-4,
    cell_mean_only=False,
    cell_reset_state=False,
    reset_mask='reference',  # or clock, where the level above ticks
    use_obs='',  # T or F for every level from the bottom, for context frames; '': all T
    train_use_obs=False,  # True: use_obs in training too, which the references never do
    dec_stddev=1.0,
    dec_activation='tanh',  # although pixels lie in [0, 1]; or sigmoid, identity
    beta=(1.0,),  # of the KL in training; one or one per level
    free_nats=0.0,  # of a level, per sequence
    kl_grad_post_perc=config_dict.placeholder(float),  # share of the KL's gradient; None: plain
    kl_balance='intended',  # reference: the posterior gets none of it
    kernel_init='lecun',  # keras: as the TensorFlow code
    dtype='float32',
    convolutions='auto',  # direct, products; auto: direct on TPU and GPU, products on CPU
    remat='auto',  # none, blocks (ticks), convs; auto: blocks on TPU and GPU, none on CPU
    unroll='auto',  # full or a number of ticks; auto: 4 on TPU and GPU, 1 on CPU
  )
  config.optimizer = dict(
    name='adam',  # adam_keras: epsilon as the TensorFlow code has it; or muon
    schedule='constant',
    learning_rate=3e-4,
    warmup_steps=0,
    decay_start=0,  # of schedules that end, as the next two
    decay_steps=0,  # 0: to the end of the training
    min_learning_rate=0.0,
    b1=0.9,
    b2=0.999,
    eps=1e-4,
    muon_rms=0.2,  # root mean square of a kernel's update, in learning rates
    muon_iterations=5,  # of Newton-Schulz
    # Modules whose kernels go from pixels to patches.
    muon_transposed=('deconv_0', 'deconv_1', 'deconv_2', 'deconv_3'),
    clip_norm=10_000.0,
  )
  config.train.batch_size = 50
  config.train.precision = 'default'
  config.train.progress_metrics = ('neg_elbo_per_frame', 'kl_per_frame', 'grad_norm')
  config.train.save_every = 1000
  config.train.keep_every = 5000
  config.train.best_metric = 'elbo/neg_elbo_per_frame'
  # The published validation: the first 50 test sequences.
  config.evals.batch_size = 10
  config.evals.elbo = dict(every=1000, max_batches=5)
  config.evals.pictures.every = 0
  config.evals.open_loop.every = 1000
  config.evals.names = ('elbo', 'open_loop')
  return config


def debug(config: ml_collections.ConfigDict) -> dict:
  """A network of the same form that trains for seconds on a CPU."""
  return dict(
    data=dict(seq_len=10, eval_seq_len=20),
    model=dict(
      tmp_abs_factor=2,
      filters=1,
      enc_dense_layers=2,
      enc_dense_embed_size=8,
      cell_stoch_size=4,
      cell_deter_size=8,
      cell_embed_size=8,
    ),
    train=dict(batch_size=8, num_steps=20, num_epochs=None, log_every=5, save_every=10),
    evals=dict(
      batch_size=8,
      elbo=dict(every=20, max_batches=2),
      open_loop=dict(every=20, context=8, seq_len=0, num_examples=2),
    ),
    open_loop=dict(context=8, seq_len=0, num_examples=2),
  )
