"""How far a job is: units done, running, failed, stale and left, and how fast it goes, over all ranks.

What is done, receipts say; what runs and how fast, the journals say. Nothing large is read.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stpatch.engine.changes import changes, read_finished, shortened
from stpatch.engine.graph import STAGES
from stpatch.engine.journal import ProcessLog, read_journals
from stpatch.engine.stale import Standing, standings
from stpatch.stages.job import Job
from stpatch.stages.receipts import Failure
from stpatch.views.words import aligned

WINDOW = 600.0
"""Seconds that a rate looks back."""
_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Running:
    """A unit that runs: where, since how many seconds, how long nobody has heard of it, which attempt it is."""

    unit: str
    host: str
    pid: int
    seconds: float
    silent: float
    attempt: int


@dataclass(frozen=True, kw_only=True)
class StageStatus:
    """The state of one stage; `units` is None where an earlier stage must tell first.

    Attributes
    ----------
    done, stale
        Units whose receipts hold, and units that have one which does not hold any more.
    reasons
        How many units are stale for which reason.
    running
        Units that run now.
    interrupted
        Units whose process ended on the way and that are still to be done.
    units_per_second, rows_per_second
        Over all processes, in the last `WINDOW` seconds; rows are spots or patches. None where nothing runs.
    """

    stage: str
    units: int | None
    done: int = 0
    failures: tuple[Failure, ...] = ()
    stale: int = 0
    reasons: Mapping[str, int] | None = None
    running: tuple[Running, ...] = ()
    interrupted: tuple[str, ...] = ()
    units_per_second: float | None = None
    rows_per_second: float | None = None

    @property
    def left(self) -> int | None:
        """Units neither done nor failed; those that run or are stale are among them."""
        return None if self.units is None else self.units - self.done - len(self.failures)

    @property
    def seconds_left(self) -> float | None:
        """How long the units that are left will take at this rate."""
        return self.left / self.units_per_second if self.left and self.units_per_second else None

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "stage": self.stage,
            "units": self.units,
            "done": self.done,
            "running": [vars(item) for item in self.running],
            "failed": {failure.unit: failure.message for failure in self.failures},
            "stale": self.stale,
            "reasons": dict(self.reasons or {}),
            "interrupted": list(self.interrupted),
            "left": self.left,
            "units_per_second": self.units_per_second,
            "rows_per_second": self.rows_per_second,
            "seconds_left": self.seconds_left,
        }


def stage_statuses(job: Job) -> list[StageStatus]:
    """Return the state of every stage."""
    logs = read_journals(job.work)
    now = time.time()
    return [_stage_status(standing, logs, now) for standing in standings(job).values()]


def _stage_status(standing: Standing, logs: Sequence[ProcessLog], now: float) -> StageStatus:
    if standing.units is None:
        return StageStatus(stage=standing.stage, units=None)
    begun = [(log, line) for log in logs if (line := log.unit) is not None and line["stage"] == standing.stage]
    running = tuple(
        Running(
            unit=line["unit"],
            host=line["host"],
            pid=line["pid"],
            seconds=round(now - line["time"], 1),
            silent=round(log.silent, 1),
            attempt=line["attempt"],
        )
        for log, line in begun
        if log.lives and standing.state.get(line["unit"]) != "done"
    )
    units, rows = _rates(standing.stage, logs, now) if running else (None, None)
    at_work = {item.unit for item in running}
    lost = {line["unit"] for log, line in begun if not log.lives} - at_work
    return StageStatus(
        stage=standing.stage,
        units=len(standing.units),
        done=standing.count("done"),
        failures=tuple(standing.failures.values()),
        stale=standing.count("stale"),
        reasons=Counter(standing.reasons.values()),
        running=running,
        interrupted=tuple(sorted(unit for unit in lost if standing.state.get(unit) in ("left", "stale"))),
        units_per_second=units,
        rows_per_second=rows,
    )


def _rates(stage: str, logs: Sequence[ProcessLog], now: float) -> tuple[float | None, float | None]:
    """Return units and rows per second: what ended in the window, over the time since the first of it began."""
    ended = [
        line
        for log in logs
        for line in log.lines
        if line["event"] == "end" and line["stage"] == stage and line["state"] == "done" and now - line["time"] < WINDOW
    ]
    if not ended:
        return None, None
    seconds = max(now - max(min(line["began"] for line in ended), now - WINDOW), 1e-3)
    rows = sum(line.get("rows", 0) for line in ended)
    return len(ended) / seconds, rows / seconds if rows else None


def what_changed(job: Job) -> list[str]:
    """Return what differs from the finished dataset, a line each; none where there is none."""
    before = read_finished(job)
    return [] if before is None else changes(job, before)


def status_text(statuses: Sequence[StageStatus], changed: Sequence[str]) -> str:
    """Return the table of stages and, below it, what runs, what changed, and why units failed."""
    rows: list[list[object]] = [
        [
            item.stage,
            item.units,
            item.done if item.units is not None else None,
            len(item.running) or None,
            len(item.failures) or None,
            item.stale or None,
            item.left,
            None if item.rows_per_second is None else round(item.rows_per_second, 1),
            None if item.seconds_left is None else duration(item.seconds_left),
        ]
        for item in statuses
    ]
    header = ["stage", "units", "done", "running", "failed", "stale", "left", "rows/s", "time left"]
    lines = [aligned(header, rows, indent="")]
    for item in statuses:
        for one in item.running[:_SHOWN]:
            again = f", attempt {one.attempt}" if one.attempt > 1 else ""
            lines.append(f"running: {item.stage} {one.unit}, {duration(one.seconds)}{again}, {one.host} {one.pid}")
        if item.interrupted:
            lines.append(f"interrupted: {item.stage} {_listed(item.interrupted)}; the same command goes on")
        for reason, count in (item.reasons or {}).items():
            lines.append(f"stale: {item.stage}, {count} of {item.units} ({reason})")
    if changed:
        lines += ["changed since the dataset was finished:", *(f"  {line}" for line in shortened(changed))]
    lines += [f"\n[{failure.stage} {failure.unit}] {failure.message}" for item in statuses for failure in item.failures]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a time as people say it: ``4s``, ``3m20s``, ``2h05m``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def is_at_rest(statuses: Sequence[StageStatus]) -> bool:
    """Whether all is done."""
    return len(statuses) == len(STAGES) and all(item.left == 0 for item in statuses)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
