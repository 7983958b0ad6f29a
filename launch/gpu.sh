#!/usr/bin/env bash
# Trains on the NVIDIA GPUs of this host, all of them from one process:
#
#   [GPUS=0,1] [MAX_RESTARTS=3] launch/gpu.sh FLAGS OF hvae_tpu.main
#
# A training that crashes is started again, where it resumes at its last checkpoint; after
# $MAX_RESTARTS crashes without a new checkpoint it is left. The first start installs everything
# into `.venv`; see environment.sh. For several hosts start the same command on each, with
# --coordinator=HOST:PORT --num_processes=N --process_id=I.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
# shellcheck source=launch/flags.sh
source "$(dirname "${BASH_SOURCE[0]}")/flags.sh"
MAX_RESTARTS=${MAX_RESTARTS:-3}

# Fails if the driver is older than the CUDA 12 libraries of JAX need.
check_driver() {
  local driver
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -1) ||
    fail "nvidia-smi finds no NVIDIA driver on this host; without a GPU use launch/local.sh."
  if ((${driver%%.*} < 525)); then
    fail "The NVIDIA driver $driver is too old: JAX needs 525 or newer."
  fi
  nvidia-smi --query-gpu=index,name,memory.total --format=csv,noheader
}

check_devices() {
  local devices
  devices=$("$python" -c 'import jax; print(jax.devices()[0].platform, jax.device_count())') ||
    fail "JAX could not be started, as told above."
  if [[ $devices != gpu* ]]; then
    fail "JAX finds no GPU (it would run on: $devices); are the numbers in GPUS=${GPUS:-all} right?"
  fi
  echo "JAX sees: $devices"
}

if [[ -z $(flag config "$@") ]]; then
  fail "launch/gpu.sh needs --config=configs/<data set>.py"
fi
workdir=$(flag workdir "$@")
if [[ $workdir == gs://* ]]; then
  fail "launch/gpu.sh looks for checkpoints on a disk, so --workdir=$workdir cannot be a bucket;" \
    "give a folder, or start it without restarts: $python -m hvae_tpu.main$(printf ' %q' "$@")"
fi
check_driver
prepare_environment cuda demo
if [[ -n ${GPUS:-} ]]; then export CUDA_VISIBLE_DEVICES=$GPUS; fi
check_devices
if [[ -z $workdir ]]; then
  workdir=$(default_workdir "$(flag config "$@")")
  set -- "$@" --workdir="$workdir"
fi

crashes=0
while true; do
  before=$(last_saved "$workdir")
  code=0
  "$python" -m hvae_tpu.main "$@" || code=$?
  # Finished, or told to stop; a mistake of the user; Ctrl-C.
  if ((code == 0 || code == 2 || code == 130)); then exit "$code"; fi
  saved=$(last_saved "$workdir")
  echo "hvae_tpu.main ended with exit code $code; last saved step: $saved" >&2
  if [[ $saved == "$before" ]]; then ((++crashes)); else crashes=1; fi
  if ((crashes > MAX_RESTARTS)); then
    fail "It has crashed $crashes times at step $saved. To resume:$(printf ' %q' "$0" "$@")"
  fi
done
