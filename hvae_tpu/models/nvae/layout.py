"""The layout of an NVAE: runs of equal groups, computed from its fields.

Scale 0 is the finest of the latent scales; the top-down side starts from the last. Source: section
2.1 of the reference dossier of NVlabs/NVAE, whose flags the fields are named after.
"""

from typing import Any, NamedTuple


class Run(NamedTuple):
  """Equal groups of one scale in a row.

  Attributes:
    name: name of the module, e.g. `dec_00_08x4`: side and number of groups.
    scale: 0 is the finest.
    side: side of the maps.
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
  """Returns the groups of every scale, the finest first; `divider` divides them each time."""
  counts = [first]
  for _ in range(scales - 1):
    counts.append(max(smallest, counts[-1] // divider))
  return tuple(counts)


def scales(c: Any) -> list[Run]:
  """Returns one run per scale, the finest first. `c` has the fields of `NVAE`."""
  counts = groups_per_scale(
    c.num_groups_per_scale, c.num_latent_scales, c.group_divider, c.min_groups_per_scale
  )
  runs = []
  for scale, count in enumerate(counts):
    halvings = c.num_process_blocks + scale
    side, factor = c.image_size >> halvings, c.channel_multiplier**halvings
    widths = c.num_channels_enc * factor, c.num_channels_dec * factor
    runs.append(Run('', scale, side, count, *widths))
  return runs


def bottom_up_runs(c: Any) -> list[Run]:
  """Returns the runs of the encoder, the finest first."""
  return [run._replace(name=f'enc_{run.scale:02d}_{run.side}x{run.count}') for run in scales(c)]


def top_down_runs(c: Any) -> list[Run]:
  """Returns the runs of the decoder, the coarsest first.

  The first group is left out: it is of its own kind.
  """
  coarse_first = scales(c)[::-1]
  coarse_first[0] = coarse_first[0]._replace(count=coarse_first[0].count - 1)
  return [
    run._replace(name=f'dec_{i:02d}_{run.side}x{run.count}') for i, run in enumerate(coarse_first)
  ]


def problems(c: Any) -> list[str]:
  """Returns a sentence for each contradiction in a layout. `c` has the fields of `NVAE`."""
  errors = []
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
