"""Times reading against the codec: `python -m scripts.bench.reading DATASET [...]`.

Each way of reading is timed in turn with numcodecs' decoding of the same frames, which lie in memory, in processor time
of one thread; a ratio of 1 is the codec's own speed. Datasets are tar shards with encoding blosc.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numcodecs import blosc

BATCH = 32
SAMPLES = 512
REPEATS = 7


def measure_ratios(folder: Path, *, samples: int = SAMPLES, repeats: int = REPEATS) -> dict[str, Any]:
    """Return microseconds per patch of the codec and of every way to read, and their ratios to the codec."""
    import stpatch

    blosc.use_threads = False  # one thread here, as in the reader
    datasets = {values: stpatch.open(folder, "train", values=values) for values in ("counts", "normalized", "sparse")}
    counts = datasets["counts"]
    count = min(samples, len(counts))
    frames = stored_frames(folder, count)
    order = np.random.default_rng(0).permutation(count)
    ways: dict[str, Callable[[], None]] = {
        "codec": lambda: decode(frames),
        "counts": lambda: read(counts, np.arange(count)),
        "counts, random order": lambda: read(counts, order),
        "normalized": lambda: read(datasets["normalized"], np.arange(count)),
        "sparse": lambda: read(datasets["sparse"], np.arange(count)),
    }
    if counts.verified:  # what the checksum of every sample costs
        plain = {values: stpatch.open(folder, "train", values=values, verify=False) for values in datasets}
        ways |= {
            f"{values}, not verified": lambda values=values: read(plain[values], np.arange(count))
            for values in datasets
        }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for name in list(ways) * (repeats + 1):  # in turn, so that a busy machine slows all of them
        begun = time.process_time()
        ways[name]()
        spent[name].append((time.process_time() - begun) / count * 1e6)
    micros = {name: median(times[1:]) for name, times in spent.items()}
    return {
        "samples": count,
        "frame bytes": float(np.mean([len(frame) for frame in frames])),
        "us": micros,
        "of codec": {name: micros["codec"] / value for name, value in micros.items()},
    }


def stored_frames(folder: Path, count: int) -> list[bytes]:
    """Return the Blosc frames of the first samples, by Python's own reader of archives."""
    import tarfile

    frames: list[bytes] = []
    for path in sorted((folder / "train").glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".x.blosc") else None
                if file is not None and len(frames) < count:
                    frames.append(file.read())
    return frames


def decode(frames: list[bytes]) -> None:
    """Decode all frames, one after the other."""
    for frame in frames:
        blosc.decompress(frame)


def read(dataset: Any, order: Any) -> None:
    """Read all samples, in batches."""
    for start in range(0, len(order), BATCH):
        dataset.batch(order[start : start + BATCH])


def main() -> None:
    for name in sys.argv[1:]:
        found = measure_ratios(Path(name))
        print(f"{name}: {found['samples']} samples, {found['frame bytes']:,.0f} bytes per frame")
        for way, micros in found["us"].items():
            print(f"  {way:22s} {micros:8.1f} us per patch   {found['of codec'][way]:.2f} of the codec")


if __name__ == "__main__":
    main()
