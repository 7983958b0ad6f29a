"""A walk through mazes: cwvae; also with ,debug.

    python -m hvae_tpu.main --config=configs/demo_mazes.py
    python -m hvae_tpu.main --config=configs/demo_mazes.py --mode=open_loop

A small Clockwork VAE for two CPU cores; the set is built on the first start. Not comparable with
published numbers, which are on other videos.
"""

from configs import systems
from configs.systems.cwvae_demo import small

DATA = dict(
  data=dict(name='demo_mazes', eval_seq_len=300),
  model=dict(image_channels=3),
)
DIFFERENCES = {'cwvae': {'cwvae': small(dec_stddev=0.1, num_steps=6000)}}


def get_config(argument='cwvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('demo_mazes', argument, DATA, DIFFERENCES)
