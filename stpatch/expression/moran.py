"""Moran's I: how much a gene's value at a spot is like that of the spot's neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stpatch.expression.moments import Positions, ValueMoments, ratio, scatter_to_axis
from stpatch.expression.normalize import BLOCK_VALUES, Normalization, normalize_csr
from stpatch.image.values import residuals
from stpatch.slides.slide import Slide

NEIGHBOURS = 6
_OFFSETS = {
    "square": ((-1, 0), (0, -1), (0, 1), (1, 0)),
    "hex": ((-1, -1), (-1, 1), (0, -2), (0, 2), (1, -1), (1, 1)),
}


def neighbour_weights(slide: Slide) -> sparse.csr_matrix:
    """Return the slide's neighbour graph, (spots, spots) float64, each row divided by its sum.

    On a square lattice the 4 neighbours that share an edge, on Visium's hexagonal lattice the 6 nearest, both from
    array indices (spots of one array position are neighbours of the same spots, not of each other). Without array
    indices the 6 nearest spots by coordinates, as a directed graph: a may be a neighbour of b and b not of a. Which of
    several spots at the same distance comes sixth is k-d tree order, the same for the same coordinates. A spot without
    neighbours has an empty row.
    """
    if slide.array is not None and slide.geometry in _OFFSETS:
        links = _lattice_links(slide.array, _OFFSETS[slide.geometry])
    else:
        links = _nearest_links(slide.xy, min(NEIGHBOURS, slide.n_spots - 1))
    sums = np.asarray(links.sum(axis=1)).ravel()
    scale = np.divide(1.0, sums, out=np.zeros(len(sums)), where=sums > 0)
    return sparse.csr_matrix(sparse.diags(scale) @ links)


def _lattice_links(array: NDArray[np.int32], offsets: tuple[tuple[int, int], ...]) -> sparse.csr_matrix:
    index = array.astype(np.int64)
    index -= index.min(axis=0, initial=0)
    width = int(index[:, 1].max(initial=0)) + 5  # room for offsets of two on either side: no row runs into the next
    places, place_of_spot = np.unique(index[:, 0] * width + index[:, 1] + 2, return_inverse=True)
    rows, cols = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for down, right in offsets:
        wanted = places + down * width + right
        found = np.minimum(np.searchsorted(places, wanted), len(places) - 1)
        there = np.flatnonzero(places[found] == wanted)
        rows.append(there)
        cols.append(found[there])
    row, col = np.concatenate(rows), np.concatenate(cols)
    links = sparse.csr_matrix((np.ones(len(row)), (row, col)), shape=(len(places), len(places)))
    n_spots = len(index)
    member = sparse.csr_matrix((np.ones(n_spots), (np.arange(n_spots), place_of_spot)), shape=(n_spots, len(places)))
    return sparse.csr_matrix(member @ links @ member.T)


def _nearest_links(xy: NDArray[np.float64], k: int) -> sparse.csr_matrix:
    n_spots = len(xy)
    if k < 1:
        return sparse.csr_matrix((n_spots, n_spots))
    from scipy.spatial import cKDTree

    found = np.asarray(cKDTree(xy).query(xy, k=k + 1)[1])
    other = found != np.arange(n_spots)[:, None]
    other[other.all(axis=1), -1] = False  # more than k spots in one place: the query may not name the spot itself
    column = found[other]
    row = np.repeat(np.arange(n_spots), k)
    return sparse.csr_matrix((np.ones(len(row)), (row, column)), shape=(n_spots, n_spots))


@dataclass(frozen=True, kw_only=True)
class MoranSums:
    """What Moran's I is made of, per gene, in a form that merges exactly over slides.

    Attributes
    ----------
    values
        Moments of the normalized values.
    cross
        (genes,) float64, sum over spot pairs of ``w_ij z_i z_j``, with z the value minus `values.mean`.
    edge
        (genes,) float64, sum over spot pairs of ``w_ij (z_i + z_j)``.
    weight
        (genes,) float64, sum of all ``w_ij``.
    """

    values: ValueMoments
    cross: NDArray[np.float64]
    edge: NDArray[np.float64]
    weight: NDArray[np.float64]

    @classmethod
    def of(cls, slide: Slide, totals: NDArray[np.float64], normalization: Normalization, values: ValueMoments) -> Self:
        """Sum up one slide's normalized values over its own neighbour graph.

        Parameters
        ----------
        totals
            (spots,) float64, sums over all measured genes.
        values
            Moments of the same normalized values.
        """
        weights = neighbour_weights(slide)
        degree = np.asarray(weights.sum(axis=1) + weights.sum(axis=0).T, dtype=np.float64).ravel()
        weight = np.full(slide.n_genes, float(weights.sum()))
        if normalization.gene_sums is None:
            matrix = normalize_csr(slide.counts, totals, normalization)
            raw_cross, raw_edge = _sparse_cross(weights, matrix), np.asarray(degree @ matrix).ravel()
            # from raw values to values minus the mean
            mean: NDArray[np.float64] = values.mean
            cross = raw_cross - mean * raw_edge + mean**2 * weight
            edge = raw_edge - 2 * mean * weight
        else:
            cross, edge = _residual_cross(weights, degree, slide.counts, totals, normalization, values.mean)
        return cls(values=values, cross=cross, edge=edge, weight=weight)

    def scatter_to_axis(self, positions: Positions, size: int) -> Self:
        """Return the sums on an axis of `size` genes; a gene that is not in `positions` has no spot."""
        return type(self)(
            values=self.values.scatter_to_axis(positions, size),
            cross=scatter_to_axis(self.cross, positions, size),
            edge=scatter_to_axis(self.edge, positions, size),
            weight=scatter_to_axis(self.weight, positions, size),
        )

    def merged(self, other: Self) -> Self:
        """Return the sums of both slides, no spot of one being a neighbour of one of the other."""
        values = self.values.merged(other.values)
        one, two = self._about(values.mean), other._about(values.mean)
        return type(self)(values=values, cross=one[0] + two[0], edge=one[1] + two[1], weight=self.weight + other.weight)

    def _about(self, mean: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return `cross` and `edge` for deviations from another mean."""
        shift = self.values.mean - mean
        return (
            self.cross + shift * self.edge + shift**2 * self.weight,
            self.edge + 2 * shift * self.weight,
        )

    @property
    def index(self) -> NDArray[np.float64]:
        """(genes,) Moran's I; NaN where the gene does not vary or no spot has a neighbour."""
        varies = (self.values.variance > 0) & (self.weight > 0)
        scale = ratio(self.values.n, self.weight, where=varies)
        return ratio(self.cross, self.values.m2, where=varies, other=np.nan) * scale


