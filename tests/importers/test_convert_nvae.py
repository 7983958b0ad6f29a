"""Importing a checkpoint with running statistics, whose run needs more state than the file has."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import cifar10
from hvae_tpu import models
from hvae_tpu.errors import UserError
from hvae_tpu.importers import conversion, nvae, tables
from hvae_tpu.runs import restore
from tests.golden_checks.nvae import forward, networks
from tests.support import golden_files, torch_archives

CONFIG = cifar10.get_config('nvae,debug')


@pytest.fixture(scope='module')
def arrays() -> dict[str, np.ndarray]:
  """Makes all arrays of a published file for the model."""
  model = models.create(CONFIG.model.to_dict(), 'cpu')
  fields = nvae.NVLABS.tables(model)
  rng = np.random.RandomState(0)
  return {
    e.key: rng.uniform(0.5, 1.5, e.shape).astype(np.float32) for f in fields.values() for e in f
  }


@pytest.mark.slow
def test_weights_and_statistics_become_a_run(arrays, tmp_path):
  counters = {'stem.num_batches_tracked': np.ones(1, np.int64)}
  source = torch_archives.write(
    tmp_path / 'checkpoint.pt', torch_archives.state_dict({**arrays, **counters})
  )
  report = conversion.import_run('nvae', str(source), tmp_path / 'run', CONFIG, step=7)
  assert report['tensors'] == len(arrays) and report['aside'] == {'num_batches_tracked': 1}
  run = restore.open_run(tmp_path / 'run', weights=('raw',))
  fields = nvae.NVLABS.tables(run.model)
  state = run.state.model_state
  back = tables.export_params(fields['params'], jax.device_get(run.state.params))
  back |= tables.export_params(
    fields['model_state'], jax.device_get(tables.part(fields['model_state'], state))
  )
  assert all((back[key] == array).all() for key, array in arrays.items())
  # The singular vectors, which the file lacks, are of length 1.
  for leaf in jax.tree.leaves(state['singular']):
    np.testing.assert_allclose(np.linalg.norm(leaf, axis=-1), 1, rtol=1e-5)


def test_a_file_without_statistics_is_refused(arrays, tmp_path):
  some = {key: value for key, value in arrays.items() if not key.endswith('running_var')}
  source = torch_archives.write(tmp_path / 'half.pt', torch_archives.state_dict(some))
  with pytest.raises(UserError, match='running_var'):
    conversion.import_run('nvae', str(source), tmp_path / 'run', CONFIG)
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'file'),
  [('nvae', 'official_cifar10_nf1_5bit.npz'), ('nvae_seed', 'seed_gaussian.npz')],
)
def test_an_imported_run_gives_the_results_of_its_reference(name, file, tmp_path):
  """Compares passes of evaluation, with the statistics that came with the weights."""
  golden = golden_files.read(golden_files.COMMITTED / 'nvae' / file)
  config = cifar10.get_config('nvae,debug')
  config.model.update(dataclasses.asdict(networks.model_of(networks.config_of(golden), unroll='1')))
  tensors = {k: v for k, v in golden.under('param').items() if v.dtype == np.float32}
  source = torch_archives.write(tmp_path / 'checkpoint.pt', torch_archives.state_dict(tensors))
  conversion.import_run(name, str(source), tmp_path / 'run', config)
  run = restore.open_run(tmp_path / 'run', weights=('raw',))
  passes = [name for name in golden.names_under('output') if name.startswith('eval_eps')]
  assert passes
  for name in passes:
    forward.compare_evaluation(golden, name, run.model, run.state.params, run.state.model_state)
