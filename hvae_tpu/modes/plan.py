"""`--mode=plan`: whether a config fits TPU slices, what a step costs, and which batch would fit."""

from collections.abc import Callable
import copy
import json
from pathlib import Path
from typing import Any

import ml_collections

from hvae_tpu import writing
from hvae_tpu.errors import UserError
from hvae_tpu.plan import chips, planning, search
from hvae_tpu.plan.analysis import Analysis
from hvae_tpu.plan.programs import PROGRAMS
from hvae_tpu.plan.report import GIB

DOES_NOT_FIT = 3  # exit code


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
    plan = planning.make(config, topology, options.programs)
    found, lines = plan.json(), [plan.text()]
    print(lines[0])
    if options.search or not plan.fits:
      found['search'] = _search(config, topology, lines)
      print('\n'.join(lines[1:]))
    all_fit &= plan.fits
    _store(workdir / 'plan', topology.replace(':', '-'), found, lines)
  return 0 if all_fit else DOES_NOT_FIT


def _search(
  config: ml_collections.ConfigDict,
  topology: str,
  lines: list[str],
) -> list[dict[str, Any]]:
  """The largest training batch that fits, per rematerialisation and dtype; adds to `lines`."""
  lines.append(
    f'  {"remat":8} {"dtype":9} {"batch":>6} {"a device":>8} {"peak":>10} {"FLOPs each":>11}'
  )
  rows, devices = [], len(chips.describe(topology))
  for dtype in config.plan.dtypes:
    for remat in config.plan.remats:
      trial = copy.deepcopy(config)
      trial.model.update(remat=remat, dtype=dtype)
      hbm = chips.chip_of(topology).hbm
      step = max(devices // config.mesh.spatial, 1)
      found = search.largest(_at_batch(trial, topology), step, hbm, config.plan.max_batch)
      compiled = found.analysis.compiled
      rows.append(
        {
          'remat': remat,
          'dtype': dtype,
          'batch_size': found.batch_size,
          'bound': found.bound,
          'peak': compiled.peak,
          'bytes_per_example': found.per_example,
          'flops_per_example': found.analysis.work.flops / found.analysis.batch_size,
          'compilations': found.compilations,
        }
      )
      lines.append(
        f'  {remat:8} {dtype:9} {found.batch_size:>6} {found.batch_size / devices:>8g} '
        f'{compiled.peak / GIB:>6.2f} GiB {rows[-1]["flops_per_example"]:>11.3g}'
        + ('' if found.bound == found.batch_size else f' (a line promises {found.bound})')
      )
  return rows


def _at_batch(config: ml_collections.ConfigDict, topology: str) -> Callable[[int], Analysis]:
  def compile_with(batch_size: int) -> Analysis:
    config.train.batch_size = batch_size
    return planning.analyse_program('train', config, topology)

  return compile_with


def _store(folder: Path, stem: str, found: dict[str, Any], lines: list[str]) -> None:
  with writing.replacing(folder / f'{stem}.json') as partial:
    partial.write_text(json.dumps(found, indent=1))
  with writing.replacing(folder / f'{stem}.txt') as partial:
    partial.write_text('\n'.join(lines) + '\n')
