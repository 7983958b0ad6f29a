"""Efficient-VDVAE for CelebA-HQ and FFHQ, which share their networks."""

from configs.systems.efficient_vdvae import lists

_SIDES_256 = (1, 4, 8, 16, 32, 64, 128, 256)
_LEVELS_8BIT = dict(zip(_SIDES_256, (2, 4, 5, 8, 12, 13, 13, 6), strict=True))
_LEVELS_5BIT = dict(zip(_SIDES_256, (2, 4, 5, 8, 18, 13, 8, 1), strict=True))
_BLOCKS_8BIT = dict(down={16: (2,), 32: (4,)}, up={8: 1, 4: 2, 1: 2})
_BLOCKS_5BIT = dict(down={16: (2,), 32: (4,), 64: (1,)}, up={256: 3, 128: 1, 8: 1, 4: 2, 1: 2})
_WIDE = dict(widths=dict.fromkeys(_SIDES_256, 512), ratios=dict.fromkeys(_SIDES_256, 0.25))

# 256x256, model sections.
BASELINE_8BIT = dict(zdim=64, **lists(_LEVELS_8BIT, **_WIDE, **_BLOCKS_8BIT))
COMPACT_8BIT = lists(
  _LEVELS_8BIT,
  widths={1: 512, 4: 512, 8: 512, 16: 512, 32: 256, 64: 128, 128: 64, 256: 32},
  ratios={**dict.fromkeys(_SIDES_256, 0.25), 128: 0.5, 256: 1.0},
  **_BLOCKS_8BIT,
)
BASELINE_5BIT = dict(
  num_bits=5,
  zdim=32,
  min_mol_logscale=-14.0,
  **lists(_LEVELS_5BIT, **_WIDE, **_BLOCKS_5BIT),
)
C1_5BIT = dict(
  output_distribution_base='logstd',
  output_gradient_smoothing_beta=1.0,
  **lists(
    _LEVELS_5BIT,
    widths={1: 512, 4: 512, 8: 512, 16: 256, 32: 256, 64: 128, 128: 128, 256: 128},
    ratios={**dict.fromkeys(_SIDES_256, 0.25), 128: 0.5, 256: 1.0},
    **_BLOCKS_5BIT,
  ),
)

# 1024x1024, all sections but for the published number.
LARGE = dict(
  model=dict(
    zdim=64,
    gradient_smoothing_beta=0.4,
    output_gradient_smoothing_beta=0.4,
    **lists(
      {1: 2, 4: 4, 8: 5, 16: 8, 32: 12, 64: 7, 128: 5, 256: 3, 512: 2, 1024: 1},
      widths={1: 512, 4: 512, 8: 512, 16: 512, 32: 256}
      | {64: 128, 128: 64, 256: 32, 512: 16, 1024: 8},
      ratios=dict.fromkeys((1, 4, 8, 16, 32, 64, 128), 0.25) | {256: 0.5, 512: 1.0, 1024: 1.0},
      down={64: (6,), 128: (8,), 256: (3,), 512: (3,), 1024: (3,)},
    ),
  ),
  optimizer=dict(clip_norm=300.0),
  train=dict(batch_size=8, num_steps=900_000, skip_threshold=1200.0),
  sample=dict(num=1),
)
LARGE_EVALS = dict(batch_size=8, pictures=dict(num=1, temperatures=(1.0,), num_partial=0))
# Pictures during training, for both sets and both depths at 256x256.
PICTURES_256 = dict(pictures=dict(num=2, temperatures=(1.0,), num_partial=3))
