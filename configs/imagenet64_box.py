"""ImageNet 64x64, box-filtered (Chrabaszcz's): efficient_vdvae[,c1][,compact]; also with ,debug.

    python -m data_prep.build imagenet64_box
    python -m hvae_tpu.main --config=configs/imagenet64_box.py

This is not van den Oord's set of configs/imagenet64.py; bits/dim of the two sets do not compare.

efficient_vdvae: 168,367,588 parameters. Published: 3.30 bits/dim on the official validation
set, EMA weights, one-sample ELBO (paper, table 4), after 800k steps on 4 GPUs. c1: 57,000,740
parameters, compact: 42,550,340 parameters; the released code gives no numbers for them.
"""

from configs import systems
from configs.systems.efficient_vdvae import VIEWS
from configs.systems.efficient_vdvae_imagenet import variants

DATA = dict(
  data=dict(
    name='imagenet64_box',
    require=dict(variant='box'),
    **VIEWS,
  ),
  model=dict(image_size=64),
)
DIFFERENCES = {
  'efficient_vdvae': variants(
    {1: 6, 4: 7, 8: 9, 16: 10, 32: 16, 64: 5},
    down={8: (10,), 16: (15,), 64: (6,)},
    ratios={1: 0.25, 4: 0.25, 8: 0.25, 16: 0.25, 32: 0.5, 64: 1.0},
    c1_zdim=64,
    c1_widths={1: 512, 4: 512, 8: 256, 16: 256, 32: 64, 64: 64},
    compact_widths={1: 512, 4: 512, 8: 256, 16: 128, 32: 64, 64: 32},
    batch_size=32,
    published_bpd=3.3,
  )
}


def get_config(argument='efficient_vdvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('imagenet64_box', argument, DATA, DIFFERENCES)
