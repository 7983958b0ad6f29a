"""Files of weights: read without executing anything; damaged and hostile ones are refused."""

import hashlib
import io
import json
from pathlib import Path
import struct
import sys
import zipfile

from flax import serialization
import numpy as np
import pytest
from safetensors import numpy as safetensors

from hvae_tpu.errors import UserError
from hvae_tpu.importers import trees
from hvae_tpu.storage import tensor_files
from tests.support import clockwork_files, torch_archives

TENSORS = {
  'a.weight': np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
  'a.bias': np.array([1.5, -2.0], np.float32),
  'double': np.arange(3, dtype=np.float64),
  'count': np.array([7], np.int64),
}


def npz(**arrays) -> bytes:
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  return buffer.getvalue()


def npy(descr: str, shape: tuple, data: bytes) -> bytes:
  """Makes a .npy file of version 1.0 with a header that may be wrong."""
  header = repr({'descr': descr, 'fortran_order': False, 'shape': shape}).encode() + b'\n'
  return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + data


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', compression) as archive:
    for name, data in files.items():
      archive.writestr(name, data)
  return buffer.getvalue()


def safe(header: dict, data: bytes) -> bytes:
  encoded = json.dumps(header).encode()
  return struct.pack('<Q', len(encoded)) + encoded + data


WRITERS = {
  'PyTorch file': torch_archives.state_dict,
  '.npz file': lambda tensors: npz(**tensors),
  'safetensors file': lambda tensors: safetensors.save(tensors, {'note': 'text'}),
  'flax msgpack file': serialization.msgpack_serialize,
}


@pytest.mark.parametrize('kind', WRITERS)
def test_every_kind_is_recognised_by_its_content(kind, tmp_path):
  path = torch_archives.write(tmp_path / 'weights', WRITERS[kind](TENSORS))
  container = tensor_files.read(path)
  assert container.kind == kind and len(container.sha256) == 64
  assert set(container.tree) == set(TENSORS)
  for name, array in TENSORS.items():
    np.testing.assert_array_equal(container.tree[name], array, strict=True)
  assert container.metadata == ({'note': 'text'} if kind == 'safetensors file' else {})


def test_views_of_a_torch_storage(tmp_path):
  """Transposed, sliced and shared tensors; a scalar and an empty one."""
  numbers = np.arange(12, dtype=np.float32)
  stored = torch_archives.storage('0', 12)
  items = {
    'transposed': torch_archives.tensor(stored, 0, (4, 3), (1, 4)),
    'slice': torch_archives.tensor(stored, 5, (2, 2), (4, 1)),
    'scalar': torch_archives.tensor(stored, 11, (), ()),
    'empty': torch_archives.tensor(stored, 0, (0, 3), (3, 1)),
  }
  data = torch_archives.archive(torch_archives.ordered_dict(items), {'0': numbers.tobytes()})
  tree = tensor_files.read(torch_archives.write(tmp_path / 'views.th', data)).tree
  square = numbers.reshape(3, 4)
  np.testing.assert_array_equal(tree['transposed'], square.T)
  np.testing.assert_array_equal(tree['slice'], square[1:, 1:3])
  assert tree['scalar'].shape == () and tree['scalar'] == 11
  assert tree['empty'].shape == (0, 3)
  assert not tree['slice'].flags.writeable


FLOATS = np.zeros(6, np.float32).tobytes()


def one_tensor(stored: bytes, offset: int = 0, size: tuple = (6,), stride: tuple = (1,)) -> bytes:
  pickled = torch_archives.ordered_dict({'w': torch_archives.tensor(stored, offset, size, stride)})
  return torch_archives.archive(pickled, {'0': FLOATS})


def call(module: str, function: str, *arguments: bytes) -> bytes:
  called = (
    torch_archives.name(module, function)
    + torch_archives.tuple_of(*arguments)
    + torch_archives.REDUCE
  )
  return torch_archives.archive(called, {})


