#!/bin/bash
# A build on SGE (Son of Grid Engine, Univa, Altair). Submit the chain:
#   bash sge.sh CONFIG TASKS [QSUB OPTION ...]      such as -l h_vmem=4G
# The same file is the script of its jobs.
#$ -S /bin/bash -cwd -j y -r y
set -eu

if [ -n "${STPATCH_STAGE:-}" ]; then # in a job: SGE_TASK_ID counts from 1, which stpatch knows
  exec stpatch run "$STPATCH_STAGE" "$STPATCH_CONFIG" --quiet
fi

config="$(realpath "$1")" tasks="$2"
shift 2
hold=()
for stage in ingest normalize select crop plan shard finalize; do
  array=(-t "1-$tasks")
  case "$stage" in select | plan | finalize) array=() ;; esac
  wait=("${hold[@]/#/-hold_jid }")
  [ "$stage" = normalize ] && wait=("${hold[@]/#/-hold_jid_ad }") # task by task
  # shellcheck disable=SC2068  # each holds an option and its value
  id="$(qsub -terse -N "stpatch-$stage" ${array[@]} ${wait[@]} -v "STPATCH_STAGE=$stage,STPATCH_CONFIG=$config" \
    "$@" "${BASH_SOURCE[0]}")"
  hold=("${id%%.*}")
  echo "$stage ${hold[0]}"
done
