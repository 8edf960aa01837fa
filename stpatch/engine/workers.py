"""Local worker processes: units in, receipts or errors out."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, suppress
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Self, cast

from stpatch.config import Config
from stpatch.engine.graph import CORPUS, STAGES
from stpatch.engine.journal import journal_of, read_journals
from stpatch.engine.memory import Limit, UnitSize, fits, memory_limit, refuse_too_large, unit_sizes
from stpatch.errors import StpatchError, UnitsFailedError
from stpatch.kernels.cache import find_cache
from stpatch.kernels.registry import compile_kernels
from stpatch.stages.job import Job

Result = tuple[str, StpatchError | None]

PATIENCE = 2.0
"""Seconds that workers get to end by themselves."""


def run_unit(job: Job, stage: str, unit: str) -> Result:
    """Run one unit in this process; return its name, and its error if it failed. The journal has the rest."""
    try:
        with journal_of(job).unit(stage, unit) as notes:
            notes.made(STAGES[stage].run(job, unit))
    except StpatchError as error:
        return unit, error
    return unit, None


class Workers(AbstractContextManager["Workers"]):
    """A pool of worker processes that all stages of a build share; one worker means this process.

    Workers are started when first needed: on Linux by a fork server, so that what `stpatch.engine.preload` imports
    and compiles is shared; elsewhere system libraries do not bear a fork, and they are spawned. Nothing of this
    process' threads or open files is inherited. Once workers are there, they do single units too: this process need
    not import what they have.

    All of them hold the reading end of one pipe, whose writing end only this process has. It closes when this process
    ends, in whatever way, and when the pool is left: then they end at once, whatever they wait for. So a worker that
    was killed while it held a lock of the pool's queue keeps nobody waiting.
    """

    def __init__(self, job: Job, count: int) -> None:
        self.job = job
        self.count = count
        self._pool: ProcessPoolExecutor | None = None
        self._lifeline: Connection | None = None
        self._starter: threading.Thread | None = None
        self._prepared: set[str] = set()
        self._announced = False
        self._noted: set[str] = set()
        self._processes: dict[int, BaseProcess] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The pool forgets its processes when it is shut down. Python 3.14 is the first that can be asked to kill them.
        processes = dict(self._pool._processes or {}) if self._pool is not None else {}
        if kind is None and self._pool is not None:
            # Workers that end by themselves leave nothing behind; one that was killed would keep others waiting, so
            # that the wait has an end.
            ending = threading.Thread(target=self._pool.shutdown, daemon=True)
            ending.start()
            ending.join(PATIENCE)
        if self._lifeline is not None:
            self._lifeline.close()
        _kill_after(PATIENCE, list(processes.values()))
        # While the first worker is being started the pool is locked, and whoever stops the build would have to wait.
        if self._pool is not None and self._starter is not None and not self._starter.is_alive():
            self._pool.shutdown(wait=False, cancel_futures=True)

    def results(self, stage: str, units: Sequence[str]) -> Iterator[Result]:
        """Yield each unit's result as it is done; no more run together than fit into ``run.max_memory``.

        Raises
        ------
        StpatchError
            A unit cannot fit.
        UnitsFailedError
            A worker was killed.
        """
        if not units:
            return
        if note := find_cache().note:
            self._note(note)
        limit = memory_limit(self.job)
        sizes = {} if limit is None else unit_sizes(self.job, STAGES[stage], units)
        if limit is not None:
            refuse_too_large(STAGES[stage], sizes, limit)
        smallest = sorted(size.expected for size in sizes.values())[:2]
        alone = len(units) == 1 or not fits(smallest[:1], sum(smallest[1:]), workers=2, limit=limit)
        if self._pool is None and (self.count == 1 or alone):
            self._prepare(stage)
            if self.count > 1 and len(units) == 1 and units[0] != CORPUS:
                self._start()  # this stage has one unit, but later ones have more: workers get ready meanwhile
            for unit in units:
                yield run_unit(self.job, stage, unit)
            return
        if self._pool is None and sys.platform != "linux":
            self._prepare(stage)
        pool = self._pool or self._start()
        if self._counts_dtype != "uint16":  # which the fork server has
            self._prepare(stage)
        for other in STAGES.values():  # meanwhile what this process will need to tell what is left of each stage
            other.load()
            other.code(self.job)
        yield from self._results(pool, stage, units, sizes=sizes, limit=limit)

    def _results(
        self,
        pool: ProcessPoolExecutor,
        stage: str,
        units: Sequence[str],
        *,
        sizes: Mapping[str, UnitSize],
        limit: Limit | None,
    ) -> Iterator[Result]:
        """Yield the results of a pool that has up to two units for each worker, so that none waits for its next."""
        waiting = deque(units)
        running: dict[Future[Result], str] = {}
        unknown = UnitSize(0)
        try:
            while waiting or running:
                while waiting and len(running) < 2 * self.count:
                    held = [sizes.get(unit, unknown).expected for unit in running.values()]
                    wanted = sizes.get(waiting[0], unknown).expected
                    if not fits(held, wanted, workers=self.count, limit=limit):
                        break
                    unit = waiting.popleft()
                    running[pool.submit(_run_in_worker, stage, unit)] = unit
                    self._processes.update(pool._processes or {})
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    del running[future]
                    yield result
        except BrokenProcessPool as error:
            raise self._killed(stage, sorted(running.values()), sizes, limit) from error
        finally:
            for future in running:
                future.cancel()

    def _killed(
        self, stage: str, running: Sequence[str], sizes: Mapping[str, UnitSize], limit: Limit | None
    ) -> UnitsFailedError:
        """Return the error of a worker that was killed: its unit, what that needs, and the setting to change."""
        from stpatch.engine.estimate import human_size

        for process in self._processes.values():
            process.join(PATIENCE)  # the pool ends the others
        ended = {pid: process.exitcode for pid, process in self._processes.items()}
        by = {pid: -code for pid, code in ended.items() if code is not None and code < 0 and code != -signal.SIGTERM}
        logs = [log for log in read_journals(self.job.work) if log.process.pid in by]
        units = [line["unit"] for log in logs if (line := log.unit) is not None and line["stage"] == stage]
        found = [f"signal {number} ({signal.Signals(number).name})" for number in sorted(set(by.values()))]
        found += [f"{unit} needs about {human_size(sizes[unit].expected)}" for unit in units if unit in sizes]
        if limit is not None:
            found.append(f"{self.count} workers had {human_size(limit.bytes)} ({limit.source})")
        return UnitsFailedError(
            "a worker process was killed",
            where=f"stage {stage}, unit {', '.join(units)}"
            if units
            else f"stage {stage}, one of {', '.join(running[:4])}",
            found="; ".join(found) or None,
            hint="most often the machine or the job ran out of memory: set run.max_memory or run.workers lower, or ask "
            "the scheduler for more memory; the same command goes on from here",
        )

    def _start(self) -> ProcessPoolExecutor:
        """Make the pool and start its first worker on a thread, which waits until all is imported and compiled there.

        So this process can do its own part meanwhile: a single slide's ingest, or the look at what is done already.
        """
        context: BaseContext = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        if sys.platform == "linux":
            context.set_forkserver_preload(["stpatch.engine.fork_server"])
        read_end, self._lifeline = context.Pipe(duplex=False)
        pool = self._pool = ProcessPoolExecutor(
            self.count, mp_context=context, initializer=_start_worker, initargs=(self.job.config, read_end)
        )
        self._starter = threading.Thread(target=_start_first, args=(pool,), daemon=True)
        self._starter.start()
        return pool

    def _prepare(self, stage: str) -> None:
        """Have a stage's kernels compiled; where they are new, those of the stages after it too, in one wait."""
        if stage in self._prepared:
            return
        names = list(STAGES)
        self._prepared.add(stage)
        if self._compile((stage,)):
            after = names[names.index(stage) + 1 :]
            self._compile(after)
            self._prepared.update(after)

    def _compile(self, stages: Sequence[str]) -> bool:
        return compile_kernels(stages, counts_dtype=self._counts_dtype, announce=self._announce)

    def _note(self, text: str) -> None:
        """Print a line once."""
        if text not in self._noted:
            print(f"note: {text}", file=sys.stderr)  # noqa: T201
        self._noted.add(text)

    def _announce(self, text: str) -> None:
        if not self._announced:
            print(text, file=sys.stderr)  # noqa: T201
        self._announced = True

    @property
    def _counts_dtype(self) -> str:
        return "float32" if self.job.config.ingest.values == "normalized" else "uint16"


