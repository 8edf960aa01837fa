"""Compiles the kernels of the stages before their units start, so that this is done once and is announced."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

KERNELS = {
    "ingest": ("stpatch.slides.matrix", "_relabel"),
    "normalize": ("stpatch.kernels.columns", "add_moments"),
    "shard": ("stpatch.kernels.window", "sum_window"),
}
"""The stages that have compiled loops, and the one of each that stands for the others."""

ANNOUNCEMENT = "compiling the kernels; this happens once and takes about half a minute"


def compile_kernels(stages: Sequence[str], *, counts_dtype: str = "uint16", announce: Callable[[str], object]) -> None:
    """Compile what the cache lacks, by doing the stages' work on a slide of a few spots; say so if it takes a while.

    Parameters
    ----------
    stages
        Of `KERNELS`.
    counts_dtype
        Of the stored counts; every dtype has its own compiled loops.
    announce
        Is told once, before the wait, where the cache is empty.
    """
    if not all(is_cached(stage) for stage in stages):
        announce(ANNOUNCEMENT)
    work = {"ingest": _ingest_a_slide, "normalize": _sum_a_slide, "shard": _cut_a_patch}
    for stage in stages:
        work[stage](np.dtype(counts_dtype))


def is_cached(stage: str) -> bool:
    """Whether the compiler keeps loops of a stage from an earlier run."""
    module, name = KERNELS[stage]
    kernel = getattr(importlib.import_module(module), name)
    return any(Path(str(kernel.stats.cache_path)).glob(f"{module.rpartition('.')[2]}.{name}-*.nbi"))


def _ingest_a_slide(dtype: np.dtype[np.generic]) -> None:
    from stpatch.slides import matrix
    from stpatch.slides.formats.counts import csr_of

    data, indptr = np.array([1, 2, 3], dtype), np.array([0, 2, 3])
    for numbers in (np.uint16, np.int32):  # as AnnData is read, and as most others are
        counts = csr_of(data.copy(), np.array([1, 0, 1], numbers), indptr, (2, 2))
        raw = (counts.data, counts.indices, counts.indptr)
        matrix.row_facts(raw)
        matrix.is_canonical(raw)
        matrix.column_sums(raw, 2)
        for rows in ([1, 0], [0, 1]):
            csr = matrix.relabel(counts, rows=np.array(rows), columns=np.array([0, 1], np.int32), dtype=dtype)
    matrix.row_facts(csr)
    matrix.row_sums(csr, np.ones(2))
    matrix.stored_in_rows(csr, np.ones(2, bool), 2)
    matrix.filter_in_place(csr, keep_rows=np.ones(2, bool), columns=np.array([0, -1], np.int32))


def _sum_a_slide(dtype: np.dtype[np.generic]) -> None:
    from scipy import sparse

    from stpatch.expression.moments import slide_moments
    from stpatch.expression.normalize import Normalization

    counts = sparse.csr_matrix(np.full((2, 2), 3, dtype))  # genes without variance take a second pass
    counts.indices, counts.indptr = counts.indices.astype(np.uint16), counts.indptr.astype(np.int64)
    for array in (counts.data, counts.indices, counts.indptr):
        array.setflags(write=False)
    method = "none" if dtype.kind == "f" else "log1p_total"
    slide_moments(counts, np.array([6.0, 6.0]), Normalization(method=method, target_sum=1e4))


def _cut_a_patch(dtype: np.dtype[np.generic]) -> None:
    from stpatch.dataset.frame import encode_frame
    from stpatch.expression.normalize import Normalization
    from stpatch.expression.sample import PatchSampler
    from stpatch.expression.window import WindowMoments
    from stpatch.image.panel import PanelImage
    from stpatch.image.slide_image import SlideImage

    data, indices, indptr = np.array([1, 2, 3], dtype), np.array([0, 1, 1], np.uint16), np.array([0, 2, 3])
    for array in (data, indices, indptr):
        array.setflags(write=False)  # as a mapped slide's are, which is another type to the compiler
    image = SlideImage.of(
        data=data, indices=indices, indptr=indptr, n_genes=2, totals=np.array([3.0, 3.0]),
        grid_pixel=np.array([0, 1]), grid_shape=(1, 2), collisions="sum",
    )  # fmt: skip
    window = (0, 0, 1, 2)
    method = "none" if dtype.kind == "f" else "log1p_total"
    moments = WindowMoments(image, Normalization(method=method, target_sum=1e4)).measure(*window)
    PatchSampler(method="variance_sampled", n=1, gene_ids=np.array([1, 2], np.int32)).choose(
        moments, slide_id="", number=0
    )
    genes, room = np.array([0], np.int32), np.empty((2, 1, 2), image.count_dtype)
    image.gather(*window, genes, room=room)
    for rows in {np.dtype(np.uint8), image.count_dtype} if dtype.kind != "f" else {image.count_dtype}:
        PanelImage(image, genes, dtype=rows).gather(*window, out=room[:1])
    encode_frame(np.zeros(1024, np.uint16))
