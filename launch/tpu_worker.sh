#!/usr/bin/env bash
# Installs and runs training on one TPU worker; called by launch/tpu_pod.sh.
# Usage: bash launch/tpu_worker.sh setup | start OPTIONS OF main | follow
set -euo pipefail
cd "$(dirname "$0")/../.."  # has code, .venv, log, lock, options, status

setup() {
  # Most runtimes have Python 3.10, which is too old; uv installs 3.12.
  python3 -m pip install --quiet --user uv
  [ -x .venv/bin/python ] || python3 -m uv venv --quiet --python 3.12 .venv
  python3 -m uv pip install --quiet --python .venv/bin/python \
    -r code/requirements.txt 'jax[tpu]' gcsfs
}

# Runs training in the background, so that it survives a lost connection. It
# holds the lock until it ends, so that a second call starts no second process.
start() {
  exec 9>> lock
  if flock -n 9; then
    echo "$*" > options
    rm -f status
    run "$@" < /dev/null > /dev/null 2>&1 &
  elif [ "$*" != "$(cat options)" ]; then
    echo "Error: training is running with other options: $(cat options)" >&2
    exit 1
  fi
}

run() {
  local code=0
  trap '' HUP
  trap : TERM  # Python handles the signal and saves; wait for its status
  cd code
  ../.venv/bin/python -u -m synermedgen_jax.main --distributed "$@" \
    9>&- >> ../log 2>&1 || code=$?
  echo "$code" > ../status
}

follow() {
  tail -n 20 -F log 2> /dev/null &
  flock lock true
  sleep 1
  kill $!
  # No status: the worker was restarted during training.
  exit "$(cat status 2> /dev/null || echo 75)"
}

"$@"
