#!/usr/bin/env bash
# Kills and restarts a small training on this machine, and proves that nothing is lost:
#
#   launch/drill.sh [--kills=50] [--counts=2,1,4] [--seed=0] [--limit=SECONDS]
#
# The top of tests/drill.py describes it. The first start installs everything into
# `.venv`; see environment.sh.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

prepare_environment demo test
export JAX_PLATFORMS=cpu
exec "$python" -m tests.drill "$@"
