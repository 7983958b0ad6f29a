"""Folders that tensorflow-datasets prepared: search, reading without that package, and order."""

import json

import numpy as np
import pytest

from data_prep import build as command
from data_prep.datasets import celeba64, celebahq, cifar10, mnist
from data_prep.errors import DataPrepError
from data_prep.raw import locate, tfds_folders
from tests.support import raw_files
from tests.support.built_sets import card_of, read_split


def digit(image, label):
  return raw_files.example(image=raw_files.encoded(image), label=label)


def write_with_the_package(tfds, folder, examples):
  """Writes CIFAR-10 with these examples by split, in shards of five."""
  features = tfds.features.FeaturesDict(
    {
      'id': tfds.features.Text(),
      'image': tfds.features.Image(shape=(32, 32, 3)),
      'label': tfds.features.ClassLabel(num_classes=10),
    }
  )
  identity = tfds.core.dataset_info.DatasetIdentity(
    name='cifar10', version=tfds.core.Version('3.0.2'), data_dir=str(folder), module_name='here'
  )
  info = tfds.core.DatasetInfo(builder=identity, features=features)
  writer = tfds.core.SequentialWriter(info, max_examples_per_shard=5)
  writer.initialize_splits(list(examples))
  writer.add_examples(examples)
  writer.close_all()


@pytest.mark.slow
def test_folder_that_the_package_itself_wrote(tmp_path, monkeypatch, capsys):
  tfds = pytest.importorskip('tensorflow_datasets')
  monkeypatch.setattr(cifar10, 'COUNTS', {'train': 12, 'test': 5})
  images, labels, examples = {}, {}, {}
  for split, count in cifar10.COUNTS.items():
    images[split] = raw_files.pictures(count, 32, seed=count)
    labels[split] = np.random.default_rng(count).integers(0, 10, count)
    order = np.random.default_rng(count).permutation(count)  # the package shuffles by a hash
    examples[split] = [
      {'id': f'{split}_{i:05d}', 'image': images[split][i], 'label': labels[split][i]}
      for i in order.tolist()
    ]
  folder = tmp_path / 'tfds' / 'cifar10' / '3.0.2'
  folder.mkdir(parents=True)
  write_with_the_package(tfds, folder, examples)
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
  built = command.build('cifar10', tmp_path)
  assert '[ok] container: tfds' in capsys.readouterr().out
  for split in images:
    actual = read_split(built, split)
    np.testing.assert_array_equal(actual['image'], images[split])
    np.testing.assert_array_equal(actual['label'], labels[split])


def test_the_newest_version_is_found(tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  assert locate.find_prepared('mnist') is None
  files = raw_files.prepared_files('mnist', {'train': []})
  for version in ('3.0.2', '3.0.10', '3.0.11.incompleteABC', 'notes'):
    raw_files.write_folder(tmp_path / 'mnist' / version, files)
  (tmp_path / 'mnist' / '4.0.0').mkdir()  # empty
  assert locate.find_prepared('mnist') == tmp_path / 'mnist' / '3.0.10'


def test_mnist_warns_that_its_order_is_lost(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(mnist, 'COUNTS', {'train': 3, 'test': 2})
  images = {s: raw_files.pictures(n, 28, 1, seed=n) for s, n in mnist.COUNTS.items()}
  payloads = {s: [digit(x, i) for i, x in enumerate(digits)] for s, digits in images.items()}
  raw = raw_files.write_folder(tmp_path / '3.0.1', raw_files.prepared_files('mnist', payloads))
  folder = command.build('mnist', tmp_path, raw=[raw])
  assert '[warn] tensorflow-datasets keeps neither names nor order' in capsys.readouterr().out
  actual = read_split(folder, 'train')
  np.testing.assert_array_equal(actual['image'][:, 2:-2, 2:-2], images['train'])
  assert actual['label'].tolist() == [0, 1, 2]


def test_celebahq_is_put_in_the_order_of_its_names(tmp_path, monkeypatch):
  monkeypatch.setattr(celebahq, 'COUNT', 3)
  images = np.tile(raw_files.pictures(3, 8), (1, 32, 32, 1))
  payloads = [
    raw_files.example(
      **{'image': raw_files.encoded(images[i]), 'image/filename': f'{i:05d}.png'.encode()}
    )
    for i in (2, 0, 1)
  ]
  files = raw_files.prepared_files('celeb_a_hq', {'train': payloads})
  raw = raw_files.write_folder(tmp_path / '2.0.0', files)
  folder = command.build('celebahq256', tmp_path, raw=[raw])
  np.testing.assert_array_equal(read_split(folder, 'all')['image'], images)


def test_celeba64_names_its_splits(tmp_path, monkeypatch):
  monkeypatch.setattr(celeba64, 'COUNTS', {'train': 2, 'valid': 1, 'test': 1})
  picture = raw_files.encoded(raw_files.pictures(1, 218, width=178)[0], 'jpeg')
  payload = raw_files.example(image=picture)
  splits = {'test': [payload], 'train': [payload] * 2, 'validation': [payload]}
  files = raw_files.prepared_files('celeb_a', splits)
  folder = command.build('celeba64', tmp_path, raw=[raw_files.write_folder(tmp_path / 'x', files)])
  assert {name: split['count'] for name, split in card_of(folder)['splits'].items()} == {
    'train': 2,
    'valid': 1,
    'test': 1,
  }


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda info: info['splits'][0].update(shardLengths=['3']), 'holds 2 records, but .* says 3'),
    (lambda info: info['splits'][0].update(shardLengths=['1', '1']), r'00000-of-00002 is missing'),
    (lambda info: info.update(fileFormat='array_record'), 'format array_record, but only tfrec'),
    (lambda info: info['splits'][0].update(name='test'), "has no split 'train', only: test"),
    (lambda info: info.pop('splits'), r'dataset_info\.json cannot be read'),
    (lambda info: info['splits'].append('text'), r'dataset_info\.json cannot be read'),
  ],
)
def test_folders_that_contradict_themselves_are_refused(tmp_path, change, message):
  payload = digit(raw_files.pictures(1, 28, 1)[0], 1)
  files = raw_files.prepared_files('mnist', {'train': [payload] * 2})
  info = json.loads(files['dataset_info.json'])
  change(info)
  files['dataset_info.json'] = json.dumps(info).encode()
  with pytest.raises(DataPrepError, match=message):
    tfds_folders.open_split(raw_files.write_folder(tmp_path, files), 'train')


@pytest.mark.parametrize('ids', [[b'train_0', b'train_0'], [b'train_1', b'train_2'], [b'a', b'b']])
def test_cifar10_without_its_order_is_refused(tmp_path, ids):
  image = raw_files.encoded(raw_files.pictures(1, 32)[0])
  payloads = [raw_files.example(image=image, label=1, id=i) for i in ids]
  files = raw_files.prepared_files('cifar10', {'train': payloads, 'test': payloads})
  raw = raw_files.write_folder(tmp_path / '3.0.2', files)
  with pytest.raises(DataPrepError, match='order of the batches|without holes or repeats'):
    command.build('cifar10', tmp_path, raw=[raw])
  assert not (tmp_path / 'cifar10').exists()
