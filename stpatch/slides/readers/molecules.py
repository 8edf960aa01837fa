"""The molecule binner: molecules in blocks of any number, summed to square bins while they stream.

Each block becomes a run of unique (bin, gene) keys in ascending order with their counts; runs merge as they grow.
A key is 63 bits wide (row, column and gene, 21 bits each), so a run takes 12 bytes a pair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

from stpatch.errors import InputError
from stpatch.slides.readers.counts import csr_of, dtype_for

BITS = 21
"""Bits of a key for each of row, column and gene."""
HALF = 1 << (BITS - 1)
MASK = (1 << BITS) - 1
LARGEST_COUNT = 2**32 - 1

Run = tuple[NDArray[np.int64], NDArray[np.uint32]]


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Molecules summed to bins.

    Attributes
    ----------
    counts
        CSR, (occupied bins, genes), uint16 or uint32, sorted; bins ordered by (row, column).
    array
        (bins, 2) int32 ``(array_row, array_col)``, both from 0.
    xy
        (bins, 2) float64 bin centres in coordinate units.
    origin
        (x, y) of the corner of bin (0, 0) in coordinate units.
    n_molecules
        Sum of all counts.
    """

    counts: sparse.csr_matrix
    array: NDArray[np.int32]
    xy: NDArray[np.float64]
    origin: tuple[float, float]
    n_molecules: int

    @property
    def spot_ids(self) -> NDArray[np.object_]:
        """(bins,) text ids, ``r<row>_c<column>``."""
        return np.array([f"r{row}_c{column}" for row, column in self.array.tolist()], dtype=object)


