#!/usr/bin/env bash
# Evaluates trained systems on holdouts: phantoms of new subjects from other
# scanners, or a public dataset; then writes a page with a table, a plot and a
# picture. A second run reuses finished parts. docs/holdout.md describes both.
# Usage: bash launch/holdout.sh [--short] [--run=DIRECTORY] [--data=NAME=FOLDER]
#          [SYSTEM=]WORKDIR ...
# WORKDIR: a run of SynerMedGen or a system of the arena, which gets the name
#   SYSTEM, by default that of its folder. The first one gives canvas and windows.
# --run: directory of stores and results, runs/holdout by default.
# --data: --data=synthrad2025=FOLDER or another public dataset of prepare, in the
#   place of phantoms; several times.
# --short: one subject per cohort, two slices, four questions, two shifts.
# SHIFTS='none mr_3t' bash launch/holdout.sh ...: these shifts alone.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "Error: $1" >&2; exit 1; }
step() { printf '\n== %s\n' "$1"; }

short='' run=runs/holdout data=() systems=() workdirs=()
for option in "$@"; do
  case "$option" in
    --short) short=1 ;;
    --run=*) run="${option#*=}" ;;
    --data=*=*) data+=("${option#*=}") ;;
    --*) fail "unknown option $option; see the head of $0." ;;
    *)
      workdir="${option#*=}"
      name="${option%%=*}"
      [[ $option == *=* ]] || name="$(basename "$workdir")"
      [[ $name =~ ^[A-Za-z0-9_.-]+$ ]] ||
        fail "$option: name the system with SYSTEM=WORKDIR."
      [[ " ${systems[*]} " != *" $name "* ]] ||
        fail "$option: two systems are named $name; use SYSTEM=WORKDIR."
      [[ -d $workdir || $workdir == *://* ]] ||
        fail "$workdir: no such folder; name the workdir of a run."
      systems+=("$name") workdirs+=("$workdir")
      ;;
  esac
done
[ -n "$run" ] || fail '--run: name a directory.'
[ ${#workdirs[@]} -gt 0 ] ||
  fail "name the workdir of a run; see the head of $0."
all='none mr_0p55t mr_3t mr_noise_2x mr_noise_4x mr_bias thick_slices'
all+=' cbct_low_dose cbct_scatter pet_low_counts shift_1mm shift_3mm shift_5mm'
if [ -n "$short" ]; then
  shifts="${SHIFTS:-none mr_noise_4x}"
  subjects="${SUBJECTS:-1}" slices="${SLICES:-2}" questions="${QUESTIONS:-4}"
else
  shifts="${SHIFTS:-$all}"
  subjects="${SUBJECTS:-12}"      # per cohort of phantoms
  slices="${SLICES:-6}"           # per case
  questions="${QUESTIONS:-256}"   # per task
fi

answers() {  # workdir: whether it is a model that answers questions
  ! grep -qs '"scope":' "$1/config.json" "$1"/*/config.json
}

newer() {  # workdir, file: a log or weights of the workdir that is newer
  find -L "$1" \( -name metrics.jsonl -o -name '*.safetensors' \) -newer "$2" \
    -print -quit 2> /dev/null
}

evaluate() {  # holdout, number of the system
  local workdir="${workdirs[$2]}" out="$run/$1/${systems[$2]}" parts=() command
  if answers "$workdir"; then
    parts=('--parts=understanding,synthesis' --questions="$questions")
  fi
  command=(python -m synermedgen_jax.evaluate --workdir="$workdir"
    --store="$run/data/$1/store" --split=holdout --slices="$slices"
    "${parts[@]}" --output="$out")
  if [ "$(cat "$out/evaluated.done" 2> /dev/null)" = "${command[*]}" ] &&
    [ -z "$(newer "$workdir" "$out/evaluated.done")" ]; then
    echo "Reusing $out."
    return
  fi
  # Results of other options would stand in the table if this one failed.
  rm -rf "$out" && mkdir -p "$out"
  "${command[@]}" || return
  echo "${command[*]}" > "$out/evaluated.done"
}

# shellcheck source=launch/setup.sh
source launch/setup.sh requirements.txt
# All holdouts run the same programs, which are compiled for the first one.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$run/data/programs}"

prepare() {  # holdout, options
  step "Holdout $1"
  python -m synermedgen_jax.prepare "${@:2}" --holdout --like="${workdirs[0]}" \
    --store="$run/data/$1/store"
}

if [ ${#data[@]} -eq 0 ]; then
  for shift in $shifts; do
    # A misregistered holdout is to be used, so no offset is searched.
    prepare "$shift" --dataset=phantom --shift="$shift" \
      --root="$run/data/$shift/phantoms" --subjects="$subjects" --most_offset=0
    for number in "${!workdirs[@]}"; do evaluate "$shift" "$number"; done
  done
fi
measured=1
log="$run/data/errors.txt"  # of the last evaluation
mkdir -p "$run/data"
for entry in "${data[@]}"; do
  prepare "${entry%%=*}" --dataset="${entry%%=*}" --root="${entry#*=}" --skip_bad
  for number in "${!workdirs[@]}"; do
    # Systems without a route of this data stay out of the table.
    code=0
    { evaluate "${entry%%=*}" "$number" 2>&1 >&3 3>&- | tee "$log" >&2
    } 3>&1 || code=$?
    if [ "$code" -ne 0 ]; then
      # A refusal has status 1 and a line; anything else is a crash.
      { [ "$code" -eq 1 ] && grep -q '^Error: ' "$log"; } ||
        fail "${systems[$number]}: its evaluation on ${entry%%=*} crashed\
 (status $code); see above, and run the same command again."
      echo "${systems[$number]} is not measured on ${entry%%=*}." >&2
      measured=''
    fi
  done
done

step 'Table, plot and picture'
names="$(IFS=,; echo "${systems[*]}")"
python -m synermedgen_jax.holdout --runs="$run" --systems="$names"
[ -n "$measured" ] ||
  echo 'Some systems were not measured; the reasons are above.' >&2
