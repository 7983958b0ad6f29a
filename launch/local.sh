#!/usr/bin/env bash
# Trains, evaluates and samples on this machine, from a bare checkout to pictures:
#
#   launch/local.sh [FLAGS OF hvae_tpu.main, EXCEPT --mode]
#
# Without --config it is the demo that a CPU can do in minutes. Relative paths start at the
# checkout. The first start installs everything into `.venv`; see environment.sh.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
# shellcheck source=launch/flags.sh
source "$(dirname "${BASH_SOURCE[0]}")/flags.sh"

# Runs one mode of hvae_tpu.main with the other arguments and prints the time it took.
stage() {
  local mode=$1 start=$SECONDS
  shift
  echo "== $mode"
  "$python" -m hvae_tpu.main "$@" --mode="$mode"
  echo "== $mode took $((SECONDS - start)) s"
}

if [[ -n $(flag mode "$@") ]]; then
  fail "launch/local.sh runs the modes train, eval and sample in turn; for one of them alone give" \
    "the same flags to $python -m hvae_tpu.main."
fi
prepare_environment demo
# XLA maps and unmaps its temporaries at every step on a CPU; huge pages make that a sixth faster.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

if [[ -z $(flag config "$@") ]]; then set -- --config=configs/demo_mnist.py "$@"; fi
workdir=$(flag workdir "$@")
if [[ -z $workdir ]]; then
  workdir=$(default_workdir "$(flag config "$@")")
  set -- "$@" --workdir="$workdir"
fi
if [[ $workdir != /* ]]; then workdir=$root/$workdir; fi

for mode in train eval sample; do stage "$mode" "$@"; done

echo
echo "Pictures are in"
find "$workdir" -name '*.png' -exec dirname {} + | sort -u | sed 's/^/  /'
echo "Checkpoints are in"
echo "  $workdir/checkpoints"
echo "Curves and pictures of the training, in a browser:"
printf '  %q --logdir %q\n' "$root/.venv/bin/tensorboard" "$workdir"
