"""The graph of stages: what units each has, what a unit depends on, and how it is run.

A new stage is a module of `stpatch.stages` with the two functions of `StageCode`, and one entry in this module's list.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import stpatch
from stpatch.errors import ConfigError, StpatchError, UnitsFailedError
from stpatch.stages.job import Job, Outcome
from stpatch.stages.provenance import Software
from stpatch.stages.receipts import Failure, Receipt, file_of, outputs_present
from stpatch.storage import digest, remove_file

CORPUS = "corpus"
"""The only unit of a reduce."""

REQUESTS = 3
"""Version of what requests are made of; part of every request."""


class StageCode(Protocol):
    """What a stage's module has; it is imported when it is first needed, as most of them import much."""

    def request(self, job: Job, unit: str, /) -> dict[str, Any]:
        """Return what the unit depends on, beside its input files, as JSON values.

        Settings, and the fingerprints of the units before it: nothing that names a folder, a rank or a time. It is
        asked for every unit of an up-to-date build, so it must be cheap.
        """
        ...

    def run(self, job: Job, unit: str, /) -> Outcome:
        """Do the unit's work; a fault of its input is a `StpatchError`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage.

    Attributes
    ----------
    name
        As in ``stpatch run NAME``.
    load
        Imports the stage's module.
    unit
        What a unit is.
    after
        The stages whose slides this one goes through.
    libraries
        Distributions that decide the bytes of its outputs; their versions are recorded in the receipts.
    location
        Where a unit's input files are sought: another location means another look, though not another fingerprint.
    """

    name: str
    load: Callable[[], StageCode]
    unit: Literal["slide", "corpus", "task"]
    after: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    location: Callable[[Job, str], str] = lambda _job, _unit: ""

    def units(self, job: Job) -> list[str]:
        """Return the stage's units in their order; stages before it must be done."""
        if self.unit == "corpus":
            return [CORPUS]
        if self.unit == "task":
            from stpatch.stages.plan import shard_tasks

            job.receipt("plan", CORPUS)
            return shard_tasks(job)
        return self.among(job, list(job.sources))

    def numbered(self, job: Job) -> list[str]:
        """Return the stage's units in the order of their numbers, from 0.

        A slide has one number in all stages, its place in the samplesheet, whatever has failed and whether the stages
        before are done. So a task of an array job can follow the same task of another.
        """
        return list(job.sources) if self.unit == "slide" else self.units(job)

    def among(self, job: Job, units: Sequence[str]) -> list[str]:
        """Return those of some numbered units that the stage goes through: not the slides that failed before.

        Only what these units stand on must be done.
        """
        return list(job.receipts(self.after[-1], units)) if self.unit == "slide" and self.after else list(units)

    def request(self, job: Job, unit: str) -> str:
        """Return the digest of what the unit depends on, beside its input files."""
        return digest([REQUESTS, self.name, unit, self.load().request(job, unit)])

    def code(self, job: Job) -> str:
        """Return the digest of the code that decides this stage's results: its own, and that of all stages before it.

        So a change of the code redoes the stages from the changed one on, and a dataset is never made by two.
        """
        names = list(STAGES)
        before = names[: names.index(self.name) + 1]
        return job.code.digest([f"stpatch.stages.{name}" for name in before])

    def is_current(self, job: Job, receipt: Receipt) -> bool:
        """Whether a receipt is of today's config and code, whatever has become of its files since.

        The libraries' versions are recorded and not compared: an upgrade does not redo finished work. What is mixed
        that way, the manifest tells.
        """
        software = receipt.software
        return (
            receipt.request == self.request(job, receipt.unit)
            and software.package == stpatch.__version__
            and software.code == self.code(job)
        )

    def is_done(self, job: Job, unit: str) -> bool:
        """Whether the unit's receipt matches: same request, code and inputs, and its outputs are what was written."""
        receipt = job.book.receipt(self.name, unit)
        return (
            self.seems_done(job, unit) and receipt is not None and not job.checksums.damaged(receipt.outputs, job.roots)
        )

    def seems_done(self, job: Job, unit: str) -> bool:
        """Whether the unit's receipt matches as far as names, sizes and times tell: nothing large is read."""
        receipt = job.book.receipt(self.name, unit)
        return (
            receipt is not None
            and self.is_current(job, receipt)
            and receipt.location == self.location(job, unit)
            and all(item.unchanged(job.checksums) for item in receipt.inputs)
            and outputs_present(receipt.outputs, job.roots)
        )

    def run(self, job: Job, unit: str) -> Receipt:
        """Run one unit and write its receipt; a fault of the input is recorded as the unit's failure and raised.

        A unit that another process has done meanwhile (a second build, a task that the scheduler started twice) is left
        alone: that process may be reading its outputs.
        """
        if self.is_done(job, unit) and (done := job.book.receipt(self.name, unit)) is not None:
            return done
        request, before = self.request(job, unit), job.book.receipt(self.name, unit)
        try:
            return self._made(job, unit, request, before)
        except (MemoryError, OSError) as error:
            if isinstance(error, StpatchError):  # some are the natural builtin too
                raise
            raise _system_error(error, where=f"stage {self.name}, unit {unit}") from error

    def _made(self, job: Job, unit: str, request: str, before: Receipt | None) -> Receipt:
        try:
            outcome = self.load().run(job, unit)
        except StpatchError as error:
            if (fault := _fault_of_system(error)) is not None:  # a reader took it for a damaged file
                raise _system_error(fault, where=f"stage {self.name}, unit {unit}", said=error) from error
            self._fail(job, unit, request, error)
            raise
        receipt = Receipt(
            stage=self.name,
            unit=unit,
            request=request,
            location=self.location(job, unit),
            software=Software(
                package=stpatch.__version__, code=self.code(job), libraries=job.library_versions(self.libraries)
            ),
            inputs=tuple(outcome.inputs),
            outputs=tuple(job.measured(path, sha256) for path, sha256 in outcome.outputs),
            facts=dict(outcome.facts),
        )
        if before is not None and _made_otherwise(before, receipt):
            receipt = replace(receipt, revision=digest([item.sha256 for item in receipt.outputs]))
        self._forget(job, before, but=receipt)
        job.book.write(receipt)
        return receipt

    def damaged(self, job: Job, units: Iterable[str]) -> list[Path]:
        """Return the outputs of units that are there and are not what their receipts say."""
        receipts = [receipt for unit in units if (receipt := job.book.receipt(self.name, unit)) is not None]
        return job.checksums.damaged((output for receipt in receipts for output in receipt.outputs), job.roots)

    def remove_damaged(self, job: Job, units: Iterable[str]) -> list[Path]:
        """Remove the outputs of units that seem done and are not what was written; return where they lay.

        The units' receipts stay: without its outputs none of them is done, and what comes out now is compared with it.
        """
        found = self.damaged(job, units)
        for path in found:
            remove_file(path)
        return found

    def _forget(self, job: Job, receipt: Receipt | None, *, but: Receipt | None = None) -> None:
        """Remove what the unit made before, but for the names that it has made again."""
        kept = {output.path for output in but.outputs} if but else set()
        for output in receipt.outputs if receipt else ():
            if output.path in kept:
                continue
            file_of(output.path, job.roots).unlink(missing_ok=True)

    def _fail(self, job: Job, unit: str, request: str, error: StpatchError) -> None:
        job.book.write_failure(
            Failure(stage=self.name, unit=unit, request=request, message=error.block(), kind=type(error).__name__)
        )


