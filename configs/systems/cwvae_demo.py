"""Small Clockwork VAE for synthetic videos and two CPU cores."""


def small(dec_stddev: float, num_steps: int) -> dict:
  """Returns the differences from `cwvae.base`.

  Args:
    dec_stddev: standard deviation of the pixels, which lie in [0, 1].
    num_steps: of the training.
  """
  return dict(
    data=dict(seq_len=48),
    model=dict(
      tmp_abs_factor=3,  # so that in training the top level ticks six times, not twice
      filters=8,
      enc_dense_layers=2,
      enc_dense_embed_size=200,
      dec_stddev=dec_stddev,
    ),
    optimizer=dict(
      learning_rate=1e-3,
      schedule='cosine',
      warmup_steps=50,
      decay_start=num_steps // 3,
      clip_norm=300.0,
    ),
    train=dict(batch_size=4, num_steps=num_steps, log_every=100, save_every=500, keep_every=0),
    evals=dict(
      batch_size=8,
      elbo=dict(max_batches=1),
      open_loop=dict(seq_len=100, num_examples=4),
    ),
    open_loop=dict(num_examples=8, num_samples=2),
  )
