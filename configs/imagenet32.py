"""ImageNet 32x32 (van den Oord's): vdvae, nvae; also with ,debug.

    python -m data_prep.build imagenet32
    python -m hvae_tpu.main --config=configs/imagenet32.py

vdvae: 119,280,868 parameters. Published: 3.80 bits/dim (2.6364 nats/dim) on the official validation
set, EMA weights (openai/vdvae README), after 1.7M steps, 2.5 weeks on 32 V100.

nvae: 268,509,444 parameters. Published: 3.92 bits/dim on the official validation set,
importance-weighted (arXiv 2007.03898, table 1), after 45 epochs, 70 hours on 24 V100.
"""

from configs import systems
from configs.systems import nvae, vdvae

DATA = dict(data=dict(name='imagenet32', **vdvae.IMAGENET), model=dict(image_size=32))
DIFFERENCES = {
  'vdvae': {
    'vdvae': dict(
      model=dict(
        width=512,
        input_mean=116.2373,
        input_std=69.37404,
        enc_blocks='32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6',
        dec_blocks='1x2,4m1,4x4,8m4,8x9,16m8,16x19,32m16,32x40',
      ),
      optimizer=dict(learning_rate=1.5e-4),
      evals=dict(published_bpd=3.8),
      train=dict(
        batch_size=256,  # the release: 8 per GPU on 32
        num_steps=1_700_000,
        ema_decay=0.999,
        skip_threshold=300.0,
      ),
    )
  },
  'nvae': {
    'nvae': nvae.merged(
      nvae.schedule(1_281_147, 576, epochs=45, warmup_epochs=1, norm=1e-2, norm_init=1.0),
      dict(
        data=dict(**nvae.VIEWS, train_transforms=('flip',)),
        model=dict(
          num_channels_enc=192,
          num_channels_dec=192,
          num_groups_per_scale=28,
          num_cells_enc=2,
          num_cells_dec=2,
          num_flows=1,
        ),
        evals=dict(batch_size=256, **nvae.IWAE, published_bpd=3.92),
      ),
    )
  },
}


def get_config(argument='vdvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('imagenet32', argument, DATA, DIFFERENCES)
