"""Folders of results: whole, of one command, and kept where the next one fails."""

import pytest

from hvae_tpu import folders
from hvae_tpu.errors import UserError


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


def test_a_place_that_cannot_be_written(tmp_path):
  (tmp_path / 'mode').write_text('a file')
  with pytest.raises(UserError, match='mode/x cannot be written .*; give another --workdir'):
    with folders.replacing(tmp_path / 'mode' / 'x'):
      pass
