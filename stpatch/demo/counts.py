"""Simulated counts: negative binomial, with library sizes that vary from spot to spot and slowly over the slide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stpatch.demo.genes import MARKERS, abundance
from stpatch.demo.tissue import Float, Tissue, normal, smooth_field

_RAISED = 14.0
"""How many times more of a marker its own domain makes."""
_LEAKED = 1.6
"""How many times more of it the rest of the tissue makes: cells of a domain stray, transcripts diffuse."""


def simulate_counts(
    rng: np.random.Generator, tissue: Tissue, places: Float, *, anatomy: str, genes: list[str], depth: float
) -> NDArray[np.int32]:
    """Draw the counts of the places inside the tissue.

    Parameters
    ----------
    places
        (places, 2) float64 in [0, 1].
    genes
        The genes that the slide measures.
    depth
        Median count of a spot over all genes.

    Returns
    -------
    (places inside, genes) int32
    """
    inside = tissue.inside
    domain, at = tissue.domain[inside], places[inside]
    column = {gene: i for i, gene in enumerate(genes)}
    rate = np.tile(abundance(genes, normal(rng, (len(genes),))), (len(at), 1))
    for k, name in enumerate(tissue.names):
        markers = [column[gene] for gene in MARKERS[anatomy][name].split() if gene in column]
        rate[:, markers] *= np.where(domain == k, _RAISED, _LEAKED)[:, None]
    for i in range(0, len(genes), 3):  # every third gene drifts over the slide, whatever the domain
        rate[:, i] *= np.exp(0.35 * smooth_field(rng, at, scale=0.3, waves=16))
    share = rate / rate.sum(axis=1, keepdims=True)
    density = 1 + 0.35 * normal(rng, (len(tissue.names),))[domain].clip(-1.5, 1.5)
    library = depth * density * np.exp(0.2 * smooth_field(rng, at, scale=0.2) + 0.3 * normal(rng, (len(at),)))
    return negative_binomial(rng, share * library[:, None], size=4.0)


def negative_binomial(rng: np.random.Generator, mean: Float, *, size: float) -> NDArray[np.int32]:
    """Draw negative binomial counts by inverting the distribution function at uniform numbers.

    The variance is ``mean + mean**2 / size``. Inversion needs only the uniform stream, which no NumPy version changes.

    Parameters
    ----------
    mean
        Expected counts, any shape, all above 0.
    size
        Dispersion; smaller is wilder.

    Returns
    -------
    int32, shape of `mean`
    """
    flat = mean.ravel()
    counts = np.zeros(flat.size, dtype=np.int32)
    ratio = flat / (flat + size)
    mass = np.power(1 - ratio, size)
    left = rng.random(flat.size) - mass
    open_ = np.flatnonzero(left > 0)
    mass, ratio, left, expected = mass[open_], ratio[open_], left[open_], flat[open_]
    k = 0
    while open_.size:
        mass = mass * ratio * ((k + size) / (k + 1))
        k += 1
        counts[open_] = k
        left = left - mass
        # rounding can leave a crumb that no mass will ever cover: stop where the mass has gone
        stay = (left > 0) & ((mass > 1e-18) | (k < expected))
        open_, mass, ratio, left, expected = open_[stay], mass[stay], ratio[stay], left[stay], expected[stay]
    return counts.reshape(mean.shape)
