"""CelebA 64x64: efficient_vdvae[,compact]; each also with ,debug.

    python -m data_prep.build celeba64
    python -m hvae_tpu.main --config=configs/celeba64.py

efficient_vdvae: 131,402,212 parameters. Published: 1.83 bits/dim on the official test set,
EMA weights, one-sample ELBO (paper, table 4), after 800k steps on 2 GPUs. compact: 25,426,788
parameters; the released code gives no number for it.
"""

from configs import systems
from configs.systems.efficient_vdvae import lists

DATA = dict(
  data=dict(
    name='celeba64',
    require=dict(variant='aligned'),
    train_split='efficient_vdvae/train',
    valid_split='efficient_vdvae/valid',
    test_split='efficient_vdvae/test',
    train_transforms=('flip',),
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
      evals=dict(batch_size=64),
      eval=dict(published_bpd=1.83),
    ),
    'compact': dict(
      model=lists(
        widths={1: 512, 4: 512, 8: 256, 16: 128, 32: 64, 64: 32},
        ratios={1: 0.25, 4: 0.25, 8: 0.25, 16: 0.25, 32: 0.5, 64: 1.0},
        **_NETWORK,
      ),
      eval=dict(published_bpd=None),
    ),
  }
}


def get_config(argument='efficient_vdvae'):
  """See above."""
  return systems.build('celeba64', argument, DATA, DIFFERENCES)
