"""The layout strings of a VDVAE, such as `32x11,32d2,16x6` and `1x1,4m1,4x2`.

Items of a block string, separated by commas: `RxN`, N blocks at resolution R; `RmM`, one block at R
that first adds the map of resolution M, upsampled (decoder); `RdK`, one block at R followed by
average pooling by K (encoder); `R`, one block. Reference: openai/vdvae, `parse_layer_string`.
"""

from typing import NamedTuple


def parse_blocks(string: str) -> list[tuple[int, int | None]]:
  """Parses a block string into (resolution, M or K or None) per block. Raises ValueError."""
  blocks = []
  for item in string.split(','):
    try:
      # The order of the letters is the reference's; it decides how `32d2x1` fails.
      if 'x' in item:
        res, count = item.split('x')
        blocks += [(int(res), None)] * int(count)
      elif 'm' in item or 'd' in item:
        res, second = item.split('m' if 'm' in item else 'd')
        blocks.append((int(res), int(second)))
      else:
        blocks.append((int(item), None))
    except ValueError:
      raise ValueError(
        f'item {item!r} of {string!r} is none of R, RxN, RmM, RdK with whole numbers'
      ) from None
  return blocks


def parse_widths(string: str | None) -> dict[int, int]:
  """Parses `res:width,res:width` into {res: width}; empty gives {}. Raises ValueError."""
  widths = {}
  for item in string.split(',') if string else ():
    try:
      res, width = item.split(':')
      widths[int(res)] = int(width)
    except ValueError:
      raise ValueError(f'item {item!r} of {string!r} is not res:width') from None
  return widths


class Run(NamedTuple):
  """Equal blocks in a row, which are scanned together.

  Attributes:
    res: side of the maps.
    count: number of blocks.
    rate: encoder: pooling after the last block (1: none). Decoder: unused.
    mixin: decoder: resolution whose map is added before the first block, or None.
    name: name of the module, e.g. `dec_02_8x6`.
  """

  res: int
  count: int
  rate: int
  mixin: int | None
  name: str


def encoder_runs(string: str) -> list[Run]:
  """One run per resolution; a pooling block ends its run. A rate of 1 is no pooling."""
  runs = []
  for res, rate in parse_blocks(string):
    rate = 1 if rate is None else rate
    if runs and runs[-1].res == res and runs[-1].rate == 1:
      runs[-1] = runs[-1]._replace(count=runs[-1].count + 1, rate=rate)
    else:
      runs.append(Run(res, 1, rate, None, ''))
  return _named('enc', runs)


def decoder_runs(string: str) -> list[Run]:
  """Joins consecutive blocks of one resolution into runs; a mixin begins a run."""
  runs = []
  for res, mixin in parse_blocks(string):
    if runs and runs[-1].res == res and mixin is None:
      runs[-1] = runs[-1]._replace(count=runs[-1].count + 1)
    else:
      runs.append(Run(res, 1, 1, mixin, ''))
  return _named('dec', runs)


def _named(side: str, runs: list[Run]) -> list[Run]:
  return [r._replace(name=f'{side}_{i:02d}_{r.res}x{r.count}') for i, r in enumerate(runs)]


def problems(
  *, enc_blocks: str, dec_blocks: str, widths: str, width: int, image_size: int, no_bias_above: int
) -> list[str]:
  """Returns a sentence for each mistake in a layout, by config field.

  The reference checks none of this: it fails later, or silently builds another network.
  """
  parsed, errors = {}, []
  for field, parse, text in (
    ('enc_blocks', parse_blocks, enc_blocks),
    ('dec_blocks', parse_blocks, dec_blocks),
    ('custom_width_str', parse_widths, widths),
  ):
    try:
      parsed[field] = parse(text)
    except ValueError as error:
      errors.append(f'model.{field}: {error}')
  if errors:
    return errors
  width_at = lambda res: parsed['custom_width_str'].get(res, width)
  errors += _letter_problems('enc_blocks', enc_blocks, 'm', 'd')
  errors += _letter_problems('dec_blocks', dec_blocks, 'd', 'm')
  errors += _number_problems(parsed)
  if errors:
    return errors
  side, acts = _encoder_problems(parsed['enc_blocks'], image_size, errors)
  errors += _decoder_problems(parsed['dec_blocks'], acts, image_size, no_bias_above)
  if width_at(image_size) != width:
    errors.append(
      f'model.custom_width_str gives width {width_at(image_size)} at the image size {image_size}; '
      f'it must be model.width={width} there'
    )
  fine_to_coarse = sorted(acts, reverse=True)
  for fine, coarse in zip(fine_to_coarse, fine_to_coarse[1:], strict=False):
    if width_at(coarse) < width_at(fine):
      errors.append(
        f'model.custom_width_str: width {width_at(coarse)} at {coarse} is less than '
        f'{width_at(fine)} at {fine}; channels are only ever padded on the way down'
      )
  return errors


def _letter_problems(field: str, string: str, wrong: str, right: str) -> list[str]:
  return [
    f'model.{field}: item {item!r} uses {wrong!r}, which belongs to the other side; '
    f'use {right!r} or RxN'
    for item in string.split(',')
    if wrong in item
  ]


def _number_problems(parsed: dict) -> list[str]:
  errors = [
    f'model.{field}: block {block} has a number below 1'
    for field in ('enc_blocks', 'dec_blocks')
    for block in parsed[field]
    if block[0] < 1 or (block[1] is not None and block[1] < 1)
  ]
  errors += [
    f'model.{field} has no block' for field in ('enc_blocks', 'dec_blocks') if not parsed[field]
  ]
  errors += [
    f'model.custom_width_str: {res}:{width} has a number below 1'
    for res, width in parsed['custom_width_str'].items()
    if res < 1 or width < 1
  ]
  return errors


def _encoder_problems(blocks, image_size: int, errors: list[str]) -> tuple[int, set[int]]:
  """Walks the encoder; appends to `errors`; returns the last side and the sides it provides."""
  side, acts = image_size, {image_size}
  for i, (res, rate) in enumerate(blocks):
    if res != side:
      errors.append(
        f'model.enc_blocks: block {i} is at resolution {res}, but its input has side {side}'
      )
      break
    if rate is not None:
      if side // rate < 1:
        errors.append(f'model.enc_blocks: block {i} pools side {side} by {rate}, leaving nothing')
        break
      side //= rate
    acts.add(side)
  return side, acts


def _decoder_problems(blocks, acts: set[int], image_size: int, no_bias_above: int) -> list[str]:
  errors, written = [], set()
  for i, (res, mixin) in enumerate(blocks):
    if res not in acts:
      errors.append(
        f'model.dec_blocks: block {i} is at resolution {res}, which the encoder does not provide; '
        f'it provides {sorted(acts)}'
      )
    has_bias = lambda r: r <= no_bias_above and r in {b[0] for b in blocks}
    if mixin is not None:
      if res % mixin:
        errors.append(f'model.dec_blocks: block {i}: {res} is not a multiple of mixin {mixin}')
      if mixin not in written and not has_bias(mixin):
        errors.append(
          f'model.dec_blocks: block {i} mixes in resolution {mixin}, which no earlier block wrote'
        )
    written.add(res)
  if blocks[-1][0] != image_size:
    errors.append(
      f'model.dec_blocks ends at resolution {blocks[-1][0]}; it must end at the image size '
      f'{image_size}'
    )
  if min(b[0] for b in blocks) > no_bias_above:
    errors.append(
      f'model.no_bias_above={no_bias_above} leaves no learned start map, and sampling has nothing '
      f'to start from; use at least {min(b[0] for b in blocks)}'
    )
  return errors
