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
  for x, y, name in points:
    axes.annotate(name, (x, y), textcoords='offset points', xytext=(6, 6))
  axes.margins(0.15)  # room for the names
  axes.grid(alpha=0.3)
  with replacing(path) as partial:
    FigureCanvasAgg(figure).print_png(partial)
