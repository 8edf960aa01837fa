#!/usr/bin/env bash
# Makes an environment of its own and runs all checks: ruff, mypy, pytest.
#   scripts/test.sh             everything that CI runs
#   STPATCH_TEST_LONG=1 scripts/test.sh   a few tests of half a minute and more too
#   scripts/test.sh --fast      about a minute: without fuzzing, real slides and whole builds in processes of their own
# Further arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
make_environment test

lane=()
if [ "${1:-}" = --fast ]; then
  lane=(-m "not slow")
  shift
fi

echo "== kernels, beside ruff and mypy"
"$PYTHON" -c "from stpatch.engine.preload import preload; preload()" &
kernels=$!
echo "== ruff"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
echo "== mypy"
"$PYTHON" -m mypy
wait "$kernels"
echo "== pytest"
exec "$PYTHON" -m pytest -n "${STPATCH_TEST_WORKERS:-2}" --dist worksteal "${lane[@]}" "$@"
