"""Curves and bars as SVG elements; their numbers are also text."""

from collections.abc import Sequence
import html
import math

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 24
BAR = 16

Points = Sequence[tuple[float, float]]


def curves(title: str, lines: dict[str, Points]) -> str:
  """Draws lines of points (x, y), by name; `title` is the quantity with its unit."""
  lines = {name: [p for p in points if math.isfinite(p[1])] for name, points in lines.items()}
  lines = {name: points for name, points in lines.items() if points}
  if not lines:
    return ''
  xs = [x for points in lines.values() for x, _ in points]
  ys = _inner([y for points in lines.values() for _, y in points])
  x_scale = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
  y_scale = _scale(min(ys), max(ys), HEIGHT - BOTTOM, TOP)
  parts = []
  for value in _ticks(min(ys), max(ys)):
    y = y_scale(value)
    parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
  for value in (min(xs), max(xs)):
    anchor = 'start' if value == min(xs) else 'end'
    parts.append(
      f'<text x="{x_scale(value):.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{value:,}</text>'
    )
  for number, points in enumerate(lines.values()):
    thinned = points[:: max(1, len(points) // 400)]
    top, bottom = y_scale(max(ys)), y_scale(min(ys))
    place = lambda y, t=top, b=bottom: min(max(y_scale(y), t), b)
    path = ' '.join(f'{x_scale(x):.1f},{place(y):.1f}' for x, y in thinned)
    parts.append(f'<polyline class="line line{number}" points="{path}"/>')
    if len(thinned) < 30:
      dots = ''.join(
        f'<circle cx="{x_scale(x):.1f}" cy="{place(y):.1f}" r="2.5"/>' for x, y in thinned
      )
      parts.append(f'<g class="dots line{number}">{dots}</g>')
  ends = [
    f'{n}: {p[0][1]:.4g} at step {p[0][0]:,}, {p[-1][1]:.4g} at step {p[-1][0]:,}'
    for n, p in lines.items()
  ]
  return _svg(title, '; '.join(ends), WIDTH, HEIGHT, parts)


def bars(title: str, values: dict[str, float], unit: str) -> str:
  """Draws a bar and its number for each name, one below the other."""
  most, parts = max(values.values()) or 1.0, []
  for row, (name, value) in enumerate(values.items()):
    y, length = row * (BAR + 4), 190 * value / most
    parts.append(f'<text x="112" y="{y + 12}" text-anchor="end">{html.escape(name)}</text>')
    parts.append(
      f'<rect class="bar" x="118" y="{y}" width="{max(length, 0.5):.1f}" height="{BAR}"/>'
    )
    parts.append(f'<text x="{124 + length:.1f}" y="{y + 12}">{value:.3g}</text>')
  text = ', '.join(f'{name} {value:.3g}' for name, value in values.items())
  return _svg(title, f'{text} {unit}', WIDTH, len(values) * (BAR + 4), parts)


def _svg(title: str, text: str, width: int, height: int, parts: list[str]) -> str:
  return (
    f'<svg role="img" viewBox="0 0 {width} {height}" aria-label="{html.escape(title)}. '
    f'{html.escape(text)}"><title>{html.escape(title)}</title>{"".join(parts)}</svg>'
  )


def _inner(values: list[float]) -> list[float]:
  """Leaves out the highest 3 %: the first steps of training would flatten the rest of a curve."""
  values = sorted(values)
  return values[: max(2, math.ceil(0.97 * len(values)))]


def _scale(low: float, high: float, start: float, stop: float):
  """Returns the linear map from [low, high] to [start, stop]."""
  span = (high - low) or 1.0
  return lambda value: start + (value - low) / span * (stop - start)


def _ticks(low: float, high: float) -> list[float]:
  """Returns three to six round numbers between `low` and `high`."""
  raw = (high - low) / 4 or 1.0
  unit = 10 ** math.floor(math.log10(raw))
  step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= raw)
  first = math.ceil(low / step - 1e-9)
  return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]
