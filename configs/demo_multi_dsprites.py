"""Two to five flat sprites on grey, 64x64: efficient_morl, slot_attention; each also with ,debug.

    python -m hvae_tpu.main --config=configs/demo_multi_dsprites.py

Small models for two CPU cores, which need hours there; the set is made on the first start.
"""

from configs import systems

DATA = dict(
  data=dict(name='demo_multi_dsprites'),
  model=dict(image_size=64, num_slots=6, zdim=16, image_decoder='small'),
)
_RUN = dict(
  optimizer=dict(learning_rate=1e-3, warmup_steps=200),
  train=dict(batch_size=4, num_steps=5000, precision='default', log_every=50, save_every=500),
  evals=dict(batch_size=16, elbo=dict(every=0), segmentation=dict(every=500, max_batches=4)),
)
DIFFERENCES = {
  'efficient_morl': {
    'efficient_morl': dict(model=dict(use_geco=False, refinement_curriculum=((-1, 1),)), **_RUN)
  },
  'slot_attention': {'slot_attention': _RUN},
}


def get_config(argument='efficient_morl'):
  """See above."""
  return systems.build('demo_multi_dsprites', argument, DATA, DIFFERENCES)