SIX = torch_archives.storage('0', 6)
CLASH = {
  'a': torch_archives.tensor(SIX, 0, (6,), (1,)),
  'b': torch_archives.tensor(torch_archives.storage('0', 6, 'IntStorage'), 0, (6,), (1,)),
}
SOUND = torch_archives.state_dict(TENSORS)
HOSTILE = {
  'os.system': (call('os', 'system', torch_archives.text('touch executed')), 'asks for os.system'),
  'eval': (call('builtins', 'eval', torch_archives.text('1')), 'asks for builtins.eval'),
  'getattr': (call('builtins', 'getattr', torch_archives.text('a')), 'asks for builtins.getattr'),
  'torch.load': (call('torch', 'load', torch_archives.text('x')), 'asks for torch.load'),
  'inner attribute': (call('collections', 'OrderedDict.clear'), 'OrderedDict.clear'),
  'instruction': (torch_archives.archive(b'(lp0\n0', {}), 'has the instruction LIST'),
  'object': (torch_archives.archive(b'(cos\nsystem\no', {}), 'asks for os.system'),
  'extension': (torch_archives.archive(b'\x82\x01', {}), 'has the instruction EXT1'),
  'calls a type': (
    torch_archives.archive(torch_archives.name('torch', 'FloatStorage') + b')R', {}),
    'calls what is not a function for tensors',
  ),
  'calls a string': (
    torch_archives.archive(torch_archives.text('os') + b')R', {}),
    'not a function',
  ),
  'attributes of a function': (
    torch_archives.archive(torch_archives.name('torch', 'Size') + b'}b', {}),
    'sets attributes of what is not a dict',
  ),
  'huge shape': (one_tensor(SIX, 0, (2**40, 2**40), (1, 1)), 'does not fit into its storage of 6'),
  'expanded': (one_tensor(SIX, 0, (2**40,), (0,)), 'does not fit into its storage of 6'),
  'astronomic shape': (one_tensor(SIX, 0, (2**60,), (0,)), 'has the impossible size'),
  'negative size': (one_tensor(SIX, 0, (-6,), (1,)), 'has the impossible size'),
  'negative stride': (one_tensor(SIX, 5, (6,), (-1,)), 'has the impossible size'),
  'stride': (one_tensor(SIX, 0, (3, 2), (4, 1)), 'does not fit'),
  'offset': (one_tensor(SIX, 1), 'offset 1 does not fit'),
  'negative offset': (one_tensor(SIX, -1), 'impossible'),
  'strides without size': (one_tensor(SIX, 0, (6,), (1, 1)), 'do not belong together'),
  'many axes': (one_tensor(SIX, 0, (1,) * 17, (1,) * 17), 'has the impossible size'),
  'storage too long': (
    one_tensor(torch_archives.storage('0', 2**40)),
    'should have 1,099,511,627,776',
  ),
  'storage too short': (
    one_tensor(torch_archives.storage('0', 5), 0, (5,)),
    'should have 5 numbers',
  ),
  'storage missing': (one_tensor(torch_archives.storage('7', 6)), "storage '7' is missing"),
  'storage outside': (one_tensor(torch_archives.storage('../x', 6)), "storage '../x' is missing"),
  'storage of two types': (
    torch_archives.archive(torch_archives.ordered_dict(CLASH), {'0': FLOATS}),
    "storage '0' is both float32 and int32",
  ),
  'unknown storage type': (
    one_tensor(torch_archives.storage('0', 6, 'ComplexFloatStorage')),
    'asks for torch.ComplexFloatStorage',
  ),
  'no storage': (one_tensor(torch_archives.text('0')), 'a tensor has no storage'),
  'strange reference': (
    torch_archives.archive(torch_archives.text('0') + b'Q', {}),
    'reference to a storage',
  ),
  'underflow': (torch_archives.archive(b'R', {}), 'its pickle is damaged'),
  'no mark': (torch_archives.archive(b't', {}), 'its pickle is damaged'),
  'unknown memo': (torch_archives.archive(b'h\x05', {}), 'its pickle is damaged'),
  'list of huge length': (
    torch_archives.archive(b'\x8e' + b'\xff' * 8, {}),
    'its pickle is damaged',
  ),
  'unhashable key': (torch_archives.archive(b'}]Ns', {}), 'expected a string'),
  'no end': (torch_archives.archive(b'}', {})[:-1], 'not a sound'),
  'huge pickle': (
    zipped({'a/data.pkl': b'}' * 2**24}, zipfile.ZIP_STORED),
    'data.pkl has 16,777,216 bytes, more than',
  ),
  'two pickles': (zipped({'a/data.pkl': b'', 'b/data.pkl': b''}), '2 files data.pkl'),
  'big-endian': (zipped({'a/data.pkl': b'.', 'a/byteorder': b'big'}), 'big-endian machine'),
  'truncated zip': (SOUND[:-40], 'is not a sound'),
  'flipped bits': (SOUND.replace(TENSORS['a.weight'].tobytes(), b'\1' * 96), 'Bad CRC-32'),
  'zip of something': (zipped({'setup.py': b'', 'x/y': b''}), 'is a zip archive of setup.py, x/y'),
  'bomb': (
    zipped({'w.npy': npy('<f4', (2**22,), b'\0' * 2**24)}, zipfile.ZIP_DEFLATED),
    'are said to be packed into',
  ),
  'npz of objects': (zipped({'w.npy': npy('|O', (1,), b'\0' * 8)}), 'not plain numbers'),
  'npz of records': (zipped({'w.npy': npy('|V8', (1,), b'\0' * 4)}), 'claims'),
  'npz shape': (zipped({'w.npy': npy('<f4', (2**50,), FLOATS)}), 'but holds 24'),
  'npz negative': (zipped({'w.npy': npy('<f4', (-2, -3), FLOATS)}), 'claims float32 (-2, -3)'),
  'npz deep header': (zipped({'w.npy': npy('(' * 5000, (1,), b'')}), 'not a sound .npz file'),
  'npz not npy': (zipped({'w.npy': b'hello'}), 'not a sound .npz file'),
  'npz twice': (zipped({'w.npy': npy('<f4', (6,), FLOATS), 'w': b''}), 'is a zip archive of'),
  'safetensors shape': (
    safe({'w': {'dtype': 'F32', 'shape': [2**40], 'data_offsets': [0, 24]}}, FLOATS),
    'not a sound safetensors file',
  ),
  'safetensors offsets': (
    safe({'w': {'dtype': 'F32', 'shape': [6], 'data_offsets': [2**40, 2**40 + 24]}}, FLOATS),
    'not a sound safetensors file',
  ),
  'safetensors gap': (
    safe({'w': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}}, FLOATS),
    'not a sound safetensors file',
  ),
  'safetensors header': (struct.pack('<Q', 3) + b'{x}' + FLOATS, 'not a sound safetensors file'),
  'safetensors length': (struct.pack('<Q', 2**60) + b'{}' + FLOATS, 'is none of the files'),
  'msgpack truncated': (serialization.msgpack_serialize(TENSORS)[:-9], 'not a sound flax msgpack'),
  'msgpack length': (b'\xdf\xff\xff\xff\xff', 'not a sound flax msgpack file'),
  'msgpack nested': (b'\x81\xa1a' * 5000 + b'\xc0', 'not a sound flax msgpack file'),
  'legacy torch': (tensor_files.LEGACY_TORCH + b'rest', 'PyTorch before 1.6'),
  'plain pickle': (b'\x80\x04cos\nsystem\n.', 'is none of the files'),
  'text': (b'name,value\n', 'is none of the files'),
  'nothing': (b'', '(0 bytes, starting with nothing)'),
}


