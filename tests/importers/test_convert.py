"""Importing and exporting weights: proofs, refusals, and the command line."""

import json
import os
from pathlib import Path
import resource
import subprocess
import sys
import time
from typing import Any, NamedTuple

from absl import flags
from absl.testing import flagsaver
from flax import serialization, traverse_util
import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from configs import cifar10
import hvae_tpu
from hvae_tpu import convert, models
from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.evals import pictures
from hvae_tpu.importers import conversion, exchange, export, import_report, tables, vdvae
from hvae_tpu.modes import evaluate, sample
from hvae_tpu.runs import restore
from hvae_tpu.runs.workdir import stored_config
from hvae_tpu.training import init_from, optimizers
from hvae_tpu.training.state import create_state
from tests.golden_checks.vdvae import computed
from tests.support import foreign, golden_files
from tests.support.golden_files import Tolerance, difference

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def weights() -> dict[str, np.ndarray]:
  return foreign.random_tensors(foreign.released())


@pytest.fixture(scope='module', autouse=True)
def data_folder(data_root):
  """Only demo_mnist is built, wherever the tests run."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('HVAE_DATA', str(data_root))
    yield


def opened(workdir: Path) -> restore.Run:
  return restore.open_run(workdir, weights=('ema', 'raw'))


class Imported(NamedTuple):
  """A run made of release weights and of another file with their average."""

  workdir: Path
  report: dict[str, Any]
  average: dict[str, np.ndarray]


@pytest.fixture(scope='module')
def imported(weights, tmp_path_factory) -> Imported:
  folder = tmp_path_factory.mktemp('imported')
  average = {key: value / 2 for key, value in weights.items()}
  source = foreign.write(folder / 'model.th', {f'module.{k}': v for k, v in weights.items()})
  ema = foreign.write(folder / 'ema.th', average)
  report = conversion.import_run(
    'openai_vdvae', str(source), folder / 'run', foreign.released(), ema=str(ema), step=1234
  )
  return Imported(folder / 'run', report, average)


@pytest.mark.slow
def test_release_weights_with_their_average(imported, weights):
  run, report = opened(imported.workdir), imported.report
  assert run.state.step == 1234 and run.meta['import'] == json.loads(json.dumps(report))
  entries = vdvae.OPENAI.entries(run.model)
  for tree, tensors in (
    (run.state.params, weights),
    (run.state.ema_params, imported.average),
  ):
    back = tables.export_params(entries, jax.device_get(tree))
    assert all(np.array_equal(back[key], value) for key, value in tensors.items())
  count = sum(value.size for value in weights.values())
  assert (report['tensors'], report['numbers']) == (2 * len(weights), 2 * count)
  assert [s['role'] for s in report['sources']] == ['params', 'ema_params']
  text = '\n'.join(import_report.describe(run.meta['import']))
  assert f'{2 * len(weights)} of {2 * len(weights)} tensors' in text
  assert 'equal the source bit for bit' in text and 'not measured' in text


@pytest.mark.slow
def test_export_and_back(imported, tmp_path):
  """Everything known of a run travels with its weights."""
  output = tmp_path / 'run.safetensors'
  export.export_run(imported.workdir, 'latest', output)
  report = conversion.import_run('hvae_tpu', str(output), tmp_path / 'run', None)
  a, b = opened(imported.workdir), opened(tmp_path / 'run')
  for field in ('params', 'ema_params'):
    jax.tree.map(np.testing.assert_array_equal, getattr(a.state, field), getattr(b.state, field))
  assert a.state.step == b.state.step == 1234
  assert report['earlier'] == a.meta['import']
  assert a.meta['card'] == b.meta['card'] and a.model == b.model
  first, second = map(stored_config, (imported.workdir, tmp_path / 'run'))
  assert first | {'mesh': None} == second | {'mesh': None}
  with pytest.raises(UserError, match='run.safetensors exists and is not overwritten'):
    export.export_run(imported.workdir, 'latest', output)
  for path, expected in (
    (output, 'is not overwritten'),
    (tmp_path / 'no' / 'x', 'cannot be written'),
  ):
    with pytest.raises(UserError, match=expected):
      exchange.write(path, {}, dict.fromkeys(exchange.META))
  assert not list(tmp_path.glob('.run*'))


@pytest.mark.slow
def test_imported_weights_start_other_runs(imported):
  """Reads weights in the way of `train.init_from`."""
  config, mesh = foreign.released(), sharding.make_mesh(-1, 1)
  model = models.create(config.model.to_dict(), 'cpu', differentiated=False)
  tx, _ = optimizers.create(config.optimizer, config.train.num_steps)
  batch = {'image': np.zeros((8, 32, 32, 3), np.uint8)}
  fresh = create_state(model, tx, batch, mesh, True, seed=1)
  taken = init_from.take(fresh, str(imported.workdir), mesh)
  expected = opened(imported.workdir).state
  jax.tree.map(np.testing.assert_array_equal, taken.params, expected.params)
  jax.tree.map(np.testing.assert_array_equal, taken.ema_params, expected.ema_params)


@pytest.mark.slow
def test_an_imported_run_gives_the_results_of_the_release(tmp_path):
  config, golden = foreign.golden_config('forward_lowbit.npz')
  source = foreign.write(tmp_path / 'w.th', golden.under('param'))
  conversion.import_run('openai_vdvae', str(source), tmp_path / 'run', config)
  model, params, _, _ = hvae_tpu.load(tmp_path / 'run')
  _check_passes(golden, model, params, computed.release_run, computed.release_tolerance)


@pytest.mark.slow
def test_an_imported_run_gives_the_results_of_the_port(tmp_path, capsys):
  """The checkpoints are pairs (optimizer, epoch); files of the average hold the bare tree."""
  config, golden = foreign.golden_config('jax_forward.npz')
  config.model.update(foreign.PORT)
  tree = traverse_util.unflatten_dict(golden.under('param'), sep='/')
  pair = {'0': {'target': tree, 'state': {'step': 5, 'param_states': {'m': tree}}}, '1': 17}
  source, ema = tmp_path / 'checkpoint_17', tmp_path / 'checkpoint_17_ema'
  source.write_bytes(serialization.msgpack_serialize(pair))
  ema.write_bytes(serialization.msgpack_serialize({'0': tree, '1': 17}))
  report = conversion.import_run('vdvae_jax', str(source), tmp_path / 'run', config, ema=str(ema))
  assert report['aside'] == {'1': 1, '0/state': 1 + len(golden.under('param')), f'{ema.name}: 1': 1}
  out = capsys.readouterr().out
  assert 'set aside: 0/state' in out and f'{tmp_path / "run"}, step 5,' in out
  for weights in ('ema', 'raw'):
    model, params, _, _ = hvae_tpu.load(tmp_path / 'run', weights=weights)
    _check_passes(golden, model, params, computed.port_run, computed.port_tolerance)


def _check_passes(golden, model, params, run, tolerance) -> None:
  """Compares all passes of a forward file, features and losses, with a loaded run."""
  results = golden_files.quick_jit(lambda params, image, eps: run(model, params, image, eps)[1])
  passes = [name for name in golden.names_under('output') if name.startswith('eps')]
  assert passes
  for name in passes:
    expected = golden.under(f'output/{name}')
    expected.pop('grad_norm', None)
    assert {'z/0', 'logits', 'px_z', 'kl_sum/0'} <= set(expected)
    if run is computed.release_run:
      expected = {key: computed.channels_last(key, value) for key, value in expected.items()}
    values = results(params, golden['input/image_uint8'], float(name.removeprefix('eps')))
    golden_files.compare(values, expected, tolerance)


@pytest.mark.parametrize(
  'values, expected, passes',
  [
    ([1.0, 2.0], [1.0, 2.0], True),
    ([1.0, 2.0 + 2.9e-3], [1.0, 2.0], True),  # 1e-3 * 2 + 1e-3
    ([1.0, 2.0 + 3.1e-3], [1.0, 2.0], False),
    ([np.inf], [np.inf], True),
    ([np.inf], [1.0], False),
    ([1.0], [np.inf], False),
    ([np.nan], [1.0], False),
    ([1.0], [np.nan], False),
    ([np.nan], [np.nan], False),
    ([1.0], [1.0, 1.0], False),
    ([], [], True),
  ],
)
def test_difference(values, expected, passes):
  assert (not difference(values, expected, Tolerance(1e-3, 1e-3))) == passes


@pytest.fixture(scope='module')
def exported(tmp_path_factory) -> Path:
  return foreign.export_demo(tmp_path_factory.mktemp('exported') / 'demo.safetensors')


@pytest.mark.slow
def test_bits_per_dim_and_the_lines_of_modes(exported, tmp_path, debug_config, monkeypatch, capsys):
  """Compares the number on all examples with --mode=eval; eval and sample show the report."""
  from hvae_tpu import data

  size = data.open_dataset('demo_mnist').size('test')
  measured = conversion.import_run(
    'hvae_tpu', str(exported), tmp_path / 'run', None, verify_examples=size
  )['measured']
  assert measured['examples'] == size and measured['view'] == 'test'
  assert measured['published'] is None
  assert 'published: none recorded' in capsys.readouterr().out
  debug_config.evals.names = ('elbo',)
  assert evaluate.run(debug_config, tmp_path / 'run', 'latest') == 0
  text = capsys.readouterr().out
  assert 'weights imported from hvae_tpu: demo.safetensors (safetensors file)' in text
  results = json.loads((tmp_path / 'run' / 'eval' / 'test-3-ema.json').read_text())
  np.testing.assert_allclose(measured['bpd'], results['results']['elbo/bpd'], rtol=1e-6)
  monkeypatch.setattr(pictures, 'make', lambda *args, **options: lambda *args: {})
  assert sample.run(debug_config, tmp_path / 'run', 'latest') == 0
  assert 'weights imported from hvae_tpu' in capsys.readouterr().out


@pytest.mark.slow
def test_bits_per_dim_of_some_examples(exported, tmp_path):
  report = conversion.import_run(
    'hvae_tpu', str(exported), tmp_path / 'run', None, verify_examples=11
  )
  assert report['measured']['examples'] == 11  # not a multiple of the batch size


def test_published_value_is_shown_beside():
  measured = dict(view='test', examples=10_000, weights='ema', bpd=2.8791, published=2.87)
  lines = import_report.describe(
    {
      **dict(format='openai_vdvae', sources=[], tensors=1, numbers=2, aside={}),
      'measured': measured,
    }
  )
  assert lines[-1] == (
    '  bits/dim: 2.8791 on 10,000 examples of test (ema weights); published: 2.87'
  )
  assert import_report.describe(None) == []


COMMANDS = {
  (): 'give either --from=FORMAT (import) or --to=safetensors (export)',
  ('--from=hvae_tpu', '--to=safetensors'): 'give either --from',
  ('--from=openai_vdvae', '--source=x', '--workdir=y'): '--config=configs/<data set>.py of the',
  ('--from=hvae_tpu', '--workdir=y'): '--source is missing, which --from needs',
  ('--to=safetensors', '--workdir=y'): '--output is missing, which --to needs',
  ('--to=torch',): '--to',
  ('--from=hvae_tpu', '--source=x', '--workdir=y', '--step=-1'): '-1 is not a non-negative integer',
  ('--hparams=x', '--to=safetensors'): 'give either --from',
  ('--hparams=x',): '--output is missing, which --hparams needs',
  ('--hparams=nothing', '--output=o'): '--hparams=nothing cannot be read as a cfg',
  ('extra',): "unexpected argument 'extra'",
  ('--from=hvae_tpu', '--source=nothing', '--workdir=y'): 'nothing cannot be read (No such file',
  ('--to=safetensors', '--workdir=nothing', '--output=o'): 'nothing has no config.json',
}


@pytest.mark.parametrize('arguments', COMMANDS)
def test_command_line_mistakes_exit_with_2(arguments, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  with flagsaver.flagsaver():
    assert convert.main(['convert', *arguments]) == 2
  error = capsys.readouterr().err
  assert error.startswith('error: ') and COMMANDS[arguments] in error
  assert error.count('\n') == 1 and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_command_line(exported, tmp_path, capsys):
  run, output = tmp_path / 'run', tmp_path / 'again.safetensors'
  with flagsaver.flagsaver():
    arguments = ['--from=hvae_tpu', f'--source={exported}', f'--workdir={run}', '--step=9']
    assert convert.main(['convert', *arguments]) == 0
  with flagsaver.flagsaver():
    arguments = ['--to=safetensors', f'--workdir={run}', f'--output={output}', '--checkpoint=9']
    assert convert.main(['convert', *arguments]) == 0
  assert 'read back: equal bit for bit' in capsys.readouterr().out
  first, second = safetensors.load_file(exported), safetensors.load_file(output)
  assert all(np.array_equal(first[key], second[key]) for key in first | second)
  assert flags.FLAGS['from'].value == ''


@pytest.mark.slow
def test_the_published_size(tmp_path):
  """All 39 million weights of the cifar10 preset: imported, exported, imported again."""
  config = cifar10.get_config('vdvae')
  tensors = foreign.random_tensors(config)
  assert sum(value.size for value in tensors.values()) == 39_145_700
  source = foreign.write(tmp_path / 'cifar10-seed0-iter-900000-model-ema.th', tensors)
  output = tmp_path / 'a.safetensors'
  for arguments in (
    ['--from=openai_vdvae', f'--source={source}', '--config=configs/cifar10.py', '--step=900000'],
    ['--to=safetensors', f'--output={output}'],
    ['--from=hvae_tpu', f'--source={output}', f'--workdir={tmp_path / "b"}'],
  ):
    began = time.perf_counter()
    # Processes of their own, with the one device of a user's machine.
    subprocess.run(
      [sys.executable, '-m', 'hvae_tpu.convert', f'--workdir={tmp_path / "a"}', *arguments],
      cwd=ROOT,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'},
      check=True,
      timeout=600,
    )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f'{arguments[0]}: {time.perf_counter() - began:.1f} s; peak so far {peak:.2f} GiB')
  tree = safetensors.load_file(output)
  for field in exchange.FIELDS[:2]:
    flat = {k.partition('/')[2]: v for k, v in tree.items() if k.startswith(f'{field}/')}
    params = traverse_util.unflatten_dict(flat, sep='/')
    model = models.create(config.model.to_dict(), 'cpu', differentiated=False)
    back = tables.export_params(vdvae.OPENAI.entries(model), params)
    assert list(back) == list(tensors)
    assert all(np.array_equal(back[key], value) for key, value in tensors.items())
