"""Local worker processes: units in, receipts or errors out."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from stpatch.config import Config
from stpatch.errors import StpatchError, UnitsFailedError
from stpatch.pipeline.job import Job
from stpatch.pipeline.stages import STAGES

Result = tuple[str, StpatchError | None]


def run_unit(config: Config, stage: str, unit: str) -> Result:
    """Run one unit in this process; return its name, and its error if it failed."""
    try:
        STAGES[stage].run(Job(config), unit)
    except StpatchError as error:
        return unit, error
    return unit, None


class Workers(AbstractContextManager["Workers"]):
    """A pool of worker processes that all stages of a build share; one worker means this process.

    Workers are started when first needed, with the ``spawn`` method: nothing of this process' threads or open files is
    inherited, and they end by themselves when this process dies.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            processes = list((self._pool._processes or {}).values())
            self._pool.shutdown(wait=kind is None, cancel_futures=True)
            if kind is not None:
                for process in processes:
                    process.terminate()

    def results(self, config: Config, stage: str, units: Sequence[str]) -> Iterator[Result]:
        """Yield each unit's result as it is done."""
        if self.count == 1 or len(units) == 1:
            for unit in units:
                yield run_unit(config, stage, unit)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.count, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
            )
        waiting = iter(units)
        running: dict[Future[Result], str] = {}
        unit = ""
        try:
            while True:
                while len(running) < 2 * self.count and (following := next(waiting, None)) is not None:
                    running[self._pool.submit(run_unit, config, stage, following)] = following
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    unit = running.pop(future)
                    yield future.result()
        except BrokenProcessPool as error:
            self._pool = None
            raise UnitsFailedError(
                "a worker process was killed",
                where=f"stage {stage}, one of {', '.join(sorted(running.values())[:4]) or unit}",
                mend="most often the machine ran out of memory: run the same command again with fewer workers",
            ) from error
        finally:
            for future in running:
                future.cancel()


def worker_count(config: Config) -> int:
    """Return how many workers to use: as configured, or one for each processor this process may use."""
    if config.run.workers != "auto":
        return config.run.workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
