"""`--mode=plan`: memory and time of a config on TPU slices, and the largest batch that fits."""

from collections.abc import Callable, Iterator
import copy
import dataclasses
from pathlib import Path
from typing import Any

import ml_collections

from hvae_tpu.errors import UserError
from hvae_tpu.modes import loaded_run
from hvae_tpu.nn import layers
from hvae_tpu.planning import chips, planner, search
from hvae_tpu.planning.analysis import Analysis
from hvae_tpu.planning.plan import GIB, Plan
from hvae_tpu.planning.programs import PROGRAMS
from hvae_tpu.settings import setting
from hvae_tpu.storage import files

FOLDERS = ('plan',)
DOES_NOT_FIT = 3  # exit code
Answer = tuple[str, dict[str, Any] | None]  # a line, and its fields if it is a row of a search


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of `--mode=plan`."""

  topology: str = setting('v5e:4x4')  # TPU slices, with commas; --topology sets it
  programs: tuple[str, ...] = setting(('train', 'eval'), choices=tuple(PROGRAMS))  # to compile
  # whether to search the largest batch of every remat and dtype; always if a program does not fit
  search: bool = setting(False)
  # rematerialisations to search over
  remats: tuple[str, ...] = setting(('blocks', 'convs', 'none'), choices=layers.REMAT)
  # dtypes to search over
  dtypes: tuple[str, ...] = setting(('float32', 'bfloat16'), choices=('float32', 'bfloat16'))
  max_batch: int = setting(4096, least=1)  # global batch size at which the search ends
  efficiency: float = setting(0.1, above=0, most=1)  # expected fraction of the peak FLOP/s
  # optimization level of the compiler; EFFORT_O1 takes a quarter of the time, with another memory
  effort: str = setting('')


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Compiles for every slice of `config.plan.topology`; writes `<workdir>/plan/<slice>.json|txt`.

  Returns:
    The exit code: 0, or 3 where a program does not fit, which is an answer too.

  Raises:
    UserError: an unknown slice or program, no TPU compiler, or a batch that does not divide.
  """
  options = loaded_run.read_options(Options, config, 'plan')
  if not options.programs:
    raise UserError(f'config.plan.programs=() names no program; it may have {", ".join(PROGRAMS)}')
  all_fit = True
  for topology in chips.split(options.topology):
    plan = planner.make_plan(config, topology, options.programs)
    lines, rows = [], []
    for line, row in _answers(config, options, topology, plan):
      print(line, flush=True)
      lines.append(line)
      rows += [row] if row else []
      # At once, as the next line may take an hour.
      _store(workdir / 'plan', topology.replace(':', '-'), {**plan.json(), 'search': rows}, lines)
    all_fit &= plan.fits
  return 0 if all_fit else DOES_NOT_FIT


def _answers(
  config: ml_collections.ConfigDict, options: Options, topology: str, plan: Plan
) -> Iterator[Answer]:
  """Yields the plan, and the rows of a search if one is due."""
  yield plan.text(), None
  if options.search or not plan.fits:
    yield from _search(config, options, topology)


def _search(config: ml_collections.ConfigDict, options: Options, topology: str) -> Iterator[Answer]:
  """Yields the largest training batch that fits, for each rematerialisation and dtype."""
  head = f'  {"remat":8} {"dtype":9} {"batch":>6} {"a device":>8} {"peak":>10} {"FLOPs each":>11}'
  yield head, None
  hbm, devices = chips.chip_of(topology).hbm, len(chips.describe(topology))
  step = max(devices // config.mesh.spatial, 1)
  for dtype in options.dtypes:
    for remat in options.remats:
      trial = copy.deepcopy(config)
      trial.model.update(remat=remat, dtype=dtype)
      best = search.largest_batch(_at_batch(trial, topology), step, hbm, options.max_batch)
      peak, work = best.analysis.compiled.peak, best.analysis.work
      row = {
        'remat': remat,
        'dtype': dtype,
        'batch_size': best.batch_size,
        'bound': best.bound,
        'peak': peak,
        'bytes_per_example': best.per_example,
        'flops_per_example': work.flops / best.analysis.batch_size,
        'compilations': best.compilations,
      }
      line = (
        f'  {remat:8} {dtype:9} {best.batch_size:>6} {best.batch_size / devices:>8g} '
        f'{peak / GIB:>6.2f} GiB {row["flops_per_example"]:>11.3g}'
      )
      refuted = best.bound != best.batch_size
      yield line + (f' ({best.bound} do not fit; not tried between)' if refuted else ''), row


def _at_batch(config: ml_collections.ConfigDict, topology: str) -> Callable[[int], Analysis]:
  def compile_with(batch_size: int) -> Analysis:
    config.train.batch_size = batch_size
    return planner.analyse_program('train', config, topology)

  return compile_with


def _store(folder: Path, stem: str, plan: dict[str, Any], lines: list[str]) -> None:
  files.save_json(folder / f'{stem}.json', plan, indent=1, end='', strict=False)
  with files.replacing(folder / f'{stem}.txt') as partial:
    partial.write_text('\n'.join(lines) + '\n')
