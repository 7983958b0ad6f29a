"""Everything that `Writer` writes is read back from its files."""

import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.figures.images import grid, save_png
from hvae_tpu.runs import metric_writer

LEVELS = ('res1/group00', 'res4/group00', 'res4/group01')
ROOT = pathlib.Path(__file__).resolve().parents[2]


def noise(*shape: int) -> np.ndarray:
  return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def lines(path: pathlib.Path) -> list[dict]:
  def refuse(constant):
    raise ValueError(f'{constant} is not JSON')

  return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def events(directory: pathlib.Path) -> dict[str, list[tuple[int, object]]]:
  """tag -> [(step, value)] of the only event file; pictures and texts as lists of bytes."""
  from tensorboard.backend.event_processing import event_file_loader
  from tensorboard.util import tensor_util

  (path,) = directory.glob('events.out.tfevents.*')
  entries = {}
  for event in event_file_loader.EventFileLoader(str(path)).Load():
    for value in event.summary.value:
      tensor = None
      if value.HasField('tensor'):
        tensor = tensor_util.make_ndarray(value.tensor)
      entries.setdefault(value.tag, []).append((event.step, tensor))
  return entries


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """Makes one run with a bit of everything: its directory and its output."""
  directory = tmp_path_factory.mktemp('run')
  pictures = {'one': noise(4, 6, 3), 'grey': noise(2, 4, 6, 1), 'frames': noise(5, 8, 10, 3)}
  writer = metric_writer.Writer(str(directory), level_names=LEVELS)
  writer.hparams({'optimizer.rate': 1e-3, 'model.name': 'vdvae', 'data.size': (32, 32)})
  writer.text(0, 'config', 'width: **8**')
  writer.scalars(1, 'train', {'loss': 1.5, 'kl': np.array([1.0, 2.0, 4.0], np.float32)})
  spread = np.array([[0, 0, 0, 1, 1, 9]], np.float32)
  writer.write(2, 'eval', {'bpd': np.float32(3.5), 'one': pictures['one'], 'spread': spread})
  writer.images(3, 'eval', {'grey': pictures['grey']})
  writer.gif(4, 'eval/denoise', pictures['frames'], fps=10)
  writer.flush()
  writer.scalars(5, 'train', {'a': float('nan'), 'b': float('inf'), 'c': -np.inf, 'd': 3})
  writer.close()
  writer.close()
  return directory, pictures, events(directory)


def test_scalars(written):
  entries = written[2]
  assert entries['train/loss'] == [(1, 1.5)]
  assert entries['eval/bpd'] == [(2, 3.5)]


def test_levels_and_sums_by_resolution(written):
  entries = {tag: v for tag, v in written[2].items() if tag.startswith('train/kl')}
  assert entries == {
    'train/kl/res1/group00': [(1, 1.0)],
    'train/kl/res4/group00': [(1, 2.0)],
    'train/kl/res4/group01': [(1, 4.0)],
    'train/kl_by_res/res1': [(1, 1.0)],
    'train/kl_by_res/res4': [(1, 6.0)],
  }


def test_images(written):
  _, pictures, entries = written
  ((step, (width, height, png)),) = entries['eval/one']
  assert (step, int(width), int(height)) == (2, 6, 4)
  np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), pictures['one'])
  ((step, (_, _, *pngs)),) = entries['eval/grey']
  grey = np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in pngs])
  assert step == 3
  np.testing.assert_array_equal(grey, pictures['grey'][..., 0])


def test_gif(written):
  _, pictures, entries = written
  ((step, (width, height, data)),) = entries['eval/denoise']
  assert (step, int(width), int(height)) == (4, 10, 8)
  movie = Image.open(io.BytesIO(data))
  assert (movie.format, movie.n_frames, movie.info['duration']) == ('GIF', 5, 100)
  for i, frame in enumerate(pictures['frames']):  # 80 pixels fit into a palette exactly
    movie.seek(i)
    np.testing.assert_array_equal(np.asarray(movie.convert('RGB')), frame)


def test_histograms(written):
  ((step, buckets),) = written[2]['eval/spread']
  assert step == 2 and buckets.shape[1] == 3  # left edge, right edge, count
  assert buckets[0, 0] == 0 and buckets[-1, 1] == 9 and buckets[:, 2].sum() == 6
  assert buckets[0, 2] == 3 and buckets[-1, 2] == 1


def test_tensorboard_shows_the_gif_among_the_images(written):
  from tensorboard.backend.event_processing import event_accumulator

  accumulator = event_accumulator.EventAccumulator(str(written[0]))
  accumulator.Reload()
  assert set(accumulator.PluginTagToContent('images')) == {
    'eval/one',
    'eval/grey',
    'eval/denoise',
  }


def test_hparams_and_text(written):
  from tensorboard.backend.event_processing import event_accumulator
  from tensorboard.plugins.hparams import metadata

  accumulator = event_accumulator.EventAccumulator(str(written[0]))
  accumulator.Reload()
  content = accumulator.PluginTagToContent('hparams')[metadata.SESSION_START_INFO_TAG]
  settings = metadata.parse_session_start_info_plugin_data(content).hparams
  assert settings['optimizer.rate'].number_value == 1e-3
  assert settings['model.name'].string_value == 'vdvae'
  assert settings['data.size'].string_value == '(32, 32)'
  ((_, text),) = written[2]['config']
  assert b'width: **8**' in np.ravel(text)


