"""`--mode=sample`: picture grids of a trained run."""

from pathlib import Path

import jax
import ml_collections

from hvae_tpu import evals, runs, writing
from hvae_tpu.errors import UserError
from hvae_tpu.evals import pictures
from hvae_tpu.importers import verdict
from hvae_tpu.state import eval_params


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Writes `<run>/sample/<picture>-<step>.png` by `config.sample`. Returns the exit code.

  Raises:
    UserError: no such checkpoint or view, or a temperature list of another length.
  """
  options = config.sample.to_dict()
  seed, split = options.pop('seed'), options.pop('split')
  evals.check_weights(config.evals.weights)
  weights = evals.WEIGHTS[config.evals.weights][0]
  opened = runs.open_run(workdir, checkpoint, config, (weights,))
  for method in pictures.NEEDS:
    if not hasattr(opened.model, method):
      raise UserError(f'--mode=sample needs {method}(), which {config.model.name} lacks')
  dataset = runs.open_data(config)
  pictures.check(options, config.evals.batch_size)
  batches = runs.eval_batches(dataset, config, opened.mesh, split)
  draw = pictures.make(opened.model, batches, **options)
  params = eval_params(opened.state, weights)
  found = draw(params, opened.state.model_state, opened.state.step, jax.random.key(seed))
  if jax.process_index() == 0:
    for line in verdict.describe(opened.meta.get('import')):
      print(line)
    for name, picture in found.items():
      path = opened.workdir / 'sample' / f'{name}-{opened.state.step}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      writing.save_png(path, picture)
      print(f'wrote {path}')
  return 0