class MoleculeBinner:
    """Sums molecules to bins of ``pitch``; give it blocks with `add`, then call `finish` once.

    Memory does not grow with the number of molecules: it is at most 36 bytes a (bin, gene) pair that occurs (24 in
    runs, each more than twice as long as the next, 12 for the run that two of them merge to) plus about 60 bytes a
    molecule of the largest block.

    Parameters
    ----------
    pitch
        Side of a bin in coordinate units.
    origin
        (x, y) in coordinate units that bins are counted from: bin column = floor((x - origin x) / pitch). Bins may
        have negative numbers; `finish` shifts them to start at 0 and returns the corner.
    where
        File, for messages.
    """

    def __init__(self, *, pitch: float, origin: tuple[float, float] = (0.0, 0.0), where: object = None) -> None:
        if not (math.isfinite(pitch) and pitch > 0):
            raise InputError("the bin pitch is no positive number", where=where, found=pitch)
        self.pitch = float(pitch)
        self.origin = (float(origin[0]), float(origin[1]))
        self.where = where
        self.n_molecules = 0
        self._runs: list[Run] = []

    def add(
        self,
        gene: NDArray[np.int32],
        x: NDArray[Any],
        y: NDArray[Any],
        count: NDArray[np.int64] | None = None,
    ) -> None:
        """Add a block.

        Parameters
        ----------
        gene
            (n,) gene numbers from 0.
        x, y
            (n,) finite coordinates.
        count
            (n,) counts from 0; None means 1 each.

        Raises
        ------
        InputError
            A bin lies more than 2**20 bins from the origin, there are more than 2**21 genes, a sum passes 32 bits.
        """
        if not len(gene):
            return
        if int(gene.max()) > MASK:
            raise InputError("there are too many genes", where=self.where, found=int(gene.max()), expected=MASK)
        columns, rows = self._bin(x, self.origin[0], "x"), self._bin(y, self.origin[1], "y")
        if count is not None:
            self._check_counts(count)
        self.n_molecules += len(gene) if count is None else int(count.sum())
        self._add(rows, columns, gene, np.ones(1, np.int64) if count is None else count)

    def finish(self, *, n_genes: int) -> Bins:
        """Return the bins; the binner is empty afterwards."""
        while len(self._runs) > 1:
            self._merge_last()
        keys, sums = self._runs.pop() if self._runs else (np.empty(0, np.int64), np.empty(0, np.uint32))
        indices = np.empty(len(keys), np.int32)
        n_bins = int(_split_keys(keys, indices))
        bins, indptr = np.empty(n_bins, np.int64), np.empty(n_bins + 1, np.int64)
        _cut_rows(keys, bins, indptr)
        del keys
        data = sums.astype(dtype_for(int(sums.max()) if len(sums) else 0), copy=False)
        rows, columns = (bins >> BITS) - HALF, (bins & MASK) - HALF
        first = (int(columns.min()), int(rows.min())) if n_bins else (0, 0)
        origin = (self.origin[0] + first[0] * self.pitch, self.origin[1] + first[1] * self.pitch)
        array = np.stack([rows - first[1], columns - first[0]], axis=1).astype(np.int32)
        xy = np.stack([columns, rows], axis=1).astype(np.float64)
        xy += 0.5
        xy *= self.pitch
        xy += self.origin
        n_molecules, self.n_molecules = self.n_molecules, 0
        return Bins(
            counts=csr_of(data, indices, indptr, (n_bins, n_genes)),
            array=array,
            xy=xy,
            origin=origin,
            n_molecules=n_molecules,
        )

    def _bin(self, values: NDArray[Any], origin: float, axis: str) -> NDArray[np.int64]:
        numbers = (values - origin) / self.pitch
        np.floor(numbers, out=numbers)
        inside = np.abs(numbers) < HALF
        if not inside.all():
            worst = values[int(np.argmin(inside))]
            raise InputError(
                f"a molecule's {axis} is no number or lies too far out for this bin",
                where=self.where,
                found=f"{axis} = {worst}, bins of {self.pitch:g} from {origin:g}",
                expected=f"at most {HALF - 1} bins to either side",
                mend="check the coordinates' unit, or set a larger ingest.bin_um",
            )
        return numbers.astype(np.int64)

    def _check_counts(self, count: NDArray[np.int64]) -> None:
        low, high = int(count.min()), int(count.max())
        if low < 0:
            raise InputError("a count is negative", where=self.where, found=low, expected="whole numbers from 0")
        if high > LARGEST_COUNT:
            raise InputError("a count is too large", where=self.where, found=high, expected=f"at most {LARGEST_COUNT}")

    def _add(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], gene: NDArray[np.int32], count: NDArray[np.int64]
    ) -> None:
        low = np.array([rows.min(), columns.min(), gene.min(), 0], np.int64)
        high = np.array([rows.max(), columns.max(), gene.max(), count.max()], np.int64)
        bits = [int(span).bit_length() for span in high - low]
        if sum(bits) > 64:  # the block spans too much for one word a molecule
            half = len(gene) // 2
            for part in (slice(None, half), slice(half, None)):
                self._add(rows[part], columns[part], gene[part], count if len(count) == 1 else count[part])
            return
        packed = np.empty(len(gene), np.uint32 if sum(bits) <= 32 else np.uint64)
        shifts = np.array([bits[1] + bits[2] + bits[3], bits[2] + bits[3], bits[3]], np.uint64)
        _pack(rows, columns, gene, count, low, shifts, packed)
        packed.sort()
        keys, sums = np.empty(len(packed), np.int64), np.empty(len(packed), np.uint32)
        end = int(_unpack(packed, np.array(bits, np.uint64), low, keys, sums))
        self._push(self._whole(end, keys, sums))

    def _push(self, run: Run) -> None:
        if len(run[0]):
            self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            self._merge_last()

    def _merge_last(self) -> None:
        second, first = self._runs.pop(), self._runs.pop()
        size = len(first[0]) + len(second[0])
        keys, sums = np.empty(size, np.int64), np.empty(size, np.uint32)
        end = int(_merge(*first, *second, keys, sums))
        del first, second
        self._runs.append(self._whole(end, keys, sums))

    def _whole(self, end: int, keys: NDArray[np.int64], sums: NDArray[np.uint32]) -> Run:
        if end < 0:
            raise InputError(
                "the counts of a gene in a bin pass 32 bits", where=self.where, expected=f"at most {LARGEST_COUNT}"
            )
        keys.resize(end, refcheck=False)
        sums.resize(end, refcheck=False)
        return keys, sums


