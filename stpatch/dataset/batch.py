"""What a reader gives for many samples at once: dense, or without the zeros."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class _Stack:
    """What dense and sparse batches have in common.

    Attributes
    ----------
    keys
        (B,) texts.
    totals
        (B, H, W) float32; 0 marks an empty pixel.
    genes
        (B, C) int32 gene ids; `Manifest.pad_id` (0 unless a vocabulary was given) = pad.
    measured
        (B, C) whether the sample's slide measured the channel's gene: a 0 elsewhere does not mean absence. With given
        genes also whether the gene is among the sample's own channels.
    labels
        (B, H, W) int16 by label name, -1 = none.
    numbers
        (B,) int64, the samples' numbers in the dataset.
    slides
        (B,) int64, the samples' slides as rows of `Dataset.slides`.
    further
        Further planes by name, each with the batch as its first axis.
    """

    keys: list[str]
    totals: NDArray[np.float32]
    genes: NDArray[np.int32]
    measured: NDArray[np.bool_]
    labels: Mapping[str, NDArray[np.int16]] = field(default_factory=dict)
    numbers: NDArray[np.int64]
    slides: NDArray[np.int64]
    further: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, kw_only=True)
class Batch(_Stack):
    """Samples stacked along a first axis; see `_Stack` for what it shares with a `SparseBatch`.

    Attributes
    ----------
    x
        (B, C, H, W), as `Sample.x`; smaller samples of unit slide are padded with 0.
    """

    x: NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class SparseBatch(_Stack):
    """Samples' counts without the zeros; the other planes are dense.

    Sample ``b`` has ``counts[indptr[b]:indptr[b + 1]]`` at ``positions`` of its flat (C, H, W) array.

    Attributes
    ----------
    shape
        (C, H, W) of every sample.
    indptr
        (B + 1,) int64, where each sample's counts begin.
    positions
        (nnz,) int32, ascending within a sample.
    counts
        (nnz,) as stored: uint16 or uint32.
    target_sums
        (B,) float64, the number that the normalization scales each sample's slide to; NaN where it has none.
    method
        The normalization's name.
    """

    shape: tuple[int, int, int]
    indptr: NDArray[np.int64]
    positions: NDArray[np.int32]
    counts: NDArray[Any]
    target_sums: NDArray[np.float64]
    method: str

    def dense(self) -> NDArray[Any]:
        """Return the (B, C, H, W) counts."""
        size = int(np.prod(self.shape))
        x = np.zeros((len(self), size), dtype=self.counts.dtype)
        x[np.repeat(np.arange(len(self)), np.diff(self.indptr)), self.positions] = self.counts
        return x.reshape(len(self), *self.shape)
