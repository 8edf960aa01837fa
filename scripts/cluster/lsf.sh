#!/bin/bash
# A build on LSF. Submit the chain:
#   bash lsf.sh CONFIG TASKS [BSUB OPTION ...]      such as -M 4GB -q long
# The same file is the script of its jobs.
set -eu

if [ -n "${STPATCH_STAGE:-}" ]; then # in a job: LSB_JOBINDEX counts from 1, which stpatch knows
  exec stpatch run "$STPATCH_STAGE" "$STPATCH_CONFIG" --quiet
fi

config="$(realpath "$1")" tasks="$2"
script="$(realpath "${BASH_SOURCE[0]}")"
shift 2
wait=() before=
for stage in ingest normalize select crop plan shard finalize; do
  name="stpatch-$stage"
  case "$stage" in select | plan | finalize) ;; *) name="$name[1-$tasks]" ;; esac
  [ -z "$before" ] || wait=(-w "done($before)")
  [ "$stage" = normalize ] && wait=(-w "done($before[*])") # task by task
  id="$(bsub -r -J "$name" -o "stpatch-$stage.%J.%I.log" "${wait[@]}" \
    -env "all, STPATCH_STAGE=$stage, STPATCH_CONFIG=$config" "$@" bash "$script" | sed -n 's/^Job <\([0-9]*\)>.*/\1/p')"
  before="$id"
  echo "$stage $id"
done
