"""Damaged and hostile containers, pictures, TFRecords and commands: refused in one sentence."""

import gzip
import tarfile

import numpy as np
from PIL import Image
import pytest

from data_prep import build as command
from data_prep.errors import DataPrepError
from data_prep.raw import archives, recognise, tfrecords
from data_prep.raw.pictures import decode
from tests.support import raw_files
from tests.support.malformed import (
  PAGE,
  Case,
  flipped,
  npy,
  one_file,
  refuse,
  tar_of,
  tar_with,
  zip_of,
)
from tests.support.raw_files import encoded, example, field, pictures, tfrecord

PNG = encoded(pictures(1, 32)[0])
TWO = {'0.png': PNG, '1.png': PNG}
SIZE = 512 + -(-len(PNG) // 512) * 512  # bytes of a member in a tar
SPECIAL = "'x.png' is a link, a device or a file with holes"

CONTAINERS = {
  'zip truncated': ('damaged or truncated zip', zip_of(TWO)[:-40]),
  'zip flipped': (r'0\.png is damaged .*CRC', flipped(zip_of(TWO), 200)),
  'tar truncated': ('damaged tar .*unexpected end', tar_of(TWO)[: 2 * SIZE - 600]),
  'tar without end': (f'truncated behind byte {2 * SIZE}', tar_of(TWO)[: 2 * SIZE]),
  'tar with a bad header': (f'truncated behind byte {SIZE}', flipped(tar_of(TWO), SIZE + 2)),
  'tar.gz truncated': (r'damaged or truncated tar\.gz', tar_of(TWO, 'w:gz')[:-300]),
  'tar.gz flipped': (r'damaged or truncated tar\.gz .*CRC', flipped(tar_of(TWO, 'w:gz'), -6)),
  'tar.gz without end': ('truncated behind byte', gzip.compress(tar_of(TWO)[: 2 * SIZE])),
  'gzip of nothing': ('is a damaged gzip file', b'\x1f\x8b\x08\x00garbage'),
  'page for a zip': ('is a web page, not data .* quota', PAGE),
  'empty file': ('its content is: empty', b''),
  'any bytes': ('its content is: unknown', b'\x07\x08\x09' * 100),
  'h5': ('its content is: h5', b'\x89HDF\r\n\x1a\n' + bytes(100)),
  'zip of texts': ('holds no pictures', zip_of({'a.txt': b'a', 'b.txt': b'b'})),
  'tar with a root': ("'/etc/x.png' is a name that leads out", tar_with('/etc/x.png')),
  'tar with ..': (r"'a/\.\./\.\./x.png' is a name that leads", tar_with('a/../../x.png')),
  'tar with a link': (SPECIAL, tar_with('x.png', tarfile.SYMTYPE, '/etc/passwd')),
  'tar with a hard link': (SPECIAL, tar_with('x.png', tarfile.LNKTYPE, '0.png')),
  'tar with a device': (SPECIAL, tar_with('x.png', tarfile.CHRTYPE)),
  'tar with a pipe': (SPECIAL, tar_with('x.png', tarfile.FIFOTYPE)),
  'tar.gz with a link': (SPECIAL, gzip.compress(tar_with('x.png', tarfile.SYMTYPE, '/etc'))),
  'tar with a name twice': ('holds two members of one name', tar_with('0.png')),
  'zip with ..': (r"'\.\./x.png' is a name that leads", zip_of({'../x.png': PNG})),
  'zip with a root': ("'/x.png' is a name that leads out", zip_of({'/x.png': PNG})),
  'zip with a drive': (r"'C:.*x.png' is a name that leads", zip_of({'C:\\x.png': PNG})),
  'zip with a link': ("'x.png' is a link or a device", zip_of({'x.png': b'/etc'}, 0o120777)),
  'encrypted zip': (r'0\.png cannot be read .*encrypted', zip_of(TWO, flags=1)),
  'npy truncated': ('damaged or truncated npy', npy(pictures(4, 8))[:-5]),
  'npy of floats': (r'must be uint8 \[N, H, W, 3\] .* float64', npy(pictures(4, 8) / 1)),
  'npy of three axes': (r'but is uint8 \[4, 8, 8\]', npy(pictures(4, 8)[..., 0])),
  'npy of objects': ('damaged or truncated npy', npy(np.array([{}]))),
  'grey npy': ('must be of 3 channels, but is 8x8x1', npy(pictures(4, 8, 1))),
}

DEEP = encoded(np.zeros((4, 4, 1), np.uint16))
FOLDERS = {
  'truncated PNG': (r'0\.png cannot be read as a picture', {'0.png': PNG[:-900]}),
  'flipped PNG': (r'0\.png cannot be read as a picture', {'0.png': flipped(PNG, 60)}),
  'page as picture': (r'0\.jpg cannot be .*: it is a web page', {'0.jpg': PAGE}),
  'text as picture': (r'0\.jpg cannot be read as a picture', {'0.jpg': b'text'}),
  'no bytes': (r'0\.jpg cannot be read as a picture', {'0.jpg': b''}),
  '16 bits': (r'0\.png has more than 8 bits for each pixel', {'0.png': DEEP}),
  'no picture': ('holds no pictures', {'notes.txt': b'text'}),
}

RECORD = tfrecord([example(image=PNG)])
RECORDS = {
  'CRC of a length': ('length of record 1 does not match its', RECORD + flipped(RECORD, 9)),
  'length': ('length of record 1 does not match its', RECORD + flipped(RECORD, 3)),
  'CRC of a payload': ('record 0 does not match its checksum', flipped(RECORD, -1)),
  'payload': ('record 0 does not match its checksum', flipped(RECORD, 50)),
  'truncated': ('ends inside record 1: it is truncated', RECORD + RECORD[:-9]),
  'cut in a header': ('ends inside record 1: it is truncated', RECORD + RECORD[:5]),
  'no picture': ('features image, or data .* has: label', tfrecord([example(label=1)])),
  'two pictures': (
    'must have the features image',
    tfrecord([field(1, field(1, field(1, b'image') + field(2, field(1, 2 * field(1, PNG)))))]),
  ),
  'few pixels': (
    r'has 5 bytes for the shape \[2, 2, 3\]',
    tfrecord([example(data=bytes(5), shape=[2, 2, 3])]),
  ),
  'flat': (r'has 9 bytes for the shape \[9\]', tfrecord([example(data=bytes(9), shape=[9])])),
  'numbers': ('must have the features', tfrecord([example(data=[1] * 12, shape=[2, 2, 3])])),
  'bad picture': ('cannot be read as a picture', tfrecord([example(image=PNG[:-900])])),
}
MESSAGES = {
  'text': b'no message at all',
  'a number as a feature': field(1, field(1, b'\x0a\x01a\x10\x05')),
  'a number as a name': field(1, field(1, b'\x08\x7f')),
  'no name': field(1, field(1, b'')),
  'a field beyond the end': b'\x0a\x7f\x01',
  'too long a number': b'\x08' + b'\xff' * 12,
  'too large a number': field(
    1, field(1, field(1, b'a') + field(2, field(3, b'\x08' + b'\xff' * 9 + b'\x7f')))
  ),
  'half a float': field(1, field(1, field(1, b'a') + field(2, field(2, field(1, b'xyz'))))),
  'numbers as text': field(1, field(1, field(1, b'a') + field(2, field(1, b'\x08\x05')))),
}

OPTIONS = {
  'sise=3': "there is no option 'sise'; choose from: size, channels",
  'size=big': "size must be a number, not 'big'",
  'size=0': 'size between 1 and 4096',
  'channels=2': 'channels must be 1 or 3',
  'kernel=cubic': 'kernel must be one of bilinear',
  'valid=0.6,test=0.4': 'leave some for training',
  'valid=nan': 'leave some for training',
  'test=-0.1': 'leave some for training',
  'seed=-1': 'seed must be between',
  'valid=0.5,test=0.4': '2 pictures are too few',
}

STILL = ('mnist', 'binarized_mnist', 'cifar10', 'imagenet32', 'imagenet64', 'imagenet32_box')
STILL += ('imagenet64_box', 'celeba64', 'celebahq256', 'celebahq1024', 'ffhq256', 'ffhq1024')
STILL += ('image_folder',)

CASES = {
  **{k: one_file('image_folder', *v) for k, v in CONTAINERS.items()},
  **{f'folder: {k}': Case('image_folder', *v) for k, v in FOLDERS.items()},
  **{f'record: {k}': one_file('image_folder', *v) for k, v in RECORDS.items()},
  **{
    f'message: {k}': one_file('image_folder', r'record 0 is not a tf\.Example', tfrecord([v]))
    for k, v in MESSAGES.items()
  },
  **{
    f'option: {k}': Case('image_folder', v, TWO, options={'variant': k}) for k, v in OPTIONS.items()
  },
}


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_malformed_file_is_refused(case, tmp_path):
  refuse(case, tmp_path)


@pytest.mark.parametrize('write', ['folder', 'zip', 'tar', 'tar.gz'])
def test_oversize_member_is_refused(tmp_path, monkeypatch, write):
  monkeypatch.setattr(archives, 'MAX_MEMBER', 1000)
  files, path = {'big.png': bytes(2000)}, tmp_path / 'raw'
  if write == 'folder':
    raw_files.write_folder(path, files)
  elif write == 'zip':
    raw_files.write_zip(path, files)
  else:
    raw_files.write_tar(path, files, 'w:gz' if write == 'tar.gz' else 'w')
  with pytest.raises(DataPrepError, match=r'big\.png has 2000 bytes, more than the 1000 that any'):
    archives.open_archive(path).read(0)


def test_batches_of_imagenet_may_be_larger(tmp_path, monkeypatch):
  monkeypatch.setattr(archives, 'MAX_MEMBER', 1000)
  path = raw_files.write_zip(tmp_path / 'raw', {'val_data.npz': bytes(2000)})
  assert archives.open_archive(path).read(0) == bytes(2000)
  assert archives.MAX_NPZ > 1_281_167 / 10 * 3 * 64**2  # ten batches at 64x64


def test_large_tar_gz_names_the_command(tmp_path, monkeypatch):
  monkeypatch.setattr(archives, '_MAX_GZIPPED', 1500)
  path = raw_files.write_tar(tmp_path / 'raw', {'a': bytes(1000), 'b': bytes(1000)}, 'w:gz')
  with pytest.raises(DataPrepError, match=f'more than 1500 bytes .* run: gunzip {path}'):
    archives.open_archive(path)


@pytest.mark.parametrize('limit', [1000, 600])  # Pillow warns above its limit, refuses above twice
def test_picture_above_the_limit_of_pillow_is_refused(tmp_path, monkeypatch, limit):
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
  (tmp_path / '0.png').write_bytes(PNG)
  with pytest.raises(DataPrepError, match=f'has more pixels than the {limit} that are taken'):
    command.build('image_folder', tmp_path / 'out', raw=[tmp_path])
  assert not (tmp_path / 'out' / 'image_folder').exists()


@pytest.mark.filterwarnings('ignore:(Corrupt EXIF|Truncated File)')
def test_every_truncated_picture_is_refused():
  image = pictures(1, 12)[0]
  for kind in ('png', 'jpeg', 'gif', 'bmp', 'tiff', 'webp', 'ppm'):
    data = encoded(image, kind)
    for size in {*range(0, len(data) - 40, 7), 1, 8, 9, 20}:
      try:
        decoded = decode(data[:size], 'x', convert=True)
      except DataPrepError as error:
        assert str(error).startswith('x cannot be read as a picture'), (kind, size)
      else:
        assert decoded.shape == image.shape, (kind, size)


@pytest.mark.parametrize('called', ['../x', '..', 'a/b', '/x', '.', 'downloads'])
def test_name_of_the_result_is_one_folder(tmp_path, called, capsys):
  (tmp_path / '0.png').write_bytes(PNG)
  arguments = [f'--as={called}', f'--raw={tmp_path}', f'--out={tmp_path / "out"}']
  assert command.main(['image_folder', *arguments]) == 2
  assert f'--as={called} must be the name of a folder' in capsys.readouterr().err
  assert [path.name for path in tmp_path.iterdir()] == ['0.png']


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['mnist', '--raw=nowhere'], '--raw=nowhere does not exist; give the raw files of mnist'),
    (['mnist', '--raw=/dev/null'], '--raw=/dev/null is neither a file nor a folder'),
    (['mnist', '--source=local'], '--source=local needs --raw=PATH, once for each raw file or'),
    (['imagenet32', '--source=download'], 'only with: local, tfds'),
    (['ffhq256', '--source=tfds'], 'cannot be built with --source=tfds, only with: local, downl'),
    (['imagenet32'], 'get train_32x32.tar and valid_32x32.tar .* Licence: ImageNet terms'),
    (['celeba64'], 'get img_align_celeba.zip and list_eval_partition.txt from https'),
    (['ffhq1024'], 'not fetched unasked: .* or add --source=download. Licence'),
    (['demo_mnist', '--raw=x'], 'demo_mnist has a fixed source; leave out --raw'),
    (['image_folder', '--raw=a', '--raw=b'], '--raw=a does not exist'),
  ],
)
def test_impossible_commands_are_refused(tmp_path, monkeypatch, capsys, arguments, message):
  import re

  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  assert command.main([*arguments, f'--out={tmp_path}']) == 2
  error = capsys.readouterr().err
  assert re.search(message, error) and error.count('\n') == 1
  assert not list(tmp_path.iterdir())


