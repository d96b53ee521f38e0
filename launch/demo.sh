#!/usr/bin/env bash
# The whole job on digital phantoms, from the small base: volumes, slice store,
# Stage I, Stage II, evaluation, report. Four to fifteen minutes on two
# cores, as fast as they are, no GPU. A second run reuses what is there.
# Usage: bash launch/demo.sh [--from_scratch] [directory, runs/demo by default]
# --from_scratch: the model tiny, from nothing, an autoencoder first.
set -euo pipefail
cd "$(dirname "$0")/.."
model=small run=runs/demo start=weights/small
if [ "${1:-}" = --from_scratch ]; then
  shift
  model=tiny run=runs/demo_from_scratch start=''
fi
run="${1:-$run}"
# shellcheck source=launch/setup.sh
source launch/setup.sh requirements.txt

step() { printf '\n== %s\n' "$1"; }

train() {  # stage, config, where it starts from
  step "$1"
  python -m synermedgen_jax.main --config="configs/$2.py:$model" \
    --workdir="$run/$2" --config.store="$run/store" --config.init_from="$3"
}

step 'Phantoms to slice store'
# Drawn in one frame: no offset to look for.
python -m synermedgen_jax.prepare --dataset=phantom --root="$run/phantoms" \
  --subjects=40 --canvas=64 --most_offset=0 --store="$run/store"

if [ -z "$start" ]; then
  train 'Stage 0: autoencoder' autoencoder ''
  start="$run/autoencoder"
fi
train 'Stage I: understanding' stage1 "$start"
train 'Stage II: synthesis' stage2 "$run/stage1"

step 'Evaluation on held-out subjects'
if [ "$run/stage2/evaluation/metrics.json" -nt "$run/stage2/metrics.jsonl" ]; then
  echo "Reusing $run/stage2/evaluation."
else
  python -m synermedgen_jax.evaluate --workdir="$run/stage2" --slices=6
fi

step 'A volume, from NIfTI to NIfTI'
subject="$(grep '"dataset": "brain".*"split": "test"' "$run/store/manifest.jsonl" |
  sed -n '1s/.*"subject": "\([^"]*\)".*/\1/p')"
python -m synermedgen_jax.translate --workdir="$run/stage2" \
  --input="$run/phantoms/brain/$subject/mr.nii.gz" \
  --source=mr --target=ct --region=brain \
  --output="$run/translated/${subject}_mr_to_ct.nii.gz"

step 'Report'
python -m synermedgen_jax.report --workdir="$run/stage2"
