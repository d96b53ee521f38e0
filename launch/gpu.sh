#!/usr/bin/env bash
# Trains on the GPUs of one box, one process for all of them, and starts again
# while the exit status is 75 (preempted and saved). SIGTERM or Ctrl-C saves and
# stops. As a Slurm job: one process per node, and the job requeues itself.
# Usage: bash launch/gpu.sh [--dry_run] --config=configs/stage1.py \
#          --config.init_from=RUN/bagel --config.store=STORE --workdir=RUN/stage1
#        sbatch --nodes=2 --gpus-per-node=8 --cpus-per-task=32 launch/gpu.sh \
#          (the same options)
#SBATCH --job-name=synermedgen
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
# To the training processes, in time for a checkpoint before the job's limit.
#SBATCH --signal=TERM@120
set -euo pipefail
# Slurm runs a copy of this file elsewhere; sbatch was called in the repository.
root="$(dirname "$0")/.."
[ -f "$root/launch/setup.sh" ] || root="${SLURM_SUBMIT_DIR:-$root}"
cd "$root"

again=75
fail() { echo "Error: $1" >&2; exit "${2:-1}"; }

dry_run=''
if [ "${1:-}" = --dry_run ]; then dry_run=1; shift; fi
[ -f launch/setup.sh ] || fail 'call sbatch in the root of the repository.'
for option in --config --workdir; do
  [[ " $*" == *" $option="* ]] || fail "$option= is missing."
done

run() {
  local line
  if [ -z "$dry_run" ]; then "$@"; return; fi
  line="$(printf '%q ' "$@")"
  echo "${line% }"
}

install() {
  if [ -n "$dry_run" ]; then
    echo source launch/setup.sh requirements.txt
  else
    # shellcheck source=launch/setup.sh
    source launch/setup.sh requirements.txt
    if python -c 'import jax_cuda12_plugin' 2> /dev/null; then return; fi
  fi
  run python -m pip install --quiet --disable-pip-version-check 'jax[cuda12]'
}

box() {  # until it is done; a signal goes on to the run, which saves and stops
  local code child='' stop='' heard
  if [ -n "$dry_run" ]; then
    run "$@"
    return
  fi
  trap 'stop=1 heard=1; kill -TERM "$child" 2> /dev/null || true' TERM INT
  while true; do
    "$@" &
    child=$!
    heard=1
    while [ -n "$heard" ]; do  # what a signal ends is wait, not the run
      heard='' code=0
      wait "$child" || code=$?
    done
    [ "$code" = "$again" ] && [ -z "$stop" ] || return "$code"
    echo 'Preempted and saved, starting again.' >&2
  done
}

slurm() {
  local code=0 stop='' here=()
  [ -n "${SLURM_GPUS_ON_NODE:-}" ] ||
    fail 'no GPUs: add --gpus-per-node= to sbatch.'
  # By itself, JAX takes one GPU per process under Slurm.
  [ "${SLURM_NTASKS_PER_NODE:-1}" != 1 ] ||
    here=(env "JAX_LOCAL_DEVICE_IDS=$(seq -s , 0 $((SLURM_GPUS_ON_NODE - 1)))")
  # Requeued by Slurm on preemption, and not to be requeued after scancel.
  trap 'stop=1' TERM
  # Processes end one by one; those that still save are left to it.
  run "${here[@]}" srun --kill-on-bad-exit=0 \
    ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} "$@" ||
    code=$?
  [ "$code" = "$again" ] && [ -z "$stop" ] || return "$code"
  echo 'Out of time and saved, back into the queue.' >&2
  scontrol requeue "$SLURM_JOB_ID"
}

install
code=0
if [ -n "${SLURM_JOB_ID:-}" ]; then
  slurm python -m synermedgen_jax.main --distributed "$@" || code=$?
else
  box python -m synermedgen_jax.main "$@" || code=$?
fi
case "$code" in
  0 | "$again") exit "$code" ;;
  *) fail "training ended with status $code." "$code" ;;
esac
