"""ImageNet 32x32, box-filtered (Chrabaszcz's): efficient_vdvae[,c1][,compact]; also with ,debug.

    python -m data_prep.build imagenet32_box
    python -m hvae_tpu.main --config=configs/imagenet32_box.py

Not the set of van den Oord's that configs/imagenet32.py reads; bits/dim of the two do not compare.

efficient_vdvae: 145,068,388 parameters. Published: 3.58 bits/dim on the official validation
set, EMA weights, one-sample ELBO (paper, table 4), after 800k steps on 2 GPUs. c1: 52,289,316
parameters, compact: 19,561,188 parameters; the released code gives no numbers for them.
"""

from configs import systems
from configs.systems.efficient_vdvae import lists

DATA = dict(
  data=dict(
    name='imagenet32_box',
    require=dict(variant='box'),
    train_split='efficient_vdvae/train',
    valid_split='efficient_vdvae/valid',
    test_split='efficient_vdvae/test',
    train_transforms=('flip',),
  ),
  model=dict(image_size=32),
)
_SIDES = (1, 4, 8, 16, 32)
_NETWORK = dict(
  levels=dict(zip(_SIDES, (6, 7, 9, 10, 16), strict=True)), down={8: (10,), 16: (15,)}
)
_RATIOS = {1: 0.25, 4: 0.25, 8: 0.25, 16: 0.5, 32: 1.0}
DIFFERENCES = {
  'efficient_vdvae': {
    'efficient_vdvae': dict(
      model=lists(
        widths=dict.fromkeys(_SIDES, 512), ratios=dict.fromkeys(_SIDES, 0.25), **_NETWORK
      ),
      optimizer=dict(min_learning_rate=2e-4),
      train=dict(batch_size=64),
      evals=dict(batch_size=128, published_bpd=3.58),
    ),
    'c1': dict(
      model=dict(
        zdim=48,
        output_distribution_base='logstd',
        output_gradient_smoothing_beta=1.0,
        **lists(
          widths={1: 512, 4: 512, 8: 256, 16: 128, 32: 64},
          ratios=_RATIOS,
          **_NETWORK,
        ),
      ),
      evals=dict(published_bpd=None),
    ),
    'compact': dict(
      model=lists(
        widths={1: 512, 4: 256, 8: 128, 16: 64, 32: 32},
        ratios=_RATIOS,
        **_NETWORK,
      ),
      evals=dict(published_bpd=None),
    ),
  }
}


def get_config(argument='efficient_vdvae'):
  """See above."""
  return systems.build('imagenet32_box', argument, DATA, DIFFERENCES)