def _sparse_cross(weights: sparse.csr_matrix, matrix: sparse.csr_matrix) -> NDArray[np.float64]:
    """Return per gene the sum of ``w_ij x_i x_j``, block by block of spots so that the product stays small."""
    n_spots, n_genes = matrix.shape
    total = np.zeros(n_genes)
    step = max(1, int(BLOCK_VALUES * n_spots / max(1, matrix.nnz)))
    for start in range(0, n_spots, step):
        block = slice(start, start + step)
        product = (weights[block] @ matrix).multiply(matrix[block])
        total += np.asarray(product.sum(axis=0)).ravel()
    return total


def _residual_cross(
    weights: sparse.csr_matrix,
    degree: NDArray[np.float64],
    counts: sparse.csr_matrix,
    totals: NDArray[np.float64],
    normalization: Normalization,
    mean: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return `cross` and `edge` of Pearson residuals, which are dense, a block of genes at a time."""
    n_spots, n_genes = counts.shape
    assert normalization.gene_sums is not None  # noqa: S101 - for the type checker
    shares = normalization.gene_sums / float(normalization.grand_total or 1)
    clip = float(normalization.n_spots or 0) ** 0.5
    by_gene = counts.tocsc()
    cross, edge = np.zeros(n_genes), np.zeros(n_genes)
    step = max(1, BLOCK_VALUES // max(1, n_spots))
    for start in range(0, n_genes, step):
        block = slice(start, start + step)
        mu = totals[:, None] * shares[block]
        z = residuals(by_gene[:, block].toarray(), mu, theta=normalization.theta, clip=clip) - mean[block]
        cross[block] = np.einsum("ij,ij->j", z, weights @ z)
        edge[block] = (degree[:, None] * z).sum(axis=0)  # no BLAS: equal genes shall round equally
    return cross, edge