def _made_otherwise(before: Receipt, now: Receipt) -> bool:
    """Whether the same request, inputs and code gave other bytes than before: the libraries are others.

    The fingerprint alone would not tell the units after this one, which would stay as the old bytes made them.
    """
    same_question = (before.request, before.contents, before.software.code) == (
        now.request, now.contents, now.software.code
    )  # fmt: skip
    return same_question and (before.revision != "" or before.outputs != now.outputs)


def _ingest() -> StageCode:
    from stpatch.stages import ingest

    return ingest


def _normalize() -> StageCode:
    from stpatch.stages import normalize

    return normalize


def _select() -> StageCode:
    from stpatch.stages import select

    return select


def _crop() -> StageCode:
    from stpatch.stages import crop

    return crop


def _plan() -> StageCode:
    from stpatch.stages import plan

    return plan


def _shard() -> StageCode:
    from stpatch.stages import shard

    return shard


def _finalize() -> StageCode:
    from stpatch.stages import finalize

    return finalize


def _slide_path(job: Job, slide_id: str) -> str:
    return str(job.sources[slide_id].path.absolute())


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="ingest",
            load=_ingest,
            unit="slide",
            libraries=("anndata", "h5py", "numba", "numpy", "pandas", "pyarrow", "scipy", "spatialdata"),
            location=_slide_path,
        ),
        Stage(
            name="normalize",
            load=_normalize,
            unit="slide",
            after=("ingest",),
            libraries=("h5py", "numba", "numpy", "scikit-misc", "scipy"),
        ),
        Stage(
            name="select",
            load=_select,
            unit="corpus",
            after=("normalize",),
            libraries=("numpy", "pandas", "scikit-misc", "scipy"),
        ),
        Stage(
            name="crop", load=_crop, unit="slide", after=("ingest", "normalize"), libraries=("h5py", "numpy", "scipy")
        ),
        Stage(name="plan", load=_plan, unit="corpus", after=("crop",), libraries=("numpy", "pandas")),
        Stage(name="shard", load=_shard, unit="task", libraries=("numba", "numcodecs", "numpy", "scipy", "zarr")),
        Stage(name="finalize", load=_finalize, unit="corpus", libraries=("numpy", "pandas", "pyarrow", "zarr")),
    )
}
"""The stages in their order."""


