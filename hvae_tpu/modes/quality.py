"""`--mode=quality`: distances of samples to training and test pictures, by their features."""

from collections.abc import Callable
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
from hvae_tpu.storage import files
from hvae_tpu.training import setup

NEEDS = ('sample', 'level_names')
LEAST = 8  # pictures of a set, for neighbours and covariances


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Writes `<run>/quality/<step>-<weights>.json`. Returns the exit code.

  Every number names its features: 'frechet[random-conv-v1]' is no FID. Beside the distances of the
  samples stands that of the two splits from each other, the best that samples can hope for.

  Raises:
    UserError: no such checkpoint or view, too few pictures, or a file that is not of Inception.
  """
  options = config.quality
  if options.num < LEAST:
    raise UserError(f'config.quality.num={options.num} must be at least {LEAST}')
  network = inception.open_weights(options.inception) if options.inception else None
  trained = loaded_run.open_trained(config, workdir, checkpoint, '--mode=quality', NEEDS)
  temperature = temperatures.per_level_from_tuple(
    trained.run.model, options.temperature, 'config.quality.temperature'
  )
  dataset = setup.open_data(config)

  def work(check: Callable[[], None]) -> int:
    sets, labels = {}, None
    for split in ('train', 'test'):
      check()
      sets[split], found = _read(config, dataset, split, options.num_true)
      labels = found if split == 'train' else labels
    samples = _draw(config, trained, temperature, check)
    if jax.process_index() == 0:
      measures = metrics.measures(sets['train'], labels)
      pairs = {
        'samples to train': (sets['train'], samples),
        'samples to test': (sets['test'], samples),
        'test to train': (sets['train'], sets['test']),
      }
      if network is not None:
        measures += inception.measures(network)
      results = {name: {} for name in pairs}
      for measure in loaded_run.shown(iter(measures), len(measures), 'measure'):
        check()
        for name, pair in pairs.items():
          results[name] |= metrics.compare(measure, *pair)
      counts = {name: len(pictures) for name, pictures in {**sets, 'samples': samples}.items()}
      _store(trained, config, counts, results)
    return 0

  return loaded_run.interruptible(work)


def _read(
  config: ml_collections.ConfigDict, dataset: data.Dataset, split: str, most: int
) -> tuple[np.ndarray, np.ndarray | None]:
  """The first pictures of a split, as evaluations see them, and their labels if there are any."""
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
  trained: loaded_run.Trained,
  temperature: np.ndarray,
  check: Callable[[], None],
) -> np.ndarray:
  """Samples, uint8 [num, H, W, C]; binarised where the data is."""
  options, size = config.quality, config.evals.batch_size
  model, state = loaded_run.prepared(trained, options, temperature)
  draw, found = jax.jit(model.sample, static_argnums=3), []
  total = -(-options.num // size)
  for number in loaded_run.shown(iter(range(total)), total):
    check()
    key = jax.random.fold_in(jax.random.key(options.seed), 2 + number)
    found.append(sharding.to_host(draw(trained.params, state, key, size, temperature)))
  pictures = np.concatenate(found)[: options.num]
  if 'binarize' in config.data.eval_transforms:
    binarize, _ = data.TRANSFORMS['binarize']
    pictures = binarize({'image': pictures}, np.random.default_rng(options.seed))['image']
  return pictures


def _store(
  trained: loaded_run.Trained,
  config: ml_collections.ConfigDict,
  counts: dict[str, int],
  results: dict[str, dict[str, float]],
) -> None:
  path = trained.run.workdir / 'quality' / f'{trained.stem}.json'
  about = {
    'origin': trained.origin(),
    'data': config.data.name,
    'pictures': counts,
    'temperature': list(config.quality.temperature),
    'seed': config.quality.seed,
    'results': results,
  }
  files.save_json(path, about, strict=False)
  print('pictures: ' + ', '.join(f'{count:,} {name}' for name, count in counts.items()))
  names = list(results['samples to train'])
  widest = max(map(len, names))
  print(' ' * widest + ''.join(f'{pair:>18}' for pair in results))
  for name in names:
    numbers = ''.join(f'{found[name]:>18.5g}' for found in results.values())
    print(f'{name:{widest}}{numbers}')
  print(f'stored in {path}')
