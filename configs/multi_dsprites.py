"""Multi-dSprites, colour on grey, 64x64: efficient_morl, slot_attention; each also with ,debug.

    python -m data_prep.build multi_dsprites
    python -m hvae_tpu.main --config=configs/multi_dsprites.py

efficient_morl: 666,500 parameters (arXiv 2106.03630), 300k steps. slot_attention: 479,204
parameters; its baseline. The released code gives no numbers for this set.
"""

from configs import systems

DATA = dict(
  data=dict(name='multi_dsprites', require=dict(variant='colored_on_grayscale')),
  model=dict(image_size=64, num_slots=6),
)
DIFFERENCES = {
  'efficient_morl': {'efficient_morl': dict(model=dict(use_geco=False))},
  'slot_attention': {'slot_attention': {}},
}


def get_config(argument='efficient_morl'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('multi_dsprites', argument, DATA, DIFFERENCES)
