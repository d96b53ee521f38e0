#!/usr/bin/env bash
# Makes the small base again, from nothing but drawn scenes: autoencoder, ViT,
# questions, changes, pictures, and the folder of weights (docs/base.md). Some
# hours on two cores; no GPU.
# A second run reuses what is there.
# Usage: bash launch/base.sh [directory, runs/base by default] [weights]
set -euo pipefail
cd "$(dirname "$0")/.."
run="${1:-runs/base}"
weights="${2:-$run/weights}"
# shellcheck source=launch/setup.sh
source launch/setup.sh requirements.txt
# Scenes are many small products of matrices, which threads only slow down.
export OPENBLAS_NUM_THREADS=1

train() {  # stage, what it starts from
  printf '\n== %s\n' "$1"
  python -m synermedgen_jax.main --config="configs/$1.py:small" \
    --workdir="$run/$1" --config.init_from="$2"
}

train base_autoencoder ''
train base_vision "$run/base_autoencoder"
train base_questions "$run/base_vision"
train base_changes "$run/base_questions"
train base_changes_again "$run/base_changes"
train base_changes_more "$run/base_changes_again"
train base_pictures "$run/base_changes_more"
train base_pictures_more "$run/base_pictures"

printf '\n== Weights\n'
python -m synermedgen_jax.ship_weights --workdir="$run/base_pictures_more" \
  --output="$weights"
