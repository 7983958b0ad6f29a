"""Builders of video sets: every container, every frame, and the examples of the reader."""

import dataclasses
import io
import itertools

import av
import numpy as np
import pytest

from data_prep import build as command
from data_prep import check
from data_prep.core import clips
from data_prep.core.records import write_dataset
from data_prep.core.request import Request
from data_prep.datasets import cwvae_videos, moving_mnist20
from data_prep.raw import videos
from hvae_tpu import data
from tests.support import raw_files
from tests.support.built_sets import card_of, files_of, read_split
from tests.support.malformed import npy, npz
from tests.support.raw_scenes import film, gif, prepared_video, write_with_the_package

SETS = {'minerl': (3, 45, 27), 'mazes': (3, 40, 20), 'moving_mnist': (1, 23, 61)}
FOLDERS = {
  'minerl': ('minerl_navigate/train', 'minerl_navigate/test'),
  'mazes': ('train', 'test'),
  'moving_mnist': ('train-seq100', 'test-seq1000'),
}


@pytest.fixture
def small(monkeypatch):
  """Shrinks the published sets to a few frames."""
  for name, (_, train, test) in SETS.items():
    known = cwvae_videos.SETS[name]
    short = dataclasses.replace(known, frames={'train': train, 'test': test})
    monkeypatch.setitem(cwvae_videos.SETS, name, short)


def noise(count, frames, channels, seed=0):
  """Draws `count` videos uint8 [frames, 64, 64, channels]."""
  shape = (count, frames, 64, 64, channels)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def raw_set(name):
  """Makes videos by split, and their files beside others that must be ignored."""
  channels, *lengths = SETS[name]
  by_split, files = {}, {'read.me': b'text', '__MACOSX/train/._0.mp4': b'Mac'}
  for split, folder, frames, count in zip(
    ('train', 'test'), FOLDERS[name], lengths, (3, 2), strict=True
  ):
    by_split[split] = noise(count, frames, channels, seed=frames)
    for i, video in reversed([*enumerate(by_split[split])]):  # names decide, not positions
      files[f'{folder}/{i:02d}.mp4'] = film(video)
      files[f'{folder}/{i:02d}.json'] = b'{}'
  return by_split, files


def pieces(sequences, seq_len):
  """Cuts sequences into clips in order; the rest of each is dropped."""
  return np.stack(
    [
      video[start : start + seq_len]
      for video in sequences
      for start in range(0, len(video) - seq_len + 1, seq_len)
    ]
  )


def read_pieces(folder, view, seq_len, batch_size=2):
  """Returns the clips of a view as the reader gives them."""
  dataset = data.open_dataset(folder.name, folder.parent)
  batches = data.eval_batches(dataset, view, batch_size=batch_size, seq_len=seq_len)
  return np.concatenate([batch['video'][batch['mask']] for batch in batches])


def assert_same_videos(folder, videos_of_split, lengths=(0, 1, 7, 20, 21)):
  """Asserts that sequences (0) and clips of these lengths are as expected; the check passes."""
  for split, sequences in videos_of_split.items():
    for seq_len in lengths:
      expected = pieces(sequences, seq_len) if seq_len else sequences
      actual = read_pieces(folder, split, seq_len)
      np.testing.assert_array_equal(actual, expected, strict=True, err_msg=f'{split} {seq_len}')
  assert not list(check.problems(folder))


@pytest.mark.parametrize('write', ['folder', 'zip', 'tar'])
@pytest.mark.parametrize('name', SETS)
def test_published_set(tmp_path, small, capsys, name, write):
  expected, files = raw_set(name)
  raw = getattr(raw_files, f'write_{write}')(tmp_path / 'raw', files)
  alias = 'mmnist' if name == 'moving_mnist' else name
  folder = command.build(alias, tmp_path, raw=[raw])
  printed = capsys.readouterr().out
  assert folder.name == name
  assert f'[ok] container: {write} of video files' in printed
  assert f'{SETS[name][1]} frames in train and {SETS[name][2]} in test, of 64x64x' in printed
  assert_same_videos(folder, expected, (0, 7, 20))
  card = card_of(folder)
  assert card['compression'] == 'zstd' and card['variant'] == name and 'av' in card['packages']
  assert {view: entry['split'] for view, entry in card['views'].items()} == {
    'train': 'train',
    'valid': 'test',
    'test': 'test',
  }


def test_records_and_their_padding(tmp_path, small):
  expected, files = raw_set('minerl')  # 45 frames: two whole records and a quarter of one
  raw = raw_files.write_zip(tmp_path / 'raw', files)
  actual = read_split(command.build('minerl', tmp_path, raw=[raw]), 'train')
  assert actual['sequence'].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
  assert actual['start'].tolist() == [0, 20, 40] * 3
  filled = np.pad(expected['train'], ((0, 0), (0, 15), (0, 0), (0, 0), (0, 0)))
  np.testing.assert_array_equal(actual['video'], filled.reshape(9, 20, 64, 64, 3), strict=True)


