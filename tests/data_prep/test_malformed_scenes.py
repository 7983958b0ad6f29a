"""Damaged videos, scenes and masks, and files of other data sets: refused in one sentence."""

import dataclasses
import gzip

import numpy as np
import pytest

from data_prep.datasets import cwvae_videos, moving_mnist20, multi_object
from data_prep.errors import DataPrepError
from data_prep.raw import object_scenes, videos
from tests.support import raw_scenes
from tests.support.malformed import PAGE, Case, flipped, npy, npz, one_file, refuse, zip_of
from tests.support.raw_files import encoded, example, pictures, prepared_files, tfrecord
from tests.support.raw_scenes import film, gif, h5_scenes, prepared_video, scene, scene_record

FRAMES = pictures(5, 64)
FILM = film(FRAMES)
PAIR = {'train/0.mp4': FILM, 'test/0.mp4': FILM}


@pytest.fixture(autouse=True)
def small(monkeypatch):
  """Shrinks the published sets to a few frames and scenes."""
  five = {'train': 5, 'test': 5}
  for name, known in cwvae_videos.SETS.items():
    monkeypatch.setitem(cwvae_videos.SETS, name, dataclasses.replace(known, frames=five))
  for name, known in multi_object.SETS.items():
    pools = {'train': (0, 2), 'test': (2, 3)}
    monkeypatch.setitem(multi_object.SETS, name, dataclasses.replace(known, pools=pools))
  monkeypatch.setattr(moving_mnist20, 'COUNT', 3)


def published(message, **files):
  """Makes a case of two sound films in folders, replaced by those named `train` or `test`."""
  return Case('mazes', message, PAIR | {f'{split}/0.mp4': data for split, data in files.items()})


def prepared(message, train, test=None):
  test = [prepared_video(FRAMES)] if test is None else test
  return Case('mazes', message, prepared_files('gqn_mazes', {'train': train, 'test': test}))


def own(message, **files):
  """Makes a case of a sound video and further files, given by suffix."""
  named = {f'1.{suffix}': data for suffix, data in files.items()}
  return Case('video_folder', message, {'0.npz': npz(video=FRAMES)} | named)


SHORT = r'video train/0\.mp4 must have 5 frames of 64x64 px, but has '
VIDEOS = {
  'short': published(SHORT + '4 frames of 64x64 px; it is damaged or of', train=film(FRAMES[:4])),
  'long': published(SHORT + '6 frames', train=film(FRAMES[[0, 1, 2, 3, 4, 0]])),
  'narrow': published(SHORT + '5 frames of 64x48 px', train=film(FRAMES[:, :, :48])),
  'truncated': published(
    r'train/0\.mp4 cannot be read as a video: .*; download it', train=FILM[:-900]
  ),
  'empty': published(r'train/0\.mp4 cannot be read as a video', train=b''),
  'page': published(r'train/0\.mp4 cannot be read as a video: it is a web page', train=PAGE),
  'no train': Case(
    'mazes', 'no videos below a folder train/', {'a/0.mp4': FILM, 'test/0.mp4': FILM}
  ),
  'no test': Case('minerl', 'no videos below a folder test/', {'train/0.mp4': FILM}),
  'texts': Case('mazes', r'raw holds no videos .*\.mp4', {'train/0.txt': b'', 'test/0.txt': b''}),
  'of MineRL': Case('moving_mnist', 'no videos below a folder train-seq100/', PAIR),
  'zip truncated': one_file('mazes', 'damaged or truncated zip', zip_of(PAIR)[:-30]),
  'zip flipped': one_file('mazes', r'train/0\.mp4 is damaged .*CRC', flipped(zip_of(PAIR), 200)),
  'page for all': one_file('minerl', 'is a web page, not data', PAGE),
  'one film': one_file('mazes', 'must be a folder, zip or tar of videos, but .*: unknown', FILM),
  'lmdb': Case('mazes', 'must be a folder, zip or tar .* is: lmdb', {'data.mdb': b''}),
  'sequences of 20': one_file(
    'moving_mnist', 'npy of Srivastava.* is another data set, moving_mnist20', npy(FRAMES)
  ),
  'prepared, short': prepared('video 0 must have 5 frames .* has 2', [prepared_video(FRAMES[:2])]),
  'prepared, other feature': prepared(
    'raw: record 0 must have the feature video, .* has: image', [prepared_video(FRAMES, 'image')]
  ),
  'prepared, numbers': prepared('must have the feature video', [example(video=[1, 2])]),
  'prepared, no picture': prepared('raw: record 0 cannot be read as a pic', [example(video=PAGE)]),
  'prepared, two sizes': prepared(
    r'record 0 must have frames of one size, but has: \[\(8, 8\), \(9, 9\)\]',
    [prepared_video([pictures(1, side)[0] for side in (8, 9)])],
  ),
  'prepared, no message': prepared(r'record 0 is not a tf\.Example', [b'no message']),
  'prepared, empty split': prepared("no videos in split 'train'", []),
  'prepared, no split': Case(
    'mazes', "has no split 'test', only: train", prepared_files('x', {'train': [b'']})
  ),
}

