"""Curves as PNG files."""

from collections.abc import Sequence
from pathlib import Path

from hvae_tpu.writing import replacing


def save_curve(
  path: Path,
  points: Sequence[tuple[float, float, str]],
  x_label: str,
  y_label: str,
  title: str = '',
) -> None:
  """Draws points (x, y, name) joined in order of x. Folders are made as needed."""
  # Imported late: it takes a second, and only this function needs it.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6, 4), layout='constrained')
  axes = figure.add_subplot(title=title, xlabel=x_label, ylabel=y_label)
  points = sorted(points)
  axes.plot([x for x, _, _ in points], [y for _, y, _ in points], marker='o')
  for x, y, name in _apart(points):
    axes.annotate(name, (x, y), textcoords='offset points', xytext=(6, 6))
  axes.margins(0.15)  # room for the names
  axes.grid(alpha=0.3)
  with replacing(path) as partial:
    FigureCanvasAgg(figure).print_png(partial)


def _apart(points: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
  """Where to write which names; those of points that almost touch stand together, at the first."""
  spans = [max(values) - min(values) for values in list(zip(*points, strict=True))[:2]]
  found = []
  for x, y, name in points:
    if found and x - found[-1][0] <= 0.04 * spans[0] and abs(y - found[-1][1]) <= 0.06 * spans[1]:
      found[-1] = (*found[-1][:2], f'{found[-1][2]}, {name}')
    else:
      found.append((x, y, name))
  return found
