"""Traces of some steps."""

import jax
import jax.numpy as jnp

from hvae_tpu.training.profiling import Profiled


def test_the_asked_steps_are_traced(tmp_path):
  traced = []
  step = Profiled(jax.jit(lambda x: x + 1), tmp_path, first=2, count=2)
  x = jnp.zeros(3)
  for _ in range(4):
    x = step(x)
    traced.append(len(list(tmp_path.rglob('*.xplane.pb'))))
  assert traced == [0, 0, 1, 1]
  assert x.tolist() == [4, 4, 4]
