"""Tiny samples and datasets, written through the project's own writers."""

from __future__ import annotations

import numpy as np

from stpatch.shards.layout import Layout
from stpatch.shards.sample import Sample

N_GENES = 9


def make_layout(**changes) -> Layout:
    values = {
        "format": "tar",
        "encoding": "blosc",
        "dtype": "uint16",
        "shape": (4, 3, 5),
        "patches": 4,
        "labels": ("region",),
        "genes": True,
    }
    return Layout(**{**values, **changes})


def make_sample(number: int, layout: Layout, *, slide_id: str = "s1") -> Sample:
    """Return a sample that is a function of its number and slide alone."""
    rng = np.random.default_rng([number, *slide_id.encode()])
    channels, height, width = layout.shape
    if layout.variable:
        height, width = 1 + number % height, 1 + (number + 1) % width
    plane = (height, width)
    x = rng.poisson(0.7, size=(channels, *plane)).astype(layout.dtype)
    totals = (x.sum(axis=0) + rng.integers(0, 3, plane)).astype(np.float32)
    x[:, totals == 0] = 0
    genes = np.sort(rng.choice(np.arange(1, N_GENES), channels, replace=False)).astype(np.int32)
    genes[-1] = 0 if number % 3 == 0 else genes[-1]
    x[genes == 0] = 0
    labels = {name: rng.integers(-1, 2, plane).astype(np.int16) for name in layout.labels}
    return Sample(
        key=f"{slide_id}-{number:06d}",
        x=x,
        totals=totals,
        genes=genes if layout.genes else None,
        labels=labels,
        meta={"slide_id": slide_id, "row": number, "col": 2 * number, "n_spots": int((totals > 0).sum())},
    )
