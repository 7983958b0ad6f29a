"""Wrong raw files: damaged, incomplete, hostile, or of another data set."""

import gzip
import hashlib
import json
import os
from pathlib import Path
import pickle

import numpy as np
import pytest

from data_prep import build as command
from data_prep.datasets import celeba64, celebahq, cifar10, ffhq, imagenet, mnist
from data_prep.errors import DataPrepError
from tests.support import raw_files
from tests.support.malformed import PAGE, Case, npy, npz, one_file, refuse, zip_of
from tests.support.raw_files import encoded, idx, pictures, planar_npz

DIGITS, LABELS = np.zeros((2, 28, 28), np.uint8), np.zeros(2, np.uint8)
IDX = raw_files.mnist_files(DIGITS, DIGITS, {'train': LABELS, 'test': LABELS})
IMAGES, NUMBERS = 'train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz'
KERAS = {'x_train': DIGITS, 'y_train': LABELS, 'x_test': DIGITS, 'y_test': LABELS}
UNVERIFIED = {'unverified': True}
MNIST_IMAGES = {
  'gzip truncated': ('is a damaged gzip file', IDX[IMAGES][:-4]),
  'gzip damaged': ('is a damaged gzip file', gzip.compress(bytes(999))[:14] + b'\xff' * 20),
  'truncated': (
    '1568 bytes for the shape .* holds 1567: it is trunc',
    gzip.compress(idx(DIGITS)[:-1]),
  ),
  'cut in its header': ('ends inside its header', gzip.compress(idx(DIGITS)[:9])),
  'no idx': ('must be an idx file .* begins with 74657874', gzip.compress(b'text')),
  'labels': ('must hold N pictures, uint8 of 28x28', gzip.compress(idx(LABELS))),
  'other size': (r'but hold uint8 \[2, 20, 28\]', gzip.compress(idx(DIGITS[:, :20]))),
  'fewer': (r'but hold uint8 \[1, 28, 28\] and \[2\]', gzip.compress(idx(DIGITS[:1]))),
}
MNIST_NPZ = {
  'without keys': ('must be the npz of Keras with x_train', npz(x_train=DIGITS)),
  'of floats': ('uint8 of 28x28, .* hold float64', npz(**KERAS | {'x_train': DIGITS / 1})),
  'of objects': ('must be the npz of Keras', npz(**KERAS | {'y_test': np.array([{}])})),
  'with labels of floats': ('labels of test must be whole', npz(**KERAS | {'y_test': LABELS / 1})),
  'truncated': ('damaged|npz of Keras|holds no', npz(**KERAS)[:-30]),
  'a page': ('is a web page', PAGE),
}
MNIST = {
  **{
    f'idx: {k}': Case('mnist', message, {**IDX, IMAGES: data}, options=UNVERIFIED)
    for k, (message, data) in MNIST_IMAGES.items()
  },
  **{f'npz {k}': one_file('mnist', *v) for k, v in MNIST_NPZ.items()},
  'few digits': Case('mnist', 'digits in train must be 60,000, but 2', IDX, options=UNVERIFIED),
  'no images': Case('mnist', 'holds no train images', {k: IDX[k] for k in IDX if k != IMAGES}),
  'two of four': Case(
    'mnist', 'nothing for train labels and test images', IDX, (IMAGES, 't10k-labels-idx1-ubyte.gz')
  ),
  'other bytes': Case('mnist', 'file of this name has 440f.*add --unverified', IDX, tuple(IDX)),
  'labels above 9': Case(
    'mnist', 'labels of train must be', {**IDX, NUMBERS: gzip.compress(idx(LABELS + 10))}
  ),
}

LINE = raw_files.amat(np.zeros((1, 784), int))
AMAT = {
  'grey': ("line 2 has a '7'", LINE + LINE.replace(b'0 0', b'0 7', 1)),
  'a short line': ('line 2 has 783 digits', LINE + LINE[2:] + b'0 ' + LINE),
  'uneven lines': ('line 1 has 783 digits', LINE[:-3] + b'\n0 ' + LINE),
  'real numbers': ('must be text of 0 and 1, but is: unknown', b'0.000 0.5 ' * 784),
  'few': ('digits in train must be 50,000, but 1 were found', LINE),
}
BINARIZED = {
  f'amat: {k}': Case('binarized_mnist', message, {'train': data, 'valid': LINE, 'test': LINE})
  for k, (message, data) in AMAT.items()
} | {'no valid': Case('binarized_mnist', 'nothing for valid', {'train': LINE, 'test': LINE})}

