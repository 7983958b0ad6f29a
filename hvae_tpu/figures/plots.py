"""Curves, and figures of segmented scenes, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hvae_tpu.figures import slot_pictures
from hvae_tpu.storage.files import replacing

PANEL = 2  # inches, the side of a panel


def save_curve(
  path: Path,
  points: Sequence[tuple[float, float, str]],
  x_label: str,
  y_label: str,
  title: str = '',
) -> None:
  """Draws points (x, y, name) joined in order of x. Folders are made as needed."""
  figure = _figure(6, 4)
  axes = figure.add_subplot(title=title, xlabel=x_label, ylabel=y_label)
  points = sorted(points)
  axes.plot([x for x, _, _ in points], [y for _, y, _ in points], marker='o')
  for x, y, name in _apart(points):
    axes.annotate(name, (x, y), textcoords='offset points', xytext=(6, 6))
  axes.margins(0.15)  # room for the names
  axes.grid(alpha=0.3)
  _save(figure, path)


def save_bands(
  path: Path,
  curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
  x_label: str,
  y_label: str,
) -> None:
  """Draws means [T], each in a band of its deviation [T]: a curve, and perhaps its baseline.

  Args:
    path: path of the file; folders are made as needed.
    curves: mean and deviation by label; a gap where they are not finite.
  """
  figure = _figure()
  axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
  for colour, (label, (mean, deviation)) in zip(('blue', 'grey'), curves.items(), strict=False):
    places = np.arange(len(mean))
    axes.plot(places, mean, color=colour, label=label)
    axes.fill_between(places, mean - deviation, mean + deviation, color=colour, alpha=0.4)
  axes.grid(axis='y')
  axes.legend()
  _save(figure, path)


def _apart(points: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
  """Joins the names of points that almost touch, at the first of them."""
  spans = [max(values) - min(values) for values in list(zip(*points, strict=True))[:2]]
  joined = []
  for x, y, name in points:
    last = joined[-1] if joined else None
    if last and x - last[0] <= 0.04 * spans[0] and abs(y - last[1]) <= 0.06 * spans[1]:
      joined[-1] = (*last[:2], f'{last[2]}, {name}')
    else:
      joined.append((x, y, name))
  return joined


def save_scene(path: Path, record: Mapping[str, np.ndarray], show_attention: bool = False) -> None:
  """Draws a segmented scene, a row for each stage (EfficientMORL, figure 6).

  Args:
    path: path of the file; folders are made as needed.
    record: record of one scene, `evals/scene_records.py`.
    show_attention: whether to show the attention of slots, and a column of all of it in colours,
      instead of the pictures that slots paint.
  """
  outputs = {name.removeprefix('outputs/'): value[0] for name, value in record.items()}
  image, masks = record['data/image'][0], outputs['pred_mask'][..., 0]
  attention = outputs['attention'][..., 0]
  colours = slot_pictures.colours(masks.shape[1])
  if show_attention:
    shown = slot_pictures.on_white(image, attention)
  else:
    shown = slot_pictures.on_white(outputs['components'], masks)
  titles = ['Image', 'Recons', 'Mask', *(['Attention'] if show_attention else [])]
  stages, columns = len(masks), len(titles) + len(colours)
  figure = _figure(PANEL * columns, PANEL * stages)
  axes = figure.subplots(stages, columns, squeeze=False, subplot_kw=dict(xticks=[], yticks=[]))
  for i, row in enumerate(axes):
    panels = [image, outputs['recons'][i], slot_pictures.coloured(masks[i])]
    panels += [slot_pictures.coloured(attention[i])] if show_attention else []
    for ax, panel in zip(row, [*panels, *shown[i]], strict=True):
      ax.imshow(np.clip(panel, 0, 1), interpolation='nearest')
    for ax, colour in zip(row[len(titles) :], colours, strict=True):
      for spine in ax.spines.values():
        spine.set(edgecolor=colour, linewidth=3)
  for ax, title in zip(axes[0], titles, strict=False):
    ax.set_title(title)
  _save(figure, path)


def _figure(*size: float) -> Any:
  """Returns an empty figure of (width, height) in inches, or of the usual size."""
  # Imported late: it takes a second, and only figures need it.
  from matplotlib.figure import Figure

  return Figure(figsize=size or None, layout='constrained')


def _save(figure: Any, path: Path) -> None:
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  with replacing(path) as partial:
    FigureCanvasAgg(figure).print_png(partial)
