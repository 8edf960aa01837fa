# Sourced by the other scripts: finds Python and makes .venv with stpatch in it. Sets PYTHON.

find_python() {
  local name
  for name in "${STPATCH_PYTHON:-}" python3.13 python3.12 python3.11 python3; do
    [ -n "$name" ] || continue
    if "$name" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      echo "$name"
      return
    fi
  done
  echo "stpatch needs Python 3.11 or newer with its venv module; set STPATCH_PYTHON to one" >&2
  return 1
}

# make_environment EXTRAS: install stpatch[EXTRAS] from this folder, once for each state of pyproject.toml.
make_environment() {
  local stamp=".venv/.stpatch-$1"
  local state
  PYTHON=.venv/bin/python
  state="$(cksum < pyproject.toml) $PWD"
  if [ -x "$PYTHON" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$state" ]; then
    return
  fi
  if [ ! -x "$PYTHON" ]; then
    local base
    base="$(find_python)"
    echo "== making .venv with $("$base" --version)"
    "$base" -m venv .venv
  fi
  echo "== installing stpatch[$1] into .venv (the first time takes a minute or two)"
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --editable ".[$1]"
  echo "$state" > "$stamp"
}
