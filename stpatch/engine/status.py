"""Units done, failed and left, stage by stage; only receipts are looked at."""

from __future__ import annotations

from dataclasses import dataclass

from stpatch.engine.graph import STAGES
from stpatch.errors import StpatchError
from stpatch.stages.job import Job
from stpatch.stages.receipts import Failure


@dataclass(frozen=True, kw_only=True)
class StageStatus:
    """The state of one stage; `units` is None where an earlier stage must tell first."""

    stage: str
    units: int | None
    done: int = 0
    failures: tuple[Failure, ...] = ()

    @property
    def left(self) -> int | None:
        """Units neither done nor failed."""
        return None if self.units is None else self.units - self.done - len(self.failures)


def stage_statuses(job: Job) -> list[StageStatus]:
    """Return the state of every stage."""
    statuses = []
    for stage in STAGES.values():
        try:
            units = stage.units(job)
        except StpatchError:
            statuses.append(StageStatus(stage=stage.name, units=None))
            continue
        failures = tuple(failure for unit in units if (failure := job.book.failure(stage.name, unit)))
        failed = {failure.unit for failure in failures}
        done = sum(_is_done(job, stage.name, unit) for unit in units if unit not in failed)
        statuses.append(StageStatus(stage=stage.name, units=len(units), done=done, failures=failures))
    return statuses


def _is_done(job: Job, stage: str, unit: str) -> bool:
    try:
        return STAGES[stage].seems_done(job, unit)
    except StpatchError:
        return False
