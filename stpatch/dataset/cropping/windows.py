"""Which windows a croppable dataset gives: a fixed list, or fresh ones in every epoch.

Sample number i is a *slot*: it belongs to the same slide in all epochs, so that a split, a selection or a weight by
slide means the same in each. What an epoch draws anew is the place, and with a random patch rule the channels.

::

    slots      0 1 2 3 4 | 5 6 7 | 8 9 ...        slide A | slide B | slide C
    epoch 0    a b c d e | f g h | ...            places drawn by (seed, slide, epoch) alone
    epoch 1    k l m n o | p q r | ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.config import CropSection
from stpatch.image.crop import Patches, cut_patches, window_sums
from stpatch.seeds import below, generator, permutation, raw_draws

EPOCH = 1 << 32
"""Numbers of the windows of epoch e begin at e times this: draws of channels are keyed by them."""
DENSE = 4
"""Below one in so many windows, distinct ones are found by drawing; else all are shuffled."""
_CLOSE = 1e-9


@dataclass(frozen=True, kw_only=True)
class WindowRows:
    """Samples of a croppable dataset; all arrays (samples,).

    Attributes
    ----------
    slide
        int64, row of slides.parquet.
    number
        int64, the window's number in its slide, by which channels are drawn.
    row, col, height, width
        int32, the window.
    n_spots, coverage
        int32 and float32, as in patches.parquet.
    draw
        int32, number of the channel draw.
    """

    slide: NDArray[np.int64]
    number: NDArray[np.int64]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    n_spots: NDArray[np.int32]
    coverage: NDArray[np.float32]
    draw: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.slide)

    def take(self, index: NDArray[Any]) -> WindowRows:
        """Return the samples at some positions."""
        return WindowRows(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    @classmethod
    def joined(cls, parts: list[WindowRows]) -> WindowRows:
        """Return the samples of several parts, one after the other."""
        empty = {field.name: np.empty(0, _DTYPES[field.name]) for field in fields(cls)}
        return cls(
            **{name: np.concatenate([first, *(getattr(part, name) for part in parts)]) for name, first in empty.items()}
        )

    @classmethod
    def of(cls, patches: Patches, *, slide: int, draws: int, first_draw: int = 0) -> WindowRows:
        """Return `draws` samples of each of a slide's patches, in order."""
        repeated = patches.take(np.repeat(np.arange(len(patches)), draws))
        draw = np.tile(np.arange(first_draw, first_draw + draws), len(patches))
        return cls(
            slide=np.full(len(repeated), slide, np.int64),
            draw=draw.astype(np.int32),
            **{field.name: getattr(repeated, field.name) for field in fields(Patches)},
        )


_DTYPES = {
    "slide": np.int64,
    "number": np.int64,
    "row": np.int32,
    "col": np.int32,
    "height": np.int32,
    "width": np.int32,
    "n_spots": np.int32,
    "coverage": np.float32,
    "draw": np.int32,
}


class Windows(ABC):
    """The samples of a dataset, epoch by epoch.

    Attributes
    ----------
    slide
        (samples,) int64, the slide of each, as a row of slides.parquet; the same in all epochs.
    """

    slide: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.slide)

    @abstractmethod
    def rows(self, numbers: NDArray[np.int64], epoch: int) -> WindowRows:
        """Return the samples of some numbers in an epoch."""


class FixedWindows(Windows):
    """The same windows in all epochs.

    Parameters
    ----------
    rows
        All samples, in epoch 0.
    draws
        Channel draws of a window.
    fresh
        Whether each epoch draws channels anew: the draws of epoch e are numbered from e times `draws`.
    """

    def __init__(self, rows: WindowRows, *, draws: int, fresh: bool) -> None:
        self._rows, self._draws, self._fresh = rows, draws, fresh
        self.slide = rows.slide

    def rows(self, numbers: NDArray[np.int64], epoch: int) -> WindowRows:
        """Return the samples of some numbers in an epoch."""
        rows = self._rows.take(numbers)
        if not self._fresh or not epoch:
            return rows
        values = {field.name: getattr(rows, field.name) for field in fields(rows)}
        return WindowRows(**{**values, "draw": rows.draw + np.int32(epoch * self._draws)})


