"""Weights in foreign files, and the configs that fit them, for tests of imports."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs import cifar10, demo_mnist, ffhq256
from hvae_tpu import data, models
from hvae_tpu.importers import exchange, vdvae
from hvae_tpu.runs import workdir
from hvae_tpu.runs.checkpoints import path_name
from tests.golden_checks.vdvae import networks
from tests.support import golden_files, torch_archives

PORT = {'likelihood': 'dmol_exact', 'gelu_approximate': True}


def released() -> Any:
  """Returns a fresh, tiny config of the kind that the release has."""
  return cifar10.get_config('vdvae,debug')


def random_tensors(config: Any) -> dict[str, np.ndarray]:
  """Weights by the names of the release, in its layouts."""
  model = models.create(config.model.to_dict(), 'cpu', differentiated=False)
  rng = np.random.default_rng(0)
  return {
    e.key: rng.standard_normal(e.shape, np.float32) * np.float32(0.05)
    for e in vdvae.OPENAI.entries(model)
  }


def write(path: Path, tensors: dict[str, np.ndarray]) -> Path:
  return torch_archives.write(path, torch_archives.state_dict(tensors))


def golden_config(name: str) -> tuple[Any, golden_files.Golden]:
  golden = golden_files.read(golden_files.COMMITTED / 'vdvae' / name)
  config = ffhq256.get_config('vdvae,debug')
  config.model.update(networks.model_fields(golden.config))
  return config, golden


def export_demo(path: Path) -> Path:
  """Exports a demo_mnist model with fresh weights as our own file; needs that data set."""
  config = demo_mnist.get_config('vdvae,debug')
  model = models.create(config.model.to_dict(), 'cpu', differentiated=False)
  card = data.open_dataset('demo_mnist').card
  batch = data.batch_spec(card, ('image',), 1)
  image = np.zeros(batch['image'].shape, np.uint8)
  params, _ = jax.jit(model.init)(jax.random.key(0), {'image': image})
  leaves = jax.tree_util.tree_leaves_with_path(params)
  flat = {path_name(path): np.asarray(leaf) for path, leaf in leaves}
  meta = dict(step=3, config=workdir.to_json(config), card=card, metrics={'elbo/bpd': 1.5})
  exchange.write(path, {'params': flat, 'ema_params': flat}, meta | {'import': None})
  return path
