#!/usr/bin/env bash
# Ablations on digital phantoms: trains every arm of projects/ablations/configs/
# from the small base, at equal compute, with several seeds, then writes a page of
# results and its plot. Finished runs are reused; with other settings, name
# another directory.
# Usage: bash projects/ablations/run.sh [--short] [directory]
#          [--config.KEY=VALUE ..., for all runs]
# directory: runs/ablations by default.
# --short: Stage I and Stage I + II alone, a few steps, one seed.
set -euo pipefail
cd "$(dirname "$0")/../.."

short=''
if [ "${1:-}" = --short ]; then short=1; shift; fi
run=runs/ablations
if [ $# -gt 0 ] && [[ $1 != --* ]]; then run="$1"; shift; fi
options=("$@")

base="${BASE:-weights/small}"         # start of every arm
model="${MODEL:-small}"               # preset of the base
subjects="${SUBJECTS:-40}"            # phantoms per cohort
store="${STORE:-$run/store}"          # created if missing
if [ -n "$short" ]; then
  seeds="${SEEDS:-0}"
  stage1_steps="${STAGE1_STEPS:-2}"
  stage2_steps="${STAGE2_STEPS:-2}"
  questions="${QUESTIONS:-4}"
  slices="${SLICES:-2}"
  arms="${ARMS:-stage1,stage2}"
else
  seeds="${SEEDS:-0 1 2}"
  stage1_steps="${STAGE1_STEPS:-0}"    # 0: the config's own
  stage2_steps="${STAGE2_STEPS:-0}"
  questions="${QUESTIONS:-256}"       # per task
  slices="${SLICES:-6}"               # per held-out case
  arms="${ARMS:-base,stage1_vqa,stage1,stage2,stage2_only,stage2_vqa,stage2_no_cts,stage2_no_mi,stage2_no_tia,stage2_random,joint,stage2_und_trained}"
fi
at_a_time="${AT_A_TIME:-1}"           # parallel runs; if several, each has one core

equal_steps() {  # base, model, steps of Stage I, of Stage II, options
  local base="$1" model="$2" stage1="$3" stage2="$4"
  shift 4
  python -m projects.ablations.ablation_steps --init_from="$base" \
    --model="$model" --stage1_steps="$stage1" --stage2_steps="$stage2" "$@" > "$run/steps.part"
  mv "$run/steps.part" "$run/steps.txt"
}

fail() { echo "Error: $1" >&2; exit 1; }
step() { printf '\n== %s\n' "$1"; }
asked() { [[ ",$arms," == *",$1,"* ]]; }
steps_of() { sed -n "s/^$1 //p" "$run/steps.txt"; }

once() {  # stamp, command: runs the command unless the stamp contains it
  local stamp="$1"
  shift
  if [ "$(cat "$stamp" 2> /dev/null)" = "$*" ]; then
    echo "Reusing ${stamp%.done}."
    return
  fi
  "$@"
  echo "$*" > "$stamp"
}

train() {  # seed, config, workdir's name, start, options
  local seed="$1" config="$2" dir="$run/seed$1/$3" from="$4" steps
  shift 4
  steps="$(steps_of "$config")"
  [ -n "$steps" ] || fail "$run/steps.txt says nothing of $config."
  mkdir -p "$dir"
  once "$dir/trained.done" \
    python -m synermedgen_jax.main \
    --config="projects/ablations/configs/$config.py" --config.model="$model" \
    --workdir="$dir" --config.store="$store" --config.init_from="$from" \
    --config.seed="$seed" --config.steps="$steps" "$@" "${options[@]}"
}

evaluate() {  # seed, arm, options
  local dir="$run/seed$1/$2"
  shift 2
  mkdir -p "$dir"
  if [ "$dir/trained.done" -nt "$dir/evaluated.done" ]; then
    rm -f "$dir/evaluated.done"
  fi
  once "$dir/evaluated.done" \
    python -m synermedgen_jax.evaluate --workdir="$dir" --store="$store" \
    --parts=understanding,synthesis --questions="$questions" \
    --slices="$slices" "$@"
}

then_stage2() {  # seed, Stage I's workdir, arm, config
  if asked "$3"; then
    train "$1" "$4" "$3" "$run/seed$1/$2"
    evaluate "$1" "$3"
  fi
}

chain() {  # seed, first run: runs that depend on each other, in order
  local seed="$1" first="$2" vqa=()
  case "$first" in
    base)
      evaluate "$seed" base \
        --config=projects/ablations/configs/base.py --config.model="$model" \
        --config.init_from="$base" --config.store="$store" "${options[@]}"
      ;;
    stage2_only | joint)
      train "$seed" "$first" "$first" "$base"
      evaluate "$seed" "$first"
      ;;
    *)
      if [ "$first" = stage1_vqa ]; then
        vqa=(--config.bagel_files.vlm="$run/vqa/train/vlm.jsonl"
          --config.bagel_files.val_vlm="$run/vqa/val/vlm.jsonl")
      fi
      train "$seed" "$first" "$first" "$base" "${vqa[@]}"
      if asked "$first"; then evaluate "$seed" "$first"; fi
      then_stage2 "$seed" "$first" "stage2${first#stage1}" stage2
      if [ "$first" = stage1 ]; then
        then_stage2 "$seed" stage1 stage2_und_trained stage2_und_trained
      fi
      ;;
  esac
}

