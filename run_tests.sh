#!/usr/bin/env bash
# Runs the tests, a process for each core (up to four): ./run_tests.sh [pytest's arguments; -n 0: in one process]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$root/.ci/environment.sh"
prepare_environment "$root"
cd "$root"
# neighbours share fixtures, so each process takes a stretch of the tests, and an idle one takes over what another has left
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} exec "$PYTHON" -P -m pytest -n auto --maxprocesses 4 --dist worksteal "$@"
