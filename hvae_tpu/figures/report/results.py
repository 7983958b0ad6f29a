"""Readers of the results that modes have written to a work directory."""

from collections.abc import Iterable, Iterator
import csv
import json
from pathlib import Path
import re
from typing import Any

from hvae_tpu.storage import files

PICTURES = ('.png', '.gif')
MOST = 12  # pictures, at most, from a folder
MOST_BYTES = 3 * 2**20  # bytes; larger pictures are left out


def curves(workdir: Path) -> dict[str, list[tuple[int, float]]]:
  """Reads the metrics of training: tag -> (step, value). Later starts replace earlier ones."""
  values: dict[str, dict[int, float]] = {}
  for path in sorted(workdir.glob('train/metrics-*.jsonl')):
    for entry in _lines(path):
      for tag, value in entry.items():
        if tag not in ('step', 'time') and isinstance(value, int | float):
          values.setdefault(tag, {})[entry['step']] = value
  return {tag: sorted(points.items()) for tag, points in values.items()}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
  for line in path.read_text().splitlines():
    try:
      entry = json.loads(line)
    except ValueError:
      continue  # the last line of a run that was killed
    if isinstance(entry, dict) and isinstance(entry.get('step'), int):
      yield entry


def _time(path: Path) -> float:
  return path.stat().st_mtime


def _about(paths: Iterable[Path], workdir: Path, step: int) -> list[Path]:
  """Returns the paths with the step in their file name or folder name: `test-1400-ema`."""
  pattern = re.compile(rf'(^|[-/]){step}-')
  return [path for path in paths if pattern.search(str(path.relative_to(workdir)))]


def record(workdir: Path, mode: str, step: int) -> dict[str, Any] | None:
  """Reads the newest JSON file of a mode for a checkpoint; None if there is none."""
  path = max(_about(workdir.glob(f'{mode}/*.json'), workdir, step), key=_time, default=None)
  if path is None:
    return None
  return files.read_json(path, f'delete it, or run --mode={mode} again')


def rate_distortion(workdir: Path, step: int) -> list[dict[str, str]]:
  """Reads the newest table of --mode=reconstruct for a checkpoint."""
  path = max(_about(workdir.glob('reconstruct/*.csv'), workdir, step), key=_time, default=None)
  if path is None:
    return []
  with open(path) as file:
    return list(csv.DictReader(file))


def pictures(workdir: Path, step: int, modes: list[str]) -> dict[str, list[Path]]:
  """Returns the picture files in the newest folder of each mode, for a checkpoint."""
  chosen = {}
  for mode in modes:
    paths = [p for p in (workdir / mode).rglob('*') if p.suffix in PICTURES]
    paths = _about(paths, workdir, step)
    paths = [p for p in paths if p.stat().st_size <= MOST_BYTES]
    if not paths:
      continue
    folder = max(paths, key=_time).parent
    in_folder = sorted(p for p in paths if p.parent == folder)
    # Sheets and animations say more than pictures of single groups.
    rank = lambda p: (p.stem not in ('contact', 'strip', 'combine', 'chosen'), p.suffix != '.gif')
    chosen[mode] = sorted(in_folder, key=rank)[:MOST]
  return chosen
