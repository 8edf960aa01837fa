"""Local worker processes: units in, receipts or errors out."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Self

from stpatch.config import Config
from stpatch.engine.graph import CORPUS, STAGES
from stpatch.engine.warm import KERNELS, compile_kernels, is_cached
from stpatch.errors import ConfigError, StpatchError, UnitsFailedError
from stpatch.stages.job import Job

Result = tuple[str, StpatchError | None]

WORKER_BYTES = 400_000_000
"""What a worker needs beside its slide: the interpreter, compiled loops, one shard's encoded samples."""


def run_unit(job: Job, stage: str, unit: str) -> Result:
    """Run one unit in this process; return its name, and its error if it failed."""
    try:
        STAGES[stage].run(job, unit)
    except StpatchError as error:
        return unit, error
    return unit, None


class Workers(AbstractContextManager["Workers"]):
    """A pool of worker processes that all stages of a build share; one worker means this process.

    Workers are started when first needed: on Linux by a fork server, so that what `stpatch.engine.preload` imports
    and compiles is shared; elsewhere system libraries do not bear a fork, and they are spawned. Nothing of this
    process' threads or open files is inherited, and they end by themselves when this process dies. Once they are
    there, they do single units too: this process need not import what they have.
    """

    def __init__(self, job: Job, count: int) -> None:
        self.job = job
        self.count = count
        self._pool: ProcessPoolExecutor | None = None
        self._prepared: set[str] = set()

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

    def results(self, stage: str, units: Sequence[str], *, at_once: int | None = None) -> Iterator[Result]:
        """Yield each unit's result as it is done; `at_once` limits how many run together."""
        if not units:
            return
        ahead = 2 * self.count if at_once is None or at_once >= self.count else at_once
        if self._pool is None and (self.count == 1 or len(units) == 1 or at_once == 1):
            self._prepare(stage)
            if self.count > 1 and at_once != 1 and units[0] != CORPUS:
                _start_fork_server()  # this stage has one unit, but later ones have more: it gets ready meanwhile
            for unit in units:
                yield run_unit(self.job, stage, unit)
            return
        pool = self._pool = self._pool or self._started(stage)
        waiting = iter(units)
        running: dict[Future[Result], str] = {}
        unit = ""
        try:
            while True:
                while len(running) < ahead and (following := next(waiting, None)) is not None:
                    running[pool.submit(_run_in_worker, stage, following)] = following
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
                hint="most often the machine ran out of memory: run the same command again with fewer workers",
            ) from error
        finally:
            for future in running:
                future.cancel()

    def _started(self, stage: str) -> ProcessPoolExecutor:
        if sys.platform == "linux":
            context: BaseContext = multiprocessing.get_context("forkserver")
            _start_fork_server()
            for other in STAGES.values():  # meanwhile what this process will need to tell what is left of each stage
                other.load()
                other.code(self.job)
        else:
            context = multiprocessing.get_context("spawn")
            self._prepare(stage)
        if self._counts_dtype != "uint16":  # which the fork server has
            self._prepare(stage)
        return ProcessPoolExecutor(
            self.count, mp_context=context, initializer=_start_worker, initargs=(self.job.config,)
        )

    def _prepare(self, stage: str) -> None:
        """Have a stage's kernels compiled; where they are new, those of the stages after it too, in one wait."""
        if stage not in KERNELS or stage in self._prepared:
            return
        names = tuple(KERNELS)
        wanted = (stage,) if is_cached(stage) else names[names.index(stage) :]
        self._prepared.update(wanted)
        compile_kernels(
            wanted,
            counts_dtype=self._counts_dtype,
            announce=lambda text: print(text, file=sys.stderr),  # noqa: T201
        )

    @property
    def _counts_dtype(self) -> str:
        return "float32" if self.job.config.ingest.values == "normalized" else "uint16"


def _start_fork_server() -> None:
    """Start the process that workers are forked from, where there is one, without waiting until it is ready."""
    if sys.platform != "linux":
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload(["stpatch.engine.fork_server"])
    resource_tracker.ensure_running()  # whose start ends by unblocking Ctrl-C
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the server inherits this and never hears it
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def worker_count(config: Config) -> int:
    """Return how many workers to use: as configured, or one for each processor this process may use."""
    if config.run.workers != "auto":
        return config.run.workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_in(memory: str, *, largest: int, times: float) -> int:
    """Return how many workers fit into ``run.max_memory``, at least one.

    Parameters
    ----------
    memory
        Such as ``16GB`` or ``800MB``.
    largest
        Bytes of the largest file that a worker opens.
    times
        How many times that a worker holds; `WORKER_BYTES` come on top.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)i?B?", memory.strip())
    if match is None:
        raise ConfigError(
            "a memory size cannot be read", where="key run.max_memory", found=memory, expected="like 16GB"
        )
    limit = float(match[1]) * 1000 ** "kMGT".find(match[2]) * 1000 if match[2] else float(match[1])
    return max(1, int(limit // (WORKER_BYTES + times * largest)))


_worker_jobs: list[Job] = []
"""In a worker process its only job: the samplesheet and the receipts are parsed once a process, not once a unit."""


def _run_in_worker(stage: str, unit: str) -> Result:
    return run_unit(_worker_jobs[0], stage, unit)


def _start_worker(config: Config) -> None:
    _worker_jobs.append(Job(config))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
