"""`--mode=sample`: picture grids of a trained run."""

from collections.abc import Callable, Iterator
import dataclasses
from pathlib import Path
from typing import Any

import jax
import ml_collections

from hvae_tpu import settings
from hvae_tpu.errors import UserError
from hvae_tpu.evals import pictures
from hvae_tpu.figures import images
from hvae_tpu.modes import loaded_run
from hvae_tpu.training import setup


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Writes `<run>/sample/<picture>-<step>-<weights>.png` by `config.sample`. Returns the exit code.

  Raises:
    UserError: no such checkpoint or view, or a temperature that the model does not take.
  """
  options = config.sample.to_dict()
  seed, split = options.pop('seed'), options.pop('split')
  output_temperature = options.pop('output_temperature')
  trained = loaded_run.open_trained(config, workdir, checkpoint, '--mode=sample', pictures.NEEDS)
  opened, model = trained.run, trained.run.model
  if output_temperature is not None:
    model = _tempered(model, output_temperature)
  dataset = setup.open_data(config)
  options = settings.checked(pictures.Options, options, 'config.sample')
  pictures.check(options, config.evals.batch_size, 'config.sample')

  def work(check: Callable[[], None]) -> int:
    def watch(rows: Iterator, total: int) -> Iterator:
      for row in loaded_run.shown(rows, total, 'row'):
        check()
        yield row

    batches = setup.eval_batches(dataset, config, opened.mesh, split, check)
    draw = pictures.make(model, batches, options, 'config.sample', watch)
    found = draw(trained.params, opened.state.model_state, opened.state.step, jax.random.key(seed))
    if jax.process_index() == 0:
      for name, picture in found.items():
        path = opened.workdir / 'sample' / f'{name}-{trained.stem}.png'
        images.save_png(path, picture)
        print(f'wrote {path}')
    return 0

  return loaded_run.interruptible(work)


def _tempered(model: Any, output_temperature: float) -> Any:
  """The model with another temperature of its likelihood."""
  if not hasattr(model, 'output_temperature'):
    raise UserError(
      f'config.sample.output_temperature={output_temperature}: {type(model).__name__} has no '
      f'temperature of the output; leave it out'
    )
  return dataclasses.replace(model, output_temperature=output_temperature)
