#!/usr/bin/env bash
# Ablations on digital phantoms: tries the claims of the paper by the plan of
# projects/ablations/plan.py. Prints the costs first; a second run resumes.
# Usage: bash launch/ablations.sh [directory, runs/ablations by default]
#          [options of projects.ablations.run]
# Options: --announce prints the costs and stops; --full tries every arm in every
# regime, for a machine with a GPU, whose speed --gflops states. With an NVIDIA
# GPU, JAX is installed for it.
set -euo pipefail
cd "$(dirname "$0")/.."
run=runs/ablations
if [ $# -gt 0 ] && [[ $1 != --* ]]; then run="$1"; shift; fi
# shellcheck source=launch/setup.sh
source launch/setup.sh requirements.txt
if command -v nvidia-smi > /dev/null &&
  ! python -c 'import jax_cuda12_plugin' 2> /dev/null
then
  python -m pip install --quiet --disable-pip-version-check 'jax[cuda12]'
fi
python -m projects.ablations.run --output="$run" "$@"
