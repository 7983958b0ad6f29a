"""The programs that a TPU will run, compiled here for described chips; needs libtpu, not a TPU."""

import importlib.util
import math
import os

import jax
from jax.experimental import topologies
import jax.numpy as jnp
import pytest

from configs import demo_natural32
from hvae_tpu import models
from hvae_tpu.devices import sharding
from hvae_tpu.planning import analysis
from hvae_tpu.planning.chips import describe
from hvae_tpu.planning.programs import train_program
from hvae_tpu.training import optimizers
from hvae_tpu.training.state import abstract_state
from hvae_tpu.training.step import make_train_step, trace_step

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None,
    reason="the TPU compiler is not installed: pip install -e '.[tpu]'",
  ),
]


@pytest.fixture(scope='module')
def chips():
  """Four described chips of a v5e; other processes may hold the library at the same time."""
  os.environ.update(
    TPU_SKIP_MDS_QUERY='1', TPU_WORKER_HOSTNAMES='localhost', ALLOW_MULTIPLE_LIBTPU_LOAD='1'
  )
  return topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2').devices


def compiled_step(chips, *, fsdp=1, precision='default', **model_fields):
  """The train step of a small VDVAE, compiled with little effort, and its abstract state."""
  config = demo_natural32.get_config('vdvae,debug')
  config.model.update(enc_blocks='32x2,32d32,1x1', dec_blocks='1x1,32m1,32x2')
  config.model.update(model_fields)
  mesh = sharding.make_mesh(-1, fsdp, list(chips))
  model = models.create(config.model.to_dict(), sharding.platform(mesh))
  tx, learning_rate = optimizers.create(config.optimizer, config.train.num_steps)
  step = make_train_step(model, tx, learning_rate, seed=0, ema_decay=0.999)
  batch = {
    'image': jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.uint8, sharding=sharding.batch_sharding(mesh))
  }
  abstract = abstract_state(model, tx, batch, mesh, ema=True)
  with jax.default_matmul_precision(precision):
    lowered = trace_step(step, abstract, batch).lower()
  return lowered.compile(compiler_options={'xla_optimization_level': 'EFFORT_O1'}), abstract


def test_runs_of_blocks_are_loops(chips):
  # The host is a CPU, where `auto` means no loop: it must be the mesh that decides.
  text = compiled_step(chips)[0].as_text()
  assert ' while(' in text
  assert 'operand_precision={highest,highest}' not in text


def test_precision_reaches_every_convolution(chips):
  text = compiled_step(chips, precision='highest')[0].as_text()
  convolutions = [line for line in text.splitlines() if ' convolution(' in line]
  assert convolutions
  for line in convolutions:
    assert 'operand_precision={highest,highest}' in line, line


def test_fsdp_splits_convolution_weights(chips):
  wide = dict(width=256, enc_blocks='32d8,4x4,4d4,1x1', dec_blocks='1x1,4m1,4x4,32m4')
  whole = compiled_step(chips, **wide)[0].memory_analysis().argument_size_in_bytes
  compiled, abstract = compiled_step(chips, fsdp=4, **wide)
  kernel = abstract.params['decoder']['dec_01_4x5']['prior']['c1']['kernel']
  placed = compiled.input_shardings[0][0].params['decoder']['dec_01_4x5']['prior']['c1']['kernel']
  assert kernel.shape[0] == 5 and placed.shard_shape(kernel.shape)[0] == 5  # not along the stack
  assert math.prod(placed.shard_shape(kernel.shape)) == kernel.size // 4
  # A quarter of 256 channels is padded to 128 in memory, so a quarter of an array can take half.
  assert compiled.memory_analysis().argument_size_in_bytes < 0.5 * whole
  assert 'all-gather' in compiled.as_text()


def test_memory_of_a_small_model_has_not_grown(tmp_path):
  """Compares a recorded figure: if it changes, every plan changes; check it, then record it."""
  config = demo_natural32.get_config('vdvae,debug')
  config.train.batch_size = 8
  traced = train_program(config, describe('v5e:2x2'))
  compiled = analysis.analyse(traced, 'v5e:2x2', cache=tmp_path).compiled
  assert compiled.fits and compiled.peak == pytest.approx(8_692_224, rel=0.05)
