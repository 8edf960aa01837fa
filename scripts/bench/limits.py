"""What the machine can do: copy memory, encode the same frames, hash, write to disk."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = 256 << 20


def best(call: Callable[[], object], repeats: int = 5) -> float:
    """Return the shortest time of a call, in seconds."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return min(times)


def measure_limits(folder: Path, patches: Sequence[NDArray[Any]]) -> dict[str, float]:
    """Return bytes a second of memcpy, SHA-256 and disk, and patches a second of the codec alone on these patches."""
    from stpatch.shards.codec import encode

    source, target = np.ones(SIZE, np.uint8), np.empty(SIZE, np.uint8)
    target[:] = 0
    encode(patches[0])
    return {
        "memcpy GB/s": SIZE / best(lambda: np.copyto(target, source)) / 1e9,
        "sha256 GB/s": SIZE / best(lambda: hashlib.sha256(source), 2) / 1e9,
        "disk write GB/s": SIZE / best(lambda: _write(folder / "limit.bin", source), 3) / 1e9,
        "codec patches/s": len(patches) / best(lambda: [encode(patch) for patch in patches]),
    }


def _write(path: Path, data: NDArray[np.uint8]) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
