"""A walk over open terrain: cwvae; also with ,debug.

    python -m hvae_tpu.main --config=configs/demo_minerl.py
    python -m hvae_tpu.main --config=configs/demo_minerl.py --mode=open_loop

A small Clockwork VAE for two CPU cores; the set is built on the first start. Not comparable with
published numbers, which are on other videos.
"""

from configs import systems

DATA = dict(
  data=dict(name='demo_minerl', seq_len=60, eval_seq_len=500),
  model=dict(image_channels=3),
)
DIFFERENCES = {
  'cwvae': {
    'cwvae': dict(
      model=dict(
        filters=8,
        enc_dense_layers=2,
        enc_dense_embed_size=200,
        dec_stddev=0.2,
      ),
      optimizer=dict(learning_rate=1e-3, clip_norm=1000.0),
      train=dict(batch_size=8, num_steps=3000, log_every=50, save_every=500, keep_every=0),
      evals=dict(
        batch_size=8,
        elbo=dict(every=500, max_batches=1),
        open_loop=dict(every=500, seq_len=100, num_examples=4),
      ),
      open_loop=dict(num_examples=8, num_samples=2),
    )
  }
}


def get_config(argument='cwvae'):
  """See above."""
  return systems.build('demo_minerl', argument, DATA, DIFFERENCES)
