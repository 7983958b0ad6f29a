"""CLEVRTEX, 128x128: efficient_morl; also with ,debug.

    python -m data_prep.build clevrtex --raw=clevrtex_full
    python -m hvae_tpu.main --config=configs/clevrtex.py

efficient_morl: 666,500 parameters (arXiv 2106.03630), 300k steps; the released code gives no
numbers for this set.
"""

from configs import systems
from configs.systems.efficient_morl import large_scenes

DATA = dict(data=dict(name='clevrtex'), model=dict(image_size=128, num_slots=11))
DIFFERENCES = {'efficient_morl': {'efficient_morl': large_scenes(geco_target=-1.5)}}


def get_config(argument='efficient_morl'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('clevrtex', argument, DATA, DIFFERENCES)