def test_training_reads_the_same_pieces(tmp_path, small):
  expected, files = raw_set('moving_mnist')
  raw = raw_files.write_zip(tmp_path / 'raw', files)
  command.build('mmnist', tmp_path, raw=[raw])
  dataset = data.open_dataset('moving_mnist', tmp_path)
  stream = data.train_batches(dataset, 'train', batch_size=3, seed=1, seq_len=5)
  batches = list(itertools.islice(stream, 4))  # 12 pieces of 3 sequences: an epoch
  stream.close()
  seen = set()
  for batch in batches:
    for video, sequence, start in zip(
      batch['video'], batch['sequence'], batch['start'], strict=True
    ):
      np.testing.assert_array_equal(video, expected['train'][sequence, start : start + 5])
      seen.add((int(sequence), int(start)))
  assert seen == {(s, t) for s in range(3) for t in (0, 5, 10, 15)}


def test_bytes_do_not_depend_on_the_jobs(tmp_path, small, capsys):
  _, files = raw_set('mazes')
  raw = raw_files.write_zip(tmp_path / 'raw', files)
  one = command.build('mazes', tmp_path / 'one', raw=[raw])
  three = command.build('mazes', tmp_path / 'three', raw=[raw], jobs=3)
  assert files_of(one) == files_of(three)
  capsys.readouterr()
  assert command.build('mazes', tmp_path / 'one', raw=[raw]) == one
  assert f'{one} is complete already' in capsys.readouterr().out


def test_shards_that_begin_inside_a_sequence(tmp_path, small):
  expected, files = raw_set('minerl')
  raw = raw_files.write_folder(tmp_path / 'raw', files)
  contents = cwvae_videos.load(Request('minerl', tmp_path, raw=(raw,)))
  write_dataset(tmp_path / 'cut', 'cut', dataclasses.replace(contents, records_per_shard=2), jobs=1)
  assert len(card_of(tmp_path / 'cut')['splits']['train']['shards']) == 5
  assert_same_videos(tmp_path / 'cut', expected)


def test_film_with_loss_is_what_its_decoder_gives(tmp_path):
  frames = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
  encoded = film(frames.repeat(8, 1).repeat(8, 2), lossless=False)
  for channels, kind in ((3, 'rgb24'), (1, 'gray')):
    with av.open(io.BytesIO(encoded)) as container:
      plain = [frame.to_ndarray(format=kind) for frame in container.decode(video=0)]
    decoded = videos.decode(encoded, 'x', channels)
    np.testing.assert_array_equal(decoded, np.reshape(plain, (5, 64, 64, channels)), strict=True)


def test_black_and_white_of_a_film_are_0_and_255():
  """Films store grey in 16 to 235; a decoder that ignores this loses contrast."""
  levels = np.array([0, 60, 128, 200, 255], np.uint8)
  frames = np.tile(levels[:, None, None, None], (1, 64, 64, 3))
  for channels in (1, 3):
    decoded = videos.decode(film(frames, lossless=False), 'x', channels)
    assert np.abs(decoded.mean((1, 2, 3)) - levels).max() <= 2


@pytest.mark.parametrize('name', SETS)
def test_prepared_folder(tmp_path, small, monkeypatch, capsys, name):
  channels, train, test = SETS[name]
  expected = {'train': noise(3, train, channels), 'test': noise(2, test, channels, seed=1)}
  payloads = {split: [prepared_video(one) for one in group] for split, group in expected.items()}
  called = cwvae_videos.ABOUT[name].tfds
  raw_files.write_folder(
    tmp_path / 'tfds' / called / '1.0.0', raw_files.prepared_files(called, payloads)
  )
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
  folder = command.build(name, tmp_path)
  assert '[ok] container: tfds' in capsys.readouterr().out
  assert_same_videos(folder, expected, (0, 13))


@pytest.mark.slow
def test_folder_that_the_package_itself_wrote(tmp_path, small, monkeypatch):
  tfds = pytest.importorskip('tensorflow_datasets')
  expected = {'train': noise(3, 40, 3), 'test': noise(2, 20, 3, seed=1)}
  raw = write_with_the_package(tfds, tmp_path / 'mazes' / '1.0.0', 'video', expected)
  assert_same_videos(command.build('mazes', tmp_path / 'out', raw=[raw]), expected, (0,))
  monkeypatch.setattr(moving_mnist20, 'COUNT', 3)
  expected = {'test': noise(3, 20, 1)}
  raw = write_with_the_package(tfds, tmp_path / 'moving' / '1.0.0', 'image_sequence', expected)
  folder = command.build('moving_mnist20', tmp_path / 'out', raw=[raw])
  np.testing.assert_array_equal(read_split(folder, 'test')['video'], expected['test'])


