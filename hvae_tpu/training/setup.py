"""From a config to what a run needs: model, optimizer, update and batches."""

from collections.abc import Callable, Generator, Iterator
import contextlib
import itertools
from typing import Any

import jax
from jax.sharding import Mesh
import ml_collections
import numpy as np

from hvae_tpu import data, models
from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.training import optimizers
from hvae_tpu.training.step import Step, make_train_step


def platform(mesh: Mesh) -> str:
  return mesh.devices.flat[0].platform


def train_step(config: ml_collections.ConfigDict, mesh: Mesh) -> tuple[Any, Any, Step]:
  """The model, its optimizer (an optax chain, less the learning rate) and the update of a config.

  Raises:
    UserError: settings that contradict each other.
  """
  model = models.create(config.model.to_dict(), platform(mesh))
  tx, learning_rate = optimizers.create(config.optimizer, config.train.num_steps)
  step = make_train_step(
    model,
    tx,
    learning_rate,
    seed=config.seed,
    **{k: config.train[k] for k in ('clock', 'ema_decay', 'skip_threshold', 'skip_advances_step')},
  )
  return model, tx, step


def open_data(config: ml_collections.ConfigDict) -> data.Dataset:
  """The data set of a config.

  Raises:
    UserError: it is missing or damaged, or a look-alike of the one that the config is made for.
  """
  dataset = data.open_dataset(config.data.name, config.data.root)
  data.check_required(dataset, config.data.train_split, **config.data.require)
  return dataset


def train_spec(
  card: dict[str, Any], section: ml_collections.ConfigDict, batch_size: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and dtypes of a training batch; `section` is `config.data`."""
  return data.batch_spec(
    card,
    section.fields,
    batch_size,
    seq_len=section.seq_len,
    transforms=section.train_transforms,
  )


def check_transforms(card: dict[str, Any], section: ml_collections.ConfigDict) -> None:
  """Raises UserError if evaluations would see pictures of another size than training.

  `section` is `config.data`; videos may be longer or shorter.
  """
  train = train_spec(card, section, 1)
  evaluated = data.batch_spec(
    card, section.fields, 1, seq_len=section.eval_seq_len, transforms=section.eval_transforms
  )
  for name, spec in train.items():
    start = 2 if name == 'video' else 1
    if spec.shape[start:] != evaluated[name].shape[start:]:
      raise UserError(
        f'config.data.train_transforms makes {name} {list(spec.shape[start:])}, but '
        f'config.data.eval_transforms {list(evaluated[name].shape[start:])}; give both the same '
        "size, for example with 'crop:N' and 'centre_crop:N'"
      )


def train_batches(
  dataset: data.Dataset, config: ml_collections.ConfigDict, mesh: Mesh, start: int
) -> Generator[dict[str, jax.Array], None, None]:
  """The training batches from step `start` on, as global arrays; to be closed."""
  source = data.train_batches(
    dataset,
    config.data.train_split,
    batch_size=config.train.batch_size,
    seed=config.seed,
    start_step=start,
    fields=config.data.fields,
    seq_len=config.data.seq_len,
    transforms=config.data.train_transforms,
    num_workers=config.data.num_workers,
    cache_bytes=config.data.cache_mb * 2**20,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  return put_batches(source, config.data.fields, mesh)


def num_examples(
  dataset: data.Dataset, config: ml_collections.ConfigDict, view: str, seq_len: int = 0
) -> int:
  """Of a view; of videos, pieces of `seq_len` frames, of `config.data.eval_seq_len` for 0."""
  return data.num_examples(dataset, view, seq_len or config.data.eval_seq_len)


def eval_batches(
  dataset: data.Dataset,
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  role: str,
  check: Callable[[], None] = lambda: None,
) -> Callable[..., Iterator[dict[str, jax.Array]]]:
  """Returns `batches(role, seq_len, batch_size, interleave_videos)`, which `evals` describes.

  `role` is the default one; sizes that are 0 are those of the config. `batches` raises UserError
  for sizes that do not fit when it is called, not when it is read.

  `check` is called before every batch, and may raise to end an evaluation.

  Raises:
    UserError: an unknown role or view, or a batch that does not divide by the devices.
  """
  sharding.check_batch_size(config.evals.batch_size, mesh, 'evals.batch_size')
  dataset.size(view_of(config, role))

  def batches(
    other: str | None = None, seq_len: int = 0, batch_size: int = 0, interleave_videos: bool = False
  ) -> Iterator[dict[str, jax.Array]]:
    if batch_size:
      sharding.check_batch_size(batch_size, mesh, 'evals.open_loop.batch_size')
    source = data.eval_batches(
      dataset,
      view_of(config, other or role),
      batch_size=batch_size or config.evals.batch_size,
      seed=config.seed,
      fields=config.data.fields,
      seq_len=seq_len or config.data.eval_seq_len,
      transforms=config.data.eval_transforms,
      interleave_videos=interleave_videos,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    return _checked(put_batches(source, (*config.data.fields, 'mask'), mesh), check)

  return batches


def _checked(batches: Iterator[dict], check: Callable[[], None]) -> Iterator[dict]:
  for batch in batches:
    check()
    yield batch


def chosen_batches(
  dataset: data.Dataset,
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  view: str,
  seed: int,
  count: int,
  check: Callable[[], None],
) -> Iterator[dict[str, jax.Array]]:
  """`count` full evaluation batches of different examples of a view, chosen by `seed`.

  `check` is called before every batch, and may raise.

  Raises:
    UserError: a batch that does not divide by the devices.
  """
  sharding.check_batch_size(config.evals.batch_size, mesh, 'evals.batch_size')
  source = data.train_batches(
    dataset,
    view,
    batch_size=config.evals.batch_size,
    seed=seed,
    fields=config.data.fields,
    seq_len=config.data.eval_seq_len,
    transforms=config.data.eval_transforms,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  everything = np.ones(config.evals.batch_size // jax.process_count(), bool)
  with contextlib.closing(put_batches(source, config.data.fields, mesh)) as batches:
    for batch in itertools.islice(batches, count):
      check()
      yield {**batch, **sharding.put({'mask': everything}, mesh)}


def view_of(config: ml_collections.ConfigDict, role: str) -> str:
  """The view that plays the role 'train', 'valid' or 'test'; any other string is a view itself."""
  return config.data.get(f'{role}_split', role)


def put_batches(
  source: Generator[dict[str, np.ndarray], None, None], fields: tuple[str, ...], mesh: Mesh
) -> Generator[dict[str, jax.Array], None, None]:
  """The named fields of every batch, on the devices. Closes the source when it is closed."""
  try:
    for batch in source:
      yield sharding.put({name: batch[name] for name in fields}, mesh)
  finally:
    source.close()
