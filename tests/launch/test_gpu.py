"""launch/gpu.sh, with a driver and an interpreter that only pretend."""

import os
import pathlib
import subprocess

import pytest

from tests.support.fake_cloud import _executable

pytestmark = pytest.mark.launch
ROOT = pathlib.Path(__file__).resolve().parents[2]
SMI = """#!/bin/sh
case "$*" in
  *driver_version*) echo DRIVER ;;
  *) echo '0, A GPU, 80 GB' ;;
esac
"""
PYTHON = """#!/usr/bin/env bash
case "$*" in
  *version_info*) echo 11 ;;
  *jax.devices*) echo "PLATFORM 2" ;;
  *hvae_tpu.main*)
    echo "$CUDA_VISIBLE_DEVICES $*" >>starts
    number=$(wc -l <starts)
    codes=(CODES)
    if [[ 'SAVES' == *$number* ]]; then mkdir -p "runs/demo_mnist-vdvae/checkpoints/$number"; fi
    exit "${codes[number - 1]}"
    ;;
  *) echo vdvae ;;
esac
"""


@pytest.fixture
def host(tmp_path):
  """(codes, steps saved by the starts of these numbers, ...) -> (exit code, output, starts)."""
  checkout = tmp_path / 'hvae_tpu'
  checkout.mkdir()
  for name in ('launch', 'setup.py', 'pyproject.toml', 'configs'):
    (checkout / name).symlink_to(ROOT / name)

  def start(codes, *flags, saves='', platform='gpu', driver='550.1', **variables):
    text = PYTHON.replace('CODES', ' '.join(map(str, codes))).replace('SAVES', saves)
    _executable(checkout / '.venv/bin/python', text.replace('PLATFORM', platform))
    _executable(tmp_path / 'bin/nvidia-smi', SMI.replace('DRIVER', driver))
    done = subprocess.run(
      ['bash', checkout / 'launch/gpu.sh', *flags],
      env=os.environ | {'PATH': f'{tmp_path}/bin:{os.environ["PATH"]}'} | variables,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      timeout=60,
    )
    starts = checkout / 'starts'
    lines = starts.read_text().splitlines() if starts.exists() else []
    return done.returncode, done.stdout, lines

  return start


CONFIG = '--config=configs/demo_mnist.py'
COMMAND = f'-m hvae_tpu.main {CONFIG} --workdir=runs/demo_mnist-vdvae'


@pytest.mark.parametrize('code', [0, 2, 130])
def test_ends_that_are_left_alone(host, code):
  assert host([code], CONFIG, GPUS='0,1')[::2] == (code, [f'0,1 {COMMAND}'])


def test_a_crash_is_resumed(host):
  code, text, starts = host([1, 134, 75, 0], CONFIG, saves='2')
  assert code == 0 and len(starts) == 4
  assert 'ended with exit code 1; last saved step: none' in text
  assert 'ended with exit code 134; last saved step: 2' in text


def test_crashes_without_progress_end(host):
  code, text, starts = host([1] * 9, CONFIG, saves='2', MAX_RESTARTS='2')
  assert code == 1 and len(starts) == 4  # the second one got further
  assert 'crashed 3 times at step 2. To resume: ' in text and text.rstrip().endswith('-vdvae')


@pytest.mark.parametrize(
  ('options', 'flags', 'message'),
  [
    ({}, [], 'launch/gpu.sh needs --config=configs/<data set>.py'),
    ({}, [CONFIG, '--workdir=gs://b/a'], 'so --workdir=gs://b/a cannot be a bucket; give a folder'),
    (dict(driver='470.2'), [CONFIG], 'The NVIDIA driver 470.2 is too old: JAX needs 525 or newer'),
    (dict(platform='cpu'), [CONFIG], 'JAX finds no GPU (it would run on: cpu 2)'),
  ],
)
def test_refused(host, options, flags, message):
  code, text, starts = host([0], *flags, **options)
  assert code == 1 and message in text and not starts
