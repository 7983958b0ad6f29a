"""Sections of the page; `template.html` holds the rest of it."""

import base64
import html
import io
from pathlib import Path
import string
from typing import Any

import numpy as np
from PIL import Image

from hvae_tpu.figures import images
from hvae_tpu.figures.report import results, svg
from hvae_tpu.figures.report.facts import Facts
from hvae_tpu.figures.report.model_pictures import ModelPictures, error_map

WIDEST = 1000  # pixels, width of a grid of pictures
NARROW = 200  # pixels, least width of a picture file; smaller ones are enlarged
UNITS = {
  'loss': 'in the scale of the paper',
  'bpd': 'bits/dim',
  'neg_elbo': 'nats per example',
  'nll': 'distortion, nats per example',
  'kl': 'rate, nats per example',
  'kl_per_frame': 'nats per frame',
  'grad_norm': 'of the whole gradient',
  'examples_per_second': 'training speed',
}


def build(
  facts: Facts,
  workdir: Path,
  pictures: ModelPictures,
  temperatures: list[str],
  modes: list[str],
) -> str:
  """Returns the page as HTML.

  Args:
    facts: facts about run, data and machine.
    workdir: work directory with the files of the modes.
    pictures: pictures of the model.
    temperatures: names of the rows of samples.
    modes: modes whose pictures are shown, in this order.
  """
  sections = {
    'Training': _training(workdir),
    'Samples': _samples(pictures, temperatures),
    'Reconstructions': _reconstructions(pictures),
    'Progressive decoding': _progressive(pictures),
    'Information per group': _information(pictures, facts.level_names),
    'Rate and distortion': _rates(workdir, facts.step),
    'Evaluation': _evaluation(workdir, facts.step),
    'Sample quality': _quality(workdir, facts.step),
    'Pictures of other modes': _files(workdir, facts.step, modes),
    'Data': _data(facts.card),
    'Configuration': _configuration(facts),
    'Made with': _origin(facts),
  }
  sections = {name: text for name, text in sections.items() if text}
  body = [_head(facts, list(sections))]
  for name, text in sections.items():
    body.append(f'<section id="{_anchor(name)}"><h2>{name}</h2>{text}</section>')
  template = string.Template((Path(__file__).parent / 'template.html').read_text())
  return template.substitute(title=html.escape(facts.name), body='\n'.join(body))


def _anchor(name: str) -> str:
  return name.lower().replace(' ', '-')


def _head(facts: Facts, names: list[str]) -> str:
  links = ''.join(f'<a href="#{_anchor(name)}">{name}</a>' for name in names)
  entries = ''.join(
    f'<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>' for k, v in facts.head.items()
  )
  warning = ''
  if facts.card.get('samples_publishable') is False:
    warning = (
      '<p class="warning">The terms of this data set do not allow its pictures to be published; '
      'keep this page to yourself.</p>'
    )
  return (
    f'<header><h1>{html.escape(facts.name)}</h1>{warning}<nav aria-label="Sections">{links}</nav>'
    f'<dl class="facts">{entries}</dl></header>'
  )


def _training(workdir: Path) -> str:
  lines, charts = results.curves(workdir), []
  for name, unit in UNITS.items():
    parts = {
      'training': lines.get(f'train/{name}', []),
      'validation': lines.get(f'elbo/{name}', []),
    }
    chart = svg.curves(f'{name}, {unit}', parts)
    if chart:
      charts.append(f'<figure>{chart}<figcaption>{name}, {unit}</figcaption></figure>')
  if not charts:
    return ''
  key = '<span class="key0">training</span>, <span class="key1">validation</span>'
  return f'<p>By step: {key}.</p><div class="charts">{"".join(charts)}</div>'


def _samples(pictures: ModelPictures, temperatures: list[str]) -> str:
  if pictures.samples is None:
    return '<p>This model draws no samples from a prior alone.</p>'
  rows = []
  for name, row in zip(temperatures, pictures.samples, strict=True):
    rows.append(_grid([row], f'{len(row)} samples at temperature {name}', f'temperature {name}'))
  return '<p>The same noise at every temperature.</p>' + ''.join(rows)


def _reconstructions(pictures: ModelPictures) -> str:
  if pictures.originals is None or not pictures.partial:
    return ''
  best = list(pictures.partial.values())[-1]
  errors = error_map(pictures.originals, best)
  mean = np.abs(pictures.originals.astype(np.int16) - best).mean()
  rows = (
    ('originals', pictures.originals),
    ('reconstructions, all groups kept', best),
    (f'absolute error, black is none; {mean:.1f} of 255 on average', errors),
  )
  return ''.join(_grid([row], f'{len(row)} {name}', name) for name, row in rows)


def _progressive(pictures: ModelPictures) -> str:
  if not pictures.partial:
    return ''
  levels, frames = max(pictures.partial), []
  for count, row in pictures.partial.items():
    name = f'first {count} of {levels} groups kept'
    frames.append(_grid([pictures.originals, row], f'originals above decodings, {name}', name))
  last = len(frames) - 1
  return (
    '<p>The coarsest groups are those of the picture (above), the others are drawn from their '
    'prior near its mean.</p><div data-frames><input type="range" hidden min="0" '
    f'max="{last}" value="{last // 2}" aria-label="number of groups kept">{"".join(frames)}</div>'
  )


