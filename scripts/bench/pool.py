"""Times the shard stage in a pool of worker processes: `python -m scripts.bench.pool CONFIG WORKERS`.

The workers have started and loaded their kernels before the clock runs: each has done one shard.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path


def main() -> None:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    from stpatch.config_file import load_config
    from stpatch.pipeline.job import Job
    from stpatch.pipeline.stages import STAGES
    from stpatch.pipeline.workers import run_unit

    config, workers = load_config(Path(sys.argv[1])), int(sys.argv[2])
    job = Job(config)
    units = STAGES["shard"].units(job)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(run_unit, job, "shard", unit) for unit in units[:workers]]:
            raise_error(future.result()[1])
        shutil.rmtree(job.work / "receipts" / "shard")  # done again
        begun = time.perf_counter()
        for _, error in pool.map(run_unit, [job] * len(units), ["shard"] * len(units), units):
            raise_error(error)
        print(time.perf_counter() - begun)


def raise_error(error: Exception | None) -> None:
    if error is not None:
        raise error


if __name__ == "__main__":
    main()