PICKLED = raw_files.cifar_files(
  pictures(5, 32), np.zeros(5, np.uint8), pictures(1, 32), LABELS[:1], binary=False
)
BATCH = 'cifar-10-batches-py/data_batch_2'
ROW = np.zeros((1, 3072), np.uint8)
ROT13 = b'\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.'
PICKLES = {
  'another class': (r'asks for pathlib\.', pickle.dumps(Path('x'), 2)),
  'eval': (r'asks for __builtin__\.eval', b'\x80\x02c__builtin__\neval\nU\x011\x85R.'),
  'codec': ('makes a call for which arrays have no', ROT13),
  'truncated': ('is a damaged pickle', PICKLED[BATCH][:-50]),
  'objects': ('array with other things than numbers', pickle.dumps({'a': np.array([{}])}, 2)),
  'text': ("array of '.S2', not of", pickle.dumps({'data': np.array([b'ab'])}, 2)),
  'an unknown instruction': ('has the instruction EXT1', b'\x80\x02\x82\x01.'),
  'a dict for a list': ('fills a list like a dict', b'\x80\x02](K\x01K\x02u.'),
  'list': ('must hold a dict, not list', pickle.dumps([1], 2)),
  'other key': (r"must hold b'data'", raw_files.python2_batch(ROW, [1], b'pixels')),
  'floats': ("must hold b'data', uint8", raw_files.python2_batch(ROW.astype(np.float32), [1])),
  'narrow': (r'uint8 \[N, 3072\]', raw_files.python2_batch(ROW[:, :100], [1])),
  'few labels': ("must hold b'labels', a number", raw_files.python2_batch(ROW, [])),
  'large label': ('a number from 0 to 9', raw_files.python2_batch(ROW, [10])),
}
ROWS = {f'{n}.bin': bytes(3073) for n in ('test_batch', *(f'data_batch_{i}' for i in range(1, 6)))}
CIFAR = {
  **{
    f'pickle: {k}': Case('cifar10', f'data_batch_2.*{message}', {**PICKLED, BATCH: data})
    for k, (message, data) in PICKLES.items()
  },
  'few pictures': Case('cifar10', 'pictures in train must be 50,000, but 5 were found', PICKLED),
  'no batch': Case(
    'cifar10', 'no file data_batch_2', {k: PICKLED[k] for k in PICKLED if k != BATCH}
  ),
  'CIFAR-100': Case('cifar10', 'is CIFAR-100', {'train': b'', 'test': b'', 'meta': b''}),
  'CIFAR-100 binary': Case('cifar10', 'is CIFAR-100, another', {'train.bin': b'', 'test.bin': b''}),
  'short row': Case('cifar10', 'holds 3072 bytes', {**ROWS, 'data_batch_3.bin': bytes(3072)}),
  'binary label': Case('cifar10', 'has a label 16', {**ROWS, 'data_batch_3.bin': b'\x10' * 3073}),
  'other tar.gz': Case(
    'cifar10',
    'the published file of this name has c4a38c5',
    {'cifar-10-binary.tar.gz': zip_of(ROWS)},
    ('cifar-10-binary.tar.gz',),
  ),
}

PNG, LARGER = encoded(pictures(1, 32)[0]), encoded(pictures(1, 64)[0])
JPEG = encoded(pictures(1, 32)[0], 'jpeg')
NPZ = planar_npz(pictures(2, 32))
BOX = {'Imagenet32_train_npz.zip': zip_of({'train_data_batch_1.npz': NPZ})}
BOX['Imagenet32_val_npz.zip'] = zip_of({'val_data.npz': NPZ})
SMALL = {'train/0.png': PNG, 'valid/0.png': PNG}
FIRST = 'Imagenet32_train_npz.zip'
IMAGENET = {
  'box zips': Case('imagenet32', r'box-filtered .*build imagenet32_box --raw=', BOX),
  'box zip': Case('imagenet32', 'imagenet32_box --raw=.* --raw=', BOX, tuple(BOX)),
  'box npz': one_file('imagenet32', 'build imagenet32_box --raw=', NPZ),
  'other size': Case('imagenet64', r'picture 0\.png must be 64x64x3 .* but is 32x32x3', SMALL),
  'mixed sizes': Case('imagenet32', 'but is 64x64x3', {**SMALL, 'train/1.png': LARGER}),
  'JPEG copy': Case(
    'imagenet32', 'is a JPEG file, but the originals are PNG', {**SMALL, 'train/0.png': JPEG}
  ),
  'damaged first': Case('imagenet32', 'cannot be read as', {**SMALL, 'train/0.png': PNG[:20]}),
  'no valid': Case('imagenet32', r"nothing for valid \(a name with 'val'\)", {'train/0.png': PNG}),
  'unknown npy': Case(
    'imagenet32',
    'numbers of neither known set, while van den Oord has 1,281,149 .* add --variant=van_den_oord',
    {'train.npy': npy(pictures(2, 32)), 'valid.npy': npy(pictures(1, 32))},
  ),
  'PNG for box': Case('imagenet32_box', 'PNG files are another data set', SMALL),
  'wrong size': Case('imagenet64_box', r'data must be uint8 \[N, 12288\], but .*3072\]', BOX),
  'no data': Case('imagenet32_box', 'no readable array `data`', {**BOX, FIRST: npz(x=ROW)}),
  'box truncated': Case('imagenet32_box', 'damaged or truncated', {**BOX, FIRST: BOX[FIRST][:999]}),
  'npz truncated': Case(
    'imagenet32_box', 'no readable array `data`', {**BOX, FIRST: zip_of({'1.npz': NPZ[:-30]})}
  ),
  'box of floats': Case(
    'imagenet32_box', r'is float64 \[1, 3072\]', {**BOX, FIRST: npz(data=ROW / 1)}
  ),
  'one batch twice': Case(
    'imagenet32_box',
    'both hold train_data_batch_1.npz; give each batch only once',
    {**BOX, 'train_data_batch_1.npz': NPZ},
  ),
}

