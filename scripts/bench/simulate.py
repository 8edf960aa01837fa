"""Simulated counts: log-normal gene means in domains of tissue, seeded, made without a dense matrix.

A spot's molecules are drawn from its domain's gene shares, which for a given depth is the same as one Poisson number a
gene. Drawing takes constant time a molecule (Walker 1977, Vose 1991), in a compiled loop: large slides take seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

MEAN_SIGMA = 1.9
"""Standard deviation of the logarithm of gene means, as in tissue."""
DEPTH_SIGMA = 0.45
DOMAINS = 6
DOMAIN_SIGMA = 0.5


def simulate_counts(*, spots: int, genes: int, columns: int, filled: float, seed: int) -> sparse.csr_matrix:
    """Return (spots, genes) uint16 CSR counts, indices sorted, of about the share `filled` of non-zeros.

    Parameters
    ----------
    columns
        Spots in a row of the slide.
    """
    rng = np.random.default_rng(seed)
    shares = np.exp(np.random.default_rng(2**20).normal(0, MEAN_SIGMA, genes))  # the same genes in every slide
    by_domain = shares * np.exp(rng.normal(0, DOMAIN_SIGMA, (DOMAINS, genes)))
    by_domain /= by_domain.sum(axis=1, keepdims=True)
    depth = rng.lognormal(0, DEPTH_SIGMA, spots)
    depth *= _scale_of(by_domain[0], depth, filled)
    domain = _domains(spots, columns, rng)
    molecules = rng.poisson(depth)
    chance, other = np.empty_like(by_domain), np.empty(by_domain.shape, np.int32)
    for number in range(DOMAINS):
        _fill_alias_table(by_domain[number] * genes, chance[number], other[number])
    room = int(
        np.minimum(molecules, genes).sum()
    )  # of room, not of memory: pages that are never written are never taken
    data, indices, indptr = np.empty(room, np.uint16), np.empty(room, np.int32), np.zeros(spots + 1, np.int64)
    found = _draw(rng, domain, molecules, chance, other, data, indices, indptr)
    small = indptr.astype(np.int32) if found < 2**31 else indptr
    return sparse.csr_matrix((data[:found].copy(), indices[:found].copy(), small), shape=(spots, genes))


def _domains(spots: int, columns: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return each spot's domain: the nearest of a few centers."""
    centers = rng.uniform(0, columns, (DOMAINS, 2))
    place = np.arange(spots)
    row, column = place // columns, place % columns
    distances = np.stack([(row - y) ** 2 + (column - x) ** 2 for y, x in centers])
    nearest: NDArray[np.int64] = np.argmin(distances, axis=0)
    return nearest


def _scale_of(shares: NDArray[np.float64], depth: NDArray[np.float64], filled: float) -> float:
    """Return the factor of `depth` that makes the expected share of non-zeros `filled`."""
    few = depth[:: max(1, len(depth) // 64)]
    low, high = 0.0, 1e7
    for _ in range(60):
        middle = (low + high) / 2
        found = float((1 - np.exp(-np.outer(few * middle, shares))).mean())
        low, high = (middle, high) if found < filled else (low, middle)
    return high


@njit(cache=True)
def _fill_alias_table(weights: Any, chance: Any, other: Any) -> None:
    """Fill one alias table; `weights` have a mean of 1 and are used up."""
    n = len(weights)
    small, large = np.empty(n, np.int32), np.empty(n, np.int32)
    n_small = n_large = 0
    for gene in range(n):
        other[gene], chance[gene] = gene, 1.0
        if weights[gene] < 1.0:
            small[n_small] = gene
            n_small += 1
        else:
            large[n_large] = gene
            n_large += 1
    while n_small and n_large:
        n_small -= 1
        less, more = small[n_small], large[n_large - 1]
        chance[less], other[less] = weights[less], more
        weights[more] -= 1.0 - weights[less]
        if weights[more] < 1.0:
            n_large -= 1
            small[n_small] = more
            n_small += 1


@njit(cache=True)
def _draw(rng: Any, domain: Any, molecules: Any, chance: Any, other: Any, data: Any, indices: Any, indptr: Any) -> int:
    """Draw every spot's molecules; return the number of stored counts."""
    n_genes = chance.shape[1]
    counts = np.zeros(n_genes, np.uint16)
    seen = np.empty(n_genes, np.int32)
    end = 0
    for spot in range(len(domain)):
        odds, alias = chance[domain[spot]], other[domain[spot]]
        found = 0
        for _ in range(molecules[spot]):
            place = rng.random() * n_genes
            gene = int(place)
            if place - gene >= odds[gene]:
                gene = alias[gene]
            if counts[gene] == 0:
                seen[found] = gene
                found += 1
            if counts[gene] < 65535:
                counts[gene] += 1
        seen[:found].sort()
        for k in range(found):
            indices[end], data[end] = seen[k], counts[seen[k]]
            counts[seen[k]] = 0
            end += 1
        indptr[spot + 1] = end
    return end
