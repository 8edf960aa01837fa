"""Times the shard stage in worker processes: `python -m scripts.bench.pool CONFIG WORKERS REPEATS`; 0 workers: here.

As in a build, one worker is the process itself, which encodes on a second thread, and two are a pool of processes with
one thread each; a pool of one tells what the second process adds. The clock runs when the workers have started and
loaded their kernels: each has done some shards.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.bench.stages import run_child

HERE = 0


def measure_pool(config: Path, workers: int, *, repeats: int) -> list[float]:
    """Return the seconds that the shard stage of a planned build took in so many workers, each time."""
    return [float(line) for line in run_child("pool", str(config), str(workers), str(repeats))]


def main() -> None:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    from stpatch.config_file import load_config
    from stpatch.pipeline import workers as of_build
    from stpatch.pipeline.job import Job
    from stpatch.pipeline.stages import STAGES

    count, repeats = int(sys.argv[2]), int(sys.argv[3])
    job = Job(load_config(Path(sys.argv[1])))
    units = STAGES["shard"].units(job)
    if count == HERE:
        time_stage(job, lambda: [of_build.run_unit(job, "shard", unit) for unit in units], repeats)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, of_build._start_worker, (job.config,)) as pool:
        time_stage(job, lambda: list(pool.map(of_build._run_in_worker, ["shard"] * len(units), units)), repeats)


def time_stage(job: Any, run: Callable[[], list[Any]], repeats: int) -> None:
    """Print the seconds of each run of the stage but the first, in which the workers start."""
    for number in range(repeats + 1):
        shutil.rmtree(job.work / "receipts" / "shard", ignore_errors=True)  # done again
        begun = time.perf_counter()
        for _, error in run():
            if error is not None:
                raise error
        if number:
            print(time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    main()
