"""CLEVRTEX, 128x128: efficient_morl; also with ,debug.

    python -m data_prep.build clevrtex --raw=clevrtex_full
    python -m hvae_tpu.main --config=configs/clevrtex.py

efficient_morl: 666,500 parameters (arXiv 2106.03630), 300k steps; the released code gives no
numbers for this set.
"""

from configs import systems

DATA = dict(data=dict(name='clevrtex'), model=dict(image_size=128, num_slots=11))
DIFFERENCES = {
  'efficient_morl': {
    'efficient_morl': dict(
      model=dict(
        likelihood='mixture',
        refinement_iters=2,
        refinement_curriculum=((-1, 3), (100_000, 2), (200_000, 2)),
        geco_target=-1.5,
        geco_step_size_acceleration=5.0,
      ),
      evals=dict(batch_size=8, names=('segmentation', 'textures')),
    )
  }
}


def get_config(argument='efficient_morl'):
  """See above."""
  return systems.build('clevrtex', argument, DATA, DIFFERENCES)
