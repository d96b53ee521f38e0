#!/usr/bin/env bash
# Ablations on digital phantoms: tries the claims of the paper by the plan of
# projects/ablations/plan.py. Prints the costs first; a second run resumes.
# Usage: bash launch/ablations.sh [directory, runs/ablations by default]
#          [options of projects.ablations.run]
# Options: --announce prints the costs and stops; --full tries every arm in every
# regime, for a machine with a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
run=runs/ablations
if [ $# -gt 0 ] && [[ $1 != --* ]]; then run="$1"; shift; fi
# shellcheck source=launch/setup.sh
source launch/setup.sh requirements.txt
python -m projects.ablations.run --output="$run" "$@"
