"""Builds what a run needs from its config: model, optimizer, train step and batches."""

from collections.abc import Callable, Generator, Iterator
import contextlib
import itertools
from pathlib import Path
import time
from typing import Any

import jax
from jax.sharding import Mesh
import ml_collections
import numpy as np

from hvae_tpu import data, models
from hvae_tpu.devices import distributed, sharding
from hvae_tpu.devices.distributed import print_once
from hvae_tpu.errors import UserError
from hvae_tpu.training import optimizers
from hvae_tpu.training.profiling import Profiled
from hvae_tpu.training.state import TrainState
from hvae_tpu.training.step import Step, make_train_step, trace_step


def train_step(config: ml_collections.ConfigDict, mesh: Mesh) -> tuple[Any, Any, Step]:
  """Builds the model, its optimizer (an optax chain before the learning rate) and the train step.

  Raises:
    UserError: settings that contradict each other.
  """
  model = models.create(config.model.to_dict(), sharding.platform(mesh))
  tx, learning_rate = optimizers.create(config.optimizer, config.train.num_steps)
  step = make_train_step(
    model,
    tx,
    learning_rate,
    seed=config.seed,
    **{k: config.train[k] for k in ('clock', 'ema_decay', 'skip_threshold', 'skip_advances_step')},
  )
  return model, tx, step


def compile_step(
  train_step: Step,
  state: TrainState,
  batch: Any,
  train: Any,
  logs: Path,
) -> Step:
  """Compiles the train step for a state and a batch.

  Args:
    train: `config.train`.
    logs: folder of the trace, if one is due.

  Raises:
    UserError: a progress metric that the model does not have.
  """
  print_once('compiling the train step ...')
  began = time.perf_counter()
  lowered = trace_step(train_step, state, batch).lower()
  metrics = lowered.out_info[1]
  if unknown := sorted(set(train.progress_metrics) - set(metrics)):
    raise UserError(
      f'config.train.progress_metrics names {", ".join(unknown)}, but this '
      f'model has the metrics {", ".join(sorted(metrics))}'
    )
  compiled = lowered.compile()
  distributed.meet('compiled')
  print_once(f'compiled in {time.perf_counter() - began:.1f} s')
  if train.profile_at and jax.process_index() == 0:
    return Profiled(compiled, logs, train.profile_at, train.profile_steps)
  return compiled


def open_data(config: ml_collections.ConfigDict) -> data.Dataset:
  """Opens the data set of a config.

  Raises:
    UserError: it is missing or damaged, or a different version than the config was made for.
  """
  dataset = data.open_dataset(config.data.name, config.data.root)
  data.check_required(dataset, config.data.train_split, **config.data.require)
  return dataset


def view_name(config: ml_collections.ConfigDict, split: str) -> str:
  """Returns the view that 'train', 'valid' or 'test' stands for; other names are views already."""
  return config.data.get(f'{split}_split', split)


def num_examples(
  dataset: data.Dataset, config: ml_collections.ConfigDict, view: str, seq_len: int = 0
) -> int:
  """Number of examples in a view.

  For video, the number of clips of `seq_len` frames; 0 stands for `config.data.eval_seq_len`.
  """
  return data.num_examples(dataset, view, seq_len or config.data.eval_seq_len)


def train_batches(
  dataset: data.Dataset, config: ml_collections.ConfigDict, mesh: Mesh, start: int
) -> Generator[dict[str, jax.Array], None, None]:
  """Yields the training batches from step `start` on, as global arrays. Close the generator."""
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
  return _put(source, config.data.fields, mesh)


def eval_batches(
  dataset: data.Dataset,
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  split: str,
  raise_if_interrupted: Callable[[], None] = lambda: None,
) -> Callable[..., Iterator[dict[str, jax.Array]]]:
  """Makes the function with which evaluations read data; `evals` describes its arguments.

  Args:
    dataset: the opened data set.
    config: config of the run.
    mesh: for the batches.
    split: 'train', 'valid', 'test' or the name of a view; evaluations may choose another one.
    raise_if_interrupted: called before every batch; may raise to end an evaluation.

  Returns:
    `batches(split, seq_len, batch_size, interleave_videos)`. Sizes of 0 are those of the config.
    It raises UserError for sizes that do not fit when it is called, not when it is read.

  Raises:
    UserError: an unknown split or view, or a batch that does not divide by the devices.
  """
  sharding.check_batch_size(config.evals.batch_size, mesh, 'evals.batch_size')
  dataset.size(view_name(config, split))
  default_split = split

  def batches(
    split: str | None = None,
    seq_len: int = 0,
    batch_size: int = 0,
    interleave_videos: bool = False,
  ) -> Iterator[dict[str, jax.Array]]:
    if batch_size:
      sharding.check_batch_size(batch_size, mesh, 'evals.open_loop.batch_size')
    source = data.eval_batches(
      dataset,
      view_name(config, split or default_split),
      batch_size=batch_size or config.evals.batch_size,
      seed=config.seed,
      fields=config.data.fields,
      seq_len=seq_len or config.data.eval_seq_len,
      transforms=config.data.eval_transforms,
      interleave_videos=interleave_videos,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    placed = _put(source, (*config.data.fields, 'mask'), mesh)
    return _interruptible(placed, raise_if_interrupted)

  return batches


def random_batches(
  dataset: data.Dataset,
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  view: str,
  seed: int,
  count: int,
  raise_if_interrupted: Callable[[], None],
) -> Iterator[dict[str, jax.Array]]:
  """Yields `count` full evaluation batches of different examples, which `seed` chooses.

  Args:
    dataset, config, mesh, raise_if_interrupted: see `eval_batches`.
    view: the examples to choose from.
    seed: seed of the choice.
    count: number of batches.

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
  mask = np.ones(config.evals.batch_size // jax.process_count(), bool)
  with contextlib.closing(_put(source, config.data.fields, mesh)) as batches:
    for batch in itertools.islice(batches, count):
      raise_if_interrupted()
      yield {**batch, **sharding.put({'mask': mask}, mesh)}


def _put(
  source: Generator[dict[str, np.ndarray], None, None], fields: tuple[str, ...], mesh: Mesh
) -> Generator[dict[str, jax.Array], None, None]:
  """Yields the named fields of every batch, on the devices. Closing it closes the source."""
  try:
    for batch in source:
      yield sharding.put({name: batch[name] for name in fields}, mesh)
  finally:
    source.close()


def _interruptible(
  batches: Iterator[dict[str, jax.Array]], raise_if_interrupted: Callable[[], None]
) -> Iterator[dict[str, jax.Array]]:
  """Passes batches on, and calls `raise_if_interrupted` before each."""
  for batch in batches:
    raise_if_interrupted()
    yield batch
