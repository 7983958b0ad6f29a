"""`--mode=plan`: whether a config fits TPU slices, what a step costs, and which batch would fit."""

from collections.abc import Callable, Iterator
import copy
from pathlib import Path
from typing import Any

import ml_collections

from hvae_tpu.errors import UserError
from hvae_tpu.planning import chips, planner, search
from hvae_tpu.planning.analysis import Analysis
from hvae_tpu.planning.plan import GIB, Plan
from hvae_tpu.planning.programs import PROGRAMS
from hvae_tpu.storage import files

DOES_NOT_FIT = 3  # exit code
Answer = tuple[str, dict[str, Any] | None]  # a line, and its fields where it is one of a search


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Compiles for every slice of `config.plan.topology`; writes `<workdir>/plan/<slice>.json|txt`.

  Returns:
    The exit code: 0, or 3 where a program does not fit, which is an answer too.

  Raises:
    UserError: an unknown slice or program, no TPU compiler, or a batch that does not divide.
  """
  options = config.plan
  if unknown := sorted(set(options.programs) - set(PROGRAMS)):
    raise UserError(
      f'config.plan.programs has {", ".join(unknown)}; programs are {", ".join(PROGRAMS)}'
    )
  all_fit = True
  for topology in chips.split(options.topology):
    plan = planner.make_plan(config, topology, options.programs)
    lines, rows = [], []
    for line, row in _answers(config, topology, plan):
      print(line, flush=True)
      lines.append(line)
      rows += [row] if row else []
      # At once, as the next line may take an hour.
      _store(workdir / 'plan', topology.replace(':', '-'), {**plan.json(), 'search': rows}, lines)
    all_fit &= plan.fits
  return 0 if all_fit else DOES_NOT_FIT


def _answers(config: ml_collections.ConfigDict, topology: str, plan: Plan) -> Iterator[Answer]:
  yield plan.text(), None
  if config.plan.search or not plan.fits:
    yield from _search(config, topology)


def _search(config: ml_collections.ConfigDict, topology: str) -> Iterator[Answer]:
  """The largest training batch that fits, per rematerialisation and dtype."""
  head = f'  {"remat":8} {"dtype":9} {"batch":>6} {"a device":>8} {"peak":>10} {"FLOPs each":>11}'
  yield head, None
  hbm, devices = chips.chip_of(topology).hbm, len(chips.describe(topology))
  step = max(devices // config.mesh.spatial, 1)
  for dtype in config.plan.dtypes:
    for remat in config.plan.remats:
      trial = copy.deepcopy(config)
      trial.model.update(remat=remat, dtype=dtype)
      found = search.largest_batch(_at_batch(trial, topology), step, hbm, config.plan.max_batch)
      peak, work = found.analysis.compiled.peak, found.analysis.work
      row = {
        'remat': remat,
        'dtype': dtype,
        'batch_size': found.batch_size,
        'bound': found.bound,
        'peak': peak,
        'bytes_per_example': found.per_example,
        'flops_per_example': work.flops / found.analysis.batch_size,
        'compilations': found.compilations,
      }
      line = (
        f'  {remat:8} {dtype:9} {found.batch_size:>6} {found.batch_size / devices:>8g} '
        f'{peak / GIB:>6.2f} GiB {row["flops_per_example"]:>11.3g}'
      )
      refuted = found.bound != found.batch_size
      yield line + (f' ({found.bound} do not fit; not tried between)' if refuted else ''), row


def _at_batch(config: ml_collections.ConfigDict, topology: str) -> Callable[[int], Analysis]:
  def compile_with(batch_size: int) -> Analysis:
    config.train.batch_size = batch_size
    return planner.analyse_program('train', config, topology)

  return compile_with


def _store(folder: Path, stem: str, found: dict[str, Any], lines: list[str]) -> None:
  files.save_json(folder / f'{stem}.json', found, indent=1, end='', strict=False)
  with files.replacing(folder / f'{stem}.txt') as partial:
    partial.write_text('\n'.join(lines) + '\n')
