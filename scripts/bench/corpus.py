"""Simulated slides as .h5ad files: counts with log-normal gene means, seeded, made without a dense matrix."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

MEAN_SIGMA = 1.9
"""Standard deviation of the logarithm of gene means, as in tissue."""
DEPTH_SIGMA = 0.45
DOMAINS = 6
DOMAIN_SIGMA = 0.5
SPOTS_AT_ONCE = 4000


@dataclass(frozen=True, kw_only=True)
class SlideSpec:
    """One simulated slide: `lattice` is ``hex`` (Visium) or ``square`` (Visium HD), `filled` the share of non-zeros."""

    name: str
    spots: int
    genes: int = 18_000
    filled: float = 0.15
    lattice: str = "hex"
    seed: int = 0

    @property
    def columns(self) -> int:
        """Spots in a row; the slide is about square."""
        return int(np.ceil(self.spots**0.5))


VISIUM = tuple(SlideSpec(name=f"visium{i}", spots=4_000, filled=0.15, seed=i) for i in range(4))
HD = (SlideSpec(name="hd0", spots=120_000, filled=0.02, lattice="square", seed=100),)


def write_slides(folder: Path, specs: tuple[SlideSpec, ...]) -> Path:
    """Write slides that are not there yet, and their samplesheet; return the sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["slide_id,path,donor"]
    for spec in specs:
        path = folder / f"{spec.name}.h5ad"
        if not path.exists():
            write_slide(path, spec)
        rows.append(f"{spec.name},{path.name},{spec.name}")
    sheet = folder / "slides.csv"
    sheet.write_text("\n".join(rows) + "\n")
    return sheet


def write_slide(path: Path, spec: SlideSpec) -> None:
    """Write one slide as AnnData: raw counts in X (CSR), obsm spatial, obs array_row and array_col."""
    import anndata
    import pandas as pd

    counts = simulate_counts(spec)
    place = np.arange(spec.spots)
    row, column = place // spec.columns, place % spec.columns
    if spec.lattice == "hex":
        column = 2 * column + row % 2
        xy = np.column_stack([column * 50.0, row * 100.0 * 3**0.5 / 2])
    else:
        xy = np.column_stack([column * 8.0, row * 8.0])
    obs = pd.DataFrame({"array_row": row, "array_col": column, "in_tissue": 1}, index=[f"s{i}" for i in place])
    var = pd.DataFrame(index=[f"GENE{i:05d}" for i in range(spec.genes)])
    slide = anndata.AnnData(X=counts, obs=obs, var=var)
    slide.obsm["spatial"] = xy
    temporary = path.with_suffix(".part")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slide.write_h5ad(temporary)
    temporary.replace(path)


def simulate_counts(spec: SlideSpec) -> sparse.csr_matrix:
    """Return (spots, genes) uint16 CSR counts of about the share of non-zeros asked for.

    A spot's molecules are drawn from its domain's gene shares, which for a given depth is the same as one Poisson
    number a gene.
    """
    rng = np.random.default_rng(spec.seed)
    genes = np.random.default_rng(2**20)  # the same genes in every slide
    shares = np.exp(genes.normal(0, MEAN_SIGMA, spec.genes))
    by_domain = shares * np.exp(rng.normal(0, DOMAIN_SIGMA, (DOMAINS, spec.genes)))
    by_domain /= by_domain.sum(axis=1, keepdims=True)
    depth = rng.lognormal(0, DEPTH_SIGMA, spec.spots)
    depth *= _scale_of(by_domain[0], depth, spec.filled)
    domain = _domains(spec, rng)
    parts = [
        _draw(rng, by_domain, domain[start : start + SPOTS_AT_ONCE], depth[start : start + SPOTS_AT_ONCE])
        for start in range(0, spec.spots, SPOTS_AT_ONCE)
    ]
    return sparse.vstack(parts, format="csr")


def _domains(spec: SlideSpec, rng: np.random.Generator) -> NDArray[np.int64]:
    centers = rng.uniform(0, spec.columns, (DOMAINS, 2))
    place = np.arange(spec.spots)
    xy = np.column_stack([place // spec.columns, place % spec.columns])
    return np.argmin(((xy[:, None] - centers) ** 2).sum(axis=2), axis=1)


def _scale_of(shares: NDArray[np.float64], depth: NDArray[np.float64], filled: float) -> float:
    """Return the factor of `depth` that makes the expected share of non-zeros `filled`."""
    few = depth[:: max(1, len(depth) // 64)]
    low, high = 0.0, 1e7
    for _ in range(60):
        middle = (low + high) / 2
        found = float((1 - np.exp(-np.outer(few * middle, shares))).mean())
        low, high = (middle, high) if found < filled else (low, middle)
    return high


def _draw(rng: np.random.Generator, by_domain: Any, domain: Any, depth: Any) -> sparse.csr_matrix:
    n_spots, n_genes = len(domain), by_domain.shape[1]
    molecules = rng.poisson(depth)
    spot = np.repeat(np.arange(n_spots), molecules)
    gene = np.empty(len(spot), np.int32)
    for number in range(len(by_domain)):
        here = domain[spot] == number
        bounds = np.cumsum(by_domain[number])
        uniform = np.sort(rng.random(int(here.sum())))  # sorted, as a search of sorted values is quick
        drawn = np.searchsorted(bounds / bounds[-1], uniform).astype(np.int32)
        gene[here] = rng.permutation(drawn)
    code, counts = np.unique(spot * n_genes + gene, return_counts=True)
    indptr = np.searchsorted(code // n_genes, np.arange(n_spots + 1))
    parts = (counts.astype(np.uint16), (code % n_genes).astype(np.int32), indptr)
    return sparse.csr_matrix(parts, shape=(n_spots, n_genes))


def resized(spec: SlideSpec, **changes: Any) -> SlideSpec:
    """Return the spec with other numbers and a name that tells them."""
    text = "-".join(f"{name}{value}" for name, value in changes.items())
    return replace(spec, name=f"{spec.name}-{text}".replace(".", "_"), **changes)
