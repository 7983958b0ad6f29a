"""Small raw files of every published set of pictures, with the records that must come of them.

A case writes into a folder, turns the counts of its builder into small ones, and says what to give.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.datasets import (
  binarized_mnist,
  celeba64,
  celebahq,
  cifar10,
  fashion_mnist,
  ffhq,
  imagenet,
  mnist,
)
from tests.support import raw_files


@dataclasses.dataclass
class Case:
  """Raw files of a data set, and the records that must come out of them."""

  name: str
  raw: list[Path]
  images: Mapping[str, np.ndarray]
  labels: Mapping[str, np.ndarray] | None = None
  container: str = ''


CASES = {}


def case(function):
  CASES[function.__name__] = function
  return function


def digits(monkeypatch):
  """Returns MNIST in small: files, padded digits, labels."""
  monkeypatch.setattr(mnist, 'COUNTS', {'train': 7, 'test': 4})
  images = {s: raw_files.pictures(n, 28, 1, seed=n) for s, n in mnist.COUNTS.items()}
  labels = {'train': np.arange(7, dtype=np.uint8), 'test': np.array([9, 0, 9, 1], np.uint8)}
  plain = {s: i[..., 0] for s, i in images.items()}
  files = raw_files.mnist_files(plain['train'], plain['test'], labels)
  padded = {}
  for split, pictures in images.items():
    padded[split] = np.zeros((len(pictures), 32, 32, 1), np.uint8)
    padded[split][:, 2:30, 2:30] = pictures
  return files, padded, labels, plain


@case
def mnist_loose(folder, monkeypatch):
  files, images, labels, _ = digits(monkeypatch)
  raw_files.write_folder(folder, files)
  return Case('mnist', [folder / name for name in files], images, labels, 'idx')


@case
def mnist_in_a_folder(folder, monkeypatch):
  files, images, labels, _ = digits(monkeypatch)
  nested = {f'MNIST/raw/{name}': data for name, data in files.items()}
  return Case('mnist', [raw_files.write_folder(folder / 'x', nested)], images, labels, 'idx')


@case
def mnist_in_a_zip(folder, monkeypatch):
  files, images, labels, _ = digits(monkeypatch)
  return Case('mnist', [raw_files.write_zip(folder / 'x', files)], images, labels, 'idx')


@case
def mnist_of_keras(folder, monkeypatch):
  _, images, labels, plain = digits(monkeypatch)
  arrays = {f'{k}_{s}': v[s] for k, v in (('x', plain), ('y', labels)) for s in plain}
  np.savez(folder / 'mnist.npz', **arrays)
  return Case('mnist', [folder / 'mnist.npz'], images, labels, 'npz')


@case
def fashion_mnist_in_a_folder(folder, monkeypatch):
  monkeypatch.setattr(fashion_mnist, 'COUNTS', {'train': 7, 'test': 4})
  monkeypatch.setattr(fashion_mnist, 'NUM_VALID', 3)
  grey = {name: raw_files.pictures(n, 28, 1, seed=n) for name, n in fashion_mnist.COUNTS.items()}
  labels = {'train': np.arange(7, dtype=np.uint8), 'test': np.array([9, 0, 9, 1], np.uint8)}
  plain = {name: image[..., 0] for name, image in grey.items()}
  files = raw_files.mnist_files(plain['train'], plain['test'], labels)
  valid = np.random.RandomState(0).permutation(7)[-3:]
  held_out = {'valid_binarized': grey['train'][valid], 'test_binarized': grey['test']}
  images, all_labels = dict(grey), dict(labels)
  for seed, (name, image) in enumerate(held_out.items()):
    images[name] = 255 * (np.random.RandomState(seed).random_sample(image.shape) < image / 255)
    images[name] = images[name].astype(np.uint8)
  all_labels |= {'valid_binarized': labels['train'][valid], 'test_binarized': labels['test']}
  raw = [raw_files.write_folder(folder / 'x', files)]
  return Case('fashion_mnist', raw, images, all_labels, 'idx')


@case
def binarized_mnist_amat(folder, monkeypatch):
  monkeypatch.setattr(binarized_mnist, 'COUNTS', {'train': 5, 'valid': 3, 'test': 2})
  images = {}
  for split, count in binarized_mnist.COUNTS.items():
    bits = np.random.default_rng(count).integers(0, 2, (count, 784))
    (folder / f'{split}.amat').write_bytes(raw_files.amat(bits))
    inner = (255 * bits).astype(np.uint8).reshape(count, 28, 28, 1)
    images[split] = np.pad(inner, ((0, 0), (2, 2), (2, 2), (0, 0)))
  return Case('binarized_mnist', [folder], images, None, 'amat')


def batches(monkeypatch, binary):
  """Returns CIFAR-10 in small: files, pictures, labels."""
  monkeypatch.setattr(cifar10, 'COUNTS', {'train': 10, 'test': 3})
  images = {s: raw_files.pictures(n, 32, seed=n) for s, n in cifar10.COUNTS.items()}
  labels = {'train': np.arange(10, dtype=np.uint8), 'test': np.array([3, 3, 0], np.uint8)}
  files = raw_files.cifar_files(
    images['train'], labels['train'], images['test'], labels['test'], binary
  )
  return files, images, labels


@case
def cifar10_pickled_tar_gz(folder, monkeypatch):
  files, images, labels = batches(monkeypatch, binary=False)
  raw = raw_files.write_tar(folder / 'cifar-10-python.tar.gz', files, 'w:gz')
  return Case('cifar10', [raw], images, labels, 'tar.gz')


@case
def cifar10_pickled_folder(folder, monkeypatch):
  files, images, labels = batches(monkeypatch, binary=False)
  return Case('cifar10', [raw_files.write_folder(folder, files)], images, labels, 'folder')


@case
def cifar10_binary_tar_gz(folder, monkeypatch):
  files, images, labels = batches(monkeypatch, binary=True)
  raw = raw_files.write_tar(folder / 'batches', files, 'w:gz')
  return Case('cifar10', [raw], images, labels, 'tar.gz')


@case
def cifar10_binary_zip(folder, monkeypatch):
  files, images, labels = batches(monkeypatch, binary=True)
  return Case('cifar10', [raw_files.write_zip(folder / 'c', files)], images, labels, 'zip')


def oord(size):
  return {'train': raw_files.pictures(12, size), 'valid': raw_files.pictures(5, size, seed=1)}


def pngs(prefix, images, first=1):
  return {f'{prefix}{i:07d}.png': raw_files.encoded(x) for i, x in enumerate(images, first)}


@case
def imagenet32_tars(folder, monkeypatch):
  images = oord(32)
  for split, pictures in images.items():
    files = dict(reversed(pngs(f'{split}_32x32/', pictures).items()))  # names count, not places
    raw_files.write_tar(folder / f'{split}_32x32.tar', files)
  return Case('imagenet32', [folder], images, None, 'tar')


@case
def imagenet64_folders(folder, monkeypatch):
  images = oord(64)
  for split, pictures in images.items():
    raw_files.write_folder(folder, pngs(f'{split}_64x64/', pictures))
  raw = [folder / 'train_64x64', folder / 'valid_64x64']
  return Case('imagenet64', raw, images, None, 'folder')


@case
def imagenet32_npy(folder, monkeypatch):
  images = oord(32)
  monkeypatch.setattr(imagenet, 'COUNTS', {'train': 12, 'valid': 5})
  raw = [folder / f'imagenet32-{split}.npy' for split in images]
  for path, pictures in zip(raw, images.values(), strict=True):
    np.save(path, pictures)
  return Case('imagenet32', raw, images, None, 'npy')


def glow(images, level):
  """Returns shards of this size and of another size, which must be left alone."""
  files = {}
  for split, part, shards, of in (('train', 'train', 3, 2000), ('valid', 'validation', 2, 80)):
    files |= raw_files.glow_files(images[split], part, level, shards, of)
    files |= raw_files.glow_files(raw_files.pictures(2, 8), part, 3, 1, of)
  return files


@case
def imagenet64_glow_folder(folder, monkeypatch):
  images = oord(64)
  monkeypatch.setattr(imagenet, 'GLOW_COUNTS', {'train': 12, 'valid': 5})
  raw = raw_files.write_folder(folder / 'mnt', glow(images, 6))
  return Case('imagenet64', [raw], images, None, 'folder of TFRecords')


@case
def imagenet32_glow_tar(folder, monkeypatch):
  images = oord(32)
  monkeypatch.setattr(imagenet, 'GLOW_COUNTS', {'train': 12, 'valid': 5})
  raw = raw_files.write_tar(folder / 'imagenet-oord-tfr.tar', glow(images, 5))
  return Case('imagenet32', [raw], images, None, 'tar of TFRecords')


@case
def imagenet64_box_zips(folder, monkeypatch):
  """Batches in the order of their sorted names, over both parts: 1, 10, 2."""
  train, valid = raw_files.pictures(9, 64), raw_files.pictures(2, 64, seed=1)
  first, second, tenth = map(raw_files.planar_npz, np.split(train, 3))
  raw = [
    raw_files.write_zip(folder / f'Imagenet64_{part}_npz.zip', files)
    for part, files in (
      ('train_part2', {'train_data_batch_10.npz': tenth}),
      ('train_part1', {'train_data_batch_1.npz': first, 'train_data_batch_2.npz': second}),
      ('val', {'val_data.npz': raw_files.planar_npz(valid)}),
    )
  ]
  images = {'train': train[[0, 1, 2, 6, 7, 8, 3, 4, 5]], 'valid': valid}
  return Case('imagenet64_box', raw, images, None, 'zip')


@case
def imagenet32_box_loose(folder, monkeypatch):
  images = {'train': raw_files.pictures(6, 32), 'valid': raw_files.pictures(2, 32, seed=1)}
  one, two = map(raw_files.planar_npz, np.split(images['train'], 2))
  files = {'train_data_batch_1.npz': one, 'train_data_batch_2.npz': two}
  files['val_data.npz'] = raw_files.planar_npz(images['valid'])
  return Case('imagenet32_box', [raw_files.write_folder(folder, files)], images)


def faces(folder, separator):
  """Returns aligned JPEGs with a partition that is not in the order of the names."""
  roles = [0, 2, 1, 0, 1, 0]
  jpegs = {
    f'img_align_celeba/{i:06d}.jpg': raw_files.encoded(image, 'jpeg')
    for i, image in enumerate(raw_files.pictures(6, 218, width=178), 1)
  }
  lines = [f'{i:06d}.jpg{separator}{role}\n' for i, role in enumerate(roles, 1)]
  shrunk = []
  for data in jpegs.values():
    with Image.open(io.BytesIO(data)) as image:
      cut = image.crop((15, 40, 163, 188)).resize((64, 64), Image.Resampling.BILINEAR)
      shrunk.append(np.asarray(cut))
  images = {
    split: np.stack([image for image, own in zip(shrunk, roles, strict=True) if own == role])
    for role, split in enumerate(('train', 'valid', 'test'))
  }
  return jpegs, lines, images


@case
def celeba64_zip(folder, monkeypatch):
  monkeypatch.setattr(celeba64, 'COUNTS', {'train': 3, 'valid': 2, 'test': 1})
  monkeypatch.setattr(celeba64, '_PUBLISHED', ())
  jpegs, lines, images = faces(folder, ' ')
  raw_files.write_zip(folder / 'img_align_celeba.zip', jpegs)
  (folder / 'list_eval_partition.txt').write_text(''.join(lines))
  (folder / 'list_attr_celeba.txt').write_text('40\n')
  return Case('celeba64', [folder], images, None, 'zip')


@case
def celeba64_folder_and_csv(folder, monkeypatch):
  monkeypatch.setattr(celeba64, 'COUNTS', {'train': 3, 'valid': 2, 'test': 1})
  jpegs, lines, images = faces(folder, ',')
  raw_files.write_folder(folder, jpegs)
  (folder / 'list_eval_partition.csv').write_text('image_id,partition\n' + ''.join(lines))
  raw = [folder / 'img_align_celeba', folder / 'list_eval_partition.csv']
  return Case('celeba64', raw, images, None, 'folder')


@case
def celebahq256_tar(folder, monkeypatch):
  monkeypatch.setattr(celebahq, 'COUNT', 3)
  images = raw_files.pictures(3, 256)
  raw = raw_files.write_tar(folder / 'data256x256.tar', pngs('data256x256/', images))
  return Case('celebahq256', [raw], {'all': images}, None, 'tar')


@case
def celebahq256_from_1024(folder, monkeypatch):
  monkeypatch.setattr(celebahq, 'COUNT', 1)
  large = smooth(1024)
  raw = raw_files.write_zip(folder / 'data1024x1024.zip', pngs('data1024x1024/', large))
  return Case('celebahq256', [raw], {'all': shrink(large, 256)}, None, 'zip')


@case
def celebahq256_glow_tar(folder, monkeypatch):
  monkeypatch.setattr(celebahq, 'COUNT', 5)
  monkeypatch.setattr(celebahq, 'GLOW_COUNTS', {'train': 3, 'validation': 2})
  images, files = np.tile(raw_files.pictures(5, 32), (1, 8, 8, 1)), {}
  for part, group, of in (('validation', images[3:], 40), ('train', images[:3], 120)):
    files |= raw_files.glow_files(group, part, 8, 2, of)
  raw = raw_files.write_tar(folder / 'celeba-tfr.tar', files)
  return Case('celebahq256', [raw], {'all': images}, None, 'tar of TFRecords')


def smooth(size):
  """Returns one picture that shrinks to something, uint8 [1, size, size, 3]."""
  row, column = np.mgrid[:size, :size]
  return np.stack([row // 4 % 256, column // 4 % 256, row * column // 4096 % 256], -1)[None].astype(
    np.uint8
  )


def shrink(images, size):
  kernel = Image.Resampling.BILINEAR
  return np.stack([np.asarray(Image.fromarray(i).resize((size, size), kernel)) for i in images])


def metadata(images):
  """Returns metadata as in ffhq-dataset-v2.json."""
  hashes = [hashlib.md5(image.tobytes()).hexdigest() for image in images]
  return json.dumps({str(i): {'image': {'pixel_md5': h}} for i, h in enumerate(hashes)})


@case
def ffhq1024_folders_and_metadata(folder, monkeypatch):
  monkeypatch.setattr(ffhq, 'COUNT', 2)
  monkeypatch.setattr(ffhq, 'TRAIN_1024', 1)
  images = np.concatenate([smooth(1024), 255 - smooth(1024)])
  files = {
    f'images1024x1024/0000{i}/0000{i}.png': raw_files.encoded(x) for i, x in enumerate(images)
  }
  raw_files.write_folder(folder, files)
  (folder / 'ffhq-dataset-v2.json').write_text(metadata(images))
  raw = [folder / 'images1024x1024', folder / 'ffhq-dataset-v2.json']
  return Case('ffhq1024', raw, {'all': images}, None, 'folder')


@case
def ffhq256_from_flat_1024(folder, monkeypatch):
  monkeypatch.setattr(ffhq, 'COUNT', 1)
  raw = raw_files.write_folder(folder, {'00000.png': raw_files.encoded(smooth(1024)[0])})
  return Case('ffhq256', [raw], {'all': shrink(smooth(1024), 256)}, None, 'folder')


@case
def ffhq256_npy(folder, monkeypatch):
  monkeypatch.setattr(ffhq, 'COUNT', 3)
  images = raw_files.pictures(3, 256)
  np.save(folder / 'ffhq-256.npy', images)
  return Case('ffhq256', [folder / 'ffhq-256.npy'], {'all': images}, None, 'npy')