def test_lines_are_strict_json(written):
  first, second, third = lines(written[0] / 'metrics-0001.jsonl')
  assert first['step'] == 1 and first['time'] > 1.7e9 and first['train/kl_by_res/res4'] == 6.0
  assert second == {'step': 2, 'time': second['time'], 'eval/bpd': 3.5}
  values = {key: third[f'train/{key}'] for key in 'abcd'}
  assert values == {'a': 'nan', 'b': 'inf', 'c': '-inf', 'd': 3.0}


def test_each_start_has_its_own_lines(tmp_path):
  for start in (1, 2):
    writer = metric_writer.Writer(str(tmp_path))
    writer.scalars(start, 'train', {'loss': 0.0})
    # Read before `close`: a line is in the file as soon as the call returns.
    assert lines(tmp_path / f'metrics-000{start}.jsonl')[0]['step'] == start
    writer.close()
  assert len(list(tmp_path.glob('*.jsonl'))) == 2


def test_a_failure_of_the_thread_is_raised(tmp_path, monkeypatch):
  class Full:
    def write_scalars(self, step, values):
      raise OSError('disk full')

    def flush(self):
      pass

    def close(self):
      pass

  monkeypatch.setattr(metric_writer, '_open_events', lambda directory: Full())
  writer = metric_writer.Writer(str(tmp_path))
  with pytest.raises(OSError, match='disk full'):
    writer.scalars(1, 'train', {'loss': 0.0})
    writer.flush()
  writer.close()


def test_refuses_other_shapes(tmp_path, monkeypatch):
  monkeypatch.setattr(metric_writer, '_open_events', lambda directory: None)
  writer = metric_writer.Writer(str(tmp_path), level_names=LEVELS)
  with pytest.raises(UserError, match=r"'train/kl' has shape \[2\]; expected a scalar or \[3\]"):
    writer.scalars(1, 'train', {'kl': np.zeros(2)})
  for wrong in (np.zeros((2, 2), np.uint8), np.zeros((2, 2, 2)), np.zeros((1,) * 6, np.uint8)):
    with pytest.raises(UserError, match=r"result 'eval/x' is .*\]; expected a number or \[L\]"):
      writer.write(1, 'eval', {'x': wrong})
  with pytest.raises(ValueError, match='expected uint8 .* found float32'):
    writer.images(1, 'eval', {'x': np.zeros((4, 4, 3), np.float32)})
  with pytest.raises(ValueError, match='C = 1, 3 or 4'):
    writer.gif(1, 'eval', np.zeros((2, 4, 4), np.uint8), fps=1)


def test_refuses_directories_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match='Not a directory.*--workdir'):
    metric_writer.Writer(str(tmp_path / 'file' / 'run'))


def test_inactive_writes_nothing_and_imports_nothing(tmp_path):
  program = """
import sys
import numpy as np
from hvae_tpu.runs import metric_writer
writer = metric_writer.Writer(sys.argv[1], active=False)
writer.hparams({'a': 1})
writer.text(0, 'a', 'b')
writer.scalars(0, 'a', {'b': 1.0})
writer.write(0, 'a', {'b': 1.0})
writer.images(0, 'a', {'b': np.zeros((2, 2, 3), np.uint8)})
writer.gif(0, 'a', np.zeros((1, 2, 2, 3), np.uint8), fps=1)
writer.flush()
writer.close()
assert not {'tensorflow', 'tensorboard', 'clu'} & set(sys.modules)
"""
  target = tmp_path / 'run'
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  subprocess.run([sys.executable, '-c', program, str(target)], check=True, env=environment)
  assert not target.exists()


def test_grid_layout():
  images = noise(2, 3, 4, 5, 3)
  tiled = grid(images)
  assert tiled.shape == (8, 15, 3)
  for row in range(2):
    for column in range(3):
      tile = tiled[row * 4 : row * 4 + 4, column * 5 : column * 5 + 5]
      np.testing.assert_array_equal(tile, images[row, column])
  np.testing.assert_array_equal(grid(images[0]), tiled[:4])
  np.testing.assert_array_equal(grid(images[None]), tiled)
  assert grid(noise(3, 4, 5, 1)).shape == (4, 15, 1)
  with pytest.raises(ValueError, match='found float64'):
    grid(np.zeros((2, 2, 2, 3)))


@pytest.mark.parametrize('shape', [(4, 6, 3), (4, 6, 1), (4, 6), (4, 6, 4)])
def test_save_png(tmp_path, shape):
  picture = noise(*shape)
  path = tmp_path / 'new folder' / 'a.png'
  save_png(path, picture)
  expected = picture[..., 0] if shape[-1] == 1 else picture
  np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
  assert os.listdir(path.parent) == ['a.png']


def test_save_png_replaces_only_by_a_complete_file(tmp_path, monkeypatch):
  path = tmp_path / 'a.png'
  save_png(path, noise(4, 4, 3))
  before = path.read_bytes()

  def fail(*args, **kwargs):
    raise OSError('disk full')

  monkeypatch.setattr(Image.Image, 'save', fail)
  with pytest.raises(UserError, match=r'a.png cannot be written .disk full'):
    save_png(path, noise(8, 8, 3))
  assert os.listdir(tmp_path) == ['a.png'] and path.read_bytes() == before
