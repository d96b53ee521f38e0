#!/usr/bin/env bash
# Trains on all GPUs of one machine with one process, and restarts it while its
# exit status is 75 (preempted and saved). SIGTERM and Ctrl-C save a checkpoint
# and stop. As a Slurm job, it runs one process per node and requeues itself.
# Usage: bash launch/gpu.sh [--dry_run] --config=configs/stage1.py \
#          --config.init_from=RUN/bagel --config.store=STORE --workdir=RUN/stage1
#        sbatch --nodes=2 --gpus-per-node=8 --cpus-per-task=32 launch/gpu.sh \
#          (the same options)
#SBATCH --job-name=synermedgen
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
# Signals the training processes 120 s before the time limit of the job.
#SBATCH --signal=TERM@120
set -euo pipefail
# Slurm runs a copy of this file, so its folder is not that of the repository.
root="$(dirname "$0")/.."
[ -f "$root/launch/setup.sh" ] || root="${SLURM_SUBMIT_DIR:-$root}"
cd "$root"

preempted=75
fail() { echo "Error: $1" >&2; exit "${2:-1}"; }

dry_run=''
if [ "${1:-}" = --dry_run ]; then dry_run=1; shift; fi
[ -f launch/setup.sh ] || fail 'call sbatch in the root folder of the repository.'
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

machine() {  # runs a command until it is done; forwards signals to it
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
    while [ -n "$heard" ]; do  # a signal ends wait before the run ends
      heard='' code=0
      wait "$child" || code=$?
    done
    [ "$code" = "$preempted" ] && [ -z "$stop" ] || return "$code"
    echo 'Preempted and saved; restarting.' >&2
  done
}

slurm() {
  local code=0 stop='' gpus=()
  [ -n "${SLURM_GPUS_ON_NODE:-}" ] ||
    fail 'the job has no GPUs; add --gpus-per-node= to sbatch.'
  # Under Slurm, JAX uses one GPU per process by default.
  [ "${SLURM_NTASKS_PER_NODE:-1}" != 1 ] ||
    gpus=(env "JAX_LOCAL_DEVICE_IDS=$(seq -s , 0 $((SLURM_GPUS_ON_NODE - 1)))")
  # After SIGTERM, do not requeue: Slurm requeues a preempted job itself, and a
  # job ended by scancel must stay ended.
  trap 'stop=1' TERM
  # Processes end at different times; srun must not kill those still saving.
  run "${gpus[@]}" srun --kill-on-bad-exit=0 \
    ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} "$@" ||
    code=$?
  [ "$code" = "$preempted" ] && [ -z "$stop" ] || return "$code"
  echo 'Time limit reached and saved; requeueing the job.' >&2
  scontrol requeue "$SLURM_JOB_ID"
}

install
code=0
if [ -n "${SLURM_JOB_ID:-}" ]; then
  slurm python -m synermedgen_jax.main --distributed "$@" || code=$?
else
  machine python -m synermedgen_jax.main "$@" || code=$?
fi
case "$code" in
  0 | "$preempted") exit "$code" ;;
  *) fail "training ended with status $code." "$code" ;;
esac