@pytest.mark.parametrize('case', HOSTILE)
def test_hostile_and_damaged_files_are_refused(case, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)  # as where it is not installed
  data, expected = HOSTILE[case]
  monkeypatch.chdir(tmp_path)
  path = torch_archives.write(tmp_path / 'weights', data)
  with pytest.raises(UserError) as caught:
    tensor_files.read(path)
  message = str(caught.value)
  assert message.startswith(str(path)) and expected in message and '\n' not in message
  assert len(message) < 600 and not (tmp_path / 'executed').exists()


def tensorflow_checkpoint(folder) -> Path:
  """Writes a checkpoint; returns its prefix."""
  return clockwork_files.save(folder / 'model.ckpt', {**TENSORS, 'scope/a': np.float32(3)})


@pytest.mark.slow
def test_tensorflow_checkpoints(tmp_path):
  """Names checkpoints by prefix, by one of the files, or by their folder."""
  prefix = tensorflow_checkpoint(tmp_path)
  first = tensor_files.read(prefix)
  assert first.kind == 'TensorFlow checkpoint' and first.tree['scope/a'] == 3
  for name, array in TENSORS.items():
    np.testing.assert_array_equal(first.tree[name], array, strict=True)
  parts = [f'{prefix}.index', f'{prefix}.data-00000-of-00001']
  assert first.sha256 == hashlib.sha256(b''.join(open(p, 'rb').read() for p in parts)).hexdigest()
  for path in (*parts, tmp_path):
    assert tensor_files.read(path).sha256 == first.sha256
  clockwork_files.save(tmp_path / 'model_9.ckpt', TENSORS)
  with pytest.raises(UserError, match='holds 2 TensorFlow checkpoints .model.ckpt, model_9.ckpt.;'):
    tensor_files.read(tmp_path)