FACE = encoded(pictures(1, 218, width=178)[0], 'jpeg')
THREE = {f'img/00000{i}.jpg': FACE for i in (1, 2, 3)}
LIST = b'000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n'
PARTITIONS = {
  'bad role': (r'line 2 has not: .*3', b'000001.jpg 0\n000002.jpg 3\n'),
  'third column': ('must have lines like `000001.jpg 0`, but line 1', b'000001.jpg 0 1\n'),
  'not text': ('must have lines like', b'\xff\xfe\x00'),
  'of fewer': ('do not belong together: picture 000003 is not in', LIST[:26]),
  'of more': ('do not belong together: picture 000004 is missing', LIST + b'000004.jpg 2'),
  'a page': ('is a web page|must have lines', PAGE),
}
CELEBA = {
  **{
    f'partition: {k}': Case('celeba64', message, {**THREE, 'list_eval_partition.txt': data})
    for k, (message, data) in PARTITIONS.items()
  },
  'no partition': Case('celeba64', 'nothing for partition', THREE),
  'few faces': Case(
    'celeba64', 'pictures in train must be 162,770, but 1', {**THREE, 'partition.txt': LIST}
  ),
  'page as zip': Case(
    'celeba64', 'is a web page', {'img.zip': PAGE, 'partition': LIST}, ('img.zip', 'partition')
  ),
}

CASES = {**MNIST, **BINARIZED, **CIFAR, **IMAGENET, **CELEBA}


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_raw_file_is_refused(case, tmp_path):
  refuse(case, tmp_path)


class Evil:
  """Object that runs a command when it is unpickled."""

  def __init__(self, text: str):
    self.text = text

  def __reduce__(self):
    return os.system, (self.text,)


def test_pickle_that_runs_a_program_is_not_run(tmp_path):
  mark = tmp_path / 'ran'
  evil = pickle.dumps({'data': Evil(f'touch {mark}')}, 2)
  refuse(Case('cifar10', r'asks for posix\.system', {**PICKLED, BATCH: evil}), tmp_path)
  assert not mark.exists()
  pickle.loads(evil)
  assert mark.exists()  # Python's own unpickler runs it


