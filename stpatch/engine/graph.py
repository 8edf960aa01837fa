"""The graph of stages: what units each has, what a unit depends on, and how it is run."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stpatch.errors import StpatchError, UnitsFailedError
from stpatch.stages.job import CODE_VERSION, Job, Outcome
from stpatch.stages.receipts import Failure, Receipt, outputs_present, place_of
from stpatch.storage import digest

CORPUS = "corpus"
"""The only unit of a reduce."""


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes
    ----------
    name
        Also the module's in this package, which has ``request(job, unit)`` and ``run(job, unit)``.
    unit
        What a unit is: ``slide``, ``corpus`` or ``task``.
    after
        The stages whose slides this one goes through.
    """

    name: str
    unit: str
    after: tuple[str, ...] = ()

    @property
    def module(self) -> Any:
        """The stage's module, imported when it is needed."""
        return importlib.import_module(f"stpatch.stages.{self.name}")

    def units(self, job: Job) -> list[str]:
        """Return the stage's units in their order; stages before it must be done."""
        if self.unit == "corpus":
            return [CORPUS]
        if self.unit == "task":
            from stpatch.stages.plan import read_plan

            job.receipt("plan", CORPUS)
            return list(read_plan(job.plan_path).tasks())
        return list(job.receipts(self.after[-1])) if self.after else list(job.sources)

    def request(self, job: Job, unit: str) -> str:
        """Return the digest of what the unit depends on, beside its input files."""
        return digest([CODE_VERSION, self.name, unit, self.module.request(job, unit)])

    def place(self, job: Job, unit: str) -> str:
        """Return where the unit's input files are sought."""
        find: Callable[[Job, str], str] | None = getattr(self.module, "place", None)
        return find(job, unit) if find else ""

    def is_done(self, job: Job, unit: str) -> bool:
        """Whether the unit's receipt matches: same request, same inputs, outputs in place."""
        receipt = job.book.receipt(self.name, unit)
        return (
            receipt is not None
            and receipt.request == self.request(job, unit)
            and receipt.place == self.place(job, unit)
            and all(item.unchanged() for item in receipt.inputs)
            and outputs_present(receipt.outputs, job.roots)
        )

    def run(self, job: Job, unit: str) -> Receipt:
        """Run one unit and write its receipt; a fault of the input is recorded as the unit's failure and raised.

        A unit that another process has done meanwhile (a second build, a task that the scheduler started twice) is left
        alone: that process may be reading its outputs.
        """
        if self.is_done(job, unit) and (done := job.book.receipt(self.name, unit)) is not None:
            return done
        request, place = self.request(job, unit), self.place(job, unit)
        self._forget(job, unit)
        try:
            outcome: Outcome = self.module.run(job, unit)
        except StpatchError as error:
            self._fail(job, unit, request, error)
            raise
        except OSError as error:
            raise _system_error(error, where=f"stage {self.name}, unit {unit}") from error
        receipt = Receipt(
            stage=self.name,
            unit=unit,
            request=request,
            place=place,
            inputs=tuple(outcome.inputs),
            outputs=tuple(job.measured(path, sha256) for path, sha256 in outcome.outputs),
            facts=dict(outcome.facts),
        )
        job.book.write(receipt)
        return receipt

    def _forget(self, job: Job, unit: str) -> None:
        """Remove what the unit made under another request, some of which may have other names than what comes now."""
        receipt = job.book.receipt(self.name, unit)
        for output in receipt.outputs if receipt else ():
            place_of(output.path, job.roots).unlink(missing_ok=True)

    def _fail(self, job: Job, unit: str, request: str, error: StpatchError) -> None:
        job.book.write_failure(
            Failure(stage=self.name, unit=unit, request=request, message=error.block(), kind=type(error).__name__)
        )


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("ingest", "slide"),
        Stage("normalize", "slide", after=("ingest",)),
        Stage("select", "corpus", after=("normalize",)),
        Stage("crop", "slide", after=("ingest", "normalize")),
        Stage("plan", "corpus", after=("crop",)),
        Stage("shard", "task"),
        Stage("finalize", "corpus"),
    )
}
"""The stages in their order."""


def _system_error(error: OSError, *, where: str) -> StpatchError:
    """Name the file; this is no fault of the input, so the unit is not recorded as failed."""
    return UnitsFailedError(
        "a file cannot be read or written",
        where=where if error.filename is None else f"{where}, {error.filename}",
        found=error.strerror or str(error),
        hint="check disk space, permissions and that nothing moves files meanwhile; the same command goes on from here",
    )