@njit(cache=True, nogil=True)
def _pack(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    gene: NDArray[np.int32],
    count: NDArray[np.int64],
    low: NDArray[np.int64],
    shifts: NDArray[np.uint64],
    packed: NDArray[Any],
) -> None:
    constant = len(count) == 1
    for i in range(len(gene)):
        word = np.uint64(rows[i] - low[0]) << shifts[0]
        word |= np.uint64(columns[i] - low[1]) << shifts[1]
        word |= np.uint64(gene[i] - low[2]) << shifts[2]
        word |= np.uint64(count[0] if constant else count[i])
        packed[i] = word


@njit(cache=True, nogil=True)
def _unpack(
    packed: NDArray[Any],
    bits: NDArray[np.uint64],
    low: NDArray[np.int64],
    keys: NDArray[np.int64],
    sums: NDArray[np.uint32],
) -> int:
    """Sum the counts of equal sorted words; return the number of keys, -1 where a sum is too large."""
    one = np.uint64(1)
    gene_mask, column_mask = (one << bits[2]) - one, (one << bits[1]) - one
    count_mask = (one << bits[3]) - one
    end = 0
    i = 0
    while i < len(packed):
        head = np.uint64(packed[i]) >> bits[3]
        total = np.int64(0)
        while i < len(packed) and np.uint64(packed[i]) >> bits[3] == head:
            total += np.int64(np.uint64(packed[i]) & count_mask)
            i += 1
        if total > LARGEST_COUNT:
            return -1
        if total == 0:
            continue
        gene = np.int64(head & gene_mask) + low[2]
        column = np.int64((head >> bits[2]) & column_mask) + low[1] + HALF
        row = np.int64(head >> (bits[1] + bits[2])) + low[0] + HALF
        keys[end] = (row << (2 * BITS)) | (column << BITS) | gene
        sums[end] = total
        end += 1
    return end


@njit(cache=True, nogil=True)
def _merge(
    first_keys: NDArray[np.int64],
    first_sums: NDArray[np.uint32],
    second_keys: NDArray[np.int64],
    second_sums: NDArray[np.uint32],
    keys: NDArray[np.int64],
    sums: NDArray[np.uint32],
) -> int:
    """Merge two runs; return the number of keys, -1 where a sum is too large."""
    i = j = end = 0
    while i < len(first_keys) and j < len(second_keys):
        a, b = first_keys[i], second_keys[j]
        total = np.int64(0)
        if a <= b:
            total += np.int64(first_sums[i])
            i += 1
        if b <= a:
            total += np.int64(second_sums[j])
            j += 1
        if total > LARGEST_COUNT:
            return -1
        keys[end] = min(a, b)
        sums[end] = total
        end += 1
    while i < len(first_keys):
        keys[end] = first_keys[i]
        sums[end] = first_sums[i]
        i += 1
        end += 1
    while j < len(second_keys):
        keys[end] = second_keys[j]
        sums[end] = second_sums[j]
        j += 1
        end += 1
    return end


@njit(cache=True, nogil=True)
def _split_keys(keys: NDArray[np.int64], indices: NDArray[np.int32]) -> int:
    """Write every key's gene; return the number of bins."""
    n_bins = 0
    for i in range(len(keys)):
        indices[i] = keys[i] & MASK
        if i == 0 or keys[i] >> BITS != keys[i - 1] >> BITS:
            n_bins += 1
    return n_bins


@njit(cache=True, nogil=True)
def _cut_rows(keys: NDArray[np.int64], bins: NDArray[np.int64], indptr: NDArray[np.int64]) -> None:
    n_bins = 0
    for i in range(len(keys)):
        if i == 0 or keys[i] >> BITS != keys[i - 1] >> BITS:
            bins[n_bins] = keys[i] >> BITS
            indptr[n_bins] = i
            n_bins += 1
    indptr[n_bins] = len(keys)
