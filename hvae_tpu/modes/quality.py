"""`--mode=quality`: distances of samples to training and test pictures, by their features."""

from collections.abc import Callable
import dataclasses
from pathlib import Path

import jax
import ml_collections
import numpy as np

from hvae_tpu import data, metrics
from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.metrics import inception
from hvae_tpu.modes import loaded_run
from hvae_tpu.nn import temperatures
from hvae_tpu.nn.distributions import STATISTICS
from hvae_tpu.runs.restore import LoadedRun
from hvae_tpu.settings import setting
from hvae_tpu.storage import files
from hvae_tpu.training import setup

NEEDS = ('sample', 'level_names')
FOLDERS = ('quality',)
LEAST = 8  # pictures of a set, for neighbours and covariances


@dataclasses.dataclass(frozen=True)
class Options(loaded_run.TemperedOptions):
  """Options of `--mode=quality`."""

  num: int = setting(1000, least=LEAST)  # number of samples
  num_true: int = setting(5000, least=0)  # first pictures of each of the two splits; 0: all
  statistic: str = setting('sample', choices=STATISTICS)  # statistic of the pixels' distribution
  # file of Inception-v3 weights, for the FID and the Inception score; '': without them
  inception: str = setting('')


@loaded_run.interruptible
def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  raise_if_interrupted: Callable[[], None],
) -> None:
  """Writes `<run>/quality/<step>-<weights>.json`.

  Every number names its features: 'frechet[random-conv-v1]' is no FID. The distance between the
  two splits is reported too; it is the best that samples can reach.

  Raises:
    UserError: no such checkpoint or view, too few pictures, or a file that is not of Inception.
  """
  options = loaded_run.read_options(Options, config, 'quality')
  network = inception.open_weights(options.inception) if options.inception else None
  loaded = loaded_run.load_run(config, workdir, checkpoint, 'quality', NEEDS)
  key = 'config.quality.temperature'
  temperature = temperatures.per_level_from_tuple(loaded.model, options.temperature, key)
  dataset = setup.open_data(config)
  raise_if_interrupted()
  train, labels = _read(config, dataset, 'train', options.num_true)
  raise_if_interrupted()
  test, _ = _read(config, dataset, 'test', options.num_true)
  samples = _draw(config, loaded, options, temperature, raise_if_interrupted)
  if jax.process_index() == 0:
    measures = metrics.measures(train, labels)
    if network is not None:
      measures += inception.measures(network)
    pairs = {
      'samples to train': (train, samples),
      'samples to test': (test, samples),
      'test to train': (train, test),
    }
    results = {name: {} for name in pairs}
    progress = loaded_run.with_progress(measures, len(measures), 'measure', raise_if_interrupted)
    for measure in progress:
      for name, pair in pairs.items():
        results[name] |= metrics.compare(measure, *pair)
    counts = {'train': len(train), 'test': len(test), 'samples': len(samples)}
    _store(loaded, options, counts, results)


def _read(
  config: ml_collections.ConfigDict, dataset: data.Dataset, split: str, most: int
) -> tuple[np.ndarray, np.ndarray | None]:
  """Reads the first pictures of a split, as evaluations see them, and labels if there are any."""
  view = setup.view_name(config, split)
  count = min(most or dataset.size(view), dataset.size(view))
  if count < LEAST:
    raise UserError(f'view {view!r} has {count} pictures; --mode=quality needs {LEAST}')
  has_labels = dataset.card['fields'].get('label', {}).get('shape') == []
  fields = ('image', 'label') if has_labels else ('image',)
  source = data.eval_batches(
    dataset,
    view,
    batch_size=config.evals.batch_size,
    seed=config.seed,
    fields=fields,
    transforms=config.data.eval_transforms,
  )
  parts = [next(source) for _ in range(-(-count // config.evals.batch_size))]
  source.close()
  images, *labels = (np.concatenate([part[name] for part in parts])[:count] for name in fields)
  return images, labels[0] if labels else None


def _draw(
  config: ml_collections.ConfigDict,
  loaded: LoadedRun,
  options: Options,
  temperature: np.ndarray,
  raise_if_interrupted: Callable[[], None],
) -> np.ndarray:
  """Draws samples, uint8 [num, H, W, C]; binarised where the data is."""
  size = config.evals.batch_size
  model, state = loaded_run.model_for_sampling(loaded, options, temperature)
  draw, batches = jax.jit(model.sample, static_argnums=3), []
  total = -(-options.num // size)
  numbers = loaded_run.with_progress(range(total), total, raise_if_interrupted=raise_if_interrupted)
  for number in numbers:
    key = jax.random.fold_in(jax.random.key(options.seed), 2 + number)
    batches.append(sharding.to_host(draw(loaded.params, state, key, size, temperature)))
  pictures = np.concatenate(batches)[: options.num]
  if 'binarize' in config.data.eval_transforms:
    binarize, _ = data.TRANSFORMS['binarize']
    pictures = binarize({'image': pictures}, np.random.default_rng(options.seed))['image']
  return pictures


def _store(
  loaded: LoadedRun,
  options: Options,
  counts: dict[str, int],
  results: dict[str, dict[str, float]],
) -> None:
  """Writes and prints the distances of each pair of sets."""
  path = loaded.workdir / 'quality' / f'{loaded.checkpoint_tag}.json'
  about = {
    'origin': loaded.origin(),
    'data': loaded.config.data.name,
    'pictures': counts,
    'temperature': list(options.temperature),
    'seed': options.seed,
    'results': results,
  }
  files.save_json(path, about, strict=False)
  print('pictures: ' + ', '.join(f'{count:,} {name}' for name, count in counts.items()))
  names = list(results['samples to train'])
  widest = max(map(len, names))
  print(' ' * widest + ''.join(f'{pair:>18}' for pair in results))
  for name in names:
    numbers = ''.join(f'{distances[name]:>18.5g}' for distances in results.values())
    print(f'{name:{widest}}{numbers}')
  print(f'stored in {path}')
