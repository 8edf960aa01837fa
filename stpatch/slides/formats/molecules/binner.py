"""The molecule binner: molecules in blocks of any number, summed to square bins while they stream.

Each block becomes a run: its occupied bins in ascending order, and of each the genes and their counts, as a CSR matrix
has them. Runs merge as they grow; the last one is the matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stpatch.errors import InputError
from stpatch.kernels import molecules as kernels
from stpatch.kernels.molecules import BITS, HALF, MASK
from stpatch.slides.formats.counts import csr_of, dtype_for

LARGEST_COUNT = 2**32 - 1


class Run(NamedTuple):
    """Unique bins of some blocks.

    Attributes
    ----------
    bins
        (bins,) ascending ``row << 21 | column``, both from -2**20, counted from 0.
    ends
        (bins,) where each bin's pairs end.
    genes, sums
        (pairs,) genes, ascending within a bin, and their counts, uint16 or uint32.
    largest
        Of `sums`.
    """

    bins: NDArray[np.int64]
    ends: NDArray[np.int64]
    genes: NDArray[np.int32]
    sums: NDArray[Any]
    largest: int


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
        ids = np.empty(len(self.array), dtype=object)
        for i, (row, column) in enumerate(self.array):
            ids[i] = f"r{row}_c{column}"
        return ids


class MoleculeBinner:
    """Sums molecules to bins of ``pitch``; give it blocks with `add`, then call `finish` once.

    Memory does not grow with the number of molecules. With p the (bin, gene) pairs and b the bins that occur, the
    result takes R = 6 p + 16 b bytes (8 p where a count passes 65,535). Runs, each more than twice as long as the next,
    take at most 2 R and usually little more than R; a merge makes one more R: at most 3 R, usually 2 R, plus about 60
    bytes a molecule of the largest block.

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
            raise InputError(
                "the bin pitch is no positive number",
                where=where,
                found=pitch,
                hint="set ingest.bin_um to a positive number",
            )
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
        run = self._runs.pop() if self._runs else _empty_run(0, 0, 0)
        n_bins = len(run.bins)
        rows, columns = (run.bins >> BITS) - HALF, (run.bins & MASK) - HALF
        first = (int(columns.min()), int(rows.min())) if n_bins else (0, 0)
        origin = (self.origin[0] + first[0] * self.pitch, self.origin[1] + first[1] * self.pitch)
        array = np.stack([rows - first[1], columns - first[0]], axis=1).astype(np.int32)
        xy = np.stack([columns, rows], axis=1).astype(np.float64)
        xy += 0.5
        xy *= self.pitch
        xy += self.origin
        n_molecules, self.n_molecules = self.n_molecules, 0
        indptr = np.concatenate([np.zeros(1, np.int64), run.ends])
        return Bins(
            counts=csr_of(run.sums, run.genes, indptr, (n_bins, n_genes)),
            array=array,
            xy=xy,
            origin=origin,
            n_molecules=n_molecules,
        )

    def _bin(self, values: NDArray[Any], origin: float, axis: str) -> NDArray[np.int64]:
        bins = np.empty(len(values), np.int64)
        bad = int(kernels.floor(values, origin, self.pitch, bins))
        if bad >= 0:
            worst = values[bad]
            raise InputError(
                f"a molecule's {axis} is no number or lies too far out for this bin",
                where=self.where,
                found=f"{axis} = {worst}, bins of {self.pitch:g} from {origin:g}",
                expected=f"at most {HALF - 1} bins to either side",
                hint="check the coordinates' unit, or set a larger ingest.bin_um",
            )
        return bins

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
        kernels.pack(rows, columns, gene, count, low, shifts, packed)
        packed.sort()
        n_bins, n_pairs, largest = (int(n) for n in kernels.measure(packed, np.array(bits, np.uint64)))
        self._check_sum(largest)
        run = _empty_run(n_bins, n_pairs, largest)
        kernels.unpack(packed, np.array(bits, np.uint64), low, run.bins, run.ends, run.genes, run.sums)
        self._push(run)

    def _push(self, run: Run) -> None:
        if len(run.genes):
            self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2].genes) <= 2 * len(self._runs[-1].genes):
            self._merge_last()

    def _merge_last(self) -> None:
        second, first = self._runs.pop(), self._runs.pop()
        merged = _empty_run(
            len(first.bins) + len(second.bins), len(first.genes) + len(second.genes), first.largest + second.largest
        )
        n_bins, n_pairs, largest = (int(n) for n in kernels.merge(first[:4], second[:4], merged[:4]))
        self._check_sum(largest)
        arrays: tuple[NDArray[Any], ...] = merged[:4]
        for array, size in zip(arrays, (n_bins, n_bins, n_pairs, n_pairs), strict=True):
            array.resize(size, refcheck=False)  # gives the unused end back without a copy
        self._runs.append(_narrowed(merged._replace(largest=largest)))

    def _check_sum(self, largest: int) -> None:
        if largest > LARGEST_COUNT:
            raise InputError(
                "the counts of a gene in a bin pass 32 bits",
                where=self.where,
                found=largest,
                expected=f"at most {LARGEST_COUNT}",
            )


def _empty_run(n_bins: int, n_pairs: int, largest: int) -> Run:
    """Return a run to fill; its counts hold up to `largest`, at most 32 bits."""
    bins, ends = np.empty(n_bins, np.int64), np.empty(n_bins, np.int64)
    dtype = dtype_for(min(largest, LARGEST_COUNT))
    return Run(bins, ends, np.empty(n_pairs, np.int32), np.empty(n_pairs, dtype), largest)


def _narrowed(run: Run) -> Run:
    return run._replace(sums=run.sums.astype(dtype_for(run.largest), copy=False))
