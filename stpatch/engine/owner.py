"""Whose an output folder and a work dir are, while something is made in them.

A work dir has an identity, a random text. While a dataset is made, a marker in its folder holds the identity of the
work dir that makes it; it goes when the manifest is there, which the work dir knows as its own. Two configs that share
a work dir are told apart by the journals of the commands that run.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stpatch.engine.journal import Journal, ProcessLog, read_journals
from stpatch.errors import MismatchError
from stpatch.processes import this_process
from stpatch.stages.job import Job
from stpatch.storage import canonical_json, digest, read_json, remove_file, write_new

MARKER = ".stpatch-owner.json"
_LOOKS, _WAIT = 3, 0.5


def claim_output(job: Job) -> None:
    """Mark the output folder as this work dir's, as long as there is no finished dataset in it.

    Raises
    ------
    MismatchError
        Another work dir makes a dataset there.
    """
    marker = job.place / MARKER
    if (job.place / "manifest.json").is_file():
        return None
    own = _identity(job.work)
    if write_new(marker, canonical_json({"work": own, "work_dir": str(job.work.absolute())}).encode()):
        return None
    try:
        found = read_json(marker)
        other, where = found["work"], found["work_dir"]
    except FileNotFoundError:  # its owner has just finished or given up
        return claim_output(job)
    except (ValueError, KeyError, TypeError):
        other, where = None, "a marker that cannot be read"
    if other != own:
        raise MismatchError(
            "another build makes its dataset in this output folder",
            where=job.place,
            found=f"it belongs to work dir {where}",
            expected=f"a folder of work dir {job.work}",
            hint=f"choose another dataset.output; if that build was given up, remove {job.place}",
        )
    return None


def owns_output(job: Job) -> bool:
    """Whether the marker in the output folder is this work dir's."""
    try:
        return (job.work / "identity").is_file() and read_json(job.place / MARKER)["work"] == _identity(job.work)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def release_output(job: Job) -> None:
    """Take the marker away: the dataset is finished, or nothing was made."""
    if owns_output(job):
        remove_file(job.place / MARKER)


def release_empty_output(job: Job) -> None:
    """Remove an output folder that holds nothing but the marker: nothing was made."""
    if owns_output(job) and [path.name for path in job.place.iterdir()] == [MARKER]:
        remove_file(job.place / MARKER)
        with contextlib.suppress(OSError):  # another process has begun in it
            job.place.rmdir()


def settings_digest(job: Job) -> str:
    """Return the digest of all settings that change what is made."""
    return digest(job.config.model_dump(mode="json", exclude={"run"}))


def enter(job: Job, journal: Journal, **facts: Any) -> None:
    """Write to the journal that a command runs, unless another one runs in the work dir with other settings.

    Whoever has written looks at the others: of two that begin in the same moment at least one sees the other. One that
    sees another takes its own line back and tries again after a moment of its own.

    Raises
    ------
    MismatchError
        The other one still runs.
    """
    own = settings_digest(job)
    for look in range(_LOOKS):
        journal.begin(config=own, **facts)
        others = [log for log in others_at_work(job) if (log.command or {}).get("config") != own]
        if not others:
            return
        journal.write("exit", state="refused")
        if look < _LOOKS - 1:
            time.sleep(_WAIT * (1 + random.random()))  # noqa: S311 - so that two do not go on in step
    raise MismatchError(
        "another command works in this work dir with other settings",
        where=job.work,
        found=told(others),
        hint="wait until it has ended, or give this config a dataset.output and dataset.work_dir of its own",
    )


def others_at_work(job: Job) -> list[ProcessLog]:
    """Return the commands of other processes that run in the job's work dir."""
    own = this_process()
    return [log for log in read_journals(job.work, of="living") if log.process != own and log.command is not None]


def told(logs: Iterable[ProcessLog]) -> str:
    """Return in words which commands run."""
    return "; ".join(f"process {_told(log.command or {})}" for log in logs)


def _told(command: Any) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(command.get("time", 0)))
    return f"{command.get('pid')} on {command.get('host')}, since {since}"


def _identity(work: Path) -> str:
    path = work / "identity"
    if not path.is_file():
        write_new(path, uuid.uuid4().hex.encode())
    return hashlib.sha256(path.read_bytes()).hexdigest()  # whatever has become of its bytes, it is one text
