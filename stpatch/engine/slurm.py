"""Slurm: batches as scripts, and their submission with sbatch.

A task ends within five seconds of a request, in whatever way it comes: SIGTERM when the job is preempted or cancelled,
SIGUSR1 some time before its time limit. Every file is whole or is not there, so that a task which does not end by
itself is killed. What is queued again starts over with its units, of which those that are done are skipped.
"""

from __future__ import annotations

import math
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stpatch.engine.graph import STAGES
from stpatch.engine.retry import compact
from stpatch.engine.submit import Batch
from stpatch.errors import ConfigError, MismatchError, UnitsFailedError
from stpatch.storage import digest

LARGEST_ARRAY = 1001
"""Slurm's own ``MaxArraySize`` where its configuration cannot be asked."""
WARNING_SECONDS = 120
"""How long before the time limit a task is told; Slurm may be up to a minute late."""
RESTARTS = 3
"""How often a task that was killed is queued again."""

_BODY = """\
{setup}
# A request to end reaches the task at once. It gets four seconds; every file is whole or not there, at any moment.
end() {{
  trap '' TERM USR1
  kill -TERM "$task" 2>/dev/null
  (sleep 4; kill -KILL "$task") 2>/dev/null &
  wait "$task"
  kill $! 2>/dev/null
}}
again() {{ scontrol requeue "{job_id}"; }}
trap 'end; exit 143' TERM          # preempted: Slurm queues the job again; or cancelled
trap 'end; again; exit 143' USR1   # the time limit is near

{command} &
task=$!
wait "$task"
code=$?
if [ "$code" -eq 137 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
  echo "the task was killed, most often for want of memory; it is queued again" >&2
  again
fi
exit "$code"
"""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What all jobs of a chain have in common.

    Attributes
    ----------
    program
        The words that start stpatch on a compute node.
    config
        Absolute path of the config.
    overrides
        The values of ``--set``.
    work
        Absolute path of the work dir; the logs lie in it.
    setup
        Shell lines that come before the task, such as ``module load``.
    options
        Further options of sbatch; they come last and win.
    at_once
        How many tasks of an array may run together; None = as many as the cluster gives.
    """

    program: Sequence[str]
    config: Path
    overrides: Sequence[str] = ()
    work: Path
    setup: Sequence[str] = ()
    options: Sequence[str] = ()
    at_once: int | None = None

    def job_name(self, stage: str) -> str:
        """Return the name of a stage's jobs, by which those of this work dir are known in the queue."""
        return f"stpatch-{stage}-{digest(str(self.work))[:8]}"

    @property
    def logs(self) -> Path:
        """The folder of the tasks' logs."""
        return self.work / "slurm"


def script(batch: Batch, submission: Submission) -> str:
    """Return the job script of a batch; dependencies are options of sbatch."""
    folder = str(submission.logs).replace("%", "%%")
    options = [
        f"--job-name={submission.job_name(batch.stage)}",
        f"--output={folder}/{batch.stage}-{'%j' if batch.tasks is None else '%A_%a'}.log",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{WARNING_SECONDS}",
        "--kill-on-invalid-dep=yes",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=1",
        f"--mem={math.ceil(batch.memory / 2**20)}M",
        f"--time={math.ceil(batch.seconds / 60)}",
    ]
    if batch.tasks is not None:
        limit = "" if submission.at_once is None else f"%{submission.at_once}"
        options.append(f"--array={compact(batch.tasks)}{limit}")
    lines = "\n".join(f"#SBATCH {_directive(option)}" for option in [*options, *submission.options])
    body = _BODY.format(
        setup="".join(f"{line}\n" for line in submission.setup),
        command=_command(batch, submission),
        restarts=RESTARTS,
        job_id="$SLURM_JOB_ID" if batch.tasks is None else "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
    )
    return f"#!/bin/bash\n{lines}\n\n{body}"


def _command(batch: Batch, submission: Submission) -> str:
    words = [*submission.program, "run", batch.stage, str(submission.config), "--quiet"]
    for override in submission.overrides:
        words += ["--set", override]
    if batch.tasks is None:
        words += ["--rank", "0", "--world-size", "1"]
    else:
        words += ["--offset", str(batch.offset), "--world-size", str(batch.world_size)]
    return shlex.join(words)


