"""Writers of raw videos and multi-object scenes in the layouts in which they are published.

As in `raw_files`, nothing is shared with the readers.
"""

from collections.abc import Iterable, Mapping, Sequence
import io
import itertools
import json
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
from PIL import Image

from tests.support.raw_files import encoded, field, tfrecord, varint

Scene = dict[str, np.ndarray]

# Factors of the TFRecords: name -> numbers of an entity; those in `_BYTES` are stored as bytes.
_PLACE = {'x': 1, 'y': 1, 'shape': 1, 'visibility': 1}
FACTORS = {
  'tetrominoes': {**_PLACE, 'color': 3},
  'multi_dsprites': {**_PLACE, 'color': 3, 'orientation': 1, 'scale': 1},
  'clevr': {
    **_PLACE,
    'z': 1,
    'pixel_coords': 3,
    'rotation': 1,
    'size': 1,
    'material': 1,
    'color': 1,
  },
}
_BYTES = {'tetrominoes': (), 'multi_dsprites': (), 'clevr': ('color', 'material', 'shape', 'size')}
CLEVR_COLUMNS = ('x', 'y', 'z', 'rotation', 'size', 'material', 'shape', 'color', 'visibility')


def film(frames: np.ndarray, *, lossless: bool = True) -> bytes:
  """Returns an MP4 (H.264) of uint8 [T, H, W, 3] or [T, H, W, 1]."""
  buffer, grey = io.BytesIO(), frames.shape[-1] == 1
  coder, pixels = ('libx264', 'gray') if grey else ('libx264rgb', 'rgb24')
  if not lossless:
    coder, pixels = 'libx264', 'yuv420p'
  with av.open(buffer, 'w', format='mp4') as container:
    stream = container.add_stream(coder, rate=25, options={'crf': '0'} if lossless else {})
    stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
    if grey and lossless:
      stream.codec_context.color_range = 2  # all of 0 to 255
    for picture in frames:
      plain = picture[..., 0] if grey else picture
      frame = av.VideoFrame.from_ndarray(plain, format='gray' if grey else 'rgb24')
      if grey and lossless:
        frame.color_range = 2
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return buffer.getvalue()


def gif(frames: np.ndarray) -> bytes:
  """Returns an animated GIF of grey frames, uint8 [T, H, W, 1], no two neighbours the same."""
  buffer = io.BytesIO()
  first, *rest = (Image.fromarray(frame[..., 0]) for frame in frames)
  first.save(buffer, 'gif', save_all=True, append_images=rest, optimize=False)
  return buffer.getvalue()


def prepared_video(frames: Iterable[np.ndarray], name: str = 'video') -> bytes:
  """Returns a tf.Example as tensorflow-datasets writes a video: its frames as a list of PNGs."""
  values = b''.join(field(1, encoded(frame)) for frame in frames)
  return field(1, field(1, field(1, name.encode()) + field(2, field(1, values))))


def write_with_the_package(
  tfds: Any, folder: Path, feature: str, splits: Mapping[str, Sequence[np.ndarray]]
) -> Path:
  """Writes a folder with the package `tfds` itself: videos [T, H, W, C] by split."""
  channels = next(iter(splits.values()))[0].shape[-1]
  features = tfds.features.FeaturesDict(
    {feature: tfds.features.Video(shape=(None, 64, 64, channels))}
  )
  identity = tfds.core.dataset_info.DatasetIdentity(
    name='videos', version=tfds.core.Version('1.0.0'), data_dir=str(folder), module_name='here'
  )
  folder.mkdir(parents=True)
  info = tfds.core.DatasetInfo(builder=identity, features=features)
  writer = tfds.core.SequentialWriter(info, max_examples_per_shard=2)
  writer.initialize_splits(list(splits))
  writer.add_examples({s: [{feature: one} for one in videos] for s, videos in splits.items()})
  writer.close_all()
  return folder