def test_moving_mnist_of_srivastava(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(moving_mnist20, 'COUNT', 40)
  sequences = noise(40, 20, 1)
  raw = tmp_path / 'mnist_test_seq.npy'
  np.save(raw, sequences[..., 0].swapaxes(0, 1))
  folder = command.build('moving_mnist20', tmp_path / 'out', raw=[raw], unverified=True)
  assert '[warn] sha256 of mnist_test_seq.npy is not the published' in capsys.readouterr().out
  for view, start, stop in (('train', 0, 36), ('valid', 36, 38), ('test', 38, 40)):
    for seq_len in (0, 6):
      expected = pieces(sequences[start:stop], seq_len or 20)
      np.testing.assert_array_equal(read_pieces(folder, view, seq_len), expected, strict=True)
  assert not list(check.problems(folder))
  whole = moving_mnist20.make_views(10_000)
  assert [len(view.indices) for view in whole.values()] == [9000, 500, 500]


def test_moving_mnist_of_srivastava_as_prepared(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(moving_mnist20, 'COUNT', 3)
  sequences = noise(3, 20, 1)
  payloads = {'test': [prepared_video(one, 'image_sequence') for one in sequences]}
  raw = raw_files.write_folder(tmp_path / '1.0.0', raw_files.prepared_files('moving', payloads))
  folder = command.build('moving_mnist20', tmp_path / 'out', raw=[raw])
  assert '[warn] tensorflow-datasets keeps no order' in capsys.readouterr().out
  np.testing.assert_array_equal(read_split(folder, 'test')['video'], sequences)


def own_videos(channels):
  """Makes films, GIFs and arrays of several lengths: file name -> frames, and bytes."""
  rng = np.random.default_rng(channels)
  grey = rng.integers(0, 256, (9, 24, 32, 1), np.uint8)
  frames = {
    f'{i:02d}.{kind}': rng.integers(0, 256, (length, 24, 32, channels), np.uint8)
    for i, (kind, length) in enumerate(
      (('mp4', 41), ('NPZ', 20), ('npy', 7), ('npz', 26), ('mov', 30), ('npy', 3)), 1
    )
  }
  coded = {
    name: {'npz': lambda v: npz(video=v, action=np.zeros(3)), 'npy': npy}.get(
      name[3:].lower(), film
    )(video)
    for name, video in frames.items()
  }
  frames['00.gif'], coded['00.gif'] = np.repeat(grey, channels, -1), gif(grey)
  if channels == 1:  # arrays may have no channel axis
    frames['07.npz'] = grey
    coded['07.npz'] = npz(anything=grey[..., 0])
  return dict(sorted(frames.items())), coded


@pytest.mark.parametrize(('variant', 'channels'), [(None, 3), ('grey', 1)])
def test_own_videos_are_mixed_and_dealt_by_name(tmp_path, variant, channels):
  frames, coded = own_videos(channels)
  raw = raw_files.write_folder(tmp_path / 'videos', {f'deep/{k}': v for k, v in coded.items()})
  (raw / 'notes.txt').write_text('no video')
  folder = command.build('video_folder', tmp_path, raw=[raw], variant=variant)
  test, *train = frames.values()  # the first of ten
  assert card_of(folder)['details']['video'] == {
    'chunk': clips.CHUNK,
    'frames': {'train': [len(video) for video in train], 'test': [9]},
  }
  for seq_len in (1, 3, 11, 26):
    expected = pieces([video for video in train if len(video) >= seq_len], seq_len)
    np.testing.assert_array_equal(read_pieces(folder, 'train', seq_len), expected, strict=True)
  np.testing.assert_array_equal(read_pieces(folder, 'test', 0), test[None], strict=True)
  assert not list(check.problems(folder))


def test_own_videos_in_folders_of_their_split(tmp_path, capsys):
  frames, coded = own_videos(3)
  places = {name: 'test' if name > '03' else 'train/a' for name in frames} | {'06.npy': 'spare'}
  files = {f'set/{places[name]}/{name}': data for name, data in coded.items()}
  raw = raw_files.write_tar(tmp_path / 'videos', files, 'w:gz')
  folder = command.build('video_folder', tmp_path, raw=[raw])
  printed = capsys.readouterr().out
  assert 'neither below train nor below test: 1 videos, the first set/spare/06.npy' in printed
  for split in ('train', 'test'):
    selected = [video for name, video in frames.items() if places[name].split('/')[0] == split]
    np.testing.assert_array_equal(read_pieces(folder, split, 5), pieces(selected, 5), strict=True)


def test_every_tenth_video_is_for_testing(tmp_path):
  video = np.zeros((1, 4, 4, 1), np.uint8)
  files = {f'{i:03d}.npy': npy(video + i) for i in range(23)}
  raw = raw_files.write_folder(tmp_path / 'videos', files)
  folder = command.build('video_folder', tmp_path, raw=[raw], variant='grey')
  assert read_split(folder, 'test')['video'][:, 0, 0, 0, 0].tolist() == [0, 10, 20]
  assert read_split(folder, 'train')['video'][:, 0, 0, 0, 0].tolist() == [
    i for i in range(23) if i % 10
  ]
