#!/usr/bin/env bash
# Creates .venv, installs a requirements file if it changed, and activates both
# the environment and huge pages. The other scripts source this file.
# Usage: source launch/setup.sh requirements.txt
set -euo pipefail

requirements="$1"
python="${PYTHON:-}"
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'
if [ -z "$python" ]; then
  for candidate in python3.12 python3.11 python3; do
    if "$candidate" -c "$supported" 2>/dev/null; then
      python="$candidate"
      break
    fi
  done
fi
if [ -z "$python" ] || ! "$python" -c "$supported" 2>/dev/null; then
  echo "Error: ${python:-this machine}: needs Python 3.11 or 3.12;" \
    'install it, or set PYTHON= to it.' >&2
  exit 1
fi
# Several machines may share this folder; one of them installs.
exec 9> .venv.lock
flock 9
version='import sys; print(*sys.version_info[:2], sep=".")'
if [ -x .venv/bin/python ]; then
  existing="$(.venv/bin/python -c "$version" 2>/dev/null || echo unknown)"
  if ! .venv/bin/python -c "$supported" 2>/dev/null ||
    { [ -n "${PYTHON:-}" ] && [ "$existing" != "$("$python" -c "$version")" ]; }
  then
    echo "Replacing .venv, which has Python $existing ..."
    rm -r .venv
  fi
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
stamp=".venv/$(basename "$requirements").installed"
if ! cat requirements.txt "$requirements" | cmp -s - "$stamp"; then
  if ! .venv/bin/python -m pip --version > /dev/null 2>&1; then
    echo 'Replacing .venv, which has no pip ...'
    "$python" -m venv --clear .venv
  fi
  echo "Installing $requirements into .venv ..."
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --no-compile -r "$requirements"
  # On all cores; pip uses one. Files that do not compile are never imported.
  .venv/bin/python -m compileall -q -j 0 .venv/lib > /dev/null || true
  cat requirements.txt "$requirements" > "$stamp"
fi
exec 9>&-
export PATH="$PWD/.venv/bin:$PATH"
# The tests install libtpu, which warns on machines without a TPU.
if ! compgen -G '/dev/accel*' > /dev/null && ! compgen -G '/dev/vfio/*' \
  > /dev/null && ! command -v nvidia-smi > /dev/null; then
  export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
fi
# A step allocates and frees hundreds of arrays. Huge pages reduce page faults:
# on two CPU cores, a step of Stage I takes 15 % less time.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
