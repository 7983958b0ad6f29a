"""`--mode=report`: one HTML file that shows a run, to open or to send."""

from collections.abc import Callable
import dataclasses
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from hvae_tpu import commands
from hvae_tpu.errors import UserError
from hvae_tpu.figures import report
from hvae_tpu.figures.report import facts, model_pictures
from hvae_tpu.modes import loaded_run
from hvae_tpu.nn import temperatures
from hvae_tpu.nn.distributions import STATISTICS
from hvae_tpu.nn.temperatures import Setting
from hvae_tpu.runs.restore import LoadedRun
from hvae_tpu.runs.workdir import flatten, stored_config, to_json
from hvae_tpu.settings import setting
from hvae_tpu.storage import files
from hvae_tpu.training import setup

FOLDERS = ('report',)


@dataclasses.dataclass(frozen=True)
class Options(loaded_run.SampleOptions):
  """Options of `--mode=report`."""

  split: str = setting('test')  # pictures to reconstruct: train, valid, test, or a view's name
  num: int = setting(8, least=1)  # pictures in a row
  # one row of samples each: a number, a tuple of one number per level, or 'linear(a,b)'
  temperatures: tuple[Setting, ...] = setting((1.0, 0.8, 0.6))
  partial_temperature: float = setting(0.1, least=0)  # temperature of the drawn groups
  statistic: str = setting('sample', choices=STATISTICS)  # statistic of the pixels' distribution


@loaded_run.interruptible
def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  raise_if_interrupted: Callable[[], None],
) -> None:
  """Writes `<run>/report/<step>-<weights>.html`.

  Pictures are drawn by the methods that the model has; results of other modes are shown if they
  exist. The published configuration is the one of the command line.

  Raises:
    UserError: no such run or checkpoint (there is nothing to draw samples with), or a setting out
      of range.
  """
  options = loaded_run.read_options(Options, config, 'report')
  if options.num > config.evals.batch_size:
    raise UserError(
      f'config.report.num={options.num} must be at most config.evals.batch_size='
      f'{config.evals.batch_size}'
    )
  loaded = loaded_run.load_run(config, workdir, checkpoint, 'report', ('level_names',))
  model = loaded_run.with_statistic(loaded.model, options.statistic)
  named = [(t, f'config.report.temperatures[{i}]') for i, t in enumerate(options.temperatures)]
  levels_at = [temperatures.per_level(model, value, key) for value, key in named]
  dataset = setup.open_data(config)

  def state_at(temperature: np.ndarray | None) -> Any:
    """Returns the model state for samples at a temperature; None stands for reconstructions."""
    if temperature is None or not options.refresh_iterations:
      return loaded.model_state
    return loaded_run.model_for_sampling(loaded, options, temperature)[1]

  batches = setup.eval_batches(dataset, config, loaded.mesh, options.split, raise_if_interrupted)()
  pictures = model_pictures.draw(
    model,
    loaded.params,
    state_at,
    batches,
    options.num,
    levels_at,
    options.partial_temperature,
    options.seed,
  )
  if jax.process_index() == 0:
    from hvae_tpu.modes import MODES  # the table imports this file

    shown = [name for name, mode in MODES.items() if getattr(mode, 'REPORTED', False)]
    modes = [name for name in sorted(MODES) if (loaded.workdir / name).is_dir()]
    modes = [name for name in modes if name not in ('train', 'report')]
    page = report.build(
      _facts(loaded, dataset.card, modes),
      loaded.workdir,
      pictures,
      [str(value) for value, _ in named],
      shown,
    )
    path = loaded.workdir / 'report' / f'{loaded.checkpoint_tag}.html'
    with files.replacing(path) as partial:
      partial.write_text(page)
    print(f'stored in {path}')


def _facts(loaded: LoadedRun, card: dict[str, Any], modes: list[str]) -> facts.Facts:
  """Gathers the facts about a run; `modes` have left results that the page shows."""
  config, workdir = loaded.config, loaded.workdir
  stored = flatten(stored_config(workdir))
  source = commands.config_source(config)
  published = flatten(to_json(commands.load_config(source)))
  count = sum(leaf.size for leaf in jax.tree.leaves(loaded.params))
  changed = facts.differences(published, stored)
  usual = Path(f'runs/{config.name}').resolve() == workdir.resolve()
  head = {
    'system': config.model.name,
    'data': config.data.name,
    'parameters': f'{count:,}',
    'groups': str(len(loaded.model.level_names)),
    'step': f'{loaded.step:,}',
    'weights': loaded.weights,
  }
  return facts.Facts(
    name=config.name,
    step=int(loaded.step),
    head=head,
    level_names=loaded.model.level_names,
    card=card,
    config=stored,
    differences={key: values for key, values in changed.items() if key not in facts.PLACES},
    commands=facts.commands(source, None if usual else str(workdir), changed, [*modes, 'report']),
    environment=facts.environment(),
  )