def stage_named(name: str) -> Stage:
    """Return a stage.

    Raises
    ------
    ConfigError
        There is none of that name.
    """
    if name not in STAGES:
        raise ConfigError("there is no such stage", where="STAGE", found=name, expected=", ".join(STAGES))
    return STAGES[name]


_OF_SYSTEM = (
    errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.ESTALE, errno.ETIMEDOUT,
)  # fmt: skip
"""What a sound input file can meet too."""
_NEVER = 2**44
"""Bytes that no machine has: who asks for so many has read a damaged size."""


def _fault_of_system(error: BaseException) -> MemoryError | OSError | None:
    """Return the fault of the machine that lies behind a reader's error, None if there is none."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, MemoryError):
            shape, dtype = getattr(cause, "shape", ()), getattr(cause, "dtype", None)  # of NumPy's own error
            return cause if math.prod(shape) * getattr(dtype, "itemsize", 1) < _NEVER else None
        if isinstance(cause, OSError) and not isinstance(cause, StpatchError) and cause.errno in _OF_SYSTEM:
            return cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def _system_error(error: MemoryError | OSError, *, where: str, said: StpatchError | None = None) -> StpatchError:
    """Name the file; this is no fault of the input, so the unit is not recorded as failed."""
    place = where if said is None or said.where is None else f"{where}, {said.where}"
    if isinstance(error, MemoryError):
        return UnitsFailedError(
            "there is not enough memory",
            where=place,
            found=str(error) or None,
            hint="set a lower run.workers, crop.size, crop.density or channels.n, see stpatch plan; if this unit fails "
            "alone too, its file may claim a size that it does not have",
        )
    return UnitsFailedError(
        "a file cannot be read or written",
        where=place if error.filename is None else f"{where}, {error.filename}",
        found=error.strerror or str(error),
        hint="check disk space, permissions and that nothing moves files meanwhile; the same command goes on from here",
    )
