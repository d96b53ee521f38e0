#!/usr/bin/env bash
# Makes the small base again, from nothing but drawn scenes: autoencoder, ViT,
# questions, changes, pictures, and the folder of weights (docs/base.md). Some
# hours on two cores; no GPU.
# A second run reuses what is there.
# Usage: bash projects/small_base/run.sh [directory, runs/base by default] [weights]
set -euo pipefail
cd "$(dirname "$0")/../.."
run="${1:-runs/base}"
weights="${2:-$run/weights}"
# shellcheck source=launch/setup.sh
source launch/setup.sh requirements.txt
# Scenes are many small products of matrices, which threads only slow down.
export OPENBLAS_NUM_THREADS=1

train() {  # stage, what it starts from
  printf '\n== %s\n' "$1"
  python -m synermedgen_jax.main \
    --config="projects/small_base/configs/$1.py" \
    --workdir="$run/$1" --config.init_from="$2"
}

train autoencoder ''
train vision "$run/autoencoder"
train views "$run/vision"
train questions "$run/views"
train changes "$run/questions"
train changes_again "$run/changes"
train changes_more "$run/changes_again"
train pictures "$run/changes_more"
train pictures_more "$run/pictures"

printf '\n== Weights\n'
python -m synermedgen_jax.ship_weights --workdir="$run/pictures_more" \
  --output="$weights"
