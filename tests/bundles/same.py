"""What must hold of every slide that was read, and in what two slides differ."""

from __future__ import annotations

from typing import Any

import numpy as np

from stpatch.slides.slide import RawSlide, Slide


def broken_invariant(raw: RawSlide, slide: Slide) -> str:
    """Return what is wrong with a slide that was read, "" if nothing is."""
    record, counts = slide.record, slide.counts
    total = raw.counts.data.sum(dtype=np.float64) + sum(part.get("counts", 0) for part in raw.dropped.values())
    dropped = sum(part.get("counts", 0) for part in record["dropped"].values())
    rows = np.repeat(np.arange(slide.n_spots), np.diff(counts.indptr))
    step = np.diff(rows) == 0
    checks = {
        "counts in": np.isclose(record["counts_in"], total, rtol=1e-12),
        "counts kept": np.isclose(record["counts_kept"], counts.data.sum(dtype=np.float64), rtol=1e-12),
        "conservation": np.isclose(record["counts_in"], record["counts_kept"] + dropped, rtol=1e-12),
        "coordinates": np.isfinite(slide.xy).all() and slide.xy.shape == (slide.n_spots, 2),
        "unique ids": len(set(slide.spot_ids)) == slide.n_spots,
        "unique genes": slide.genes.index.is_unique and len(slide.genes) == slide.n_genes,
        "sorted indices": (np.diff(counts.indices)[step] > 0).all(),
        "no stored zero": (counts.data > 0).all(),
        "dtype": counts.dtype in (np.uint16, np.uint32),
        "scale": slide.um_per_unit is None or 0 < slide.um_per_unit < np.inf,
        "array": slide.array is None or slide.array.shape == (slide.n_spots, 2),
    }
    return ", ".join(name for name, holds in checks.items() if not holds)


def difference(one: Slide, two: Slide) -> str:
    """Return in what two slides differ, but for the order of spots and genes; "" if in nothing."""
    if set(one.spot_ids) != set(two.spot_ids) or one.n_spots != two.n_spots:
        return "spots"
    if set(one.genes.index) != set(two.genes.index):
        return "genes"
    spots = [np.argsort(slide.spot_ids.astype(str)) for slide in (one, two)]
    genes = [np.argsort(slide.genes.index.to_numpy().astype(str)) for slide in (one, two)]
    dense = [
        slide.counts.toarray()[rows][:, columns] for slide, rows, columns in zip((one, two), spots, genes, strict=True)
    ]
    checks = {
        "counts": np.array_equal(*dense),
        "places": np.allclose(one.xy[spots[0]], two.xy[spots[1]], rtol=1e-12),
        "array": (one.array is None) == (two.array is None)
        and (one.array is None or two.array is None or np.array_equal(one.array[spots[0]], two.array[spots[1]])),
        "facts": all(
            _close(getattr(one, name), getattr(two, name)) for name in ("um_per_unit", "pitch", "geometry", "organism")
        ),
    }
    return ", ".join(name for name, holds in checks.items() if not holds)


def _close(one: Any, two: Any) -> bool:
    return bool(np.isclose(one, two, rtol=1e-9)) if isinstance(one, float) and isinstance(two, float) else one == two
