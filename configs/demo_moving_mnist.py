"""Two digits moving in a frame: cwvae; also with ,debug.

    python -m hvae_tpu.main --config=configs/demo_moving_mnist.py
    python -m hvae_tpu.main --config=configs/demo_moving_mnist.py --mode=open_loop

A small Clockwork VAE for two CPU cores; the set is built on the first start. Not comparable with
published numbers, which are on other videos.
"""

from configs import systems
from configs.systems.cwvae_demo import small

DATA = dict(
  data=dict(name='demo_moving_mnist', eval_seq_len=1000),
  model=dict(image_channels=1),
)
SMALL = small(dec_stddev=0.7, num_steps=1500)  # with Adam: 6000
SMALL['model'] |= dict(filters=4)
SMALL['optimizer'] |= dict(name='muon', muon_rms=1.5, muon_iterations=3)
SMALL['train'] |= dict(batch_size=16)
DIFFERENCES = {'cwvae': {'cwvae': SMALL}}


def get_config(argument='cwvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('demo_moving_mnist', argument, DATA, DIFFERENCES)
