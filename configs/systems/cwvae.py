"""Clockwork VAE (arXiv 2102.09532): its defaults.

Source: vaibhavsaxena11/cwvae and its JAX port juliuskunze/cwvae-jax, whose names the fields have.
"""

import ml_collections

from configs.systems import trainer
from hvae_tpu import models


def base() -> ml_collections.ConfigDict:
  """Returns the defaults: the values of all published configurations."""
  config = trainer.base()
  config.data.fields = ('video',)
  config.data.seq_len = 100
  config.model = models.defaults('cwvae')
  config.optimizer.update(
    eps=1e-4,
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
  """Returns differences: a network of the same form that trains for seconds on a CPU."""
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
