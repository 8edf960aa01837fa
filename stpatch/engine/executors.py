"""Executors: where the units of a stage are run. One small protocol, and the choice by ``run.executor``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from stpatch.engine.workers import Result, Workers
from stpatch.stages.job import Job


class Executor(Protocol):
    """Runs units, in whatever order and place; all stages of a build share it, within a ``with`` statement.

    What a unit gives lies in the work dir and the output folder, which all of its processes see under the same paths.
    """

    def __enter__(self) -> Self:
        """Get ready; processes may wait until they are needed."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> object:
        """End all that was started."""
        ...

    def results(self, stage: str, units: Sequence[str]) -> Iterator[Result]:
        """Yield each unit's name as it is done, with its error if it failed; as many run together as memory allows.

        Raises
        ------
        UnitsFailedError
            A unit was lost, such as by processes that were killed again and again.
        """
        ...


def executor_for(job: Job, count: int, *, local: bool = False) -> Executor:
    """Return the executor that the config asks for.

    Parameters
    ----------
    job
        The config with its slides.
    count
        How many processes, where this process starts them.
    local
        Whether to stay on this machine in any case, as a task of an array job does.
    """
    if job.config.run.executor == "dask" and not local:
        from stpatch.engine.dask_executor import DaskExecutor

        return DaskExecutor(job, count)
    return Workers(job, count)
