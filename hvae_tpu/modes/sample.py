"""`--mode=sample`: picture grids of a trained run."""

from collections.abc import Callable
import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import ml_collections

from hvae_tpu.errors import UserError
from hvae_tpu.evals import pictures
from hvae_tpu.figures import images
from hvae_tpu.modes import loaded_run
from hvae_tpu.nn.temperatures import Setting
from hvae_tpu.settings import setting
from hvae_tpu.training import setup

FOLDERS = ('sample',)
IN_BUCKETS = True


@dataclasses.dataclass(frozen=True)
class Options(pictures.Options):
  """Options of `--mode=sample`: those of evaluation `pictures`, and a few more."""

  # one row of samples each: a number, a tuple of one number per level, or 'linear(a,b)'
  temperatures: tuple[Setting, ...] = setting((1.0, 0.9, 0.8, 0.7))
  # temperature of pixels; None: the model's
  output_temperature: float | None = setting(None, above=0)
  split: str = setting('test')  # images to reconstruct: train, valid, test, or a view's name
  seed: int = setting(0, least=0)  # seed of all noise


@loaded_run.interruptible
def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  raise_if_interrupted: Callable[[], None],
) -> None:
  """Writes `<run>/sample/<picture>-<step>-<weights>.png`.

  Raises:
    UserError: no such checkpoint or view, or a temperature that the model does not take.
  """
  options = loaded_run.read_options(Options, config, 'sample')
  loaded = loaded_run.load_run(config, workdir, checkpoint, 'sample', pictures.NEEDS)
  model = loaded.model
  if options.output_temperature is not None:
    model = _with_output_temperature(model, options.output_temperature)
  dataset = setup.open_data(config)
  pictures.check(options, config.evals.batch_size, 'config.sample')
  watch = functools.partial(
    loaded_run.with_progress, what='row', raise_if_interrupted=raise_if_interrupted
  )
  batches = setup.eval_batches(dataset, config, loaded.mesh, options.split, raise_if_interrupted)
  draw = pictures.make(model, batches, options, 'config.sample', watch)
  grids = draw(loaded.params, loaded.model_state, loaded.step, jax.random.key(options.seed))
  if jax.process_index() == 0:
    for name, grid in grids.items():
      path = loaded.workdir / 'sample' / f'{name}-{loaded.checkpoint_tag}.png'
      images.save_png(path, grid)
      print(f'wrote {path}')


def _with_output_temperature(model: Any, output_temperature: float) -> Any:
  """Returns the model with another temperature of its likelihood."""
  if not hasattr(model, 'output_temperature'):
    raise UserError(
      f'config.sample.output_temperature={output_temperature}: {type(model).__name__} has no '
      f'temperature of the output; leave it out'
    )
  return dataclasses.replace(model, output_temperature=output_temperature)
