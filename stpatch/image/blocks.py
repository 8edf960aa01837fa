"""A spatial hold-out: square blocks inside the slides are dealt to the splits, and patches go where their blocks do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from stpatch.config import SplitSection
from stpatch.errors import ConfigError
from stpatch.image.crop import Patches
from stpatch.image.dealing import at_least_one
from stpatch.seeds import generator, permutation


def assign_blocks(
    patches: Patches,
    *,
    grid_shape: tuple[int, int],
    section: SplitSection,
    seed: int,
    slide_id: str,
    spots_per_pixel: NDArray[np.int32] | None = None,
) -> NDArray[np.object_]:
    """Give every patch of one slide its split by the spatial block that it lies in.

    The grid is cut into as many equal rectangles as squares of ``section.blocks.size`` fit, so that no side is
    shorter than that (but where the grid is). Blocks are dealt to the splits by ``section.fractions``: shares are
    rounded at random, evenly over slides, and each split of a fraction above 0 gets a block where there are enough.
    A patch belongs to a split only if its whole window (what of it is on the grid) lies in blocks of that split.
    The patches across the border of two splits are the margin, and belong to none: so no pixel, and no spot, is in
    two splits.

    Parameters
    ----------
    patches
        The slide's patches.
    grid_shape
        (rows, columns) of pixels.
    section, seed, slide_id
        The rule, and the key of the deal; blocks and their splits do not depend on the patches, so that
        datasets of other patches have the same hold-out.
    spots_per_pixel
        (rows, columns); where given, only blocks with spots are dealt, so that no split gets bare glass.

    Returns
    -------
    ndarray
        (patches,) object, the split's name, or ``""`` for none.

    Raises
    ------
    ConfigError
        A patch larger than a block, which no split could hold.
    """
    if section.blocks is None:
        raise ConfigError("there are no blocks to deal", where="split.blocks", hint="set split: {blocks: {size: ...}}")
    if len(patches) == 0:
        return np.zeros(0, dtype=object)
    height, width = int(patches.height.max()), int(patches.width.max())
    side = section.blocks.size
    if max(height, width) > side:
        raise ConfigError(
            "a patch is larger than a block, so no block could hold one",
            where="split.blocks.size",
            found=f"blocks of {side} x {side} pixels, patches of {height} x {width}",
            expected=f"at least {max(height, width)}; several times that keeps the margin small",
            hint="set a larger split.blocks.size, or split by slides",
        )
    edges = [_block_edges(n, side) for n in grid_shape]
    n_blocks = (len(edges[0]) - 1, len(edges[1]) - 1)
    held = np.ones(n_blocks, dtype=bool)
    if spots_per_pixel is not None:
        occupied = (spots_per_pixel > 0).astype(np.int64)
        held = np.add.reduceat(np.add.reduceat(occupied, edges[0][:-1], axis=0), edges[1][:-1], axis=1) > 0
    names = list(section.fractions)
    split_of_block = np.full(n_blocks, -1, dtype=np.int64)
    split_of_block[held] = _deal_blocks(int(held.sum()), section.fractions, seed, slide_id)
    # A window is no longer than a block's side, so it touches no block but those of its corners.
    first_row, last_row = _touched(patches.row, patches.height, edges[0])
    first_col, last_col = _touched(patches.col, patches.width, edges[1])
    splits = split_of_block[first_row, first_col]
    whole = splits >= 0
    for block_row, block_col in ((first_row, last_col), (last_row, first_col), (last_row, last_col)):
        whole &= split_of_block[block_row, block_col] == splits
    return np.array([*names, ""], dtype=object)[np.where(whole, splits, len(names))]


def _block_edges(n: int, side: int) -> NDArray[np.int64]:
    """Return where an axis of `n` pixels is cut, both ends included."""
    n_blocks = max(n // side, 1)
    return np.arange(n_blocks + 1, dtype=np.int64) * n // n_blocks


def _touched(
    start: NDArray[np.int32], length: NDArray[np.int32], edges: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last block that a window touches along one axis."""
    last_pixel = edges[-1] - 1
    first = np.clip(start.astype(np.int64), 0, last_pixel)
    last = np.clip(start.astype(np.int64) + length - 1, 0, last_pixel)
    return (
        np.searchsorted(edges, first, side="right").astype(np.int64) - 1,
        np.searchsorted(edges, last, side="right").astype(np.int64) - 1,
    )


def _deal_blocks(n: int, fractions: Mapping[str, float], seed: int, slide_id: str) -> NDArray[np.int64]:
    """Return a split's position in `fractions` for each of `n` blocks."""
    source = generator(seed, slide_id, "blocks")
    # One uniform offset for the cumulative shares: over many slides every split gets its share without bias, also on
    # slides of one or two blocks, where largest remainders would always choose the largest split.
    offset = float(source.random())
    shares = list(fractions.values())
    cumulative = np.minimum(np.cumsum(shares) * n, n)
    cumulative[np.flatnonzero(shares)[-1] :] = n
    counts = np.diff(np.floor(cumulative + offset), prepend=0.0).astype(np.int64).tolist()
    at_least_one([counts], shares)
    splits = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    return splits[permutation(source, n)]
