#!/usr/bin/env bash
# Runs the course: ./run_all.sh [--profile quick|standard|full] [--only 03] [--from 02] [--resume] [--dry-run] …
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$root/.ci/environment.sh"
case " $* " in *" --cpu "*) NIC_CPU=1 ;; esac
prepare_environment "$root"
exec "$PYTHON" -P -m nic_helpers.course.runner "$@"
