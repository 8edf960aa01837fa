"""Journals: what every process did, line by line, in the work dir; nothing is decided by them.

    <work dir>/log/<host>-<pid>-<started>.jsonl      one file per process, so that nobody waits for a lock

A line is one JSON object, appended whole by one write: ``run`` and ``exit`` of a command, ``start`` and ``end`` of a
unit. While a process works it touches its file every `BEAT` seconds. So whoever looks at the folder sees, over all
ranks and hosts, what is running, what was lost on the way, and how fast things go.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import stpatch
from stpatch.processes import Process, find_process, this_process
from stpatch.stages.job import Job
from stpatch.stages.receipts import Receipt

FOLDER = "log"
BEAT = 5.0
"""Seconds between two touches of the file of a process that works."""
SILENT = 30.0
"""Seconds without a touch after which a process counts as gone, where nobody can ask its system."""
_START = re.compile(rb'^\{"event":"start","stage":"([a-z]+)","unit":"([^"]+)"', re.MULTILINE)


class Journal:
    """The journal of this process in one work dir."""

    def __init__(self, work: Path) -> None:
        self.folder = work / FOLDER
        self.path = self.folder / f"{this_process()}.jsonl"
        self._attempts: Counter[tuple[str, str]] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Beat while a command runs that has begun, and write when and how it ended."""
        state = "stopped"
        try:
            with self._beating():
                yield
            state = "done"
        except Exception:
            state = "failed"
            raise
        finally:
            self.write("exit", state=state)

    def begin(self, **facts: Any) -> None:
        """Write that a command runs."""
        self.write("run", **facts, package=stpatch.__version__, host=_host(), pid=os.getpid())

    @contextlib.contextmanager
    def unit(self, stage: str, unit: str, **facts: Any) -> Iterator[UnitNotes]:
        """Write a unit's start and end; an error on the way is written with its whole traceback, and raised."""
        notes = UnitNotes()
        attempt = self._attempt(stage, unit)
        self.write("start", stage=stage, unit=unit, attempt=attempt, host=_host(), pid=os.getpid(), **facts)
        began, state = time.time(), "stopped"
        _reset_peak()
        try:
            with self._beating():
                yield notes
            state = "done"
        except BaseException as error:
            notes.error = error
            raise
        finally:
            if notes.error is not None:
                state = "failed" if isinstance(notes.error, Exception) else "stopped"
                notes.facts["error"] = str(notes.error)
                notes.facts["traceback"] = "".join(traceback.format_exception(notes.error))
            self.write(
                "end",
                stage=stage,
                unit=unit,
                state=state,
                attempt=attempt,
                began=began,
                seconds=round(time.time() - began, 3),
                peak_memory=peak_memory(),
                host=_host(),
                pid=os.getpid(),
                package=stpatch.__version__,
                **notes.facts,
            )

    def write(self, event: str, **facts: Any) -> None:
        """Append a line.

        What cannot be written is left out: a journal is no part of the work, and a full disk is told by those whose
        bytes matter.
        """
        line = json.dumps({"event": event, **facts, "time": time.time()}, separators=(",", ":")) + "\n"
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def _beating(self) -> Iterator[None]:
        ended = threading.Event()
        beat = threading.Thread(target=self._beat, args=(ended,), daemon=True)
        beat.start()
        try:
            yield
        finally:
            ended.set()

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def _attempt(self, stage: str, unit: str) -> int:
        """Return how often the unit was started, this time included, by whatever process; others are asked once."""
        if self._attempts is None:
            self._attempts = Counter()
            for path in self.folder.glob("*.jsonl"):
                with contextlib.suppress(OSError):
                    found = _START.findall(path.read_bytes())
                    self._attempts.update((name.decode(), of.decode()) for name, of in found)
        self._attempts[stage, unit] += 1
        return self._attempts[stage, unit]


@dataclass
class UnitNotes:
    """What a unit's last line says of its result."""

    facts: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None

    def made(self, receipt: Receipt) -> None:
        """Take the numbers from the unit's receipt: rows (spots, patches or samples), bytes, versions of libraries."""
        record = receipt.facts.get("record", {}) if receipt.stage == "shard" else {}
        rows = record.get("patches", receipt.facts.get("patches", receipt.facts.get("spots")))
        if rows is not None:
            self.facts["rows"] = rows
        self.facts["bytes"] = sum(output.bytes for output in receipt.outputs)
        self.facts["versions"] = dict(receipt.software.libraries)


@lru_cache(maxsize=8)
def _journal(work: Path, _pid: int) -> Journal:
    return Journal(work)


def journal_of(job: Job) -> Journal:
    """Return this process' journal of a job."""
    return _journal(job.work, os.getpid())


@dataclass(frozen=True, kw_only=True)
class ProcessLog:
    """What one process wrote.

    Attributes
    ----------
    process
        Who it is.
    lines
        Its lines in their order.
    silent
        Seconds since it last touched its file.
    """

    process: Process
    lines: tuple[Mapping[str, Any], ...]
    silent: float

    @property
    def lives(self) -> bool:
        """Whether it still works, as far as can be told: its system says so, or it touched its file lately."""
        lives = self.process.lives()
        return self.silent < SILENT if lives is None else lives

    @property
    def command(self) -> Mapping[str, Any] | None:
        """The ``run`` line of the command that it runs; None where it runs none, or has ended."""
        found = [line for line in self.lines if line["event"] in ("run", "exit")]
        return found[-1] if found and found[-1]["event"] == "run" and self.lives else None

    @property
    def unit(self) -> Mapping[str, Any] | None:
        """The ``start`` line of a unit that has not ended; whether it still runs, `lives` says."""
        found = [line for line in self.lines if line["event"] in ("start", "end")]
        return found[-1] if found and found[-1]["event"] == "start" else None


def read_journals(work: Path, *, of: Literal["all", "living"] = "all") -> list[ProcessLog]:
    """Return the journals of the processes that worked, or still do, in a work dir; a torn line is left out."""
    logs, now = [], time.time()
    for path in sorted((work / FOLDER).glob("*.jsonl")):
        process = find_process(path.name)
        if process is None:
            continue
        try:
            log = ProcessLog(process=process, lines=(), silent=now - path.stat().st_mtime)
            if of == "all" or log.lives:
                lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
                logs.append(replace(log, lines=tuple(_parsed(lines))))
        except OSError:  # removed meanwhile
            continue
    return logs


def _parsed(lines: list[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict) and "event" in value:
                yield value


def peak_memory() -> int:
    """Return the most bytes that this process held since `_reset_peak`, or since it began where that is unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(text.partition("VmHWM:")[2].split()[0]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _reset_peak() -> None:
    """Forget the process' peak of memory, where the system lets it: value 5, see proc(5), clear_refs."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


@lru_cache
def _host() -> str:
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
