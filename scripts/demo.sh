#!/usr/bin/env bash
# From nothing but Python to a dataset: makes .venv, installs stpatch, simulates six slides in three vendor layouts,
# builds and validates a dataset, draws it. Run it again at any time.
#   scripts/demo.sh [DIR]        DIR: where to put it, out/demo-run if left out
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
folder="${1:-$root/out/demo-run}"
venv="$root/.venv"

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

find_python() {
  local name
  for name in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
    if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 &&
      "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$name"
      return
    fi
  done
  echo "error: no Python of version 3.11 or newer was found" >&2
  echo "  found:    $(python3 --version 2>/dev/null || echo 'no python3 at all')" >&2
  echo "  mend:     install one (for example: apt install python3.11 python3.11-venv), or name it: PYTHON=/path/to/python $0" >&2
  exit 2
}

if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
  python="$(find_python)"
  say "Making .venv with $("$python" --version)"
  if ! "$python" -m venv --clear "$venv"; then
    echo "error: $python cannot make a virtual environment" >&2
    echo "  mend:     install its venv module (for example: apt install python3-venv)" >&2
    exit 2
  fi
fi

say "Installing stpatch"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$root[plot]"

stpatch="$venv/bin/stpatch"
say "Simulating slides and building a dataset"
"$stpatch" demo "$folder"
say "Validating every patch"
"$stpatch" validate "$folder/dataset" --deep
say "What is in it"
"$stpatch" inspect "$folder/dataset" --png "$folder/preview.png"

say "Everything is in $folder"
cat <<END
  slides.csv, slides/    the simulated slides, as three vendors would write them
  demo.yaml              the config; change it and run: ${venv#"$PWD/"}/bin/stpatch build $folder/demo.yaml
  dataset/               the dataset: manifest.json, tables, shards, and a card that says how to read it
  preview.png            what it looks like
END
