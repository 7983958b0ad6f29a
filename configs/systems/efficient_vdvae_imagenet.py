"""Efficient-VDVAE for box-filtered ImageNet, 32x32 and 64x64: baseline, c1 and compact."""

from typing import Any

from configs.systems.efficient_vdvae import lists


def variants(
  levels: dict[int, int],
  *,
  down: dict[int, tuple[int, ...]],
  ratios: dict[int, float],
  c1_zdim: int,
  c1_widths: dict[int, int],
  compact_widths: dict[int, int],
  batch_size: int,
  published_bpd: float,
) -> dict[str, dict[str, Any]]:
  """Returns the differences of the three published networks, by variant.

  Args:
    levels, down: of all three, as in `lists`.
    ratios: of c1 and compact, as in `lists`.
    c1_zdim: latent channels of a group of c1.
    c1_widths, compact_widths: side -> channels.
    batch_size: global.
    published_bpd: of the baseline; the others have no published number.
  """
  network = dict(levels=levels, down=down)
  wide = lists(widths=dict.fromkeys(levels, 512), ratios=dict.fromkeys(levels, 0.25), **network)
  return {
    'efficient_vdvae': dict(
      model=wide,
      optimizer=dict(min_learning_rate=2e-4),
      train=dict(batch_size=batch_size),
      evals=dict(batch_size=2 * batch_size, published_bpd=published_bpd),
    ),
    'c1': dict(
      model=dict(
        zdim=c1_zdim,
        output_distribution_base='logstd',
        output_gradient_smoothing_beta=1.0,
        **lists(widths=c1_widths, ratios=ratios, **network),
      ),
      evals=dict(published_bpd=None),
    ),
    'compact': dict(
      model=lists(widths=compact_widths, ratios=ratios, **network),
      evals=dict(published_bpd=None),
    ),
  }