def test_unknown_source_is_refused(capsys):
  with pytest.raises(SystemExit, match='2'):
    command.main(['mnist', '--source=disk'])
  assert "invalid choice: 'disk'" in capsys.readouterr().err


@pytest.mark.parametrize('name', STILL)
def test_unknown_variant_is_refused(tmp_path, name):
  with pytest.raises(DataPrepError, match='--variant=other'):
    command.build(name, tmp_path, raw=[tmp_path], variant='other')


def test_several_folders_for_one_set_are_refused(tmp_path):
  with pytest.raises(DataPrepError, match='several raw files are for image_folder: .* only one'):
    command.build('image_folder', tmp_path, raw=[tmp_path, tmp_path.parent])


def test_gzipped_records_are_checked_on_the_way(tmp_path):
  path = tmp_path / 'records.gz'
  whole = tfrecord([b'one', b'two'])
  path.write_bytes(gzip.compress(whole))
  assert list(tfrecords.read_gzipped(path)) == [b'one', b'two']
  for data, message in (
    (gzip.compress(whole)[:-12], 'ends inside record|is damaged'),
    (gzip.compress(whole[:-3]), 'ends inside record 1'),
    (gzip.compress(whole[:-8]), 'ends inside record 1'),
    (gzip.compress(flipped(whole, -1)), 'record 1 does not match its checksum'),
    (gzip.compress(whole)[:20] + b'\xff' * 40, 'is damaged|ends inside|does not match'),
  ):
    path.write_bytes(data)
    with pytest.raises(DataPrepError, match=message):
      list(tfrecords.read_gzipped(path))


def test_containers_are_recognised_by_content(tmp_path):
  for kind, data in {
    'tar': tar_of(TWO),
    'tar.gz': gzip.compress(tar_of(TWO)),
    'zip': zip_of(TWO),
    'npz': zip_of({'a.npy': b'', 'b.npy': b''}),
    'npy': npy(pictures(1, 2)),
    'idx': raw_files.idx(np.zeros(3, np.uint8)),
    'idx.gz': gzip.compress(raw_files.idx(np.zeros(3, np.uint8))),
    'amat': raw_files.amat(np.zeros((2, 784), int)),
    'tfrecord': RECORD,
    'pickle': raw_files.python2_batch(np.zeros((1, 3072), np.uint8), [1]),
    'image': PNG,
    'json': b' {"a": 1}',
    'html': b'\n<HTML>',
    'unknown': b'\x00\x00\x08',
  }.items():
    (tmp_path / 'x').write_bytes(data)
    assert recognise.container_of(tmp_path / 'x') == kind