chains() {  # lines 'seed first-run' of the chains that the arms need, longest first
  local seed first
  for seed in $seeds; do
    if asked stage1 || asked stage2 || asked stage2_und_trained; then
      echo "$seed stage1"
    fi
    for first in vqa no_cts no_mi no_tia random; do
      if asked "stage1_$first" || asked "stage2_$first"; then
        echo "$seed stage1_$first"
      fi
    done
    for first in stage2_only joint base; do
      if asked "$first"; then echo "$seed $first"; fi
    done
  done
}

pin() {  # binds this shell to a core that no other run uses
  local core cores
  [ "$at_a_time" -gt 1 ] || return 0
  cores="$(nproc)"  # before OMP_NUM_THREADS is set, which changes it
  # Two runs that share all cores wait for one another's threads.
  export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
  export XLA_FLAGS="${XLA_FLAGS:-} --xla_cpu_multi_thread_eigen=false"
  for ((core = 0; core < cores; core++)); do
    exec 9> "$run/core$core.lock"
    if flock -n 9; then
      taskset -cp "$core" "$BASHPID" > /dev/null
      return
    fi
  done
}

run_chains() {  # `at_a_time` in parallel; after a failure, no other starts
  local seed first log running=0 failed=''
  while read -r seed first; do
    if [ "$running" -ge "$at_a_time" ]; then
      wait -n || failed=1
      running=$((running - 1))
    fi
    [ -z "$failed" ] || break
    log="$run/seed$seed/$first.log"
    mkdir -p "${log%/*}"
    echo "Seed $seed, $first: $log"
    (pin; chain "$seed" "$first"; echo 'Done.') > "$log" 2>&1 < /dev/null &
    running=$((running + 1))
  done < <(chains)
  while [ "$running" -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
  done
  [ -z "$failed" ] || fail "a run failed; $(why)"
}

why() {  # last line of the first log that does not end with Done.
  local log
  for log in "$run"/seed*/*.log; do
    if [ "$(tail -n 1 "$log")" != Done. ]; then
      echo "$log: $(tail -n 1 "$log")"
      return
    fi
  done
}

# shellcheck source=launch/setup.sh
source launch/setup.sh requirements.txt
mkdir -p "$run"
[ -e "$base" ] || fail "$base: no such folder; name the base with BASE=."

step 'Phantoms to slice store'
if [ -e "$store/store.json" ]; then
  echo "Reusing $store."
else
  python -m synermedgen_jax.prepare --dataset=phantom --root="$run/phantoms" \
    --subjects="$subjects" --canvas=64 --frame=body --most_offset=0 \
    --store="$store"
fi
if asked stage1_vqa || asked stage2_vqa; then
  step 'Ordinary questions'
  python -m projects.ablations.phantom_vqa --store="$store" --output="$run/vqa" \
    --phantoms="${PHANTOMS:-$run/phantoms}"
fi

step 'Steps at equal compute'
once "$run/steps.done" equal_steps "$base" "$model" "$stage1_steps" "$stage2_steps" \
  "${options[@]}"
cat "$run/steps.txt"

step 'Arms'
run_chains

step 'Table and plot'
python -m synermedgen_jax.compare --runs="$run" --arms="$arms" \
  --study=projects/ablations/study.json --output="$run/ablations.md"
