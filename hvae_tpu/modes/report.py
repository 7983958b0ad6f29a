"""`--mode=report`: one HTML file that shows a run, to open or to send."""

from collections.abc import Callable
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
from hvae_tpu.runs.workdir import flatten, stored_config, to_json
from hvae_tpu.storage import files
from hvae_tpu.training import setup


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Writes `<run>/report/<step>-<weights>.html`. Returns the exit code.

  Pictures are drawn by the methods that the model has; what other modes wrote is shown as it is
  found. The published configuration is that of the command line.

  Raises:
    UserError: no such run or checkpoint (there is nothing to draw samples with), or a setting out
      of range.
  """
  options = config.report
  if not 1 <= options.num <= config.evals.batch_size:
    raise UserError(
      f'config.report.num={options.num} must lie between 1 and config.evals.batch_size='
      f'{config.evals.batch_size}'
    )
  trained = loaded_run.open_trained(config, workdir, checkpoint, '--mode=report', ('level_names',))
  model = trained.run.model
  named = [(t, f'config.report.temperatures[{i}]') for i, t in enumerate(options.temperatures)]
  levels_at = [temperatures.per_level(model, setting, key) for setting, key in named]
  dataset = setup.open_data(config)

  def state_at(temperature: np.ndarray | None) -> Any:
    if temperature is None or not options.refresh_iterations:
      return trained.run.state.model_state
    return loaded_run.prepared(trained, options, temperature)[1]

  def work(check: Callable[[], None]) -> int:
    batches = setup.eval_batches(dataset, config, trained.run.mesh, options.split, check)()
    shown = model_pictures.draw(
      model,
      trained.params,
      state_at,
      batches,
      options.num,
      levels_at,
      options.partial_temperature,
      options.seed,
    )
    if jax.process_index() == 0:
      told = _facts(config, trained, dataset.card)
      names = [str(setting) for setting, _ in named]
      path = trained.run.workdir / 'report' / f'{trained.stem}.html'
      with files.replacing(path) as partial:
        partial.write_text(report.build(told, trained.run.workdir, shown, names))
      print(f'stored in {path}')
    return 0

  return loaded_run.interruptible(work)


def _facts(
  config: ml_collections.ConfigDict, trained: loaded_run.Trained, card: dict[str, Any]
) -> facts.Facts:
  folder = trained.run.workdir
  mine = flatten(stored_config(folder))
  source = commands.config_source(config)
  published = flatten(to_json(commands.load_config(source)))
  count = sum(leaf.size for leaf in jax.tree.leaves(trained.params))
  changed = facts.differences(published, mine)
  modes = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
  # The bundles of non-finite steps and the damaged checkpoints have a dash in their names.
  other = ('train', 'checkpoints', 'report')
  modes = [name for name in modes if name not in other and '-' not in name]
  usual = Path(f'runs/{config.name}').resolve() == folder.resolve()
  elsewhere = None if usual else str(folder)
  head = {
    'system': config.model.name,
    'data': config.data.name,
    'parameters': f'{count:,}',
    'groups': str(len(trained.run.model.level_names)),
    'step': f'{trained.run.state.step:,}',
    'weights': trained.weights,
  }
  return facts.Facts(
    name=config.name,
    step=int(trained.run.state.step),
    head=head,
    level_names=trained.run.model.level_names,
    card=card,
    config=mine,
    differences={key: values for key, values in changed.items() if key not in facts.PLACES},
    commands=facts.commands(source, elsewhere, changed, [*modes, 'report']),
    environment=facts.environment(),
  )
