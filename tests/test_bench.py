"""The benchmarks run, and what they count in compiled programs is what the programs do."""

import re

import jax
import jax.numpy as jnp
import pytest

from configs import demo_mnist, demo_moving_mnist
from hvae_tpu.bench import cwvae, loops, timing
from hvae_tpu.errors import UserError


def test_loops_are_counted():
  def program(x, first, second):
    def body(x, _):
      left, right = jnp.tanh(x @ first), jnp.tanh(x @ second)  # neither waits for the other
      return (left + right) @ first, None

    return jax.lax.scan(body, x @ first, None, length=7)[0]

  arguments = jnp.ones((32, 64)), jnp.ones((64, 64)), jnp.ones((64, 64))
  (loop,) = loops.loops(loops.compiled_for(jax.devices()[0], program, *arguments))
  assert (loop.trips, loop.products, loop.chain) == (7, 3, 2)
  assert loop.operations >= 3


def test_programs_take_turns():
  calls = []
  times = timing.in_turn({name: lambda name=name: calls.append(name) for name in 'ab'}, 2)
  assert calls == ['a', 'b'] * 3
  assert all(t.least <= t.wall for t in times.values())


def test_cwvae():
  config = demo_moving_mnist.get_config('cwvae,debug')
  config.train.batch_size = 2
  lines = cwvae.run(config, 1)
  for name in ('encoder', 'decoder', 'recurrence', 'tick by tick', 'whole step'):
    assert any(re.fullmatch(name + r'( +\d+\.\d+){3}', line) for line in lines), name
  (apart,) = (line.split()[6] for line in lines if line.startswith('gradients of'))
  assert float(apart) < 1e-4
  counts = re.findall(r'([\d,]+) (?:tick|ours)', ' '.join(lines[-2:]))
  before, after, row_before, row_after = (int(count.replace(',', '')) for count in counts)
  assert 0 < row_after <= row_before < before and row_after < after < before


def test_other_systems_are_refused():
  with pytest.raises(UserError, match='of cwvae; --config has vdvae'):
    cwvae.run(demo_mnist.get_config('vdvae,debug'), 1)
