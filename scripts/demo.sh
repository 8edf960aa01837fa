#!/usr/bin/env bash
# From nothing but Python to a dataset: makes .venv, installs stpatch, simulates six slides in three vendor layouts,
# builds and validates a dataset and draws it. Running it again is safe, and quick.
#   scripts/demo.sh [DIR]        DIR: where to put it, out/demo-run of the repository if left out
set -euo pipefail
mkdir -p "${1:-$(dirname "${BASH_SOURCE[0]}")/../out/demo-run}"
folder="$(cd "${1:-$(dirname "${BASH_SOURCE[0]}")/../out/demo-run}" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
make_environment report
stpatch="$PWD/.venv/bin/stpatch"

echo "== simulating slides, building and validating a dataset, drawing it"
"$stpatch" demo "$folder"
echo "== what is in it"
"$stpatch" inspect "$folder/dataset"
"$stpatch" report "$folder/dataset" --out "$folder/report.html"

cat <<END

== everything is in $folder
  slides.csv, slides/    the simulated slides, as three vendors would write them
  demo.yaml              the config; change it, then: '$stpatch' build '$folder/demo.yaml'
  dataset/               the dataset: manifest.json, tables, shards, and a card that says how to read it
  preview.png            what it looks like
  report.html            all of it, to open in a browser
END
