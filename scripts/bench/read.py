"""Times a trainer's reading of a built dataset, batches in random order: `python -m scripts.bench.read DATASET`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from scripts.bench.stages import run_child

BATCH = 32
SECONDS = 5.0


def measure_reading(dataset: Path) -> float:
    """Return the samples a second that one process reads and decodes."""
    return float(run_child("read", str(dataset))[-1])


def main() -> None:
    import stpatch

    with stpatch.open(sys.argv[1], split="train") as dataset:
        order = np.random.default_rng(0).permutation(len(dataset))
        batches = [order[start : start + BATCH].tolist() for start in range(0, len(order), BATCH)]
        dataset.batch(batches[0])
        read, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < SECONDS:
            read += len(dataset.batch(batches[read // BATCH % len(batches)]).keys)
        print(read / (time.perf_counter() - begun))


if __name__ == "__main__":
    main()
