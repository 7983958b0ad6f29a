"""Store of small files: contents byte for byte, and refusals of damaged files."""

import json
from pathlib import Path

import numpy as np
import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.storage import files


def test_json_is_strict(tmp_path):
  record = {'a': [1.5, float('nan')], 'b': {'c': (np.float64('-inf'), 2)}}
  files.save_json(tmp_path / 'new' / 'a.json', record)
  text = (tmp_path / 'new' / 'a.json').read_text()
  refuse = lambda constant: pytest.fail(f'{constant} is not JSON')
  assert json.loads(text, parse_constant=refuse) == {'a': [1.5, 'nan'], 'b': {'c': ['-inf', 2]}}
  assert text == json.dumps(json.loads(text), indent=2) + '\n'


def test_numbers_that_are_not_finite_can_be_read_back(tmp_path):
  record = {'a': float('inf'), 'b': (1, 2)}
  files.save_json(tmp_path / 'a.json', record, strict=False, indent=None, end='')
  assert (tmp_path / 'a.json').read_text() == '{"a": Infinity, "b": [1, 2]}'
  assert files.read_json(tmp_path / 'a.json', 'x', keys='ab') == {'a': float('inf'), 'b': [1, 2]}


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (None, 'a.json is missing; build it anew'),
    ('{"a', r'a.json cannot be read \(Unterminated string .*\); build it anew'),
    ('\xff', r'a.json cannot be read \(.*\); build it anew'),
    ('[1]', r'a.json cannot be read \(it is no JSON object\); build it anew'),
    ('{"b": 1}', 'a.json is damaged: a, c missing; build it anew'),
  ],
)
def test_json_that_is_missing_or_damaged(tmp_path, text, message):
  if text is not None:
    (tmp_path / 'a.json').write_bytes(text.encode('latin-1'))
  with pytest.raises(UserError, match=message):
    files.read_json(tmp_path / 'a.json', 'build it anew', keys=('a', 'b', 'c'))


def test_missing_files_in_the_words_of_the_caller(tmp_path):
  for read in (
    lambda: files.read_json(tmp_path / 'a', 'make it', missing='no numbers'),
    lambda: files.read_arrays(tmp_path / 'a', ('b',), 'make it', missing='no numbers'),
  ):
    with pytest.raises(UserError, match='^no numbers; make it$'):
      read()


def test_tables(tmp_path):
  files.save_csv(tmp_path / 'a.csv', [{'x': 1, 'y': 0.5}, {'x': 'a,b', 'y': np.float32(2)}])
  assert (tmp_path / 'a.csv').read_bytes() == b'x,y\r\n1,0.5\r\n"a,b",2.0\r\n'


@pytest.mark.parametrize('compressed', [False, True])
def test_arrays(tmp_path, compressed):
  path = tmp_path / 'new' / 'a.npz'
  files.save_arrays(path, {'x': np.arange(3), 'y': 'text'}, compressed=compressed)
  arrays = files.read_arrays(path, ('x', 'y'), 'x')
  np.testing.assert_array_equal(arrays['x'], np.arange(3))
  assert str(arrays['y']) == 'text'
  with pytest.raises(UserError, match='cannot be read .*z is not a file.*; make it'):
    files.read_arrays(path, ('z',), 'make it')
  path.write_bytes(path.read_bytes()[:50])
  with pytest.raises(UserError, match=r'a.npz cannot be read \(.*\); make it'):
    files.read_arrays(path, ('x',), 'make it')


def test_a_failure_leaves_the_old_file(tmp_path):
  path = tmp_path / 'a.json'
  files.save_json(path, {'a': 1})
  with pytest.raises(TypeError):
    files.save_json(path, {'a': object()})
  with pytest.raises(ZeroDivisionError), files.replacing(path) as partial:
    partial.write_text('half')
    1 / 0  # noqa: B018
  assert list(tmp_path.iterdir()) == [path] and files.read_json(path, 'x') == {'a': 1}


def test_a_place_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match='file/a.csv cannot be written .*; give another --workdir'):
    files.save_csv(Path(tmp_path / 'file' / 'a.csv'), [{'x': 1}])
