"""Workers: they end with their pool, whatever has become of one of them, and say who was killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles.corpus import write_corpus

from stpatch.cli.options import job_of
from stpatch.engine.workers import Workers
from stpatch.errors import UnitsFailedError
from stpatch.stages.job import Job

SLIDES = ["V1", "V2", "A1", "H1"]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_of(write_corpus(tmp_path), None)


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    yield
    end = time.monotonic() + 30
    while multiprocessing.active_children() and time.monotonic() < end:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def kill_one(by: int = signal.SIGKILL) -> None:
    process = multiprocessing.active_children()[0]
    assert process.pid is not None
    os.kill(process.pid, by)


def until_it_is_noticed(pool: Workers) -> None:
    for _ in range(50):
        list(pool.results("normalize", SLIDES))


def test_results_come_back_and_workers_end_with_the_pool(job: Job) -> None:
    with Workers(job, 2) as pool:
        assert sorted(pool.results("ingest", SLIDES)) == sorted((unit, None) for unit in SLIDES)
        assert multiprocessing.active_children()
        assert list(pool.results("normalize", SLIDES[:1])) == [("V1", None)]
    assert job.book.receipt("ingest", "V1") is not None


def test_a_worker_that_is_killed_between_two_stages_is_told(job: Job) -> None:
    with Workers(job, 2) as pool:
        list(pool.results("ingest", SLIDES))
        kill_one()
        with pytest.raises(UnitsFailedError, match="was killed") as caught:
            until_it_is_noticed(pool)
        assert "stage normalize, one of" in caught.value.block()


def kill_oneself(_job: Job, unit: str) -> None:
    if unit == "V2":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)


def test_the_unit_of_a_killed_worker_is_named_with_its_size_and_the_setting(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_workers\n"
        "from stpatch.cli.options import job_of\n"
        "from stpatch.engine import workers\n"
        "from stpatch.engine.graph import STAGES\n"
        "class Pool(workers.Workers):\n"
        "    def _start(self):\n"
        "        pool = super()._start()\n"
        "        pool._initializer = test_workers.start_deadly\n"
        "        return pool\n"
        "if __name__ == '__main__':\n"
        "    with Pool(job_of(Path(sys.argv[1]), None), 2) as pool:\n"
        f"        print(list(pool.results('ingest', {SLIDES})))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, script, config], capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    said = done.stderr
    assert "a worker process was killed" in said
    assert "stage ingest, unit V2" in said
    assert "SIGKILL" in said
    assert "V2 needs about 4" in said
    assert "run.max_memory" in said


def start_deadly(*arguments: Any) -> None:
    """Start a worker that is killed by its unit V2."""
    from stpatch.engine import workers
    from stpatch.stages import ingest

    workers._start_worker(*arguments)
    ingest.run = kill_oneself  # type: ignore[assignment]


def test_a_worker_that_is_killed_while_the_build_ends_keeps_nobody_waiting(job: Job) -> None:
    began = time.monotonic()
    with Workers(job, 2) as pool:
        list(pool.results("ingest", SLIDES))
        kill_one()
        began = time.monotonic()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_worker_that_is_lost_at_the_end_keeps_the_command_for_seconds_only(tmp_path: Path, by: int) -> None:
    config = write_corpus(tmp_path)
    code = (
        "import multiprocessing, os, sys, time\n"
        "from pathlib import Path\n"
        "from stpatch.cli.options import job_of\n"
        "from stpatch.engine.workers import Workers\n"
        "with Workers(job_of(Path(sys.argv[1]), None), 2) as pool:\n"
        f"    list(pool.results('ingest', {SLIDES}))\n"
        f"    os.kill(multiprocessing.active_children()[0].pid, {int(by)})\n"
        "    print(time.monotonic(), flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - float(done.stdout) < 10


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    code = (
        "import multiprocessing, os, sys, time\n"
        "from pathlib import Path\n"
        "from stpatch.cli.options import job_of\n"
        "from stpatch.engine.workers import Workers\n"
        "with Workers(job_of(Path(sys.argv[1]), None), 2) as pool:\n"
        f"    list(pool.results('ingest', {SLIDES}))\n"
        "    print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    workers = [int(word) for word in done.stdout.split()]
    assert workers
    end = time.monotonic() + 30
    while (left := [pid for pid in workers if is_running(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_build_by_two_workers_leaves_nothing_behind_and_says_nothing(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    command = [sys.executable, "-m", "stpatch", "build", str(config), "-q", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resource_tracker" not in done.stderr
    assert "Traceback" not in done.stderr
