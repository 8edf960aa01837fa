"""Times the shard stage in worker processes: `python -m scripts.bench.pool CONFIG WORKERS REPEATS`.

As in a build, one worker is the process itself, and more are a pool. The clock runs when the workers have started and
loaded their kernels: each has done some shards.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from scripts.bench.stages import run_child

SPIN = 4_000_000


def measure_pool(config: Path, workers: int, *, repeats: int) -> list[float]:
    """Return the seconds that the shard stage of a planned build took in so many workers, each time."""
    return [float(line) for line in run_child("pool", str(config), str(workers), str(repeats))]


def measure_processors() -> float:
    """Return how many times one process' work two do together, of arithmetic that touches no memory: 2 at best."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as pool:
        times = {}
        for count in (2, 1):
            runs = []
            for _ in range(4):
                begun = time.perf_counter()
                list(pool.map(spin, [SPIN] * count))
                runs.append(time.perf_counter() - begun)
            times[count] = min(runs[1:])  # the first waits for the processes to start
    return 2 * times[1] / times[2]


def spin(times: int) -> int:
    """Count."""
    number = 0
    for _ in range(times):
        number += 1
    return number


def main() -> None:
    from stpatch.config_file import load_config
    from stpatch.engine import workers as of_build
    from stpatch.engine.graph import STAGES
    from stpatch.stages.job import Job

    count, repeats = int(sys.argv[2]), int(sys.argv[3])
    job = Job(load_config(Path(sys.argv[1])))
    units = STAGES["shard"].units(job)
    if count == 1:
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
