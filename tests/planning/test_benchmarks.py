"""Benchmarks run, and their counts of compiled programs are right."""

import re

import jax
import jax.numpy as jnp
import pytest

from configs import demo_mnist, demo_moving_mnist
from hvae_tpu import bench
from hvae_tpu.errors import UserError
from hvae_tpu.planning.benchmarks import cwvae, loops, timing


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


@pytest.mark.slow
def test_cwvae():
  config = demo_moving_mnist.get_config('cwvae,debug')
  config.train.batch_size = 2
  lines = list(cwvae.run(config, 1, ()))
  for name in ('encoder', 'decoder', 'recurrence, by ticks', 'recurrence', 'step'):
    assert any(re.fullmatch(name + r'( +\d+\.\d+){3}', line) for line in lines), name
  (apart,) = (line.split()[4] for line in lines if line.startswith('their gradients differ by'))
  assert float(apart) < 1e-4
  totals = [line.rpartition('all ticks')[2].split()[:2] for line in lines[-2:]]
  (before, row_before), (after, row_after) = ([int(n.replace(',', '')) for n in t] for t in totals)
  assert 0 < row_after <= row_before < before and row_after < after < before


@pytest.mark.slow
def test_part_of_cwvae():
  config = demo_moving_mnist.get_config('cwvae,debug')
  config.train.batch_size = 2
  lines = list(cwvae.run(config, 1, ['decoder']))
  assert lines[-1].startswith('decoder ') and not any('recurrence' in line for line in lines)


@pytest.mark.parametrize(
  ('config', 'parts', 'message'),
  [
    (demo_mnist.get_config('vdvae,debug'), (), 'of cwvae; --config has vdvae'),
    (demo_moving_mnist.get_config('cwvae,debug'), ['decode'], 'has decode; known are encoder'),
  ],
)
def test_refused(config, parts, message):
  with pytest.raises(UserError, match=message):
    next(cwvae.run(config, 1, parts))


def test_the_command_wants_a_name(capsys):
  for arguments in ([], ['--rounds=2'], ['nvae']):
    assert bench.main(['bench', *arguments]) == 2
    assert 'must be a benchmark: cwvae' in capsys.readouterr().err
