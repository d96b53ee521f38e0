#!/usr/bin/env bash
# Measures attention, training steps and sampling on one GPU beside PyTorch, in
# at most ten minutes. Needs jax with CUDA and the requirements in the Python on
# PATH; the PyTorch columns need torch. No network.
# Usage: bash launch/gpu_check.sh [--small] [--wheels=FOLDER] [--output=FOLDER]
#   --small    tiny shapes, for a test of this script on a CPU
#   --wheels   install the requirements from the wheels in this folder
#   --output   folder of the results, docs/gpu by default: DEVICE.json, which is
#              written as results come, and DEVICE.log
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "Error: $1" >&2; exit 1; }

small='' wheels='' output=docs/gpu budget=600
for option in "$@"; do
  case "$option" in
    --small) small=1 ;;
    --wheels=*) wheels="${option#*=}" ;;
    --output=*) output="${option#*=}" ;;
    *) fail "unknown option $option; see the head of $0." ;;
  esac
done
if [ -n "$wheels" ]; then
  [ -d "$wheels" ] || fail "$wheels: no such folder."
  python -m pip install --quiet --disable-pip-version-check --no-index \
    --find-links="$wheels" -r requirements.txt
fi

device="$(python -c 'import jax; d = jax.devices()[0]; print(d.device_kind)')" ||
  fail 'JAX does not start; its message is above.'
[ -n "$small" ] || [ "$device" != cpu ] ||
  fail 'JAX finds no GPU; --small runs on a CPU.'
name="$(tr 'A-Z ' 'a-z_' <<< "$device")"
mkdir -p "$output"
results="$output/$name.json" log="$output/$name.log"
rm -f "$results"
: > "$log"

begun=$SECONDS failed=0
# part TITLE LIMIT_S COMMAND...: runs a command for at most LIMIT_S seconds.
part() {
  local title="$1" limit="$2" left=$((budget - SECONDS + begun)) from=$SECONDS
  local status=0
  shift 2
  # On a CPU, other work may slow a part down: the ten minutes alone count.
  [ -z "$small" ] || limit="$budget"
  [ "$limit" -le "$left" ] || limit="$left"
  if [ "$limit" -lt 5 ]; then
    echo "$title: left out, the ten minutes are over"
    failed=1
    return
  fi
  echo "== $*" >> "$log"
  timeout --kill-after=5 "$limit" "$@" --output="$results" >> "$log" 2>&1 ||
    status=$?
  case "$status" in
    0) echo "$title: $((SECONDS - from)) s" ;;
    124 | 137) echo "$title: stopped after $limit s"; failed=1 ;;
    *) echo "$title: failed: $(tail -n 1 "$log")"; failed=1 ;;
  esac
}
ours() { part "$1" "$2" python -m "benchmarks.$3" "${@:4}"; }
rival() {
  if [ -n "$torch" ]; then
    part "$1, PyTorch" "$2" python -m benchmarks.torch_rival "${@:3}"
  fi
}

torch=''
if python -c 'import torch' 2> /dev/null; then torch=1; else
  echo 'PyTorch is not installed: its columns stay empty.'
fi

if [ -n "$small" ]; then
  model=tiny stages=(stage2) remats=(none) steps=1
  shape=('--heads=2,1' --dim=16)
  ours peak 60 device_peak --dtype=float32
  ours attention 120 attention --lengths=128 "${shape[@]}" --dtype=float32 \
    --repeats=1 --errors
  rival attention 60 attention --lengths=128 "${shape[@]}" --repeats=1
  sampling=(--model=tiny --points=2 --batch=1 --repeats=1)
else
  model=base_1b stages=(stage1 stage2) remats=(none dots full) steps=10
  ours peak 30 device_peak
  ours 'attention, 4k tokens' 60 attention --lengths=4096 --errors \
    --repeats=5 --tiles=all
  ours 'attention, 11.6k and 32k tokens' 90 attention --lengths=11648,32768 \
    --repeats=5 --tiles=all
  rival attention 60 attention --lengths=4096,11648,32768
  sampling=(--model=base_1b --points=50 '--batch=1,8')
fi
for stage in "${stages[@]}"; do
  for remat in "${remats[@]}"; do
    ours "$stage, remat $remat" 45 train_step --model="$model" \
      --stages="$stage" --latents=given --remat="$remat" --steps="$steps" \
      --optimizer=adamw
    [ "$remat" = dots ] || rival "$stage, remat $remat" 45 step \
      --model="$model" --stage="$stage" --remat="$remat" --repeats="$steps"
  done
done
ours sampling 60 sampling "${sampling[@]}"
rival sampling 60 sampling "${sampling[@]}"
ours 'profile of stage2' 40 train_step --model="$model" --stages=stage2 \
  --latents=given --remat="${remats[0]}" --steps=1 --optimizer=adamw --profile

echo
python -m benchmarks.gpu_tables "$results"
echo "Results: $results"
exit "$failed"
