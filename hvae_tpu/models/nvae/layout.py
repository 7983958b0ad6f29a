"""How the numbers that lay out an NVAE become runs of equal groups.

Scale 0 is the finest of the latent scales; the top-down side starts from the last. Source: section
2.1 of the reference dossier of NVlabs/NVAE, whose flags the fields are named after.
"""

from typing import Any, NamedTuple


class Run(NamedTuple):
  """Equal groups of one scale in a row.

  Attributes:
    name: of the module, e.g. `dec_00_08x4`: side and number of groups.
    scale: 0 is the finest.
    side: of the maps.
    count: number of groups.
    enc_width, dec_width: channels of the two sides.
  """

  name: str
  scale: int
  side: int
  count: int
  enc_width: int
  dec_width: int


def groups_per_scale(first: int, scales: int, divider: int, smallest: int) -> tuple[int, ...]:
  """Groups of every scale, from the finest on; each has those of the one before over `divider`."""
  counts = [first]
  for _ in range(scales - 1):
    counts.append(max(smallest, counts[-1] // divider))
  return tuple(counts)


def scales(c: Any) -> list[Run]:
  """All groups, a run for every scale, from the finest on. `c` has the fields of `NVAE`."""
  counts = groups_per_scale(
    c.num_groups_per_scale, c.num_latent_scales, c.group_divider, c.min_groups_per_scale
  )
  found = []
  for scale, count in enumerate(counts):
    halvings = c.num_process_blocks + scale
    side, factor = c.image_size >> halvings, c.channel_multiplier**halvings
    widths = c.num_channels_enc * factor, c.num_channels_dec * factor
    found.append(Run('', scale, side, count, *widths))
  return found


def bottom_up_runs(c: Any) -> list[Run]:
  """Runs of the encoder, from fine to coarse."""
  return [run._replace(name=f'enc_{run.scale:02d}_{run.side}x{run.count}') for run in scales(c)]


def top_down_runs(c: Any) -> list[Run]:
  """Runs of the decoder, from coarse to fine, without the first group, which is of its own kind."""
  coarse_first = scales(c)[::-1]
  coarse_first[0] = coarse_first[0]._replace(count=coarse_first[0].count - 1)
  return [
    run._replace(name=f'dec_{i:02d}_{run.side}x{run.count}') for i, run in enumerate(coarse_first)
  ]


def problems(c: Any) -> list[str]:
  """What is wrong with a layout, one sentence each, named by config field; empty if it is sound."""
  names = ('num_channels_enc', 'num_channels_dec', 'channel_multiplier', 'num_latent_scales')
  names += ('num_groups_per_scale', 'group_divider', 'min_groups_per_scale', 'zdim', 'num_mixtures')
  names += ('num_preprocess_cells', 'num_postprocess_cells', 'image_channels')
  least = {**dict.fromkeys(names, 1)}
  least |= dict.fromkeys(('num_process_blocks', 'num_cells_enc', 'num_cells_dec', 'num_flows'), 0)
  errors = [
    f'model.{name}={getattr(c, name)} must be at least {low}'
    for name, low in least.items()
    if getattr(c, name) < low
  ]
  if errors:
    return errors
  if c.min_groups_per_scale > c.num_groups_per_scale:
    errors.append(
      f'model.min_groups_per_scale={c.min_groups_per_scale} must not exceed '
      f'model.num_groups_per_scale={c.num_groups_per_scale}'
    )
  halvings = c.num_process_blocks + c.num_latent_scales - 1
  if c.image_size % 2**halvings or c.image_size < 2**halvings:
    errors.append(
      f'model.image_size={c.image_size} must divide by {2**halvings}: it is halved '
      f'{halvings} times (model.num_process_blocks + model.num_latent_scales - 1)'
    )
  return errors
