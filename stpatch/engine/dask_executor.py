"""Units on a Dask cluster: one that runs already (``run.scheduler``), or worker processes of this machine.

A unit is one task of Dask's, which knows nothing of other units: this process hands them out stage by stage, as it does
to its own workers. So a cluster may grow and shrink meanwhile, and a worker that is lost has its units run elsewhere.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from stpatch.config import Config
from stpatch.engine.memory import WORKER_BYTES, machine_limit, memory_limit
from stpatch.engine.resources import unit_memory
from stpatch.engine.workers import Result, run_unit
from stpatch.errors import MissingExtraError, StpatchError, UnitsFailedError
from stpatch.stages.job import Job
from stpatch.storage import digest

if TYPE_CHECKING:
    from distributed import Client

MEMORY = "memory"
"""The resource, in bytes, by which units share a worker: ``dask worker --resources "memory=16e9"``."""
PATIENCE = 30
"""Seconds that a cluster has to answer."""
AHEAD = 4
"""Units handed out per worker: none waits for its next, and a worker that joins finds some to take over."""


class DaskExecutor:
    """Runs units on a Dask cluster.

    Parameters
    ----------
    job
        The config with its slides. Workers see its files under the same paths and have the same release of stpatch.
    count
        Worker processes to start where ``run.scheduler`` names no cluster.
    """

    def __init__(self, job: Job, count: int) -> None:
        self.job, self.count = job, count
        self._config = job.config.model_dump(mode="json")
        self._name = uuid.uuid4().hex[:12]  # of this run among others on the same cluster
        self._open: list[Any] = []
        self._client: Client | None = None

    def __enter__(self) -> Self:
        """Find the cluster.

        Raises
        ------
        MissingExtraError
            Dask's distributed is not installed.
        StpatchError
            No scheduler answers.
        """
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise MissingExtraError.of("dask", needs="distributed", purpose="run.executor: dask") from error
        address = self.job.config.run.scheduler
        cluster: Any = address
        if address is None:
            cluster = LocalCluster(
                n_workers=self.count, threads_per_worker=1, processes=True, dashboard_address=None,
                resources={MEMORY: float(_memory_per_worker(self.job, self.count))},
            )  # fmt: skip
            self._open.append(cluster)
        try:
            self._client = Client(cluster, timeout=f"{PATIENCE}s")
            self._open.append(self._client)
            self._client.wait_for_workers(1, timeout=PATIENCE)
        except (OSError, TimeoutError, ValueError) as error:
            raise StpatchError(
                "no Dask cluster answers",
                where=f"key run.scheduler, {address}",
                found=str(error) or type(error).__name__,
                expected="the address of a scheduler with workers, such as tcp://node1:8786",
                hint="start one: dask scheduler, and workers: dask worker ADDRESS --nthreads 1",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the cluster; end the workers that were started here."""
        while self._open:
            self._open.pop().close()

    def results(self, stage: str, units: Sequence[str]) -> Iterator[Result]:
        """Yield each unit's result as it is done; see `Executor.results`.

        The workers' memory limits how many run together.
        """
        from distributed import KilledWorker, as_completed

        client = self._client
        if client is None:
            raise RuntimeError("the executor is used outside of its with statement")
        waiting = list(reversed(units))
        running: dict[str, tuple[str, Any]] = {}
        resources = self._resources(client, stage)
        finished = as_completed(loop=client.loop)
        try:
            while waiting or running:
                ahead = AHEAD * max(len(client.scheduler_info(n_workers=-1)["workers"]), 1)
                while waiting and len(running) < ahead:
                    unit = waiting.pop()
                    future = client.submit(
                        run_on_worker, self._config, stage, unit, pure=False, retries=0, resources=resources,
                        key=f"stpatch-{stage}-{unit}-{self._name}",
                    )  # fmt: skip
                    running[future.key] = (unit, future)
                    finished.add(future)
                future = next(finished)
                unit, _ = running.pop(future.key)
                try:
                    yield future.result()
                except KilledWorker as error:
                    raise UnitsFailedError(
                        "a unit lost every worker that it ran on",
                        where=f"stage {stage}, unit {unit}",
                        found=str(error),
                        hint="most often its memory was not enough: give workers more, or fewer threads each",
                    ) from error
        finally:
            for _, future in running.values():
                future.cancel()

    def _resources(self, client: Client, stage: str) -> Mapping[str, float]:
        """Return what a unit takes of the workers' memory, none where workers declare none.

        A unit that needs more than the largest worker declares takes all of that: it runs there alone.
        """
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        largest = max((worker.get("resources", {}).get(MEMORY, 0) for worker in workers), default=0)
        return {MEMORY: min(float(unit_memory(self.job, stage)), float(largest))} if largest else {}


_one_at_a_time = threading.Lock()
"""Held by the unit that a worker runs: a worker with several threads still has one job, with one set of receipts."""
_jobs: dict[str, Job] = {}
"""In a worker the job that it works on: the samplesheet and the receipts are parsed once, not once per unit."""


def run_on_worker(config: Mapping[str, Any], stage: str, unit: str) -> Result:
    """Run one unit in a worker of the cluster."""
    key = digest(dict(config))
    with _one_at_a_time:
        if key not in _jobs:
            _jobs.clear()
            _jobs[key] = Job(Config.model_validate(config))
        return run_unit(_jobs[key], stage, unit)


def _memory_per_worker(job: Job, count: int) -> int:
    """Return a worker's share of ``run.max_memory``, or of this machine's."""
    limit = memory_limit(job) or machine_limit()
    return (limit.bytes if limit is not None else WORKER_BYTES * count) // count
