"""Loops of the molecule binner: molecules to words, words to runs, two runs to one.

::

    molecule  ->  one word:  row | column | gene | count      each as few bits as the block needs
    block     ->  its words sorted: equal pairs of bin and gene stand together
    run       ->  bins, and of each its genes and their sums, as a CSR matrix has them

`stpatch.slides.formats.molecules.binner` makes sure that a word's parts fit 64 bits and that a run's arrays have room.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.kernels.registry import kernel

BITS = 21
"""Bits for each of row, column and gene: together they fit one 64-bit word."""
HALF = 1 << (BITS - 1)
MASK = (1 << BITS) - 1

Arrays = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[Any]]


def _floor_examples(_counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [(np.empty(0, dtype), 0.0, 1.0, np.empty(0, np.int64)) for dtype in (np.float64, np.int64)]


@kernel(examples=_floor_examples)
def floor(values: NDArray[Any], origin: float, pitch: float, bins: NDArray[np.int64]) -> int:
    """Write every value's bin; return the first value without one, -1 where all have one."""
    for i in range(len(values)):
        number = np.floor((values[i] - origin) / pitch)
        if not abs(number) < HALF:
            return i
        bins[i] = np.int64(number)
    return -1


def _pack_examples(_counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    numbers, genes, shifts = np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.uint64)
    packed = (np.empty(0, np.uint32), np.empty(0, np.uint64))
    return [(numbers, numbers, genes, numbers, numbers, shifts, words) for words in packed]


@kernel(examples=_pack_examples)
def pack(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    gene: NDArray[np.int32],
    count: NDArray[np.int64],
    low: NDArray[np.int64],
    shifts: NDArray[np.uint64],
    packed: NDArray[Any],
) -> None:
    """Write each molecule's word; `low` is the least row, column and gene, `shifts` where each part begins.

    A `count` of one entry is the count of every molecule.
    """
    constant = len(count) == 1
    for i in range(len(gene)):
        word = np.uint64(rows[i] - low[0]) << shifts[0]
        word |= np.uint64(columns[i] - low[1]) << shifts[1]
        word |= np.uint64(gene[i] - low[2]) << shifts[2]
        word |= np.uint64(count[0] if constant else count[i])
        packed[i] = word


@kernel()
def sum_pair(packed: NDArray[Any], start: int, count_bits: np.uint64) -> tuple[int, int]:
    """Return where the words of the pair at `start` end, and the sum of their counts."""
    mask = (np.uint64(1) << count_bits) - np.uint64(1)
    head = np.uint64(packed[start]) >> count_bits
    total: Any = np.int64(0)
    i = start
    while i < len(packed) and np.uint64(packed[i]) >> count_bits == head:
        total += np.int64(np.uint64(packed[i]) & mask)
        i += 1
    return i, total


def _measure_examples(_counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [(np.empty(0, words), np.empty(0, np.uint64)) for words in (np.uint32, np.uint64)]


@kernel(examples=_measure_examples)
def measure(packed: NDArray[Any], bits: NDArray[np.uint64]) -> tuple[int, int, int]:
    """Return the number of bins and of pairs that are not zero, and the largest sum."""
    n_bins = n_pairs = 0
    largest: Any = np.int64(0)
    last = np.uint64(0)
    i = 0
    while i < len(packed):
        place = np.uint64(packed[i]) >> (bits[2] + bits[3])
        i, total = sum_pair(packed, i, bits[3])
        if total > 0:
            if n_pairs == 0 or place != last:
                n_bins += 1
            last = place
            n_pairs += 1
            largest = max(largest, total)
    return n_bins, n_pairs, largest


def _unpack_examples(_counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    numbers, bits, genes = np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.int32)
    packed = (np.empty(0, np.uint32), np.empty(0, np.uint64))
    return [(words, bits, numbers, numbers, numbers, genes, np.empty(0, np.uint16)) for words in packed]


@kernel(examples=_unpack_examples)
def unpack(
    packed: NDArray[Any],
    bits: NDArray[np.uint64],
    low: NDArray[np.int64],
    bins: NDArray[np.int64],
    ends: NDArray[np.int64],
    genes: NDArray[np.int32],
    sums: NDArray[Any],
) -> None:
    """Write the run of sorted words."""
    one = np.uint64(1)
    gene_mask, column_mask = (one << bits[2]) - one, (one << bits[1]) - one
    n_bins = n_pairs = 0
    i = 0
    while i < len(packed):
        head = np.uint64(packed[i]) >> bits[3]
        i, total = sum_pair(packed, i, bits[3])
        if total == 0:
            continue
        row = np.int64(head >> (bits[1] + bits[2])) + low[0] + HALF
        place = (row << BITS) | (np.int64((head >> bits[2]) & column_mask) + low[1] + HALF)
        if n_bins == 0 or bins[n_bins - 1] != place:
            bins[n_bins] = place
            n_bins += 1
        genes[n_pairs] = np.int64(head & gene_mask) + low[2]
        sums[n_pairs] = total
        n_pairs += 1
        ends[n_bins - 1] = n_pairs


def _merge_examples(_counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    numbers, genes = np.empty(0, np.int64), np.empty(0, np.int32)
    run = (numbers, numbers, genes, np.empty(0, np.uint16))
    return [(run, run, run)]


@kernel(examples=_merge_examples)
def merge(first: Arrays, second: Arrays, merged: Arrays) -> tuple[int, int, int]:
    """Merge two runs; return the numbers of bins and pairs and the largest sum.

    Two merges, one inside the other: of bins, and in a bin that both runs have, of genes. Where only one run has the
    bin, the other's end is set to its begin, and the inner merge copies.
    """
    a_bins, a_ends, a_genes, a_sums = first
    b_bins, b_ends, b_genes, b_sums = second
    bins, ends, genes, sums = merged
    i = j = p = q = n_bins = n_pairs = 0
    largest: Any = np.int64(0)
    while i < len(a_bins) or j < len(b_bins):
        in_a = j == len(b_bins) or (i < len(a_bins) and a_bins[i] <= b_bins[j])
        in_b = i == len(a_bins) or (j < len(b_bins) and b_bins[j] <= a_bins[i])
        bins[n_bins] = a_bins[i] if in_a else b_bins[j]
        p_end = a_ends[i] if in_a else p
        q_end = b_ends[j] if in_b else q
        while p < p_end or q < q_end:
            from_a = q == q_end or (p < p_end and a_genes[p] <= b_genes[q])
            from_b = p == p_end or (q < q_end and b_genes[q] <= a_genes[p])
            total = np.int64(0)
            if from_a:
                genes[n_pairs] = a_genes[p]
                total += np.int64(a_sums[p])
                p += 1
            if from_b:
                genes[n_pairs] = b_genes[q]
                total += np.int64(b_sums[q])
                q += 1
            sums[n_pairs] = total
            largest = max(largest, total)
            n_pairs += 1
        i += in_a
        j += in_b
        ends[n_bins] = n_pairs
        n_bins += 1
    return n_bins, n_pairs, largest
