"""How time and memory of every stage grow with slides and patches, from builds of tiny ones; `status` on many units.

    python scripts/faults/scale.py --slides 100 200 --side 24
    python scripts/faults/scale.py --slides 1000 2000 --side 46
    python scripts/faults/scale.py --units 20000

A slide of side n has n x n spots and n^2 / 4 patches of 2 x 2; the second line makes a million. What the journals say
of each size is printed, with the seconds per slide and per million patches between the first size and the last, and
what these make of 100 million patches. The third line times `status` alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import numpy as np
from bundles.built import make_job, poisson_counts, square, write_counts
from runs import prepare

from stpatch.engine.graph import STAGES
from stpatch.engine.journal import read_journals
from stpatch.engine.run import run_stages
from stpatch.engine.status import stage_statuses, status_text, what_changed
from stpatch.stages.job import Job
from stpatch.stages.plan import _write, read_plan

GENES = 24
PLANNED = 100_000_000


class Silent:
    """A progress bar that shows nothing."""

    def __init__(self, *_words: object) -> None: ...

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_error: object) -> None: ...

    def update(self, n: int) -> None:
        """Do nothing."""


def corpus(folder: Path, slides: int, side: int, *, patches: int = 1024) -> Job:
    """Write slides, all of other counts, and return their job."""
    counts = poisson_counts(side * side, GENES)
    rows = []
    for i in range(slides):
        counts[i % len(counts), i % GENES] += 1 + i
        write_counts(folder / f"s{i:05d}.h5ad", counts, array=square(side, side))
        rows.append({"slide_id": f"s{i:05d}"})
    return make_job(folder, rows, crop={"size": [2, 2]}, channels={"n": 4}, shards={"patches": patches})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--slides", type=int, nargs="*", default=[])
    parser.add_argument("--side", type=int, default=24)
    parser.add_argument("--units", type=int, default=0)
    options = parser.parse_args()
    prepare()
    with tempfile.TemporaryDirectory() as name:
        if options.units:
            _status(Path(name), options.units)
        found = [_built(Path(name) / str(slides), slides, options.side) for slides in options.slides]
    if len(found) > 1:
        _slopes(found[0], found[-1])
    return 0


def _built(folder: Path, slides: int, side: int) -> dict[str, tuple[float, int, int]]:
    """Build a corpus; return each stage's seconds, peak bytes and units; under no name seconds, slides and patches."""
    folder.mkdir()
    job = corpus(folder, slides, side)
    began = time.perf_counter()
    run_stages(job, tuple(STAGES), progress=Silent, workers=1)
    seconds = time.perf_counter() - began
    patches = len(read_plan(job.plan_path).split)
    print(f"{slides} slides, {patches} patches: {seconds:.1f} s in all", flush=True)
    lines = [line for log in read_journals(job.work) for line in log.lines if line["event"] == "end"]
    found = {"": (seconds, slides, patches)}
    for stage in STAGES:
        own = [line for line in lines if line["stage"] == stage]
        found[stage] = (sum(line["seconds"] for line in own), max(line["peak_memory"] for line in own), len(own))
        print(f"  {stage:<10} {found[stage][2]:>6} units {found[stage][0]:>8.2f} s  peak {found[stage][1] >> 20} MiB")
    began = time.perf_counter()
    run_stages(Job(job.config), tuple(STAGES), progress=Silent, workers=1)
    print(f"  up to date in {time.perf_counter() - began:.2f} s", flush=True)
    shutil.rmtree(folder)
    return found


def _slopes(one: dict[str, tuple[float, int, int]], other: dict[str, tuple[float, int, int]]) -> None:
    (_, slides, patches), (_, more_slides, more_patches) = one[""], other[""]
    print(f"from {slides} to {more_slides} slides, {patches} to {more_patches} patches:")
    for stage in STAGES:
        seconds, memory = other[stage][0] - one[stage][0], other[stage][1] - one[stage][1]
        each, of_memory = seconds / (more_patches - patches), memory / (more_patches - patches)
        print(
            f"  {stage:<10} {1000 * seconds / (more_slides - slides):>8.2f} ms per slide, {1e6 * each:>8.1f} s and "
            f"{of_memory * 1e6 / 2**20:>8.1f} MiB per million patches; {PLANNED / 1e6:.0f} million: "
            f"{each * PLANNED / 3600:.1f} h of one worker, {(other[stage][1] + of_memory * PLANNED) / 2**30:.1f} GiB"
        )


def _status(folder: Path, units: int) -> None:
    """Time `status` on a work dir with so many tasks, all done as far as receipts tell."""
    job = corpus(folder, 2, 8)
    run_stages(job, tuple(STAGES), progress=Silent, workers=1)
    plan = read_plan(job.plan_path)
    one = np.zeros(units, np.int64)
    plan = dataclasses.replace(
        plan, split=one.astype(np.int16), shard=np.arange(units, dtype=np.int32), index=one.astype(np.int32),
        slide=(np.arange(units) % 2).astype(np.int32), patch=one.astype(np.int32), draw=one.astype(np.int16),
    )  # fmt: skip
    _write(job.plan_path, plan)
    before = job.receipt("plan", "corpus")
    job.book.write(dataclasses.replace(before, outputs=(job.measured(job.plan_path),)))
    shard, known = STAGES["shard"], job.receipt("shard", "train-000000")
    for task in shard.units(job):
        receipt = dataclasses.replace(known, unit=task, request=shard.request(job, task))
        job.book.write(receipt)
    began = time.perf_counter()
    fresh = Job(job.config)
    statuses = stage_statuses(fresh)
    text = status_text(statuses, what_changed(fresh))
    print(text)
    print(f"status on {units} units: {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    sys.exit(main())