def scene(
  family: str, image: tuple[int, ...], entities: int, hidden: Sequence[int] = (), seed: int = 0
) -> Scene:
  """Returns a scene of noise: `image`, `masks` [E, H, W, 1] and factors [E, n].

  Every pixel belongs to one entity. Those in `hidden` show no pixel and are not visible.
  """
  rng = np.random.default_rng([seed, entities])
  shown = np.setdiff1d(np.arange(entities), hidden)
  # Blocks, so that a smaller picture still shows every entity.
  blocks = rng.permutation(np.resize(shown, 64)).reshape(8, 8)
  rows, columns = (np.arange(side) * 8 // side for side in image[:2])
  owner = blocks[rows][:, columns]
  arrays = {
    'image': rng.integers(0, 256, image, np.uint8),
    'masks': np.where(owner == np.arange(entities)[:, None, None], 255, 0)[..., None].astype('u1'),
  }
  for name, width in FACTORS[family].items():
    if name == 'color' and width == 3:
      width = image[-1]
    values = rng.integers(1, 9, (entities, width))
    arrays[name] = values.astype(np.uint8 if name in _BYTES[family] else np.float32)
  arrays['visibility'] = np.isin(np.arange(entities), shown).astype(np.float32)[:, None]
  return arrays


def scene_record(arrays: Scene, entity_axis: int = 0) -> bytes:
  """Returns a tf.Example of a scene: bytes one by one, each a string of its own; floats packed."""
  entries = b''
  for name, array in arrays.items():
    if name == 'masks':
      name, array = 'mask', np.moveaxis(array, 0, entity_axis)
    entries += feature(name, array)
  return field(1, entries)


def feature(name: str, array: np.ndarray) -> bytes:
  """Returns an entry of the map of features: uint8 as one-byte strings, float32, or int64."""
  if array.dtype == np.uint8:
    rows = np.full((array.size, 3), (0x0A, 1, 0), np.uint8)  # field 1, one byte long, the byte
    rows[:, 2] = array.ravel()
    value = field(1, rows.tobytes())
  elif array.dtype == np.float32:
    value = field(2, field(1, array.tobytes()))
  else:
    value = field(3, field(1, b''.join(varint(int(one)) for one in array.ravel())))
  return field(1, field(1, name.encode()) + field(2, value))


def scene_records(scenes: Sequence[Scene], entity_axis: int = 0) -> bytes:
  """Returns a TFRecord file of scenes, not yet gzipped."""
  return tfrecord([scene_record(one, entity_axis) for one in scenes])


def h5_scenes(
  scenes: Sequence[Scene], groups: str, columns: Sequence[str] = (), **changed: np.ndarray | None
) -> bytes:
  """Returns an h5 file in EfficientMORL's layout; `factors` of these columns, if any.

  The names of `groups` are separated by blanks. `changed` takes the place of `imgs`, `masks` or
  `factors`; None leaves one out.
  """
  arrays = {
    name: np.stack([one[key] for one in scenes])
    for name, key in (('imgs', 'image'), ('masks', 'masks'))
  }
  if columns:
    rows = [np.concatenate([one[name] for name in columns], 1) for one in scenes]
    arrays['factors'] = np.stack(rows).astype(np.float32)
  buffer = io.BytesIO()
  with h5py.File(buffer, 'w') as file:
    for group, (name, array) in itertools.product(groups.split(), (arrays | changed).items()):
      if array is not None:
        file[f'{group}/{name}'] = array
  return buffer.getvalue()


def clevrtex_files(
  variant: str, number: int, image: np.ndarray, owner: np.ndarray, objects: Sequence[Mapping]
) -> dict[str, bytes]:
  """Returns the three files of a scene, in a folder for each thousand; `owner` is uint8 [H, W]."""
  stem = f'clevrtex_{variant}/{number // 1000}/CLEVRTEX_{variant}_{number:06d}'
  about = {'ground_material': 'Poliigon_Ground', 'objects': list(objects)}
  return {
    f'{stem}.png': encoded(image),
    f'{stem}_flat.png': index_picture(owner),
    f'{stem}.json': json.dumps(about).encode(),
  }


def index_picture(owner: np.ndarray) -> bytes:
  """Returns a PNG with a palette; its indices are the numbers of entities."""
  buffer = io.BytesIO()
  picture = Image.fromarray(owner, 'L').convert('P')
  picture.putdata(owner.ravel())
  picture.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tolist())
  picture.save(buffer, 'png')
  return buffer.getvalue()
