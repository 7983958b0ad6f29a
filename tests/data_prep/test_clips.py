"""Clips of videos: their frames, and the records that are read for them."""

import itertools

import numpy as np
import pytest

from data_prep.core import contents, records
from hvae_tpu import data
from hvae_tpu.data.items import items_of
from hvae_tpu.data.records import Records
from hvae_tpu.errors import UserError

CHUNK = 4
LENGTHS = {'train': 12, 'test': (6, 13, 9)}  # frames; three sequences each


def chunks_of(lengths):
  """Makes records of sequences; the pixels of a frame are its number and its sequence."""
  video, sequence, start = [], [], []
  for number, length in enumerate(lengths):
    frames = np.zeros((-(-length // CHUNK) * CHUNK, 2, 2, 1), np.uint8)
    frames[:length, 0, 0, 0] = np.arange(length)
    frames[:length, 0, 1, 0] = number
    for first in range(0, length, CHUNK):
      video.append(frames[first : first + CHUNK])
      sequence.append(number)
      start.append(first)
  return contents.split_of_arrays(
    video=np.stack(video), sequence=np.array(sequence), start=np.array(start)
  )


@pytest.fixture(scope='module')
def videos_of():
  splits = {'train': chunks_of((12, 12, 12)), 'test': chunks_of(LENGTHS['test'])}
  details = {'video': {'chunk': CHUNK, 'frames': LENGTHS}}
  return contents.Contents(
    fields={
      'video': contents.Field('uint8', (CHUNK, 2, 2, 1)),
      'sequence': contents.Field('int64', ()),
      'start': contents.Field('int64', ()),
    },
    splits=splits,
    views={
      'train': contents.View('train', 'all'),
      'test': contents.View('test', 'all'),
      'second': contents.View('test', 'sequence 1', np.arange(2, 6)),
    },
    info=contents.CardInfo(
      1,
      'made here',
      {},
      {},
      'none',
      'none',
      True,
      details=details,
    ),
    records_per_shard=5,
  )


@pytest.fixture(scope='module')
def videos(tmp_path_factory, videos_of):
  root = tmp_path_factory.mktemp('data')
  records.write_dataset(root / 'clips', 'clips', videos_of)
  return data.open_dataset('clips', root)


def examples(dataset, view, seq_len):
  """Returns (sequence, start, numbers of the frames) of each example of a view, in order."""
  batches = data.eval_batches(dataset, view, batch_size=1, seq_len=seq_len)
  return [
    (int(b['sequence'][0]), int(b['start'][0]), b['video'][0, :, 0, 0, 0].tolist()) for b in batches
  ]


def test_pieces_of_all_sequences_before_the_second_ones(videos):
  batches = data.eval_batches(videos, 'test', batch_size=1, seq_len=4, interleave_videos=True)
  pieces = [(int(b['sequence'][0]), int(b['start'][0])) for b in batches]
  assert pieces == [(0, 0), (1, 0), (2, 0), (1, 4), (2, 4), (1, 8)]


@pytest.mark.parametrize('seq_len', [1, 3, 4, 5, 7, 12])
def test_pieces_follow_each_other_and_the_rest_is_dropped(videos, seq_len):
  expected = [
    (sequence, start, list(range(start, start + seq_len)))
    for sequence in range(3)
    for start in range(0, 12 - seq_len + 1, seq_len)
  ]
  assert examples(videos, 'train', seq_len) == expected
  assert examples(videos, 'train', 0) == [(n, 0, list(range(12))) for n in range(3)]


def test_sequences_of_unequal_lengths(videos):
  expected = [
    (sequence, start, list(range(start, start + 5)))
    for sequence, length in enumerate(LENGTHS['test'])
    for start in range(0, length - 4, 5)
  ]
  assert examples(videos, 'test', 5) == expected
  assert [s for s, _, _ in examples(videos, 'second', 6)] == [1, 1]
  assert examples(videos, 'second', 0) == [(1, 0, list(range(13)))]
  with pytest.raises(UserError, match='have 6 to 13 frames; choose a length'):
    examples(videos, 'test', 0)
  with pytest.raises(UserError, match='14 frames .* are longer than the 13 frames'):
    examples(videos, 'test', 14)


def test_training_sees_every_piece_once_an_epoch(videos):
  batches = data.train_batches(videos, 'train', batch_size=4, seed=0, seq_len=3)
  seen = list(itertools.islice(batches, 3))
  batches.close()
  pieces = {(int(s), int(t)) for b in seen for s, t in zip(b['sequence'], b['start'], strict=True)}
  assert pieces == {(s, t) for s in range(3) for t in (0, 3, 6, 9)}
  for batch in seen:
    assert batch['video'].shape == (4, 3, 2, 2, 1)
    np.testing.assert_array_equal(
      batch['video'][:, :, 0, 0, 0], batch['start'][:, None] + np.arange(3)
    )
    np.testing.assert_array_equal(batch['video'][:, 0, 0, 1, 0], batch['sequence'])


def test_a_piece_reads_no_more_than_its_records(videos, monkeypatch):
  read = []
  monkeypatch.setattr(
    Records, 'read', lambda self, numbers: read.append(numbers.tolist()) or _blank(len(numbers))
  )
  items = items_of(videos, 'train', 3)
  items.read(Records(videos, 'train'), np.array([1]))  # frames 3 to 5
  items.read(Records(videos, 'train'), np.array([0]))  # frames 0 to 2
  assert read == [[0, 1], [0]]


def _blank(count):
  return {'video': np.zeros((count, CHUNK, 2, 2, 1), np.uint8)}


def test_a_sequence_that_a_limit_cut_is_left_out(tmp_path, videos_of):
  records.write_dataset(tmp_path / 'clips', 'clips', videos_of, limit=8)
  limited = data.open_dataset('clips', tmp_path)
  assert [s for s, _, _ in examples(limited, 'train', 6)] == [0, 0, 1, 1]  # of three records each
  records.write_dataset(tmp_path / 'none' / 'clips', 'clips', videos_of, limit=1)
  with pytest.raises(UserError, match="view 'train' of clips holds no whole sequence"):
    examples(data.open_dataset('clips', tmp_path / 'none'), 'train', 2)


def test_shapes_of_a_batch_of_clips(videos):
  spec = data.batch_spec(videos.card, ('video',), 2, seq_len=5)
  assert spec['video'].shape == (2, 5, 2, 2, 1)
  assert data.batch_spec(videos.card, ('video',), 2)['video'].shape == (2, 12, 2, 2, 1)


def test_shapes_of_a_batch_where_the_lengths_are_not_known(videos):
  """The card of imported weights is like this, as their data set is not built."""
  card = {key: value for key, value in videos.card.items() if key != 'details'}
  assert data.batch_spec(card, ('video',), 2, seq_len=5)['video'].shape == (2, 5, 2, 2, 1)
  assert data.batch_spec(card, ('video',), 2)['video'].shape == (2, CHUNK, 2, 2, 1)
