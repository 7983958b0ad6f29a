"""ImageNet 32x32, box-filtered (Chrabaszcz's): efficient_vdvae[,c1][,compact]; also with ,debug.

    python -m data_prep.build imagenet32_box
    python -m hvae_tpu.main --config=configs/imagenet32_box.py

This is not van den Oord's set of configs/imagenet32.py; bits/dim of the two sets do not compare.

efficient_vdvae: 145,068,388 parameters. Published: 3.58 bits/dim on the official validation
set, EMA weights, one-sample ELBO (paper, table 4), after 800k steps on 2 GPUs. c1: 52,289,316
parameters, compact: 19,561,188 parameters; the released code gives no numbers for them.
"""

from configs import systems
from configs.systems.efficient_vdvae import VIEWS
from configs.systems.efficient_vdvae_imagenet import variants

DATA = dict(
  data=dict(
    name='imagenet32_box',
    require=dict(variant='box'),
    **VIEWS,
  ),
  model=dict(image_size=32),
)
DIFFERENCES = {
  'efficient_vdvae': variants(
    {1: 6, 4: 7, 8: 9, 16: 10, 32: 16},
    down={8: (10,), 16: (15,)},
    ratios={1: 0.25, 4: 0.25, 8: 0.25, 16: 0.5, 32: 1.0},
    c1_zdim=48,
    c1_widths={1: 512, 4: 512, 8: 256, 16: 128, 32: 64},
    compact_widths={1: 512, 4: 256, 8: 128, 16: 64, 32: 32},
    batch_size=64,
    published_bpd=3.58,
  )
}


def get_config(argument='efficient_vdvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('imagenet32_box', argument, DATA, DIFFERENCES)
