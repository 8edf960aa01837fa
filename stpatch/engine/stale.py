"""Which units have to be done again, and why: from receipts, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

import stpatch
from stpatch.engine.graph import STAGES, Stage
from stpatch.errors import StpatchError
from stpatch.stages.job import Job
from stpatch.stages.receipts import Failure, Receipt, outputs_present

State = Literal["done", "failed", "stale", "left"]


@dataclass(kw_only=True)
class Standing:
    """How the units of one stage stand.

    Attributes
    ----------
    stage
        Its name.
    units
        All its units, in their order; None where an earlier stage must tell first.
    state
        Of every unit.
    reasons
        Why a unit is stale, in a word or two; units of one stage mostly share them.
    failures
        What is known of the units that failed.
    """

    stage: str
    units: list[str] | None
    state: dict[str, State] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)

    def count(self, state: State) -> int:
        """Return how many units are in a state."""
        return sum(found == state for found in self.state.values())


def standings(job: Job) -> dict[str, Standing]:
    """Return how every unit of every stage stands.

    A unit is stale where its receipt is of other settings, code or files, or where one before it is stale or left:
    what that one will give is not known yet.
    """
    found: dict[str, Standing] = {}
    dirty: set[str] = set()  # slides of which something before is to be done
    reduce = ""  # the first corpus stage that is to be done
    for stage in STAGES.values():
        standing = found[stage.name] = Standing(stage=stage.name, units=_units(job, stage, found))
        slides = _slides_of_tasks(job) if stage.unit == "task" and standing.units else {}
        code = stage.code(job)  # once: it looks at every source
        for unit in standing.units or ():
            if stage.unit == "slide":
                before = f"stage {reduce}" if reduce else "its slide" if unit in dirty else ""
            elif stage.unit == "corpus":
                before = f"{len(dirty)} slides" if dirty else f"stage {reduce}" if reduce else ""
            else:
                before = f"stage {reduce}" if reduce else "its slides" if slides.get(unit, set()) & dirty else ""
            standing.state[unit] = _state(job, stage, unit, standing, before=before, code=code)
            again = standing.state[unit] != "done"
            if standing.state[unit] == "failed" and job.config.run.on_error == "skip":
                again = False  # it is left out
            if again and stage.unit == "slide":
                dirty.add(unit)
        if standing.units is None or (stage.unit != "slide" and set(standing.state.values()) - {"done"}):
            reduce = reduce or stage.name
    return found


def _units(job: Job, stage: Stage, before: Mapping[str, Standing]) -> list[str] | None:
    """Return a stage's units; of slides those that have not failed, whether they are through the stages before."""
    if stage.unit == "slide":
        failed = {unit for name in stage.after for unit in before[name].failures}
        return [slide_id for slide_id in job.sources if slide_id not in failed]
    try:
        return stage.units(job)
    except StpatchError:
        return None


def _slides_of_tasks(job: Job) -> dict[str, set[str]]:
    from stpatch.stages.plan import read_plan

    plan = read_plan(job.plan_path)
    return {task: {plan.slides[i] for i in np.unique(plan.slide[samples])} for task, samples in plan.tasks().items()}


def _state(job: Job, stage: Stage, unit: str, standing: Standing, *, before: str, code: str) -> State:
    failure = job.book.failure(stage.name, unit)
    if failure is not None:
        standing.failures[unit] = failure
        return "failed"
    receipt = job.book.receipt(stage.name, unit)
    if receipt is None:
        return "left"
    reason = before or _reason(job, stage, unit, receipt, code)
    if reason:
        standing.reasons[unit] = reason
        return "stale"
    return "done"


def _reason(job: Job, stage: Stage, unit: str, receipt: Receipt, code: str) -> str:
    """Return why a receipt does not hold, "" where it does."""
    try:
        request = stage.request(job, unit)
    except StpatchError:
        return "a stage before it"
    if receipt.request != request:
        return "settings"
    if receipt.software.package != stpatch.__version__:
        return f"made by stpatch {receipt.software.package}"
    if receipt.software.code != code:
        return "code"
    if receipt.location != stage.location(job, unit):
        return "its files were moved"
    for item in receipt.inputs:
        if not item.unchanged(job.checksums):
            return f"{item.path} changed"
    return "" if outputs_present(receipt.outputs, job.roots) else "its output is lost"


def to_be_redone(job: Job) -> dict[str, Any]:
    """Return how many units of each stage will be done again; None: all of its units, which are not known yet."""
    return {
        name: None if standing.units is None else standing.count("stale")
        for name, standing in standings(job).items()
        if standing.units is None or standing.count("stale")
    }
