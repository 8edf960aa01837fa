#!/bin/bash
# A build on PBS (OpenPBS, PBS Pro). Submit the chain:
#   bash pbs.sh CONFIG TASKS [QSUB OPTION ...]      such as -l select=1:ncpus=1:mem=4gb
# The same file is the script of its jobs.
#PBS -r y -j oe
set -eu

if [ -n "${STPATCH_STAGE:-}" ]; then # in a job: PBS_ARRAY_INDEX counts from 0 here, and PBS does not tell how many there are
  cd "$PBS_O_WORKDIR"
  exec stpatch run "$STPATCH_STAGE" "$STPATCH_CONFIG" --quiet --world-size "$STPATCH_TASKS"
fi

config="$(realpath "$1")" tasks="$2"
shift 2
wait=()
for stage in ingest normalize select crop plan shard finalize; do
  array=(-J "0-$((tasks - 1))") size="$tasks"
  [ "$tasks" -gt 1 ] || array=() # PBS has no arrays of one
  case "$stage" in select | plan | finalize) array=() size=1 ;; esac
  id="$(qsub -N "stpatch-$stage" "${array[@]}" "${wait[@]}" \
    -v "STPATCH_STAGE=$stage,STPATCH_CONFIG=$config,STPATCH_TASKS=$size" "$@" "${BASH_SOURCE[0]}")"
  wait=(-W "depend=afterok:$id")
  echo "$stage $id"
done