def _information(pictures: ModelPictures, names: tuple[str, ...]) -> str:
  if pictures.kl is None:
    return ''
  values = {name: float(v) for name, v in zip(names, pictures.kl, strict=True)}
  total = sum(values.values())
  chart = svg.bars('KL of every group', values, 'nats')
  return f'<p>KL from the prior, nats per example; {total:.4g} in all.</p><figure>{chart}</figure>'


def _rates(workdir: Path, step: int) -> str:
  rows = results.rate_distortion(workdir, step)
  if not rows:
    return ''
  return '<p>By share of latent channels kept; nats per example.</p>' + _table(
    list(rows[0]), [[_short(value) for value in row.values()] for row in rows]
  )


def _evaluation(workdir: Path, step: int) -> str:
  record = results.record(workdir, 'eval', step)
  if record is None:
    return ''
  single = [(k, _short(v)) for k, v in record['results'].items() if isinstance(v, int | float)]
  about = f'{record["view"]}, step {record["step"]:,}, {record["weights"]} weights'
  return f'<p>{html.escape(about)}</p>' + _table(['number', 'value'], single)


def _quality(workdir: Path, step: int) -> str:
  record = results.record(workdir, 'quality', step)
  if record is None:
    return ''
  pairs = record['results']
  names = list(next(iter(pairs.values())))
  rows = [[name, *(_short(numbers[name]) for numbers in pairs.values())] for name in names]
  counts = ', '.join(f'{count:,} {name}' for name, count in record['pictures'].items())
  return (
    f'<p>Pictures: {html.escape(counts)}. Features are named in brackets; a distance is to be '
    'compared with that of the test split to the training split, and with no other features.</p>'
  ) + _table(['score[features]', *pairs], rows)


def _files(workdir: Path, step: int, modes: list[str]) -> str:
  parts = []
  for mode, paths in results.pictures(workdir, step, modes).items():
    parts.append(f'<h3>{mode}</h3><div class="gallery">')
    for path in paths:
      name = str(path.relative_to(workdir))
      kind = 'gif' if path.suffix == '.gif' else 'png'
      alt = f'{"animation" if kind == "gif" else "picture"} {path.stem} of the mode {mode}'
      with Image.open(path) as opened:
        size = opened.size
      zoom = max(1, NARROW // size[0])
      size = tuple(zoom * length for length in size)
      parts.append(_figure(path.read_bytes(), kind, size, alt, name))
    parts.append('</div>')
  return ''.join(parts)


def _data(card: dict[str, Any]) -> str:
  rows = [
    (k, card[k]) for k in ('name', 'source', 'preprocessing', 'licence', 'build_id') if k in card
  ]
  for name, view in card.get('views', {}).items():
    rows.append((f'view {name}', f'{view["count"]:,} examples of {view["split"]}; {view["rule"]}'))
  return _table(['', ''], [(k, str(v)) for k, v in rows])


def _configuration(facts: Facts) -> str:
  rows = [(key, str(old), str(new)) for key, (old, new) in facts.differences.items()]
  text = '<p>This run has the published configuration.</p>'
  if rows:
    text = '<p>Where this run differs from the published configuration:</p>'
    text += _table(['key', 'published', 'this run'], rows)
  whole = '\n'.join(f'{key} = {value!r}' for key, value in facts.config.items())
  return f'{text}<details><summary>All of it</summary><pre>{html.escape(whole)}</pre></details>'


def _origin(facts: Facts) -> str:
  commands = html.escape('\n'.join(facts.commands))
  return f'<pre>{commands}</pre>' + _table(['', ''], list(facts.environment.items()))


def _table(heads: list[str], rows: list[Any]) -> str:
  numeric = lambda text: text.replace('.', '').replace('-', '').replace('e', '').isdigit()
  cell = lambda text, tag: (
    f'<{tag}{" class=number" if numeric(text) else ""}>{html.escape(text)}</{tag}>'
  )
  head = ''.join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
  head = f'<thead><tr>{head}</tr></thead>' if any(heads) else ''
  body = ''.join(f'<tr>{"".join(cell(str(v), "td") for v in row)}</tr>' for row in rows)
  return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _short(value: Any) -> str:
  return f'{float(value):.5g}'


def _grid(rows: list[np.ndarray], alt: str, caption: str) -> str:
  """Returns a figure of rows of pictures [N, H, W, C], one below the other."""
  picture = images.grid(np.stack(rows))
  buffer = io.BytesIO()
  images.to_pillow(picture).save(buffer, 'PNG')
  zoom = max(1, WIDEST // picture.shape[1])
  size = picture.shape[1] * zoom, picture.shape[0] * zoom
  return _figure(buffer.getvalue(), 'png', size, alt, caption)


def _figure(data: bytes, kind: str, size: tuple[int, int], alt: str, caption: str) -> str:
  source = f'data:image/{kind};base64,{base64.b64encode(data).decode()}'
  return (
    f'<figure><figcaption>{html.escape(caption)}</figcaption><img src="{source}" '
    f'width="{size[0]}" height="{size[1]}" alt="{html.escape(alt)}"></figure>'
  )
