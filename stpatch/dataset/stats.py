"""A quick look at samples: how many, of which slides, how full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def quick_look(
    n_spots: NDArray[Any], coverage: NDArray[Any], *, slides: NDArray[np.int64], slide_ids: Sequence[str]
) -> dict[str, Any]:
    """Return samples, slides, spots per sample, mean coverage, and samples by slide.

    Parameters
    ----------
    n_spots, coverage
        (samples,) columns of patches.parquet.
    slides
        (samples,) positions in `slide_ids`.
    """
    counts = np.bincount(slides, minlength=len(slide_ids))
    quantiles = np.quantile(n_spots, [0, 0.5, 1]).tolist() if len(n_spots) else []
    return {
        "samples": len(n_spots),
        "slides": int((counts > 0).sum()),
        "spots_per_sample": dict(zip(("min", "median", "max"), quantiles, strict=False)),
        "coverage": float(coverage.mean()) if len(coverage) else None,
        "samples_by_slide": {slide_ids[slide]: int(counts[slide]) for slide in np.flatnonzero(counts).tolist()},
    }
