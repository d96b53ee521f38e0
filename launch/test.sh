#!/usr/bin/env bash
# Sets everything up and runs the whole test suite, the linters first.
# Usage: bash launch/test.sh [pytest arguments, e.g. -m slow]
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/setup.sh
source launch/setup.sh requirements-dev.txt

ruff check .
ruff format --check .
lint-imports
# A module's tests share what they set up: workers take neighbouring ones.
python -m pytest -n "${TEST_WORKERS:-2}" --dist worksteal "$@"
