#!/usr/bin/env bash
# Makes .venv and installs a requirements file, once, and sets how memory is
# taken; sourced by the commands.
# Usage: source launch/setup.sh requirements.txt
set -euo pipefail

requirements="$1"
python="${PYTHON:-}"
if [ -z "$python" ]; then
  for candidate in python3.12 python3.11 python3; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
      python="$candidate"
      break
    fi
  done
fi
if [ -z "$python" ]; then
  echo 'Python 3.11 or 3.12 is needed: install it, or name it with PYTHON=.' >&2
  exit 1
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
stamp=".venv/$(basename "$requirements").installed"
if ! cat requirements.txt "$requirements" | cmp -s - "$stamp"; then
  echo "Installing $requirements into .venv ..."
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --no-compile -r "$requirements"
  # On all cores; pip has one. What does not compile is imported by nobody.
  .venv/bin/python -m compileall -q -j 0 .venv/lib > /dev/null || true
  cat requirements.txt "$requirements" > "$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH"
# A step allocates and frees hundreds of arrays. Huge pages save page faults: on
# two CPU cores a step of Stage I takes 0.85 of the time.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
