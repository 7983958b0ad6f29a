"""Colour tiles, 32x32, of a few photographs: vdvae, efficient_vdvae, nvae; also with ,debug.

    python -m hvae_tpu.main --config=configs/demo_natural32.py

The photographs are embedded in Python packages, and built on the first start; no picture has tiles
in two views. For the mixture-of-logistics head on two CPU cores; not comparable with any paper.
"""

from configs import systems
from configs.systems import nvae
from configs.systems.efficient_vdvae import lists

DATA = dict(data=dict(name='demo_natural32'), model=dict(image_size=32))
_RUN = dict(
  train=dict(
    batch_size=16,
    num_steps=5000,
    precision='default',
    ema_decay=0.995,
    log_every=50,
    save_every=1000,
  ),
  evals=dict(batch_size=32, elbo=dict(every=500), pictures=dict(every=1000)),
)
DIFFERENCES = {
  'vdvae': {
    'vdvae': dict(
      model=dict(
        width=64,
        enc_blocks='32x2,32d2,16x2,16d2,8x2,8d2,4x1,4d4,1x1',
        dec_blocks='1x1,4m1,4x1,8m4,8x1,16m8,16x2,32m16,32x1',
      ),
      optimizer=dict(learning_rate=1e-3),
      **_RUN,
    )
  },
  'efficient_vdvae': {
    'efficient_vdvae': dict(
      model=dict(
        zdim=16,
        beta_steps=500,
        gamma_max_steps=1000,
        **lists(
          {1: 1, 4: 2, 8: 2, 16: 3, 32: 3},
          widths={1: 64, 4: 64, 8: 64, 16: 64, 32: 32},
          ratios={1: 0.25, 4: 0.25, 8: 0.25, 16: 0.25, 32: 0.5},
        ),
      ),
      optimizer=dict(decay_start=2500),
      **_RUN,
    )
  },
  'nvae': {
    'nvae': nvae.merged(
      nvae.DEMO,
      dict(
        model=dict(num_channels_enc=16, num_channels_dec=16, num_mixtures=5, kl_anneal_steps=1500.0)
      ),
      _RUN,
      dict(train=dict(ema_decay=None)),
    )
  },
}


def get_config(argument='vdvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('demo_natural32', argument, DATA, DIFFERENCES)
