#!/usr/bin/env bash
# Makes an environment of its own and runs all checks: ruff, mypy, pytest. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
make_environment test

echo "== ruff"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
echo "== mypy"
"$PYTHON" -m mypy
echo "== kernels"
"$PYTHON" -c "from stpatch.engine.preload import preload; preload()"
echo "== pytest"
exec "$PYTHON" -m pytest -n "${STPATCH_TEST_WORKERS:-2}" "$@"
