#!/usr/bin/env bash
# Makes the small base from drawn scenes alone: initial weights, autoencoder, ViT,
# questions, changes, pictures, and the weights folder (README.md). Three hours
# on two cores; no GPU. A second run reuses finished stages.
# Usage: bash projects/small_base/run.sh [directory, runs/base by default] [weights]
set -euo pipefail
cd "$(dirname "$0")/../.."
run="${1:-runs/base}"
weights="${2:-$run/weights}"
# shellcheck source=launch/setup.sh
source launch/setup.sh requirements.txt
# Scenes need many small matrix products, which are slower with threads.
export OPENBLAS_NUM_THREADS=1

train() {  # stage, start
  printf '\n== %s\n' "$1"
  python -m synermedgen_jax.main \
    --config="projects/small_base/configs/$1.py" \
    --workdir="$run/$1" --config.init_from="$2"
}

printf '\n== Initial weights\n'
python -m projects.small_base.start --model=small --output="$run/start"
train autoencoder "$run/start"
train vision "$run/autoencoder"
train views "$run/vision"
train questions "$run/views"
train changes "$run/questions"
train changes_again "$run/changes"
train changes_more "$run/changes_again"
train pictures "$run/changes_more"
train pictures_more "$run/pictures"

printf '\n== Weights\n'
python -m projects.small_base.ship --workdir="$run/pictures_more" \
  --output="$weights"