class FreshWindows(Windows):
    """Random windows, others in every epoch.

    A slide's windows are drawn from all those that pass the filters, without repetition as long as there are enough,
    by (seed, slide, epoch) alone.

    Parameters
    ----------
    counted
        Returns a slide's (rows, columns) int32 spots of each pixel, given its row of slides.parquet.
    quotas
        Windows of each slide and epoch, by row of slides.parquet, in the order of the samples.
    section
        Size, edge and filters.
    draws
        Channel draws of a window.
    seed
        Of the windows.
    slide_ids
        By row of slides.parquet.
    weights
        Returns a slide's (rows, columns) float64 weights of a window by its pixel ``(height // 2, width // 2)``; None
        gives all windows the same.
    """

    def __init__(
        self,
        counted: Callable[[int], NDArray[np.int32]],
        *,
        quotas: Mapping[int, int],
        section: CropSection,
        draws: int,
        seed: int,
        slide_ids: list[str],
        weights: Callable[[int], NDArray[np.float64]] | None = None,
    ) -> None:
        self.quotas = dict(quotas)
        self._counted, self._quotas, self._section = counted, self.quotas, section
        self._draws, self._seed, self._slide_ids, self._weights = draws, seed, slide_ids, weights
        counts = np.array([count * draws for count in self._quotas.values()], np.int64)
        self.slide = np.repeat(np.array(list(self._quotas), np.int64), counts)
        self._start = dict(zip(self._quotas, (np.cumsum(counts) - counts).tolist(), strict=True))
        self._drawn = lru_cache(maxsize=64)(self._draw)

    def rows(self, numbers: NDArray[np.int64], epoch: int) -> WindowRows:
        """Return the samples of some numbers in an epoch."""
        slides = self.slide[numbers]
        parts, places = [], [np.empty(0, np.int64)]
        for slide in np.unique(slides).tolist():
            at = np.flatnonzero(slides == slide)
            places.append(at)
            parts.append(self._drawn(slide, epoch).take(numbers[at] - self._start[slide]))
        order = np.empty(len(numbers), np.int64)
        order[np.concatenate(places)] = np.arange(len(numbers))
        return WindowRows.joined(parts).take(order)

    def _draw(self, slide: int, epoch: int) -> WindowRows:
        """Return all samples of a slide in an epoch."""
        spots = self._counted(slide)
        allowed = allowed_windows(spots, self._section)
        weights = None
        if self._weights is not None:
            weights = centre_values(self._weights(slide), self._section.size, allowed.shape)[allowed]
        source = generator(self._seed, self._slide_ids[slide], "windows", epoch)
        chosen = np.flatnonzero(allowed)[drawn(source, int(allowed.sum()), self._quotas[slide], weights=weights)]
        row, col = np.divmod(chosen, allowed.shape[1])
        height, width = self._section.size
        n_spots = window_sums(spots, row, col, (height, width))
        occupied = window_sums(spots > 0, row, col, (height, width))
        patches = Patches(
            number=epoch * EPOCH + np.arange(len(chosen)),
            row=row.astype(np.int32),
            col=col.astype(np.int32),
            height=np.full(len(chosen), height, np.int32),
            width=np.full(len(chosen), width, np.int32),
            n_spots=n_spots.astype(np.int32),
            coverage=(occupied / (height * width)).astype(np.float32),
        )
        return WindowRows.of(patches, slide=slide, draws=self._draws)


