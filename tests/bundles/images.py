"""Tiny slides as images, and the plain loop that says what a window of them holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from scipy import sparse

from stpatch.image.slide_image import SlideImage
from stpatch.image.values import Recipe
from stpatch.kernels.formula import Formula
from stpatch.kernels.window import Window

AS_THEY_ARE = Formula()


def make_image(
    counts: Any,
    pixel: Any,
    shape: tuple[int, int],
    collisions: str = "sum",
    recipe: Recipe = AS_THEY_ARE,
) -> SlideImage:
    matrix = sparse.csr_matrix(counts)
    matrix.sort_indices()
    totals = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
    return SlideImage.of(
        (matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int64)),
        n_genes=matrix.shape[1],
        totals=totals,
        grid_pixel=np.asarray(pixel, dtype=np.int64),
        grid_shape=shape,
        collisions=collisions,
        recipe=recipe,
    )


def plain_gather(counts, pixel, shape, window, genes):
    row, column, height, width = window
    out = np.zeros((len(genes), height, width), dtype=np.int64)
    for spot, place in enumerate(pixel):
        r, c = place // shape[1] - row, place % shape[1] - column
        if place < 0 or not (0 <= r < height and 0 <= c < width):
            continue
        for channel, gene in enumerate(genes):
            if gene >= 0:
                out[channel, r, c] += int(counts[spot, gene])
    return out


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    n_spots, n_genes = draw(st.integers(0, 20)), draw(st.integers(1, 9))
    dtype = draw(st.sampled_from([np.uint16, np.uint32]))
    counts = (rng.poisson(0.6, (n_spots, n_genes)) * rng.choice([1, 1, 1, 40], (n_spots, n_genes))).astype(dtype)
    pixel = rng.integers(-1, shape[0] * shape[1], n_spots)
    window = Window(
        draw(st.integers(-4, 7)), draw(st.integers(-4, 7)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    )
    genes = rng.permutation(np.r_[np.arange(n_genes), [-1] * 3]).astype(np.int32)
    return counts, pixel, shape, window, genes[: draw(st.integers(1, 6))]
