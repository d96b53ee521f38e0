#!/usr/bin/env bash
# Runs all stages on digital phantoms, starting from weights/small: volumes,
# slice store, Stage I, Stage II with the detail path, the path alone, evaluation,
# report. Needs no GPU. The path trains until minute 10, with 900 to 10,000 steps;
# on two cores, all stages take about 20 minutes. A second run reuses finished
# parts.
# Usage: bash launch/demo.sh [--from_scratch] [directory, runs/demo by default]
# --from_scratch: trains the model tiny from random weights, first its autoencoder;
# it has no detail path.
# MINUTES=0 bash launch/demo.sh: 900 steps of the detail path.
set -euo pipefail
cd "$(dirname "$0")/.."
model=small run=runs/demo
minutes="${MINUTES:-10}"
if [[ ! $minutes =~ ^[0-9]+$ ]]; then
  echo "Error: MINUTES=$minutes: expected a whole number of minutes." >&2
  exit 1
fi
if [ "${1:-}" = --from_scratch ]; then
  shift
  model=tiny run=runs/demo_from_scratch
fi
run="${1:-$run}"
# shellcheck source=launch/setup.sh
source launch/setup.sh requirements.txt

step() { printf '\n== %s\n' "$1"; }

train() {  # stage, config, options
  step "$1"
  python -m synermedgen_jax.main --config="configs/$model/$2.py" \
    --workdir="$run/$2" --config.store="$run/store" "${@:3}"
}

# Prints the number of steps of the detail path that end in minute $minutes, from
# 900 to 10,000, at 1.5 times the speed of Stage II. The file keeps it for a second
# run.
detail_steps() {
  local file="$run/detail_steps.txt" speed steps
  if [ ! -s "$file" ]; then
    speed="$(sed -n '$s/.*"steps_per_second": \([0-9]*\)\.\([0-9]\).*/\1\2/p' \
      "$run/stage2_detail/metrics.jsonl")"  # tenths of steps per second
    steps=$(((10#$minutes * 60 - SECONDS) * 10#${speed:-0} * 3 / 20))
    steps=$((steps < 900 ? 900 : steps > 10000 ? 10000 : steps))
    echo "$steps" > "$file"
  fi
  cat "$file"
}

step 'Phantoms to slice store'
# The modalities of a phantom are aligned, so the offset search is turned off.
python -m synermedgen_jax.prepare --dataset=phantom --root="$run/phantoms" \
  --subjects=40 --canvas=64 --frame=body --most_offset=0 --store="$run/store"

if [ "$model" = tiny ]; then
  step 'Initial weights'
  python -m projects.small_base.start --model=tiny --output="$run/start"
  train 'Stage 0: autoencoder' autoencoder --config.init_from="$run/start"
  train 'Stage I: understanding, without CTS' stage1_first \
    --config.init_from="$run/autoencoder"
  train 'Stage I: understanding' stage1 --config.init_from="$run/stage1_first"
  train 'Stage II: synthesis' stage2 --config.init_from="$run/stage1"
  trained="$run/stage2"
else
  train 'Stage I: understanding' stage1 --config.init_from=weights/small
  train 'Stage II: synthesis' stage2_detail --config.init_from="$run/stage1"
  steps="$(detail_steps)"
  train 'The detail path' detail --config.init_from="$run/stage2_detail" \
    --config.steps="$steps"
  trained="$run/detail"
fi

step 'Evaluation on held-out subjects'
if [ "$trained/evaluation/metrics.json" -nt "$trained/metrics.jsonl" ]; then
  echo "Reusing $trained/evaluation."
else
  python -m synermedgen_jax.evaluate --workdir="$trained" --score=tissue
fi

step 'Prediction of a NIfTI volume'
subject="$(grep '"dataset": "brain".*"split": "test"' "$run/store/manifest.jsonl" |
  sed -n '1s/.*"subject": "\([^"]*\)".*/\1/p')"
python -m synermedgen_jax.predict --workdir="$trained" \
  --input="$run/phantoms/brain/$subject/mr.nii.gz" \
  --source=mr --target=ct --region=brain \
  --output="$run/predicted/${subject}_mr_to_ct.nii.gz" --preview

step 'Report'
python -m synermedgen_jax.report --workdir="$trained" --megabytes=8
