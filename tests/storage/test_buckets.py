"""Runs and data sets in a bucket; see fake_bucket.py. One chain of starts serves most tests."""

import json
import os
import pathlib
import shutil
import sys

import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.runs.checkpoints import Checkpoints
from hvae_tpu.storage import buckets
from tests.support.processes import Job

WORKDIR = 'gs://bucket/runs/a'
FLAGS = (
  '--config=configs/demo_mnist.py:vdvae,debug',
  '--config.model.enc_blocks=32d32,1x1',
  '--config.model.dec_blocks=1x1,32m1',
  '--config.train.log_every=1',
  '--config.train.save_every=2',
  '--config.evals.elbo.every=0',
  '--config.evals.pictures.num=4',
  f'--workdir={WORKDIR}',
)


@pytest.fixture(scope='module')
def bucket(data_root, tmp_path_factory):
  """The folder of a bucket with a data set, and `start(flags, num) -> (code, output)`."""
  root = tmp_path_factory.mktemp('buckets')
  shutil.copytree(data_root / 'demo_mnist', root / 'bucket' / 'data' / 'demo_mnist')
  cache = tmp_path_factory.mktemp('cache')

  def start(*flags: str, num: int = 1) -> tuple[int, str]:
    logs = tmp_path_factory.mktemp('logs')
    command = ('-m', 'tests.support.fake_bucket', str(root), *FLAGS, *flags)
    with pytest.MonkeyPatch.context() as patch:
      patch.setenv('HVAE_DATA_CACHE', str(cache))
      job = Job(logs, 'gs://bucket/data', num, 4, *command)
    return max(map(abs, job.wait())), job.text()

  return root / 'bucket', start


@pytest.fixture(scope='module')
def chain(bucket):
  """Four steps; then, with step 4 cut off in the middle of its save, on to 6 on two processes."""
  folder, start = bucket
  run = folder / 'runs' / 'a'
  outputs = {'first': start('--config.train.num_steps=4')}
  (run / 'checkpoints' / '4' / 'commit_success.txt').unlink()
  outputs['second'] = start('--config.train.num_steps=6', num=2)
  outputs['eval'] = start('--mode=eval')
  outputs['sample'] = start('--mode=sample')
  return run, outputs


@pytest.mark.slow
def test_all_ended_well(chain):
  for name, (code, text) in chain[1].items():
    assert code == 0, f'{name}: {text}'


@pytest.mark.slow
def test_an_incomplete_save_is_not_resumed(chain):
  assert 'resumed at step 2 ' in chain[1]['second'][1]
  assert f'saved step 6 in {WORKDIR}/checkpoints' in chain[1]['second'][1]


@pytest.mark.slow
def test_metrics_of_every_start_are_there(chain):
  steps = []
  for number in (1, 2):
    lines = (chain[0] / 'train' / f'metrics-{number:04d}.jsonl').read_text().splitlines()
    steps.append([json.loads(line)['step'] for line in lines if 'train/loss' in line])
  assert steps == [[1, 2, 3, 4], [3, 4, 5, 6]]
  assert len(list((chain[0] / 'train').glob('events.*'))) == 2
  assert (chain[0] / 'train' / 'parameters.txt').exists()


@pytest.mark.slow
def test_results_of_modes_are_there(chain):
  results = json.loads((chain[0] / 'eval' / 'test-6-ema.json').read_text())
  assert results['results']['elbo/num_examples'] == 250
  assert list((chain[0] / 'sample').glob('*-6-ema.png'))


@pytest.mark.slow
def test_data_is_copied_once(chain):
  texts = [text for _, text in chain[1].values()]
  assert ['copying gs://bucket/data/demo_mnist' in text for text in texts] == [True] + [False] * 3


def test_modes_that_need_a_disk_say_so(bucket):
  code, text = bucket[1]('--mode=encode')
  assert code == 2 and f'--mode=encode needs a --workdir on a disk, found {WORKDIR}' in text


def test_a_data_set_that_is_not_there(bucket):
  code, text = bucket[1]('--config.data.name=demo_natural32')
  assert code == 2 and "'demo_natural32' is not in gs://bucket/data" in text, text


def test_the_package_that_checkpoints_need_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'google.cloud.storage', None)
  monkeypatch.delattr('google.cloud.storage', raising=False)
  with pytest.raises(UserError, match='needs the package google-cloud-storage; run: pip install'):
    Checkpoints('gs://bucket/run')


def test_mirror_copies_what_has_grown(tmp_path, monkeypatch):
  monkeypatch.setattr(buckets, 'as_path', pathlib.Path)
  mirror = buckets.Mirror(tmp_path / 'remote')
  assert mirror.names() == set()
  for name in ('a', 'b'):
    (mirror.local / name).write_text('1')
  mirror.publish()
  before = os.stat(tmp_path / 'remote' / 'b').st_mtime_ns
  (mirror.local / 'a').write_text('12')
  mirror.publish()
  assert (tmp_path / 'remote' / 'a').read_text() == '12' and mirror.names() == {'a', 'b'}
  assert os.stat(tmp_path / 'remote' / 'b').st_mtime_ns == before
  mirror.close()
  assert not mirror.local.exists()