def _directive(option: str) -> str:
    """Return an option as sbatch reads it from a script's head: quotes keep spaces, and a line holds one option."""
    if "\n" in option or '"' in option:
        raise ConfigError(
            "an option of sbatch holds a line break or a quote",
            found=repr(option),
            hint="choose another folder or option",
        )
    return f'"{option}"' if re.search(r"\s", option) else option


def shell_text(batches: Sequence[Batch], submission: Submission) -> str:
    """Return a shell script that submits all batches: what a submission does, to be read, changed and run."""
    parts = ["#!/bin/bash", "set -eu", shlex.join(["mkdir", "-p", str(submission.logs)])]
    for batch in batches:
        text = script(batch, submission)
        call = " ".join(
            ["sbatch", "--parsable", *_dependency(batch, {name: f"${_variable(name)}" for _, name in batch.after})]
        )
        parts += [
            "",
            f"{_variable(batch.name)}=$({call} <<'STPATCH'",
            f"{text}STPATCH",
            ")",
            f"echo {batch.name} ${_variable(batch.name)}",
        ]
    return "\n".join(parts) + "\n"


def _variable(name: str) -> str:
    return name.replace("-", "_")


def _dependency(batch: Batch, ids: Mapping[str, str]) -> list[str]:
    """Return the option that says what a batch waits for, from the job ids of the batches before it."""
    kinds: dict[str, list[str]] = {}
    for kind, name in batch.after:
        kinds.setdefault(kind, []).append(ids[name])
    return [f"--dependency={','.join(':'.join([kind, *found]) for kind, found in kinds.items())}"] if kinds else []


def submit(batches: Sequence[Batch], submission: Submission) -> dict[str, str]:
    """Submit all batches; return their job ids by name.

    Raises
    ------
    MismatchError
        Jobs of this work dir are still in the queue.
    UnitsFailedError
        Slurm refuses a job; those submitted before it are cancelled.
    """
    _require_slurm()
    if running := queued(submission):
        raise MismatchError(
            "jobs of this work dir are still in the queue",
            where=f"work dir {submission.work}",
            found=", ".join(running[:8]),
            hint=f"wait for them, or end them first: scancel {' '.join(running[:8])}",
        )
    submission.logs.mkdir(parents=True, exist_ok=True)
    ids: dict[str, str] = {}
    for batch in batches:
        words = ["sbatch", "--parsable", *_dependency(batch, ids)]
        done = _call(words, given=script(batch, submission))
        if done.returncode != 0:
            if ids:
                _call(["scancel", *ids.values()])
            raise UnitsFailedError(
                "Slurm refuses a job",
                where=f"{shlex.join(words)}, batch {batch.name}",
                found=done.stderr.strip(),
                hint="nothing was left in the queue; give what your cluster asks for with --sbatch, see --dry-run",
            )
        ids[batch.name] = done.stdout.strip().partition(";")[0]  # "id;cluster" where there are several
    return ids


def queued(submission: Submission) -> list[str]:
    """Return the ids of the jobs of a work dir that Slurm has not finished."""
    names = ",".join(submission.job_name(stage) for stage in STAGES)
    done = _call(["squeue", "--me", "--noheader", "--format=%F", f"--name={names}"])
    if done.returncode != 0:
        raise UnitsFailedError("Slurm does not answer", where="squeue", found=done.stderr.strip())
    return sorted(set(done.stdout.split()), key=int)


def largest_array() -> int:
    """Return the number that array indices must stay below (``MaxArraySize``); Slurm's own where there is no Slurm."""
    if shutil.which("scontrol") is None:
        return LARGEST_ARRAY
    done = _call(["scontrol", "show", "config"])
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return max(int(found[1]), 1) if found else LARGEST_ARRAY


def _require_slurm() -> None:
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "there is no Slurm here",
            found="no command sbatch",
            hint="submit from a login node, or see what would be submitted: --dry-run",
        )


def _call(words: Sequence[str], *, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, input=given, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