GIF = gif(pictures(4, 16, 1))
OWN = {
  'grey for RGB': own(
    r'1\.npz must be uint8 \[T, H, W, 3\], but is uint8 \[5, 64, 64, 1\]',
    npz=npz(video=FRAMES[..., :1]),
  ),
  'RGB for grey': dataclasses.replace(
    own(r'0\.npz must be uint8 \[T, H, W, 1\]', npy=npy(FRAMES[..., 0])),
    options={'variant': 'grey'},
  ),
  'no channels': own(r'1\.npy must be uint8 .* is uint8 \[5, 64, 64\]', npy=npy(FRAMES[..., 0])),
  'floats': own(r'1\.npy must be uint8 \[T, H, W, 3\], but is float64', npy=npy(FRAMES / 255)),
  'several arrays': own(r'1\.npz has no readable array `video`', npz=npz(a=FRAMES, b=FRAMES)),
  'objects': own(r'1\.npy has no readable array', npy=npy(np.array([{}]))),
  'npz truncated': own(r'1\.npz has no readable array', npz=npz(video=FRAMES)[:-50]),
  'no frames': own(r'1\.npy has no frames', npy=npy(FRAMES[:0])),
  'GIF truncated': own(r'1\.gif cannot be read as a video', gif=GIF[: len(GIF) // 2]),
  'GIF of nothing': own(r'1\.gif cannot be read as a video', gif=GIF[:8]),
  'two sizes': own(r'one size .*, but 1\.gif has 16x16 px, 0\.npz has 64x64 px; bring', gif=GIF),
  'only one': Case('video_folder', 'holds 1 video, but needs two', {'0.npz': npz(video=FRAMES)}),
  'none': Case('video_folder', 'raw holds no videos', {'0.png': encoded(FRAMES[0])}),
  'prepared': Case(
    'video_folder', 'must be a folder, zip or tar .* tfds', prepared_files('x', {'train': []})
  ),
}

SEQUENCES = np.zeros((20, 3, 64, 64), np.uint8)
SRIVASTAVA = {
  'films': one_file('moving_mnist20', 'content is: zip; the MP4 archive is another', zip_of(PAIR)),
  'transposed': one_file(
    'moving_mnist20', r'\[20, N, 64, 64\], but is uint8 \[3, 20, 64', npy(SEQUENCES.swapaxes(0, 1))
  ),
  'floats': one_file('moving_mnist20', 'but is float32', npy(SEQUENCES.astype(np.float32))),
  'few': one_file('moving_mnist20', 'sequences must be 3, but 2 were found', npy(SEQUENCES[:, :2])),
  'truncated': one_file('moving_mnist20', 'damaged or truncated npy file', npy(SEQUENCES)[:-9]),
}

SCENES = [scene('tetrominoes', (35, 35, 3), 4, seed=i) for i in range(3)]
FIRST = SCENES[0]
RECORDS = [scene_record(one) for one in SCENES]
WHOLE, TWO = tfrecord(RECORDS), tfrecord(RECORDS[:2])


def records(message, first=None, name='tetrominoes', data=None, **options):
  """Makes a case of three scenes with a changed first one, or of other gzipped bytes."""
  data = tfrecord([first, *RECORDS[1:]]) if data is None else data
  return Case(name, message, {'raw': gzip.compress(data, 1)}, ('raw',), options)


def changed(**arrays):
  return scene_record(FIRST | {name: np.asarray(array) for name, array in arrays.items()})


def without(name):
  return scene_record({key: array for key, array in FIRST.items() if key != name})


def masks_with(entity, value):
  masks = FIRST['masks'].copy()
  masks[entity, 3, 5] = value
  return masks


OWNER = int(FIRST['masks'][:, 3, 5, 0].argmax())  # entity of the pixel at row 3, column 5
OTHER = (OWNER + 1) % 4
CUT = gzip.compress(WHOLE, 1)
OBJECTS = {
  'no masks': records('record 0 has no feature mask, .*; scenes without masks', without('masks')),
  'no factor': records('record 0 has no feature color, only: image, mask, x', without('color')),
  'overlap': records(
    'raw: scene 0: the pixel at row 3, column 5 belongs to 2 of 4 masks',
    changed(masks=masks_with(OTHER, 255)),
  ),
  'hole': records(
    'raw: scene 0: the pixel at row 3, column 5 belongs to 0 of 4 masks',
    changed(masks=masks_with(OWNER, 0)),
  ),
  'resized masks': records(
    f'raw: scene 0: mask {OTHER} holds 17 at row 3, column 5, but masks must hold 0 or 255 only',
    changed(masks=masks_with(OTHER, 17)),
  ),
  'masks of numbers': records(
    'mask must be bytes, but is int64', changed(masks=np.zeros((4, 35, 35, 1), np.int64))
  ),
  'CRC of a length': records(
    'the length of record 1 does not match', data=tfrecord(RECORDS[:1]) + flipped(WHOLE, 9)
  ),
  'first length': records('its content is: unknown.gz', data=flipped(WHOLE, 3)),
  'payload': records('record 0 does not match its checksum', data=flipped(WHOLE, 999)),
  'CRC of a payload': records('record 1 does not match its checksum', data=flipped(TWO, -1)),
  'truncated inside': records('ends inside record 1: it is truncated', data=TWO[:-50]),
  'gzip truncated': Case(
    'tetrominoes', 'ends inside record .: it is truncated', {'raw': CUT[: len(CUT) // 5]}, ('raw',)
  ),
  'gzip of nothing': one_file('tetrominoes', 'is a damaged gzip file', b'\x1f\x8b\x08\x00junk'),
  'not gzipped': one_file('tetrominoes', 'gzipped TFRecord .* content is: tfrecord', WHOLE),
  'no message': records(r'record 0 is not a tf\.Example', b'no message at all'),
  'no message, counted': records(r'record 0 is not a tf\.Example', b'no message', 'clevr6'),
  'nothing to count': records(
    'record 0 has no feature visibility', without('visibility'), 'clevr6'
  ),
  'other variant': records(
    r'mask must have 16384 values for the shape \[64, 64, 4, 1\], but has 4900',
    RECORDS[0],
    'multi_dsprites',
    variant='binarized',
  ),
  'few factors': records(
    r'x must have 4 values .* has 3; the file is of another data set or variant',
    changed(x=np.zeros(3, np.float32)),
  ),
  'few scenes': records(
    'holds 1 scenes, but 2 are needed; it is truncated', data=tfrecord(RECORDS[:1])
  ),
  'unknown variant': records(
    '--variant=grey: multi_dsprites has the variants colored_on_grayscale',
    RECORDS[0],
    'multi_dsprites',
    variant='grey',
  ),
  'no variants': records('--variant=x: clevr6 has no variants', RECORDS[0], 'clevr6', variant='x'),
  'pictures': Case('clevr6', 'nothing for test .* among: .*; give every', {'0.png': b''}),
  'prepared CLEVR': Case(
    'clevr6', 'with masks, but its content is: tfds', prepared_files('clevr', {'train': []})
  ),
  'page': one_file('clevr10', 'is a web page, not data', PAGE),
}

H5 = h5_scenes(SCENES, 'train')
COLUMNS = ('x', 'y', 'shape', 'color', 'visibility')


def h5(message, train, test=H5, name='tetrominoes'):
  return Case(name, message, {'a.h5': train, 'a_test.h5': test})


ARRAYS = {
  'no group': h5('must have a group train, or a single one of .*: none', h5_scenes(SCENES, 'all')),
  'two other groups': h5(
    'must have a group train, or a single one of train, val, test, but has: val, test',
    h5_scenes(SCENES, 'val test'),
  ),
  'no masks': h5(
    'group train must hold imgs and masks, .*: imgs', h5_scenes(SCENES, 'train', masks=None)
  ),
  'other size': h5(
    r'imgs must be \[N, 35, 35, 3\] and masks .* are \[3, 35, 34, 3\]',
    h5_scenes(SCENES, 'train', imgs=np.zeros((3, 35, 34, 3), np.uint8)),
  ),
  'four channels': h5('imgs must be', h5_scenes(SCENES, 'train', imgs=pictures(3, 35, 4))),
  'masks of two scenes': h5(
    r'and \[2, 4, 35, 35, 1\]', h5_scenes(SCENES, 'train', masks=np.zeros((2, 4, 35, 35, 1), 'u1'))
  ),
  'factors of another width': h5(
    r'factors must be \[3, 4, 7\], but are \[3, 4, 6\]',
    h5_scenes(SCENES, 'train', factors=np.zeros((3, 4, 6))),
  ),
  'of another set': h5('imgs must be', h5_scenes(SCENES, 'train', COLUMNS), name='clevr6'),
  'out of range': h5(
    r'a\.h5: scene 0 must hold values from 0 to 255, but holds 256\.0 to 256\.0',
    h5_scenes(SCENES, 'train', imgs=np.full((3, 35, 35, 3), 256.0)),
  ),
  'no numbers': h5(
    'scene 0 must hold', h5_scenes(SCENES, 'train', imgs=np.full((3, 35, 35, 3), np.nan))
  ),
  'masks of 0 and 1': h5(
    r'a\.h5: scene 0: mask . holds 1 at row',
    h5_scenes(SCENES, 'train', masks=np.stack([one['masks'] for one in SCENES]) // 255),
  ),
  'many entities': h5(
    r'a\.h5: scene 0 shows 7 entities, but this set has 6 at most',
    *[h5_scenes([scene('multi_dsprites', (64, 64, 3), 7)], role) for role in ('train', 'test')],
    name='multi_dsprites',
  ),
  'truncated': h5('damaged or truncated h5 file', H5[:-500]),
  'no h5': Case('tetrominoes', 'its content is: unknown', {'a.h5': b'\x07' * 99}, ('a.h5',)),
  'only one': Case('tetrominoes', 'nothing for test', {'a.h5': H5}, ('a.h5',)),
  'three': Case(
    'tetrominoes', 'several raw files are for train', {'a_test.h5': H5, 'b.h5': H5, 'c.h5': H5}
  ),
}

RAW, OWNERS = pictures(1, 240, width=320)[0], np.zeros((240, 320), np.uint8)
CUBE = {'material': 'a', 'shape': 'cube', 'size': 'large', 'rotation': 1.5}


def textured(message, number=0, changes=None, **options):
  """Makes a case of two scenes with changed files: role -> bytes, or None to leave it out."""
  files = {}
  for each in (0, 1):
    files |= raw_scenes.clevrtex_files('full', each, RAW, OWNERS, [CUBE])
  for role, data in (changes or {}).items():
    name = f'clevrtex_full/0/CLEVRTEX_full_{number:06d}{role}'
    files = {key: one for key, one in files.items() if key != name}
    if data is not None:
      files[name] = data
  return Case('clevrtex', message, files, options=options)


def with_another_variant():
  case = textured('there are: full, pbg')
  files = raw_scenes.clevrtex_files('pbg', 0, RAW, OWNERS, [CUBE])
  return dataclasses.replace(case, files=case.files | files)


ELEVEN = b'{"ground_material": "a", "objects": [%s]}' % b','.join([b'{"size": "s"}'] * 11)
TEXTURED = {
  'two variants': with_another_variant(),
  'variant that is not there': textured('must name one of .* there are: full', variant='camo'),
  'variant that nobody knows': textured('must name one of full, pbg', variant='other'),
  'none': Case('clevrtex', 'there are: none', {'0.png': b''}),
  'gap': textured(
    'scene 000000 of full lacks its flat and json and png; give all parts',
    changes={'.png': None, '_flat.png': None, '.json': None},
  ),
  'no json': textured('scene 000001 of full lacks its json', 1, {'.json': None}),
  'no flat': textured('scene 000000 of full lacks its flat', 0, {'_flat.png': None}),
  'no picture': textured('scene 000001 of full lacks its png', 1, {'.png': None}),
  'broken json': textured(r'full_000001\.json must be json with ground_', 1, {'.json': b'{"a": 1'}),
  'list as json': textured(r'must be json with ground_material', 1, {'.json': b'[1, 2]'}),
  'no ground': textured(r'must be json with ground_material', 1, {'.json': b'{"objects": []}'}),
  'number of objects': textured(
    r'full_000001\.json must hold a list of objects',
    1,
    {'.json': b'{"ground_material": "a", "objects": 3}'},
  ),
  'names of objects': textured(
    'must hold a list of objects', 1, {'.json': b'{"ground_material": "a", "objects": ["cube"]}'}
  ),
  'eleven objects': textured(r'full_000000\.json lists 11 objects', 0, {'.json': ELEVEN}),
  'twelfth entity': textured(
    r'000000_flat\.png must hold entity numbers from 0 to 10, .* with values to 11',
    0,
    {'_flat.png': raw_scenes.index_picture(OWNERS + 11)},
  ),
  'coloured flat': textured(
    r'_flat\.png must hold entity numbers .* uint8 \[240, 320, 3\]', 1, {'_flat.png': encoded(RAW)}
  ),
  'flat truncated': textured(
    r'000000_flat\.png cannot be read as a picture', 0, {'_flat.png': encoded(RAW)[:-999]}
  ),
  'flat as page': textured(r'_flat\.png cannot be read as a picture', 0, {'_flat.png': PAGE}),
  'picture as page': textured(r'full_000000\.png cannot .* it is a web page', 0, {'.png': PAGE}),
  'small picture': textured(
    r'full_000001\.png must be 240x320x3 .* is 128x128x3', 1, {'.png': encoded(pictures(1, 128)[0])}
  ),
  'small flat': textured(
    r'000001_flat\.png must be 240x320x1', 1, {'_flat.png': raw_scenes.index_picture(OWNERS[:192])}
  ),
}

CASES = {
  f'{where}: {key}': case
  for where, group in (
    ('video', VIDEOS),
    ('own', OWN),
    ('Srivastava', SRIVASTAVA),
    ('scene', OBJECTS),
    ('h5', ARRAYS),
    ('clevrtex', TEXTURED),
  )
  for key, case in group.items()
}


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_malformed_file_is_refused(case, tmp_path):
  refuse(case, tmp_path)


@pytest.mark.parametrize(
  'data',
  [FILM, film(FRAMES, lossless=False), GIF, npz(video=FRAMES), npy(FRAMES)],
  ids=['film', 'film with loss', 'gif', 'npz', 'npy'],
)
def test_every_truncated_video_is_refused(data):
  rng = np.random.default_rng(0)
  for size in {*range(0, 40), *rng.integers(0, len(data) - 900, 30).tolist()}:
    with pytest.raises(DataPrepError, match=r'^x (cannot be read as a video|has no rea)') as caught:
      videos.decode(data[:size], 'x', 1 if data == GIF else 3)
    assert '\n' not in str(caught.value)


def test_damaged_h5_is_refused(tmp_path):
  rng, path = np.random.default_rng(0), tmp_path / 'a.h5'
  whole = bytearray(h5_scenes(SCENES, 'train', COLUMNS))
  structure = np.flatnonzero(np.frombuffer(whole[:1000], np.uint8))  # pixels follow it
  columns = {'x': (0,), 'color': (1, 2, 3, 4, 5, 6)}
  refused = 0
  for _ in range(150):
    damaged = whole.copy()
    damaged[rng.choice(structure)] ^= 1 << rng.integers(8)
    path.unlink(missing_ok=True)
    path.write_bytes(damaged)
    object_scenes._open_h5.cache_clear()
    try:
      scenes = object_scenes.open_group(path, 'train', columns, (35, 35, 3))
      assert len(list(scenes.read(np.arange(3)))) == 3
    except DataPrepError as error:
      assert str(path) in str(error) and '\n' not in str(error)
      refused += 1
  assert refused > 50


def test_endless_video_is_refused(monkeypatch):
  monkeypatch.setattr(videos, '_MAX_FRAMES', 4)
  for data, channels in ((FILM, 3), (gif(pictures(5, 16, 1)), 1)):
    with pytest.raises(DataPrepError, match='^x has more than 4 frames or'):
      videos.decode(data, 'x', channels)
