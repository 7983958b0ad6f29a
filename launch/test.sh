#!/usr/bin/env bash
# Checks style and runs the tests: launch/test.sh [PYTEST ARGUMENTS]
#
# The first start installs everything into `.venv`; see environment.sh.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

prepare_environment demo test
export JAX_PLATFORMS=cpu
"$python" -m ruff check .
"$python" -m ruff format --check .
# Two processes, as much of the time one core compiles; a file stays in one, to share its fixtures.
"$python" -m pytest -n 2 --dist loadfile "$@"
