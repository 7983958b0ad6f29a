"""Benchmark of the Clockwork VAE: its parts forward and backward, the whole step, and its loops.

The recurrence is timed beside a plain one that computes everything tick by tick (`cwvae_ticks`),
which must give the same gradients. If the TPU compiler is installed, both are also compiled for a
described v5e, and their loops are counted.
"""

from collections.abc import Callable, Iterator, Sequence
import functools
import importlib.util
import os
import time
from typing import Any

import jax
from jax.experimental import topologies
import jax.numpy as jnp
import ml_collections
import numpy as np

from hvae_tpu import models
from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.models.cwvae import CWVAE
from hvae_tpu.models.cwvae.cells import LevelOutputs
from hvae_tpu.models.cwvae.network import Net
from hvae_tpu.planning.benchmarks import cwvae_ticks, loops, timing
from hvae_tpu.training import optimizers
from hvae_tpu.training.state import create_state
from hvae_tpu.training.step import make_train_step

RNG = jax.random.key(0)


PARTS = ('encoder', 'decoder', 'recurrence', 'step')


def run(config: ml_collections.ConfigDict, rounds: int, parts: Sequence[str]) -> Iterator[str]:
  """Times the parts at `config.train.batch_size` sequences of `config.data.seq_len` frames.

  Raises:
    UserError: the config is of another system or has no length, or a part is unknown.
  """
  if config.model.name != 'cwvae':
    raise UserError(f'this benchmark is of cwvae; --config has {config.model.name}')
  if not config.data.seq_len:
    raise UserError('config.data.seq_len=0 is no length; give the number of frames')
  if unknown := set(parts) - set(PARTS):
    raise UserError(f'--parts has {", ".join(sorted(unknown))}; known are {", ".join(PARTS)}')
  device = jax.devices()[0]
  model = models.create(config.model.to_dict(), device.platform)
  size, length = config.train.batch_size, config.data.seq_len
  yield f'{config.name} on {device.device_kind}: {size} x {length} frames'

  functions = _functions(config, model, device)
  selected = parts or PARTS
  functions = {name: f for name, f in functions.items() if name.split(',')[0] in selected}
  programs = {}
  for name, (function, *arguments) in functions.items():
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    yield f'compiled {name} in {time.perf_counter() - start:.1f} s'
    programs[name] = functools.partial(compiled, *arguments)
  times = timing.in_turn(programs, rounds)
  yield f'{"forward and backward":24}{"median":>9}{"least":>9}{"CPU":>9}  seconds'
  for name, t in times.items():
    yield f'{name:24}{t.wall:9.3f}{t.least:9.3f}{t.cpu:9.3f}'
  if 'recurrence' in programs:
    ours, plain = ('recurrence', 'recurrence, by ticks')
    yield f'the recurrence is {times[plain].wall / times[ours].wall:.2f} times as fast as by ticks'
    yield _difference(programs[ours](), programs[plain]())
    yield from _counts({name: functions[name] for name in (plain, ours)}, device)


def _functions(
  config: ml_collections.ConfigDict, model: CWVAE, device: Any
) -> dict[str, tuple[Any, ...]]:
  """Returns name -> (function that computes the gradient of a part, its arguments)."""
  size, length = config.train.batch_size, config.data.seq_len
  frame = (model.image_size, model.image_size, model.image_channels)
  video = np.random.default_rng(0).integers(0, 256, (size, length, *frame), np.uint8)
  mesh = sharding.make_mesh(1, 1, [device])
  batch = sharding.put({'video': video}, mesh)
  tx, learning_rate = optimizers.create(config.optimizer, config.train.num_steps)
  state = create_state(model, tx, batch, mesh, False, 0)
  net, params = Net(model), state.params
  apply = lambda params, method, *inputs: net.apply({'params': params}, *inputs, method=method)
  of = lambda *parts: {name: tree for name, tree in params.items() if name.startswith(parts)}
  normal = lambda shape: jax.random.normal(RNG, shape)
  shapes = jax.eval_shape(lambda v: apply(params, 'features', model.scale(v)), batch['video'])
  features = [normal(each.shape) for each in shapes]
  start = apply(params, 'initial_state', size)
  ours = lambda params, features: apply(params, 'unroll', features, length, start, RNG)[0]
  plain = lambda params, features: cwvae_ticks.unroll(model, params, features, start.states, RNG)

  def encoder(params, video):
    return sum(jnp.square(x).mean() for x in apply(params, 'features', model.scale(video)))

  def decoder(params, output):
    return jnp.square(apply(params, 'decode', output)).mean()

  output = normal((size, length, model.cell_stoch_size + model.cell_deter_size))
  return {
    'encoder': (jax.grad(encoder), of('encoder', 'embed'), batch['video']),
    'decoder': (jax.grad(decoder, argnums=(0, 1)), of('decoder'), output),
    'recurrence, by ticks': (_gradient(plain), of('cells'), features),
    'recurrence': (_gradient(ours), of('cells'), features),
    'step': (make_train_step(model, tx, learning_rate, seed=0), state, batch),
  }


def _gradient(unroll: Callable[..., list[LevelOutputs]]) -> Callable[..., Any]:
  def objective(params, features):
    kl = lambda ticks: ticks.posterior.kl(ticks.prior).mean()
    return sum(kl(ticks) + jnp.square(ticks.output).mean() for ticks in unroll(params, features))

  return jax.grad(objective, argnums=(0, 1))


def _difference(ours: Any, plain: Any) -> str:
  """Compares gradients by norms: rounding alone may flip single units at the kink of a ReLU."""
  norm = jnp.linalg.norm
  pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True)
  apart = [norm((x - y).ravel()) / norm(y.ravel()) for x, y in pairs if x.any() or y.any()]
  return f'their gradients differ by {np.max(apart):.1e} of the norm of an array'


def _counts(functions: dict[str, tuple[Any, ...]], device: Any) -> Iterator[str]:
  """Yields lines with the loops of the programs, compiled for a v5e if its compiler is there."""
  described = _described_tpu()
  if described is None:
    yield "no TPU compiler here (pip install -e '.[tpu]'): loops as compiled for this machine"
  columns = ('ticks', 'products', 'in a row', 'operations', 'cycles')
  yield f'{"loops":24}' + ''.join(f'{name:>12}' for name in columns)
  totals = {}
  for name, (function, *arguments) in functions.items():
    compiled_loops = loops.loops(loops.compiled_for(described or device, function, *arguments))
    for loop in compiled_loops:
      yield f'{name:24}' + ''.join(f'{value:12,}' for value in loop)
    totals[name] = [sum(loop.trips * loop[i] for loop in compiled_loops) for i in range(1, 5)]
  for name, total in totals.items():
    yield f'{name:24}{"all ticks":>12}' + ''.join(f'{value:12,}' for value in total)


def _described_tpu() -> Any | None:
  """Returns a described chip of a v5e, or None without the TPU compiler."""
  if importlib.util.find_spec('libtpu') is None:
    return None
  os.environ.update(
    TPU_SKIP_MDS_QUERY='1', TPU_WORKER_HOSTNAMES='localhost', ALLOW_MULTIPLE_LIBTPU_LOAD='1'
  )
  return topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2').devices[0]
