"""Scenes of three bevelled pieces, 35x35 px: efficient_morl; also with ,debug.

    python -m hvae_tpu.main --config=configs/demo_tetrominoes.py
    python -m hvae_tpu.main --config=configs/demo_tetrominoes.py --mode=eval

A small EfficientMORL for two CPU cores; the set is made on the first start. Foreground ARI on the
320 test scenes: 0.86 (0.83 before the refinement) after some 2,500 CPU seconds; clusters of colours
reach 0.61, an untrained model 0.08. Reconstructions stay blurred, and slots share the background.
"""

from configs import systems

DATA = dict(data=dict(name='demo_tetrominoes'), model=dict(image_size=35, num_slots=4))
DIFFERENCES = {
  'efficient_morl': {
    'efficient_morl': dict(
      model=dict(
        zdim=16,
        image_decoder='small',
        log_scale=-1.2039728,
        # A refinement costs half a step more: the layers learn first, without it.
        refinement_curriculum=((-1, 0), (4500, 1)),
        init_weights='preserving',  # from 'published', slots stay alike for too long
        kl_beta=0.002,  # with 1, posteriors become the prior before slots learn
        geco_target=-1.19,
        geco_warm_start=200,
      ),
      optimizer=dict(learning_rate=6e-4, warmup_steps=200, decay_steps=5000),
      train=dict(batch_size=8, num_steps=5000, precision='default', log_every=50, save_every=500),
      evals=dict(elbo=dict(every=0), segmentation=dict(every=500, max_batches=10), batch_size=32),
    )
  }
}


def get_config(argument='efficient_morl'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('demo_tetrominoes', argument, DATA, DIFFERENCES)
