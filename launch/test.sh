#!/usr/bin/env bash
# Installs the requirements, then runs the linters and the test suite.
# Usage: bash launch/test.sh [pytest arguments, e.g. -m slow]
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/setup.sh
source launch/setup.sh requirements-dev.txt
# Tests of pages in a browser are skipped without Chromium.
if ! command -v chromium > /dev/null && command -v apt-get > /dev/null &&
  [ "$(id -u)" = 0 ]
then
  { apt-get update -qq && apt-get install -y -qq chromium; } > /dev/null 2>&1 ||
    true
fi

ruff check .
ruff format --check .
lint-imports
# Tests of a module share fixtures, so workers take consecutive tests.
python -m pytest -n "${TEST_WORKERS:-2}" --dist worksteal \
  --durations=40 --durations-min=10 "$@"
