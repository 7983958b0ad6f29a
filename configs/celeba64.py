"""CelebA 64x64: efficient_vdvae[,compact], nvae; each also with ,debug.

    python -m data_prep.build celeba64
    python -m hvae_tpu.main --config=configs/celeba64.py

efficient_vdvae: 131,402,212 parameters. Published: 1.83 bits/dim on the official test set,
EMA weights, one-sample ELBO (paper, table 4), after 800k steps on 2 GPUs. compact: 25,426,788
parameters; the released code gives no number for it.

nvae: 153,281,364 parameters. Published: 2.03 bits/dim on the official validation set, which is
also the test set here, importance-weighted (arXiv 2007.03898, table 1), after 90 epochs, 92 hours
on 8 V100.
"""

from configs import systems
from configs.systems import nvae
from configs.systems.efficient_vdvae import VIEWS, lists

DATA = dict(
  data=dict(
    name='celeba64',
    require=dict(variant='aligned'),
    **VIEWS,
  ),
  model=dict(image_size=64),
)
_SIDES = (1, 4, 8, 16, 32, 64)
_NETWORK = dict(
  levels=dict(zip(_SIDES, (2, 4, 7, 7, 9, 12), strict=True)), down={16: (4,), 32: (7,), 64: (10,)}
)
DIFFERENCES = {
  'efficient_vdvae': {
    'efficient_vdvae': dict(
      model=lists(
        widths=dict.fromkeys(_SIDES, 512), ratios=dict.fromkeys(_SIDES, 0.25), **_NETWORK
      ),
      train=dict(batch_size=16),
      evals=dict(batch_size=64, published_bpd=1.83),
    ),
    'compact': dict(
      model=lists(
        widths={1: 512, 4: 512, 8: 256, 16: 128, 32: 64, 64: 32},
        ratios={1: 0.25, 4: 0.25, 8: 0.25, 16: 0.25, 32: 0.5, 64: 1.0},
        **_NETWORK,
      ),
      evals=dict(published_bpd=None),
    ),
  },
  'nvae': {
    'nvae': nvae.merged(
      nvae.schedule(162_770, 128, epochs=90, warmup_epochs=5, norm=1e-1),
      dict(
        data={
          **nvae.VIEWS,
          'require': dict(
            split_sha256='cef6e5ee3217a79a8a8a0a9cf092efa68297d940fb688a1db79ed814a97f8163'
          ),
        },
        model=dict(
          num_channels_enc=64,
          num_channels_dec=64,
          num_latent_scales=3,
          num_groups_per_scale=20,
          group_divider=2,
          num_cells_enc=2,
          num_cells_dec=2,
          num_flows=1,
        ),
        evals=dict(batch_size=128, **nvae.IWAE, published_bpd=2.03),
      ),
    )
  },
}


def get_config(argument='efficient_vdvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('celeba64', argument, DATA, DIFFERENCES)
