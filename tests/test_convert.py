"""Importing and exporting weights: proofs, refusals, and the command line."""

import dataclasses
import json
from pathlib import Path
import resource
import time
from typing import Any, NamedTuple

from absl import flags
from absl.testing import flagsaver
from flax import serialization, traverse_util
import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors
from safetensors import safe_open

from configs import cifar10, ffhq256
from hvae_tpu import conversion, convert, initial_weights, models, optimizers, runs, sharding
from hvae_tpu import state as state_lib
from hvae_tpu import workdir as workdir_lib
from hvae_tpu.checkpoints import path_name
from hvae_tpu.errors import UserError
from hvae_tpu.evals import pictures
from hvae_tpu.importers import hvae_tpu as exchange
from hvae_tpu.importers import openai_vdvae, tables, verdict
from hvae_tpu.modes import evaluate, sample
from tests import golden_files, torch_archives
from tests.vdvae_checks import common

PORT = {'likelihood': 'dmol_exact', 'gelu_approximate': True}


def released() -> Any:
  """A fresh, tiny config of the kind that the release has."""
  return cifar10.get_config('vdvae,debug')


def random_tensors(config: Any) -> dict[str, np.ndarray]:
  """Weights by the names of the release, in its layouts."""
  model = models.create(config.model.to_dict(), 'cpu', differentiated=False)
  rng = np.random.default_rng(0)
  return {
    e.key: rng.standard_normal(e.shape, np.float32) * np.float32(0.05)
    for e in openai_vdvae.entries(model)
  }


@pytest.fixture(scope='module')
def weights() -> dict[str, np.ndarray]:
  return random_tensors(released())


