#!/usr/bin/env bash
# Runs the tests: ./run_tests.sh [pytest's arguments]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$root/.ci/environment.sh"
prepare_environment "$root"
cd "$root"
exec "$PYTHON" -P -m pytest "$@"
