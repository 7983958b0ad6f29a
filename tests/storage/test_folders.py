"""Folders of results: whole, of one command, and preserved if the next command fails."""

import pathlib

import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.storage import folders


def test_only_a_block_that_ends_well_replaces(tmp_path):
  folder = tmp_path / 'mode' / 'test-1-ema'
  with folders.replacing(folder) as partial:
    (partial / 'a').write_text('first')
    assert not folder.exists()
  with pytest.raises(ZeroDivisionError), folders.replacing(folder) as partial:
    (partial / 'b').write_text('second')
    raise ZeroDivisionError
  assert [path.name for path in folder.iterdir()] == ['a']
  with folders.replacing(folder) as partial:
    (partial / 'c').write_text('third')
  assert [path.name for path in folder.iterdir()] == ['c']
  assert [path.name for path in folder.parent.iterdir()] == ['test-1-ema']


def test_what_was_there_comes_back(tmp_path, monkeypatch):
  folder, rename = tmp_path / 'test-1-ema', pathlib.Path.rename
  with folders.replacing(folder) as partial:
    (partial / 'a').write_text('first')

  def fail(path, target):
    if target == folder and 'old' not in path.name:
      raise OSError(28, 'No space left on device')
    return rename(path, target)

  monkeypatch.setattr(pathlib.Path, 'rename', fail)
  with pytest.raises(UserError, match='No space left'), folders.replacing(folder):
    pass
  assert [path.name for path in tmp_path.iterdir()] == ['test-1-ema']
  assert (folder / 'a').read_text() == 'first'


def test_a_place_that_cannot_be_written(tmp_path):
  (tmp_path / 'mode').write_text('a file')
  with pytest.raises(UserError, match='mode/x cannot be written .*; give another --workdir'):
    with folders.replacing(tmp_path / 'mode' / 'x'):
      pass
