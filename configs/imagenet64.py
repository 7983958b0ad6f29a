"""ImageNet 64x64 (van den Oord's): vdvae; also with ,debug.

    python -m data_prep.build imagenet64
    python -m hvae_tpu.main --config=configs/imagenet64.py

vdvae: 125,005,860 parameters. Published: 3.52 bits/dim (2.44 nats/dim) on the official validation
set, EMA weights (openai/vdvae README), after 1.6M steps, 2.5 weeks on 32 V100.
"""

from configs import systems
from configs.systems import vdvae

DATA = dict(data=dict(name='imagenet64', **vdvae.IMAGENET), model=dict(image_size=64))
DIFFERENCES = {
  'vdvae': {
    'vdvae': dict(
      model=dict(
        width=512,
        input_mean=115.92961967,
        input_std=69.37404,
        enc_blocks='64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5',
        dec_blocks='1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12',
      ),
      optimizer=dict(learning_rate=1.5e-4, clip_norm=220.0),
      evals=dict(published_bpd=3.52),
      train=dict(
        batch_size=128,  # the release: 4 per GPU on 32
        num_steps=1_600_000,
        ema_decay=0.999,
        skip_threshold=380.0,
      ),
    )
  }
}


def get_config(argument='vdvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('imagenet64', argument, DATA, DIFFERENCES)