def test_unverified_bytes_are_accepted_on_request(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(mnist, 'COUNTS', {'train': 2, 'test': 2})
  raw_files.write_folder(tmp_path, IDX)
  command.build('mnist', tmp_path / 'out', raw=[tmp_path / name for name in IDX], unverified=True)
  assert f'[warn] sha256 of {IMAGES} is not the published 440fcabf' in capsys.readouterr().out


def test_published_bytes_are_confirmed(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(mnist, 'COUNTS', {'train': 2, 'test': 2})
  about = mnist.ABOUT
  files = tuple(
    type(file)(file.name, file.url, sha256=hashlib.sha256(IDX[file.name]).hexdigest())
    for file in about.files
  )
  monkeypatch.setattr(mnist, 'ABOUT', type(about)(**vars(about) | {'files': files}))
  raw_files.write_folder(tmp_path, IDX)
  command.build('mnist', tmp_path / 'out', raw=[tmp_path / name for name in IDX])
  assert f'[ok] sha256 of {IMAGES} matches the published one' in capsys.readouterr().out


@pytest.mark.parametrize('form', ['npy', 'png'])
def test_numbers_of_the_box_filtered_set_are_noticed(tmp_path, monkeypatch, form):
  counts = {'train': 3, 'valid': 2}
  monkeypatch.setattr(imagenet, 'BOX_COUNTS', counts)
  for split, count in counts.items():
    if form == 'npy':
      np.save(tmp_path / f'{split}.npy', pictures(count, 32))
    else:
      raw_files.write_folder(tmp_path, {f'{split}/{i}.png': PNG for i in range(count)})
  with pytest.raises(DataPrepError, match='3 and 2 pictures, the numbers of the box-filtered set'):
    command.build('imagenet32', tmp_path / 'out', raw=[tmp_path])
  built = command.build('imagenet32', tmp_path, raw=[tmp_path], variant='van_den_oord')
  assert built.exists()


@pytest.mark.parametrize(
  ('split', 'count', 'message'), [('train', 4, 'pictures in train must be 12, but 4'), ('x', 4, '')]
)
def test_glow_records_are_counted(tmp_path, monkeypatch, split, count, message):
  monkeypatch.setattr(imagenet, 'GLOW_COUNTS', {'train': 12 if message else 4, 'valid': 2})
  for part, number in (('train', count), ('validation', 2)):
    files = raw_files.glow_files(pictures(number, 32), part, 5, 1, 80)
    raw_files.write_folder(tmp_path / 'raw', files)
  if message:
    with pytest.raises(DataPrepError, match=message):
      command.build('imagenet32', tmp_path, raw=[tmp_path / 'raw'])
    assert not (tmp_path / 'imagenet32').exists()
  else:
    assert command.build('imagenet32', tmp_path, raw=[tmp_path / 'raw']).exists()


FORMS = {
  'JPEG': ('is a JPEG file, but the originals are PNG', encoded(pictures(1, 16)[0], 'jpeg')),
  'thumbnail': ('holds pictures of 128 px, but', encoded(pictures(1, 128)[0])),
  'damaged': ('cannot be read as a picture', encoded(pictures(1, 16)[0])[:40]),
  'grey': ('must be an RGB picture, but its mode is L', encoded(pictures(1, 256, 1)[0])),
}


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('module', [celebahq, ffhq])
def test_copies_of_face_sets_are_refused(tmp_path, monkeypatch, module, form):
  monkeypatch.setattr(module, 'COUNT', 1)
  name = {celebahq: 'celebahq256', ffhq: 'ffhq256'}[module]
  message, data = FORMS[form]
  refuse(Case(name, message, {'00000.png': data}), tmp_path)


FFHQ = {
  'one picture': ('pictures must be 70,000, but 1 were found', ['00000.png']),
  'another name': ('but has one called seed1', ['seed1.png']),
  'a name twice': ('but has gaps or several of one name', ['00000.png', '00000/00000.png']),
}


@pytest.mark.parametrize(('message', 'names'), FFHQ.values(), ids=FFHQ)
def test_ffhq_needs_its_names(tmp_path, message, names):
  data = encoded(pictures(1, 256)[0])
  refuse(Case('ffhq256', message, dict.fromkeys(names, data)), tmp_path)


def test_celebahq_needs_its_number(tmp_path, monkeypatch):
  data = encoded(pictures(1, 256)[0])
  files = {'data256x256/00001.png': data}
  refuse(Case('celebahq256', 'pictures must be 30,000, but 1 were found', files), tmp_path)
  both = {**files, 'data1024x1024/00001.png': data}
  refuse(Case('celebahq256', 'several pictures of one name; give one', both), tmp_path)


@pytest.mark.parametrize('level', [7, 8])
def test_glow_faces_fit_only_their_size(tmp_path, monkeypatch, level):
  monkeypatch.setattr(celebahq, 'GLOW_COUNTS', {'train': 1, 'validation': 1})
  files = {}
  for part in ('train', 'validation'):
    files |= raw_files.glow_files(pictures(1, 8), part, level, 1, 40)
  message = '256x256 records, from which celebahq1024' if level == 8 else 'pictures must be 30,000'
  refuse(Case('celebahq1024', message, files), tmp_path)


@pytest.mark.parametrize(
  ('entries', 'message'),
  [
    ({'0': {'image': {'pixel_md5': '0' * 32}}}, 'picture 00000.png does not have the pixels that'),
    ({'1': {'image': {'pixel_md5': '0' * 32}}}, 'must be ffhq-dataset-v2.json'),
    ([], 'must be ffhq-dataset-v2.json, with image.pixel_md5'),
    ({'0': {'image': 'text'}}, 'must be ffhq-dataset-v2.json'),
  ],
)
def test_metadata_of_ffhq_is_compared(tmp_path, monkeypatch, entries, message):
  monkeypatch.setattr(ffhq, 'COUNT', 1)
  black = encoded(np.zeros((1024, 1024, 3), np.uint8))
  files = {'images/00000.png': black, 'ffhq-dataset-v2.json': json.dumps(entries).encode()}
  refuse(Case('ffhq256', message, files, ('images', 'ffhq-dataset-v2.json')), tmp_path)


def test_partition_counts_are_those_of_the_paper():
  assert celeba64.COUNTS == {'train': 162_770, 'valid': 19_867, 'test': 19_962}
  assert cifar10.COUNTS == {'train': 50_000, 'test': 10_000}