class EpochRows:
    """The samples of an epoch as the rows of patches.parquet are given to a reader: columns of all of them, and keys.

    Parameters
    ----------
    windows
        The samples.
    epoch
        The epoch.
    keys_of
        Returns the keys of samples.
    """

    columns = ("index", "offset", "nbytes", "crc32c", "row", "col", "n_spots", "coverage", "height", "width", "draw")

    def __init__(self, windows: Windows, epoch: int, keys_of: Callable[[WindowRows], list[str]]) -> None:
        self._windows, self._epoch, self._keys_of = windows, epoch, keys_of

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, column: str) -> NDArray[Any]:
        """Return (samples,) a column; all samples are drawn, and kept."""
        found: NDArray[Any] | None = getattr(self._all, column, None)
        return np.zeros(len(self), np.int64) if found is None else found  # windows have no bytes of their own

    def of(self, at: NDArray[np.int64]) -> WindowRows:
        """Return some samples."""
        return self._all.take(at)

    def keys(self, at: NDArray[np.int64]) -> list[str]:
        """Return the keys of some samples."""
        return self._keys_of(self._windows.rows(at, self._epoch))

    def find(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the places of keys, -1 where there is none."""
        at = {key: place for place, key in enumerate(self._keys_of(self._all))}
        return np.array([at.get(key, -1) for key in keys], np.int64)

    @cached_property
    def _all(self) -> WindowRows:
        return self._windows.rows(np.arange(len(self._windows)), self._epoch)


def drawn(
    source: np.random.Generator, n: int, quota: int, *, weights: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Return (quota,) numbers below `n`, none a second time before all have come.

    Parameters
    ----------
    source
        Of raw draws.
    n, quota
        How many there are, and how many are drawn.
    weights
        (n,) float64, 0 or more: a number is drawn with a probability that is proportional to its weight, without
        replacement; those of weight 0 are never drawn. None: all are the same.
    """
    if weights is not None:
        return _weighted(source, quota, weights)
    if not n:
        return np.empty(0, np.int64)
    if quota * DENSE >= n or n > EPOCH:
        rounds = [permutation(source, n) for _ in range(-(-quota // n))]
        return np.concatenate([np.empty(0, np.int64), *rounds])[:quota]
    # the first distinct ones of a sequence of draws, which goes on until there are enough
    sequence = np.empty(0, np.int64)
    while True:
        sequence = np.concatenate([sequence, below(raw_draws(source, quota + 8), n)])
        first = np.sort(np.unique(sequence, return_index=True)[1])
        if len(first) >= quota:
            return sequence[first[:quota]]


def _weighted(source: np.random.Generator, quota: int, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Draw by the smallest keys Exp(1) / weight (Efraimidis and Spirakis 2006), again from all when all have come."""
    there = np.flatnonzero(weights > 0)
    parts, left = [np.empty(0, np.int64)], quota
    while left > 0 and len(there):
        uniforms = ((raw_draws(source, len(there)) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
        keys = -np.log(uniforms) / weights[there]
        parts.append(there[np.argsort(keys, kind="stable")[:left]])
        left -= len(parts[-1])
    return np.concatenate(parts)


def allowed_windows(spots: NDArray[np.int32], section: CropSection) -> NDArray[np.bool_]:
    """Return (origin rows, origin columns) bool: the windows inside the grid that pass the coverage and spot filters.

    Along an axis on which the grid is smaller than the window the only origin is 0, and what hangs over is empty; with
    ``edge: drop`` there is none.
    """
    height, width = section.size
    shape = tuple(max(n - size, 0) + 1 for n, size in zip(spots.shape, section.size, strict=True))
    if section.edge == "drop" and (spots.shape[0] < height or spots.shape[1] < width):
        return np.zeros(shape, np.bool_)
    n_spots, occupied = box_sums(spots, section.size), box_sums(spots > 0, section.size)
    enough = occupied >= section.min_coverage * (height * width) - _CLOSE
    allowed: NDArray[np.bool_] = (n_spots > 0) & enough & (n_spots >= (section.min_spots or 0))
    return allowed


def box_sums(values: NDArray[Any], size: tuple[int, int]) -> NDArray[np.int64]:
    """Return the sums of whole numbers over all windows that begin inside, and end inside where the grid allows it."""
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1), np.int64)
    np.cumsum(values, axis=0, out=table[1:, 1:])
    np.cumsum(table[1:, 1:], axis=1, out=table[1:, 1:])
    height, width = min(size[0], values.shape[0]), min(size[1], values.shape[1])
    sums: NDArray[np.int64] = table[height:, width:] - table[:-height, width:]
    sums -= table[height:, :-width] - table[:-height, :-width]
    return sums


def centre_values(values: NDArray[np.float64], size: tuple[int, int], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the value of each window's pixel ``(height // 2, width // 2)``, (origin rows, origin columns)."""
    row = np.minimum(np.arange(shape[0]) + size[0] // 2, values.shape[0] - 1)
    col = np.minimum(np.arange(shape[1]) + size[1] // 2, values.shape[1] - 1)
    centres: NDArray[np.float64] = values[row[:, None], col[None, :]]
    return centres


def fixed_rows(
    counted: Callable[[int], NDArray[np.int32]],
    slides: list[int],
    slide_ids: list[str],
    *,
    section: CropSection,
    draws: int,
    seed: int,
) -> WindowRows:
    """Return the samples that a build with this crop section would make of some slides, slide by slide."""
    parts = []
    for slide in slides:
        patches = cut_patches(counted(slide), section=section, seed=seed, slide_id=slide_ids[slide])
        parts.append(WindowRows.of(patches, slide=slide, draws=draws))
    return WindowRows.joined(parts)
