"""A Dask cluster gives what this machine's workers give, whatever becomes of its own workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles.corpus import digests, write_config, write_corpus
from commands import built, stpatch

from stpatch.cli.options import job_of
from stpatch.engine.dask_executor import DaskExecutor
from stpatch.errors import UnitsFailedError
from stpatch.stages.job import Job

distributed = pytest.importorskip("distributed", reason="Dask is not installed here (pip install 'stpatch[dask]')")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of sockets to workers that were killed

SLIDES = ["V1", "V2", "A1", "H1"]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two worker processes that nobody starts again, with memory for one unit each."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, resources={"memory": 500e6}
    ) as cluster:
        for nanny in cluster.workers.values():
            nanny.auto_restart = False
        yield cluster


def job_on(cluster: Any, folder: Path, **sections: Any) -> Job:
    run = {"executor": "dask", "scheduler": cluster.scheduler_address}
    return job_of(write_corpus(folder, run=run, **sections), None)


def worker_pids(cluster: Any) -> list[int]:
    return [nanny.pid for nanny in cluster.workers.values()]


def test_a_build_on_workers_of_its_own_gives_what_local_workers_give(tmp_path: Path) -> None:
    config = write_corpus(tmp_path, run={"executor": "dask", "workers": 2})
    built("build", config, "-q")
    write_config(tmp_path, name="local.yaml", dataset={"output": "alone"}, run={"workers": 1})
    built("build", tmp_path / "local.yaml", "-q")
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")


def test_the_units_of_a_lost_worker_run_elsewhere(cluster: Any, tmp_path: Path) -> None:
    job = job_on(cluster, tmp_path)
    stopped, other = worker_pids(cluster)
    os.kill(stopped, signal.SIGSTOP)  # it takes units, and does not end them
    try:
        with DaskExecutor(job, 1) as executor:
            killer = threading.Thread(target=_kill_when_only_its_units_are_left, args=(job, stopped))
            killer.start()
            done = list(executor.results("ingest", SLIDES))
            killer.join()
            assert sorted(done) == [(name, None) for name in sorted(SLIDES)]
            assert sorted(executor.results("normalize", SLIDES)) == sorted(done)
    finally:
        os.kill(other, 0)
    assert all(job.book.receipt("normalize", name) is not None for name in SLIDES)


def _kill_when_only_its_units_are_left(job: Job, pid: int) -> None:
    end = time.monotonic() + 60
    while not any(job.book.receipt("ingest", name) for name in SLIDES) and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)


def test_a_unit_that_loses_its_workers_is_told(cluster: Any, tmp_path: Path) -> None:
    cluster.scheduler.allowed_failures = 0
    job = job_on(cluster, tmp_path)
    pids = worker_pids(cluster)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    killer = threading.Timer(2, lambda: [os.kill(pid, signal.SIGKILL) for pid in pids])
    killer.start()
    with DaskExecutor(job, 1) as executor, pytest.raises(UnitsFailedError, match="lost every worker") as caught:
        list(executor.results("ingest", SLIDES))
    assert "stage ingest, unit" in caught.value.block()


def test_a_failing_unit_is_told_as_a_local_worker_tells_it(cluster: Any, tmp_path: Path) -> None:
    job = job_on(cluster, tmp_path)
    (tmp_path / "h1.h5ad").write_bytes(b"no slide")
    with DaskExecutor(job, 1) as executor:
        results = dict(executor.results("ingest", SLIDES))
    assert {name for name, error in results.items() if error is not None} == {"H1"}
    assert "h1.h5ad" in str(results["H1"])


def test_no_cluster_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stpatch.engine.dask_executor.PATIENCE", 1)
    config = write_corpus(tmp_path, run={"executor": "dask", "scheduler": "tcp://127.0.0.1:9"})
    done = stpatch("build", config, "-q")
    assert done.code == 2
    assert "no Dask cluster answers" in done.err
    assert "tcp://127.0.0.1:9" in done.err


def test_an_address_needs_the_executor(tmp_path: Path) -> None:
    done = stpatch("check", write_corpus(tmp_path, run={"scheduler": "tcp://127.0.0.1:9"}))
    assert done.code == 2
    assert "executor local has none" in done.err
