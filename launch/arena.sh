#!/usr/bin/env bash
# Trains systems of image translation on a slice store under equal budgets, and ranks
# them on its test subjects. Prints the costs first. A second run resumes.
# Usage: bash launch/arena.sh [store, runs/demo/store by default]
#          [directory, runs/arena by default] [options of synermedgen_jax.arena]
# The demo makes the store: bash launch/demo.sh
# The option --announce prints the costs and stops.
set -euo pipefail
cd "$(dirname "$0")/.."
store="${1:-runs/demo/store}"
run="${2:-runs/arena}"
shift "$(($# < 2 ? $# : 2))"
if [ ! -e "$store/store.json" ] && [[ $store != *://* ]]; then
  echo "Error: $store: is not a slice store; name one, or make that of the demo" \
    'with bash launch/demo.sh.' >&2
  exit 1
fi
# shellcheck source=launch/setup.sh
source launch/setup.sh requirements.txt
python -m synermedgen_jax.arena --store="$store" --run="$run" "$@"
