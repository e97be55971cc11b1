#!/usr/bin/env bash
# Any script, or YAML file, as a SLURM job through submitit. Arguments: [OPTION ...] SCRIPT [ARGUMENT ...]; --help lists them.
cd "$(dirname "$0")/../.." || exit 1
exec python tools/submit.py "$@"
