"""Work directories of tiny models that need no training, for tests of the modes."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs import demo_mnist
from hvae_tpu import data, models
from hvae_tpu.devices import sharding
from hvae_tpu.runs.checkpoints import Checkpoints
from hvae_tpu.runs.workdir import store_config, to_json
from hvae_tpu.training import optimizers
from hvae_tpu.training.state import create_state

FIELDS = {
  'vdvae': dict(enc_blocks='32d32,1x1', dec_blocks='1x2,32m1', width=4),
  'efficient_vdvae': dict(
    input_conv_filters=4,
    up_n_blocks_per_res=(0,),
    up_filters=(4,),
    down_strides=(1, 32),
    down_n_blocks_per_res=(0, 1),
    down_filters=(4,),
  ),
}


def config_of(system: str) -> Any:
  """Returns a tiny model of binary digits with three groups of two variates; batches of 128."""
  config = demo_mnist.get_config(f'{system},debug')
  config.model.update(FIELDS[system])
  config.evals.batch_size = 128
  return config


def save(workdir: Path, config: Any, step: int = 1, seed: int = 0) -> None:
  """Adds a checkpoint to a run: weights by `seed`, where every group carries information."""
  mesh = sharding.make_mesh(-1, 1)
  model = models.create(config.model.to_dict(), sharding.platform(mesh), differentiated=False)
  tx, _ = optimizers.create(config.optimizer, config.train.num_steps)
  card = data.open_dataset(config.data.name).card
  spec = data.train_spec(card, config.data, 8)
  batch = {name: np.zeros(s.shape, s.dtype) for name, s in spec.items()}
  state = create_state(model, tx, batch, mesh, True, seed)
  rng = np.random.default_rng(seed)
  noisy = jax.tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape, np.float32), state.params)
  placed = jax.device_put(noisy, jax.tree.map(lambda p: p.sharding, state.params))
  state = state.replace(step=state.step + step, params=placed, ema_params=placed)
  checkpoints = Checkpoints(workdir, keep_latest=2)
  checkpoints.save(step, state, {'config': to_json(config), 'card': card, 'metrics': {}})
  checkpoints.wait()
  checkpoints.close()
  store_config(workdir, config)
