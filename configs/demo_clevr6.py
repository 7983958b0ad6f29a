"""Three to six solids on a plane, 96x96: efficient_morl, slot_attention; each also with ,debug.

    python -m hvae_tpu.main --config=configs/demo_clevr6.py

Small models for two CPU cores, which need many hours; the set is made on the first start.
"""

from configs import systems
from configs.systems.efficient_morl import demo

DATA = dict(
  data=dict(name='demo_clevr6'),
  model=dict(image_size=96, num_slots=7, zdim=16, image_decoder='small'),
)
_RUN = demo(batch_size=2, eval_batch_size=8)
DIFFERENCES = {
  'efficient_morl': {
    'efficient_morl': dict(
      model=dict(
        likelihood='mixture',
        geco_target=-2.2,
        geco_warm_start=200,
        refinement_curriculum=((-1, 1),),
      ),
      **_RUN,
    )
  },
  'slot_attention': {'slot_attention': _RUN},
}


def get_config(argument='efficient_morl'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('demo_clevr6', argument, DATA, DIFFERENCES)