def _kill_after(patience: float, processes: Sequence[BaseProcess]) -> None:
    """Kill the workers that have not ended by then: those that are stopped, or wait for a disk that does not answer.

    This process could not end before them: a thread of the pool waits for all of them.
    """
    left = {process.sentinel: process for process in processes}
    end = time.monotonic() + patience
    while left and (rest := end - time.monotonic()) > 0:
        for sentinel in wait_for(list(left), timeout=rest):
            del left[cast(int, sentinel)]
    for process in left.values():
        process.kill()


def _start_first(pool: ProcessPoolExecutor) -> None:
    """Start the pool's first worker, and the fork server before it, deaf to Ctrl-C from their first moment on."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # of this thread, and of the processes it starts
    # which the first unit meets too, where it can be told; EOFError: the fork server was stopped meanwhile
    with suppress(OSError, RuntimeError, EOFError):
        pool.submit(os.getpid)


def worker_count(config: Config) -> int:
    """Return how many workers to use: as configured, or one for each processor this process may use."""
    if config.run.workers != "auto":
        return config.run.workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_worker_jobs: list[Job] = []
"""In a worker process its only job: the samplesheet and the receipts are parsed once per process, not once per unit."""


def _run_in_worker(stage: str, unit: str) -> Result:
    return run_unit(_worker_jobs[0], stage, unit)


def _start_worker(config: Config, lifeline: Connection) -> None:
    _worker_jobs.append(Job(config))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends the workers
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    with suppress(EOFError, OSError):
        lifeline.recv_bytes()
    os._exit(1)
