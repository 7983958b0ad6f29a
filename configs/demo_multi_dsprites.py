"""Two to five flat sprites on grey, 64x64: efficient_morl, slot_attention; each also with ,debug.

    python -m hvae_tpu.main --config=configs/demo_multi_dsprites.py

Small models for two CPU cores, which need hours; the set is made on the first start.
"""

from configs import systems
from configs.systems.efficient_morl import demo

DATA = dict(
  data=dict(name='demo_multi_dsprites'),
  model=dict(image_size=64, num_slots=6, zdim=16, image_decoder='small'),
)
_RUN = demo(batch_size=4, eval_batch_size=16)
DIFFERENCES = {
  'efficient_morl': {
    'efficient_morl': dict(model=dict(use_geco=False, refinement_curriculum=((-1, 1),)), **_RUN)
  },
  'slot_attention': {'slot_attention': _RUN},
}


def get_config(argument='efficient_morl'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('demo_multi_dsprites', argument, DATA, DIFFERENCES)
