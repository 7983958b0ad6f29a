"""ImageNet 64x64, box-filtered (Chrabaszcz's): efficient_vdvae[,c1][,compact]; also with ,debug.

    python -m data_prep.build imagenet64_box
    python -m hvae_tpu.main --config=configs/imagenet64_box.py

Not the set of van den Oord's that configs/imagenet64.py reads; bits/dim of the two do not compare.

efficient_vdvae: 168,367,588 parameters. Published: 3.30 bits/dim on the official validation
set, EMA weights, one-sample ELBO (paper, table 4), after 800k steps on 4 GPUs. c1: 57,000,740
parameters, compact: 42,550,340 parameters; the released code gives no numbers for them.
"""

from configs import systems
from configs.systems.efficient_vdvae import lists

DATA = dict(
  data=dict(
    name='imagenet64_box',
    require=dict(variant='box'),
    train_split='efficient_vdvae/train',
    valid_split='efficient_vdvae/valid',
    test_split='efficient_vdvae/test',
    train_transforms=('flip',),
  ),
  model=dict(image_size=64),
)
_SIDES = (1, 4, 8, 16, 32, 64)
_NETWORK = dict(
  levels=dict(zip(_SIDES, (6, 7, 9, 10, 16, 5), strict=True)), down={8: (10,), 16: (15,), 64: (6,)}
)
_RATIOS = {1: 0.25, 4: 0.25, 8: 0.25, 16: 0.25, 32: 0.5, 64: 1.0}
DIFFERENCES = {
  'efficient_vdvae': {
    'efficient_vdvae': dict(
      model=lists(
        widths=dict.fromkeys(_SIDES, 512), ratios=dict.fromkeys(_SIDES, 0.25), **_NETWORK
      ),
      optimizer=dict(min_learning_rate=2e-4),
      train=dict(batch_size=32),
      evals=dict(batch_size=64, published_bpd=3.3),
    ),
    'c1': dict(
      model=dict(
        zdim=64,
        output_distribution_base='logstd',
        output_gradient_smoothing_beta=1.0,
        **lists(
          widths={1: 512, 4: 512, 8: 256, 16: 256, 32: 64, 64: 64},
          ratios=_RATIOS,
          **_NETWORK,
        ),
      ),
      evals=dict(published_bpd=None),
    ),
    'compact': dict(
      model=lists(
        widths={1: 512, 4: 512, 8: 256, 16: 128, 32: 64, 64: 32},
        ratios=_RATIOS,
        **_NETWORK,
      ),
      evals=dict(published_bpd=None),
    ),
  }
}


def get_config(argument='efficient_vdvae'):
  """See above."""
  return systems.build('imagenet64_box', argument, DATA, DIFFERENCES)
