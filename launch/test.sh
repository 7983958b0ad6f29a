#!/usr/bin/env bash
# Checks style and runs the tests: launch/test.sh [PYTEST ARGUMENTS]
#
# The first start installs everything into `.venv`; see environment.sh. EXTRAS in the environment
# names further extras of setup.py: with `tpu`, `-m slow` compiles and checks TPU programs too.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

IFS=, read -ra extras <<<"${EXTRAS:-}"
prepare_environment demo test "${extras[@]}"
export JAX_PLATFORMS=cpu
"$python" -m ruff check .
"$python" -m ruff format --check .
# Two processes, as much of the time one core compiles; a file stays in one, to share its fixtures.
"$python" -m pytest -n 2 --dist loadfile "$@"
