#!/usr/bin/env bash
# One worker's part of launch/tpu_pod.sh, which calls it on all workers.
# Usage: bash launch/tpu_worker.sh setup | start OPTIONS OF main | follow
set -euo pipefail
cd "$(dirname "$0")/../.."  # code/ lies here, with .venv, log, lock and status

setup() {
  # Most runtimes come with Python 3.10, which is too old; uv brings another.
  python3 -m pip install --quiet --user uv
  [ -x .venv/bin/python ] || python3 -m uv venv --quiet --python 3.12 .venv
  python3 -m uv pip install --quiet --python .venv/bin/python \
    -r code/requirements.txt 'jax[tpu]' gcsfs
}

# Apart from the connection, whose end it survives. The lock lasts as long as
# training: who comes again after a lost connection starts no second process.
start() {
  exec 9>> lock
  if flock -n 9; then
    echo "$*" > options
    rm -f status
    run "$@" < /dev/null > /dev/null 2>&1 &
  elif [ "$*" != "$(cat options)" ]; then
    echo "Error: training goes on here with other options: $(cat options)" >&2
    exit 1
  fi
}

run() {
  local code=0
  trap '' HUP
  trap : TERM  # it is for Python, which saves first; its status counts
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
  # Without a status, the worker itself went down.
  exit "$(cat status 2> /dev/null || echo 75)"
}

"$@"
