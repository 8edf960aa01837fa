"""Compiles the kernels of the shard stage before its workers start, so that this is done once and is announced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np


def compile_kernels(*, counts_dtypes: tuple[str, ...] = ("uint16",), announce: Callable[[str], object]) -> None:
    """Compile what the cache lacks, by cutting a patch from a slide of two spots; say so if it takes a while.

    Parameters
    ----------
    counts_dtypes
        Of the stored counts; every dtype has its own compiled loops.
    announce
        Is told once, before the wait, where the cache is empty.
    """
    if not any(cache_folder().glob("kernels.sum_window-*.nbi")):
        announce("compiling the kernels; this happens once and takes about half a minute")
    for dtype in counts_dtypes:
        _cut_a_patch(np.dtype(dtype))


def cache_folder() -> Path:
    """Return where the compiler keeps what it compiled."""
    from stpatch.expression import kernels

    return Path(str(kernels.sum_window.stats.cache_path))


def _cut_a_patch(dtype: np.dtype[np.generic]) -> None:
    from stpatch.expression.normalize import Normalization
    from stpatch.expression.sample import PatchRule
    from stpatch.expression.window import WindowMoments
    from stpatch.image.panel import PanelImage
    from stpatch.image.patch import SlideImage

    data, indices, indptr = np.array([1, 2, 300], dtype), np.array([0, 1, 1], np.uint16), np.array([0, 2, 3])
    for array in (data, indices, indptr):
        array.setflags(write=False)  # as a mapped slide's are, which is another type to the compiler
    image = SlideImage.of(
        data=data, indices=indices, indptr=indptr, n_genes=2, totals=np.array([3.0, 300.0]),
        grid_pixel=np.array([0, 1]), grid_shape=(1, 2), collisions="sum",
    )  # fmt: skip
    window = (0, 0, 1, 2)
    method = "none" if dtype.kind == "f" else "log1p_total"
    moments = WindowMoments(image, Normalization(method=method, target_sum=1e4)).measure(*window)
    PatchRule(method="variance_sampled", n=1, gene_ids=np.array([1, 2], np.int32)).choose(
        moments, slide_id="", number=0
    )
    genes, room = np.array([0], np.int32), np.empty((2, 1, 2), image.count_dtype)
    image.gather(*window, genes, room=room)
    PanelImage(image, genes).gather(*window, out=room[:1])
