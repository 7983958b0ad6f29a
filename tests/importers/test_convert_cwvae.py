"""Importing checkpoints of the Clockwork VAE, and evaluating the runs."""

import json

import jax
import numpy as np
import pytest

from configs import demo_moving_mnist
import hvae_tpu
from hvae_tpu import models
from hvae_tpu.errors import UserError
from hvae_tpu.importers import conversion, cwvae, tables
from hvae_tpu.modes import evaluate
from tests.support import clockwork_files, moving_squares

WRITERS = {'cwvae_jax': clockwork_files.write_port, 'cwvae_tf': clockwork_files.write_official}
EXAMPLES = 12  # of the test view


def tiny_config(root):
  config = demo_moving_mnist.get_config('cwvae,debug')
  config.data.root = str(root)
  config.evals.names = ('elbo',)
  return config


@pytest.fixture(scope='module')
def weights():
  return clockwork_files.arrays(models.create(tiny_config('').model.to_dict(), 'cpu'))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Folder of the built data set."""
  folder = tmp_path_factory.mktemp('videos')
  moving_squares.write(folder)
  return folder


@pytest.fixture(params=WRITERS)
def source(request, weights, tmp_path):
  """Name of a format, and a checkpoint in it."""
  return request.param, str(WRITERS[request.param](tmp_path, weights))


@pytest.mark.slow
def test_a_checkpoint_becomes_a_run(source, weights, root, tmp_path, capsys):
  """Also where the data set is not built; evaluations agree with --verify_examples."""
  report = conversion.import_run(*source, tmp_path / 'run', tiny_config(tmp_path / 'nowhere'))
  assert report['tensors'] == len(weights) and report['measured'] is None
  moments = {'0/state': 1 + 2 * len(weights), '1': 1}
  if source[0] == 'cwvae_tf':
    count = 2 * (4 + 4 + 4 + 24 + 1) + 3 * 3  # variables of layers, and of GRUs
    moments = {'Adam': count, 'Adam_1': count, 'beta1_power': 1, 'beta2_power': 1, 'step': 1}
  assert report['aside'] == moments
  model, params, state, config = hvae_tpu.load(tmp_path / 'run')
  assert (state, config.model.name) == ({}, 'cwvae')
  back = tables.export_params(cwvae.JAX.entries(model), jax.device_get(params))
  for key, array in weights.items():
    np.testing.assert_array_equal(back[key], array)

  config = tiny_config(root)
  assert evaluate.run(config, tmp_path / 'run', 'latest') == 0
  stored = tmp_path / 'run' / 'eval' / f'test-{clockwork_files.STEP}-ema.json'
  results = json.loads(stored.read_text())['results']
  capsys.readouterr()
  config.evals.elbo.max_batches = 1  # of evaluations, not of this
  report = conversion.import_run(*source, tmp_path / 'again', config, verify_examples=EXAMPLES)
  measured = report['measured']
  assert measured['examples'] == EXAMPLES and measured['view'] == 'test'
  np.testing.assert_allclose(
    measured['neg_elbo_per_frame'], results['elbo/neg_elbo_per_frame'], rtol=1e-6
  )
  line = f'nats per frame: {measured["neg_elbo_per_frame"]:.4f} on {EXAMPLES} examples of test'
  assert line in capsys.readouterr().out


def test_frames_of_another_data_set_are_refused(source, root, tmp_path):
  config = tiny_config(root)
  config.model.image_channels = 3
  refused = r'has video uint8 \[64, 64, 1\], the weights take uint8 \[64, 64, 3\]; use the --config'
  with pytest.raises(UserError, match=refused):
    conversion.import_run(*source, tmp_path / 'run', config)
  assert not (tmp_path / 'run').exists()