@pytest.fixture(scope='module', autouse=True)
def data_folder(data_root):
  """Only demo_mnist is built, wherever the tests run."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('HVAE_DATA', str(data_root))
    yield


def write(path: Path, tensors: dict[str, np.ndarray]) -> Path:
  return torch_archives.write(path, torch_archives.state_dict(tensors))


def opened(workdir: Path) -> runs.Run:
  return runs.open_run(workdir, weights=('ema', 'raw'))


class Imported(NamedTuple):
  """A run made of release weights and of another file with their average."""

  workdir: Path
  verdict: dict[str, Any]
  average: dict[str, np.ndarray]


@pytest.fixture(scope='module')
def imported(weights, tmp_path_factory) -> Imported:
  folder = tmp_path_factory.mktemp('imported')
  average = {key: value / 2 for key, value in weights.items()}
  source = write(folder / 'model.th', {f'module.{k}': v for k, v in weights.items()})
  ema = write(folder / 'ema.th', average)
  found = conversion.import_run(
    'openai_vdvae', str(source), folder / 'run', released(), ema=str(ema), step=1234
  )
  return Imported(folder / 'run', found, average)


def test_release_weights_with_their_average(imported, weights):
  run, found = opened(imported.workdir), imported.verdict
  assert run.state.step == 1234 and run.meta['import'] == json.loads(json.dumps(found))
  entries = openai_vdvae.entries(run.model)
  for tree, tensors in (
    (run.state.params, weights),
    (run.state.ema_params, imported.average),
  ):
    back = tables.export_params(entries, jax.device_get(tree))
    assert all(np.array_equal(back[key], value) for key, value in tensors.items())
  count = sum(value.size for value in weights.values())
  assert (found['tensors'], found['numbers']) == (2 * len(weights), 2 * count)
  assert [s['role'] for s in found['sources']] == ['params', 'ema_params']
  text = '\n'.join(verdict.describe(run.meta['import']))
  assert f'{2 * len(weights)} of {2 * len(weights)} tensors' in text
  assert 'equal the source bit for bit' in text and 'not measured' in text


def test_export_and_back(imported, tmp_path):
  """Everything known of a run travels with its weights."""
  output = tmp_path / 'run.safetensors'
  conversion.export_run(imported.workdir, 'latest', output)
  found = conversion.import_run('hvae_tpu', str(output), tmp_path / 'run', None)
  a, b = opened(imported.workdir), opened(tmp_path / 'run')
  for field in ('params', 'ema_params'):
    jax.tree.map(np.testing.assert_array_equal, getattr(a.state, field), getattr(b.state, field))
  assert a.state.step == b.state.step == 1234
  assert found['earlier'] == a.meta['import']
  assert a.meta['card'] == b.meta['card'] and a.model == b.model
  first, second = map(workdir_lib.stored_config, (imported.workdir, tmp_path / 'run'))
  assert first | {'mesh': None} == second | {'mesh': None}
  with pytest.raises(UserError, match='run.safetensors exists and is not overwritten'):
    conversion.export_run(imported.workdir, 'latest', output)
  with pytest.raises(UserError, match='exists and is not overwritten'):
    exchange.write(output, {}, dict.fromkeys(exchange.META))
  assert not list(tmp_path.glob('.run*'))


def test_imported_weights_start_other_runs(imported):
  """As `train.init_from`."""
  config, mesh = released(), sharding.make_mesh(-1, 1)
  model = models.create(config.model.to_dict(), 'cpu', differentiated=False)
  tx, _ = optimizers.create(config.optimizer)
  batch = {'image': np.zeros((8, 32, 32, 3), np.uint8)}
  fresh = state_lib.create_state(model, tx, batch, mesh, True, seed=1)
  taken = initial_weights.take(fresh, str(imported.workdir), mesh, say=lambda text: None)
  expected = opened(imported.workdir).state
  jax.tree.map(np.testing.assert_array_equal, taken.params, expected.params)
  jax.tree.map(np.testing.assert_array_equal, taken.ema_params, expected.ema_params)


def golden_config(name: str) -> tuple[Any, golden_files.Golden]:
  golden = golden_files._read(golden_files.COMMITTED / 'vdvae' / name)
  config = ffhq256.get_config('vdvae,debug')
  config.model.update(common.model_fields(golden.config))
  return config, golden


def test_stored_results_of_the_release_are_reproduced(tmp_path, capsys):
  config, golden = golden_config('forward_lowbit.npz')
  source = write(tmp_path / 'w.th', golden.under('param'))
  found = conversion.import_run(
    'openai_vdvae', str(source), tmp_path / 'run', config, verify=str(golden.path)
  )
  _check_reproduced(found, golden)
  assert 'stored results in forward_lowbit.npz are reproduced' in capsys.readouterr().out


def test_stored_results_of_the_port_are_reproduced(tmp_path, capsys):
  """Its checkpoints are pairs (optimizer, epoch); those of the average hold the bare tree."""
  config, golden = golden_config('jax_forward.npz')
  config.model.update(PORT)
  tree = traverse_util.unflatten_dict(golden.under('param'), sep='/')
  pair = {'0': {'target': tree, 'state': {'step': 5, 'param_states': {'m': tree}}}, '1': 17}
  source, ema = tmp_path / 'checkpoint_17', tmp_path / 'checkpoint_17_ema'
  source.write_bytes(serialization.msgpack_serialize(pair))
  ema.write_bytes(serialization.msgpack_serialize({'0': tree, '1': 17}))
  found = conversion.import_run(
    'vdvae_jax', str(source), tmp_path / 'run', config, ema=str(ema), verify=str(golden.path)
  )
  _check_reproduced(found, golden)
  assert found['aside'] == {'1': 1, '0/state': 1 + len(golden.under('param')), f'{ema.name}: 1': 1}
  assert 'set aside: 0/state' in capsys.readouterr().out


def _check_reproduced(found: dict[str, Any], golden: golden_files.Golden) -> None:
  assert found['golden']['file'] == golden.path.name and found['golden']['compared'] >= 40
  worst = found['golden']['worst']
  assert {'z', 'logits', 'px_z', 'kl_sum'} <= set(worst)
  assert all(kind['share'] <= 1 for kind in worst.values())


def test_stored_results_find_what_arrays_do_not_tell(tmp_path):
  """A wrong number of bits has the same arrays, and other results; nothing is written."""
  config, golden = golden_config('forward_lowbit.npz')
  config.model.num_bits = 8
  source = write(tmp_path / 'w.th', golden.under('param'))
  refused = 'results differ from the stored ones, the first: eps0/.* expected'
  with pytest.raises(UserError, match=refused):
    conversion.import_run(
      'openai_vdvae', str(source), tmp_path / 'run', config, verify=str(golden.path)
    )
  assert not (tmp_path / 'run').exists()


@pytest.fixture(scope='module')
def exported(data_root, tmp_path_factory) -> Path:
  """A demo_mnist model with fresh weights, as our own exchange file."""
  from configs import demo_mnist
  from hvae_tpu import data

  config = demo_mnist.get_config('vdvae,debug')
  model = models.create(config.model.to_dict(), 'cpu', differentiated=False)
  card = data.open_dataset('demo_mnist').card
  batch = runs.batch_spec(card, ('image',), 1)
  image = np.zeros(batch['image'].shape, np.uint8)
  params, _ = jax.jit(model.init)(jax.random.key(0), {'image': image})
  leaves = jax.tree_util.tree_leaves_with_path(params)
  flat = {path_name(path): np.asarray(leaf) for path, leaf in leaves}
  meta = dict(step=3, config=workdir_lib.to_json(config), card=card, metrics={'elbo/bpd': 1.5})
  path = tmp_path_factory.mktemp('exported') / 'demo.safetensors'
  exchange.write(path, {'params': flat, 'ema_params': flat}, meta | {'import': None})
  return path


def test_bits_per_dim_and_what_modes_show(exported, tmp_path, debug_config, monkeypatch, capsys):
  """The number on all examples is that of --mode=eval, which shows the verdict; so does sample."""
  from hvae_tpu import data

  size = data.open_dataset('demo_mnist').size('test')
  found = conversion.import_run(
    'hvae_tpu', str(exported), tmp_path / 'run', None, verify_examples=size
  )['bits_per_dim']
  assert found['examples'] == size and found['view'] == 'test' and found['published'] is None
  assert 'published: none recorded' in capsys.readouterr().out
  debug_config.eval.names = ('elbo',)
  assert evaluate.run(debug_config, tmp_path / 'run', 'latest') == 0
  text = capsys.readouterr().out
  assert 'weights imported from hvae_tpu: demo.safetensors (safetensors file)' in text
  results = json.loads((tmp_path / 'run' / 'eval' / 'test-3.json').read_text())
  np.testing.assert_allclose(found['bpd'], results['elbo/bpd'], rtol=1e-6)
  monkeypatch.setattr(pictures, 'make', lambda *args, **options: lambda *args: {})
  assert sample.run(debug_config, tmp_path / 'run', 'latest') == 0
  assert 'weights imported from hvae_tpu' in capsys.readouterr().out


def test_bits_per_dim_of_some_examples(exported, tmp_path):
  found = conversion.import_run(
    'hvae_tpu', str(exported), tmp_path / 'run', None, verify_examples=11
  )
  assert found['bits_per_dim']['examples'] == 11  # not a multiple of the batch size


def test_published_value_is_shown_beside():
  measured = dict(view='test', examples=10_000, weights='ema', bpd=2.8791, published=2.87)
  lines = verdict.describe(
    dict(
      format='openai_vdvae',
      sources=[],
      tensors=1,
      numbers=2,
      aside={},
      golden=None,
      bits_per_dim=measured,
    )
  )
  assert lines[-1] == (
    '  bits/dim: 2.8791 on 10,000 examples of test (ema weights); published: 2.87'
  )
  assert verdict.describe(None) == []


@dataclasses.dataclass
class Case:
  """One malformed import: what is wrong, and what the message says."""

  expected: str
  tensors: Any = None  # weights -> what is written in their place
  name: str = 'openai_vdvae'
  settings: dict = dataclasses.field(default_factory=dict)
  options: dict = dataclasses.field(default_factory=dict)


GAIN, KERNEL = 'decoder.gain', 'encoder.in_conv.weight'
NAN = np.full((1, 8, 1, 1), np.nan, np.float32)
MALFORMED = {
  'missing': Case(
    r'1 missing: decoder.gain \(1, 8, 1, 1\)', lambda w: {k: w[k] for k in w if k != GAIN}
  ),
  'extra': Case(r'1 not expected: surplus \(2,\)', lambda w: w | {'surplus': np.zeros(2, 'f4')}),
  'shape': Case(
    r'encoder.in_conv.weight is float32 \(3, 3, 3, 8\), expected float32 \(8, 3, 3, 3\)',
    lambda w: w | {KERNEL: w[KERNEL].transpose(2, 3, 1, 0)},
  ),
  'dtype': Case(
    r'decoder.gain is float64 \(1, 8, 1, 1\), expected float32',
    lambda w: w | {GAIN: w[GAIN].astype('f8')},
  ),
  'not finite': Case('w.th: params/gain holds NaN or infinite numbers', lambda w: w | {GAIN: NAN}),
  'both prefixes': Case(
    "with and without the prefix 'module.'", lambda w: w | {f'module.{GAIN}': NAN}
  ),
  'nothing': Case(r'\d+ missing: encoder.in_conv.weight .*, \.\.\.;', lambda w: {}),
  'other names': Case(
    r'179 missing: .* 179 not expected: ', lambda w: {f'x.{k}': v for k, v in w.items()}
  ),
  'other width': Case(
    'of another kind: .*; use the config.model that the weights were trained with',
    settings={'width': 16},
  ),
  'other depth': Case('missing: decoder.dec_blocks.', settings={'dec_blocks': '1x3,8m1,8,32m8,32'}),
  'activation': Case(
    r'brings models with config.model.gelu_approximate=False \(not True\); set them',
    settings={'gelu_approximate': True},
  ),
  'likelihood': Case("likelihood='dmol_torch'", settings={'likelihood': 'dmol_exact'}),
  'other format': Case('missing: encoder/Conv_0/kernel', name='vdvae_jax', settings=PORT),
  'unknown format': Case(
    '--from=pytorch must be one of openai_vdvae, vdvae_jax, hvae_tpu', name='pytorch'
  ),
  'not exported by us': Case(
    "has format None, version None in its metadata, expected 'hvae_tpu'", name='hvae_tpu'
  ),
  'no data set': Case("data set 'cifar10' is not in", options={'verify_examples': 8}),
  'stored results missing': Case('nothing.npz cannot be read', options={'verify': 'nothing.npz'}),
}


@pytest.mark.parametrize('case', MALFORMED)
def test_malformed_imports_are_refused(case, weights, tmp_path):
  """In one sentence, and without a trace in the work directory."""
  case = MALFORMED[case]
  source = write(tmp_path / 'w.th', case.tensors(dict(weights)) if case.tensors else weights)
  config = released()
  config.model.update(case.settings)
  with pytest.raises(UserError, match=case.expected) as caught:
    conversion.import_run(case.name, str(source), tmp_path / 'run', config, **case.options)
  assert '\n' not in str(caught.value)
  assert not (tmp_path / 'run').exists()


def test_stored_results_of_other_weights_are_refused(weights, tmp_path):
  config, golden = golden_config('forward_lowbit.npz')
  tensors = golden.under('param')
  tensors[GAIN] = tensors[GAIN] + np.float32(1e-3)
  source = write(tmp_path / 'w.th', tensors)
  for verify, expected in (
    (golden.path, 'its weights are not the imported ones: 1 of .* the first is decoder.gain'),
    (source, 'it has no input/image_uint8 or no output/eps'),
  ):
    with pytest.raises(UserError, match=expected):
      conversion.import_run(
        'openai_vdvae', str(source), tmp_path / 'run', config, verify=str(verify)
      )


EXCHANGE = {
  'version': (lambda m: m | {'version': '9'}, "version '9' in its metadata"),
  'no step': (lambda m: {k: v for k, v in m.items() if k != 'step'}, 'metadata of the file are'),
  'negative step': (lambda m: m | {'step': '-1'}, 'lack config, card or step'),
  'no JSON': (lambda m: m | {'config': '{'}, 'metadata of the file are damaged'),
  'deep JSON': (lambda m: m | {'config': '[' * 100_000}, 'metadata of the file are damaged'),
  'no card': (lambda m: m | {'card': '{}'}, 'metadata of the file are damaged'),
  'card of nonsense': (
    lambda m: m | {'card': '{"fields": {"image": {"shape": "x", "dtype": "y"}}}'},
    'data card in the file is damaged',
  ),
  'no sections': (lambda m: m | {'config': '{"seed": 0}'}, 'the config in it lacks data, mesh'),
}


@pytest.mark.parametrize('case', EXCHANGE)
def test_damaged_metadata_are_refused(case, exported, tmp_path):
  change, expected = EXCHANGE[case]
  with safe_open(exported, framework='np') as file:
    metadata = file.metadata()
  path = tmp_path / 'changed.safetensors'
  safetensors.save_file(safetensors.load_file(exported), path, change(metadata))
  with pytest.raises(UserError, match=expected):
    conversion.import_run('hvae_tpu', str(path), tmp_path / 'run', None)


def test_arguments_that_contradict_each_other(exported, weights, tmp_path, debug_config):
  other = tmp_path / 'other.safetensors'
  safetensors.save_file({'params/x': np.zeros(1), 'moments/x': np.zeros(1)}, other)
  source = write(tmp_path / 'w.th', weights)
  run = tmp_path / 'run'

  def refused(expected, *args, **options):
    with pytest.raises(UserError, match=expected):
      conversion.import_run(*args, **options)

  debug_config.model.zdim = 3
  refused(
    'holds another model: config.model.zdim is 2 there, 3 here',
    'hvae_tpu',
    str(exported),
    run,
    debug_config,
  )
  refused(
    'has a moving average of its own', 'hvae_tpu', str(exported), run, None, ema=str(exported)
  )
  refused(
    'no stored results for --from=hvae_tpu', 'hvae_tpu', str(exported), run, None, verify='x.npz'
  )
  refused('needs --config=', 'openai_vdvae', str(source), run, None)
  config = released()
  config.train.ema_decay = None
  refused(
    'config.train.ema_decay is None; set it',
    'openai_vdvae',
    str(source),
    run,
    config,
    ema=str(source),
  )
  config = released()
  config.data.name = 'demo_mnist'
  refused(
    r"demo_mnist has image {'shape': \[32, 32, 1\].*the weights take {'shape': \[32, 32, 3\]",
    'openai_vdvae',
    str(source),
    run,
    config,
  )
  refused('format None', 'hvae_tpu', str(other), run, None)
  assert not run.exists()


def test_a_run_is_never_overwritten(exported, tmp_path):
  run = tmp_path / 'run'
  run.mkdir()
  (run / 'config.json').write_text('{}')
  with pytest.raises(
    UserError, match=r'holds a run already \(config.json\), which an import never'
  ):
    conversion.import_run('hvae_tpu', str(exported), run, None)
  assert (run / 'config.json').read_text() == '{}'
  with pytest.raises(UserError, match='holds a run already'):
    conversion.import_run('hvae_tpu', str(exported), exported, None)


COMMANDS = {
  (): 'give either --from=FORMAT (import) or --to=safetensors (export)',
  ('--from=hvae_tpu', '--to=safetensors'): 'give either --from',
  ('--from=openai_vdvae', '--source=x', '--workdir=y'): '--config=configs/<data set>.py of the',
  ('--from=hvae_tpu', '--workdir=y'): '--source is missing, which --from needs',
  ('--to=safetensors', '--workdir=y'): '--output is missing, which --to needs',
  ('--to=torch',): '--to',
  ('--from=hvae_tpu', '--source=x', '--workdir=y', '--step=-1'): '-1 is not a non-negative integer',
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
  """All 39 million weights of the cifar10 preset, imported, exported and imported again."""
  config = cifar10.get_config('vdvae')
  config.mesh.update(data=1, fsdp=-1)  # no eight copies of it
  tensors = random_tensors(config)
  assert sum(value.size for value in tensors.values()) == 39_145_700
  source = write(tmp_path / 'cifar10-seed0-iter-900000-model-ema.th', tensors)
  began = time.perf_counter()
  conversion.import_run('openai_vdvae', str(source), tmp_path / 'a', config, step=900_000)
  imported = time.perf_counter()
  conversion.export_run(tmp_path / 'a', 'latest', tmp_path / 'a.safetensors')
  written = time.perf_counter()
  conversion.import_run('hvae_tpu', str(tmp_path / 'a.safetensors'), tmp_path / 'b', config)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  print(
    f'import {imported - began:.1f} s, export {written - imported:.1f} s, import of the export '
    f'{time.perf_counter() - written:.1f} s; peak memory {peak:.2f} GiB'
  )
  run = runs.open_run(tmp_path / 'b', config=config, weights=('raw',))
  back = tables.export_params(openai_vdvae.entries(run.model), jax.device_get(run.state.params))
  assert list(back) == list(tensors)
  assert all(np.array_equal(back[key], value) for key, value in tensors.items())
