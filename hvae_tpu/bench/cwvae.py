"""Clockwork VAE: its parts forward and backward, the whole step, and what its loops do.

The recurrence is timed beside one that does everything tick by tick (`cwvae_ticks`), which must
give the same gradients. Where the TPU compiler is installed, both are also compiled for a v5e, of
which no more than a description is needed, and their loops are counted.
"""

from collections.abc import Callable
import functools
import importlib.util
import os
import time
from typing import Any

import jax
from jax import Array
from jax.experimental import topologies
import jax.numpy as jnp
import ml_collections
import numpy as np

from hvae_tpu import models, optimizers, sharding
from hvae_tpu import state as state_lib
from hvae_tpu import train as train_lib
from hvae_tpu.bench import cwvae_ticks, loops, timing
from hvae_tpu.errors import UserError
from hvae_tpu.models.cwvae import CWVAE
from hvae_tpu.models.cwvae.cells import Ticks
from hvae_tpu.models.cwvae.network import Net

CONFIG = 'configs/minerl.py'
RNG = jax.random.key(0)


def run(config: ml_collections.ConfigDict, rounds: int) -> list[str]:
  """Times at `config.train.batch_size` sequences of `config.data.seq_len` frames, as lines.

  Raises:
    UserError: another system's config, or no length.
  """
  if config.model.name != 'cwvae':
    raise UserError(f'this benchmark is of cwvae; --config has {config.model.name}')
  if not config.data.seq_len:
    raise UserError('config.data.seq_len=0 is no length; give the number of frames')
  device = jax.devices()[0]
  model = models.create(config.model.to_dict(), device.platform)
  size, length = config.train.batch_size, config.data.seq_len
  frame = (model.image_size, model.image_size, model.image_channels)
  video = np.random.default_rng(0).integers(0, 256, (size, length, *frame), np.uint8)
  mesh = sharding.make_mesh(1, 1, [device])
  batch = sharding.put({'video': video}, mesh)
  tx, learning_rate = optimizers.create(config.optimizer, config.train.num_steps)
  state = state_lib.create_state(model, tx, batch, mesh, False, 0)
  step = jax.jit(train_lib.make_train_step(model, tx, learning_rate, seed=0))

  pieces = _pieces(model, state.params, batch)
  programs, lines = {}, [f'{config.name} on {device.device_kind}: {size} x {length} frames']
  for name, (function, *arguments) in {**pieces, 'whole step': (step, state, batch)}.items():
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    lines.append(f'compiled {name} in {time.perf_counter() - start:.1f} s')
    programs[name] = functools.partial(compiled, *arguments)
  lines += _difference(programs['recurrence'](), programs['tick by tick']())
  times = timing.in_turn(programs, rounds)
  lines += ['', f'{"forward and backward":24}{"median":>9}{"least":>9}{"CPU":>9}  seconds']
  lines += [f'{name:24}{t.wall:9.3f}{t.least:9.3f}{t.cpu:9.3f}' for name, t in times.items()]
  ratio = times['tick by tick'].wall / times['recurrence'].wall
  lines += [f'the recurrence is {ratio:.2f} times as fast as tick by tick', '']
  return lines + _counts(model, pieces, device)


def _pieces(model: CWVAE, params: Any, batch: dict[str, Array]) -> dict[str, tuple[Any, ...]]:
  """By name, a function that takes the gradient of a part, and its arguments."""
  size, length = batch['video'].shape[:2]
  net = Net(model)
  apply = lambda params, method, *inputs: net.apply({'params': params}, *inputs, method=method)
  of = lambda *parts: {name: tree for name, tree in params.items() if name.startswith(parts)}
  features = jax.jit(lambda: apply(params, 'features', model.scale(batch['video'])))()
  output = jnp.zeros((size, length, model.cell_stoch_size + model.cell_deter_size))
  output += jax.random.normal(RNG, output.shape)
  start = apply(params, 'start', size)
  ours = lambda params, features: apply(params, 'unroll', features, length, start, RNG)[0]
  plain = lambda params, features: cwvae_ticks.unroll(model, params, features, start.states, RNG)

  def encoder(params, video):
    return sum(jnp.square(x).mean() for x in apply(params, 'features', model.scale(video)))

  def decoder(params, output):
    return jnp.square(apply(params, 'decode', output)).mean()

  return {
    'encoder': (jax.grad(encoder), of('encoder', 'embed'), batch['video']),
    'decoder': (jax.grad(decoder, argnums=(0, 1)), of('decoder'), output),
    'recurrence': (_gradient(ours), of('cells'), features),
    'tick by tick': (_gradient(plain), of('cells'), features),
  }


def _gradient(unroll: Callable[..., list[Ticks]]) -> Callable[..., Any]:
  def objective(params, features):
    kl = lambda ticks: ticks.posterior.kl(ticks.prior).mean()
    return sum(kl(ticks) + jnp.square(ticks.output).mean() for ticks in unroll(params, features))

  return jax.grad(objective, argnums=(0, 1))


def _difference(ours: Any, plain: Any) -> list[str]:
  apart = [
    float(jnp.abs(x - y).max() / jnp.abs(y).max())
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True)
  ]
  return [f'gradients of the recurrences differ by {max(apart):.1e} of the largest entry']


def _counts(model: CWVAE, pieces: dict[str, tuple[Any, ...]], device: Any) -> list[str]:
  """What the loops of the two recurrences do, in programs for a v5e where its compiler is there."""
  lines, described = [], _described_tpu()
  if described is None:
    lines += ["no TPU compiler here (pip install -e '.[tpu]'): loops are counted for this machine"]
  columns = ('ticks', 'products', 'in a row', 'operations', 'cycles')
  lines += [f'{"loops":24}' + ''.join(f'{name:>12}' for name in columns)]
  totals = {}
  for name in ('tick by tick', 'recurrence'):
    function, *arguments = pieces[name]
    found = loops.loops(loops.compiled_for(described or device, function, *arguments))
    for loop in found:
      lines += [f'{name:24}' + ''.join(f'{value:12,}' for value in loop)]
    totals[name] = [sum(loop.trips * loop[i] for loop in found) for i in (1, 2)]
  (before, row_before), (after, row_after) = totals.values()
  lines += [f'products in loops, over all ticks: {before:,} tick by tick, {after:,} ours']
  return [*lines, f'of which in a row: {row_before:,} tick by tick, {row_after:,} ours']


def _described_tpu() -> Any | None:
  """A chip of a v5e for the compiler, or None without it."""
  if importlib.util.find_spec('libtpu') is None:
    return None
  os.environ.update(
    TPU_SKIP_MDS_QUERY='1', TPU_WORKER_HOSTNAMES='localhost', ALLOW_MULTIPLE_LIBTPU_LOAD='1'
  )
  return topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2').devices[0]