@pytest.mark.slow
def test_damaged_tensorflow_checkpoints_are_refused(tmp_path, monkeypatch):
  prefix = tensorflow_checkpoint(tmp_path)
  index, numbers = (Path(f'{prefix}.{part}') for part in ('index', 'data-00000-of-00001'))
  sound = {path: path.read_bytes() for path in (index, numbers)}
  flipped = sound[numbers].replace(TENSORS['a.weight'].tobytes(), b'\1' * 96)
  for path, damaged, expected in (
    (numbers, flipped, 'not a sound TensorFlow checkpoint: .* Checksum does not match'),
    (numbers, sound[numbers][:-9], 'bytes are said to be stored in'),
    (index, sound[index][:-9], 'model.ckpt is not a sound TensorFlow checkpoint'),
    (index, b'', 'model.ckpt is not a sound TensorFlow checkpoint'),
  ):
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=expected) as caught:
      tensor_files.read(prefix)
    assert '\n' not in str(caught.value)
    path.write_bytes(sound[path])
  monkeypatch.setitem(sys.modules, 'tensorflow', None)  # as where it is not installed
  with pytest.raises(UserError, match='which only tensorflow can read: install it'):
    tensor_files.read(prefix)
  numbers.unlink()
  with pytest.raises(UserError, match='model.ckpt.index is there, but not .*data-00000-of-00001,'):
    tensor_files.read(index)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
  with pytest.raises(UserError, match='cannot be read .No such file'):
    tensor_files.read(tmp_path / 'nothing')
  with pytest.raises(UserError, match='cannot be read .Is a directory'):
    tensor_files.read(tmp_path)


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
  monkeypatch.setattr(tensor_files, 'MAX_BYTES', 10)
  path = torch_archives.write(tmp_path / 'weights', b'PK\x03\x04' + b'\0' * 20)
  with pytest.raises(UserError, match='files above 10 are not read'):
    tensor_files.read(path)


def test_old_torch_files_are_left_to_torch(tmp_path, monkeypatch):
  """Reads with weights_only=True only."""
  seen = {}

  class Torch:
    Tensor = str

    @staticmethod
    def load(path, **options):
      seen.update(options)
      raise RuntimeError('Weights only load failed')

  monkeypatch.setitem(sys.modules, 'torch', Torch)
  path = torch_archives.write(tmp_path / 'old.th', tensor_files.LEGACY_TORCH)
  with pytest.raises(UserError, match='not a sound old PyTorch file: torch: Weights only'):
    tensor_files.read(path)
  assert seen == {'map_location': 'cpu', 'weights_only': True}


