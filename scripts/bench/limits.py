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


def measure_machine(folder: Path) -> dict[str, float]:
    """Return bytes a second of memcpy, SHA-256 and writing to disk."""
    source, target = np.ones(SIZE, np.uint8), np.empty(SIZE, np.uint8)
    target[:] = 0
    return {
        "memcpy GB/s": SIZE / best(lambda: np.copyto(target, source)) / 1e9,
        "sha256 GB/s": SIZE / best(lambda: hashlib.sha256(source.data), 2) / 1e9,
        "disk write GB/s": SIZE / best(lambda: _write(folder / "limit.bin", source), 3) / 1e9,
    }


def measure_limits(machine: dict[str, float], patches: Sequence[NDArray[Any]], window_bytes: float) -> dict[str, float]:
    """Return what one patch takes at least: its window copied, its frame encoded, hashed and written.

    Parameters
    ----------
    machine
        As `measure_machine` found it.
    patches
        Some of the dataset's.
    window_bytes
        Mean bytes of stored counts in a patch's window.
    """
    from stpatch.dataset.codecs import encode

    frame_bytes = float(np.mean([len(encode(patch)) for patch in patches]))
    seconds = {
        "copy us": window_bytes / machine["memcpy GB/s"] / 1e3,
        "codec us": best(lambda: [encode(patch) for patch in patches]) / len(patches) * 1e6,
        "sha256 us": frame_bytes / machine["sha256 GB/s"] / 1e3,
        "disk us": frame_bytes / machine["disk write GB/s"] / 1e3,
    }
    return {"window bytes": window_bytes, "frame bytes": frame_bytes, **seconds, "sum us": sum(seconds.values())}


def _write(path: Path, data: NDArray[np.uint8]) -> None:
    with path.open("wb") as file:
        file.write(data.data)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
