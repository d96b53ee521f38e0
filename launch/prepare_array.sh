#!/usr/bin/env bash
# Writes one part of a slice store: a job of a Slurm array, whose index is the
# number of the part. The part that finds nothing missing finishes the store.
# Usage: sbatch --array=1-16 --cpus-per-task=4 --mem=32G \
#          launch/prepare_array.sh [--dry_run] --parts=16 -- --dataset=folder \
#          --root=DIR --region=pelvis --skip_bad --store=STORE
#SBATCH --job-name=prepare
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
# Slurm runs a copy of this file, so its folder is not that of the repository.
root="$(dirname "$0")/.."
[ -f "$root/launch/setup.sh" ] || root="${SLURM_SUBMIT_DIR:-$root}"
cd "$root"

fail() { echo "Error: $1" >&2; exit 1; }

parts='' dry_run=''
while [ $# -gt 0 ]; do
  case "$1" in
    --dry_run) dry_run=1 ;;
    --parts=*) parts="${1#*=}" ;;
    --) shift; break ;;
    *) fail "$1: options of prepare follow --." ;;
  esac
  shift
done
[ -f launch/setup.sh ] || fail 'call sbatch in the root folder of the repository.'
[[ $parts =~ ^[1-9][0-9]*$ ]] || fail '--parts=N is missing.'
part="${SLURM_ARRAY_TASK_ID:-}"
[ -n "$part" ] || fail "call it with sbatch --array=1-$parts."
((part >= 1 && part <= parts)) ||
  fail "job $part of the array: --parts=$parts needs --array=1-$parts."

workers="${SLURM_CPUS_PER_TASK:-2}"
command=(python -m synermedgen_jax.prepare "--part=$part/$parts"
  "--workers=$workers" "$@")
if [ -n "$dry_run" ]; then
  line="$(printf '%q ' "${command[@]}")"
  echo "${line% }"
  exit
fi
# shellcheck source=launch/setup.sh
source launch/setup.sh requirements.txt
exec "${command[@]}"