DEEP = b']' * 200_000 + b'a' * 199_999
# Each pair holds the one before twice: 2^60 leaves in a few hundred bytes.
LAUGHS = b']' + b''.join(b'q%ch%c\x86' % (i, i) for i in range(60))
CYCLE = b']q\x00h\x00a'


@pytest.mark.parametrize('pickled', [DEEP, LAUGHS, CYCLE], ids=['deep', 'laughs', 'cycle'])
def test_trees_that_explode_are_refused(pickled, tmp_path):
  path = torch_archives.write(tmp_path / 'weights.th', torch_archives.archive(pickled, {}))
  tree = tensor_files.read(path).tree
  for use in (lambda: trees.flatten(tree, '.'), lambda: trees.unwrap({'m': {}, 'x': tree}, ('m',))):
    with pytest.raises(UserError, match='nests deeper than 32 levels or holds more than 200,000'):
      use()


def test_wrappers_are_opened_and_the_rest_is_counted():
  inside = {'w': TENSORS['a.bias']}
  tree = {'0': {'target': inside, 'state': {'step': 3, 'moments': [1, 2]}}, '1': 17}
  unwrapped, aside = trees.unwrap(tree, ('0', 'target'))
  assert unwrapped is inside
  assert aside == {'1': 1, '0/state': 3}
  assert trees.unwrap(inside, ('model',)) == (inside, {})


def test_leaves_must_be_arrays():
  with pytest.raises(UserError, match='a.b is of type int, expected an array'):
    trees.flatten({'a': {'b': 3}}, '.')
  with pytest.raises(UserError, match='a.b occurs twice'):
    trees.flatten({'a': {'b': np.zeros(1)}, 'a.b': np.zeros(1)}, '.')
  with pytest.raises(UserError, match='a single ndarray'):
    trees.flatten(np.zeros(1), '.')


def flags(**values: int) -> bytes:
  """Returns a pickled `argparse.Namespace`."""
  z = torch_archives
  items = b''.join(z.text(key) + z.number(value) for key, value in values.items())
  made = z.name('argparse', 'Namespace') + z.EMPTY_TUPLE + z.NEW_OBJECT
  return made + z.EMPTY_DICT + z.MARK + items + z.SET_ITEMS + z.BUILD


def test_flags_become_a_plain_dict(tmp_path):
  """Reads options of the command line that a training program stores beside the weights."""
  pickled = torch_archives.ordered_dict(
    {'args': flags(num_nf=1, seed=3), 'epoch': torch_archives.number(7)}
  )
  path = torch_archives.write(tmp_path / 'a.pt', torch_archives.archive(pickled, {}))
  assert tensor_files.read(path).tree == {'args': {'num_nf': 1, 'seed': 3}, 'epoch': 7}


@pytest.mark.parametrize(
  ('pickled', 'message'),
  [
    (
      torch_archives.name('collections', 'OrderedDict')
      + torch_archives.EMPTY_TUPLE
      + torch_archives.NEW_OBJECT,
      'makes an object that tensors do not need',
    ),
    (
      torch_archives.name('argparse', 'Namespace')
      + torch_archives.EMPTY_TUPLE
      + torch_archives.REDUCE,
      'calls what is not a function for tensors',
    ),
    (torch_archives.name('argparse', 'ArgumentParser'), 'asks for argparse.ArgumentParser'),
  ],
)
def test_nothing_else_is_made_like_flags(pickled, message, tmp_path):
  path = torch_archives.write(tmp_path / 'a.pt', torch_archives.archive(pickled, {}))
  with pytest.raises(UserError, match=message):
    tensor_files.read(path)
