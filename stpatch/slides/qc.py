"""Quality control: which spots and genes stay, and a count of all that does not, by reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.config import QcSection
from stpatch.slides.matrix import Csr, row_facts, row_sums, stored_in_rows
from stpatch.storage import plain_number


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """What one reason took away: spots, genes and counts."""

    spots: int = 0
    genes: int = 0
    counts: int | float = 0

    def as_json(self) -> dict[str, int | float]:
        """Return the numbers that are not zero."""
        return {name: value for name, value in vars(self).items() if value}


def mitochondrial(names: pd.Series[str]) -> NDArray[np.bool_]:
    """Return (genes,) whether a symbol is mitochondrial: ``MT-`` (human) or ``mt-`` (mouse) in front."""
    return np.array([name[:3].lower() == "mt-" for name in names], dtype=bool)


def spot_reasons(
    csr: Csr, *, spots: pd.DataFrame, mito: NDArray[np.bool_], section: QcSection
) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
    """Return (spots,) the first reason to drop each spot ("" = stays), and (spots,) total counts.

    Parameters
    ----------
    csr
        Counts over the kept genes, rows as in `spots`.
    spots
        Spot table with ``in_tissue`` and ``area`` where the platform has them.
    mito
        (genes,) mitochondrial genes.
    """
    totals = row_facts(csr)[0]
    n_genes = np.diff(csr[2])
    rules: list[tuple[str, NDArray[np.bool_]]] = []
    if section.in_tissue and "in_tissue" in spots:
        rules.append(("out of tissue", ~spots["in_tissue"].to_numpy(dtype=bool)))
    rules.append(("min_counts", totals < section.min_counts))
    if section.max_counts is not None:
        rules.append(("max_counts", totals > section.max_counts))
    rules.append(("min_genes", n_genes < section.min_genes))
    if section.max_mito is not None:
        share = row_sums(csr, mito.astype(np.float64)) / np.maximum(totals, 1)
        rules.append(("max_mito", share > section.max_mito))
    if "area" in spots:
        area = spots["area"].to_numpy(dtype=np.float64)
        if section.min_area is not None:
            rules.append(("min_area", ~(area >= section.min_area)))
        if section.max_area is not None:
            rules.append(("max_area", ~(area <= section.max_area)))
    reasons = np.full(len(totals), "", dtype=object)
    for reason, drop in reversed(rules):
        reasons[drop] = reason
    return reasons, totals


def rare_genes(csr: Csr, *, keep_rows: NDArray[np.bool_], n_genes: int, section: QcSection) -> NDArray[np.bool_]:
    """Return (genes,) which genes are detected in fewer kept spots than ``min_spots_per_gene``."""
    if section.min_spots_per_gene == 0:
        return np.zeros(n_genes, bool)
    stored = stored_in_rows(csr, keep_rows, n_genes)
    return stored < section.min_spots_per_gene


def by_reason(reasons: NDArray[np.object_], counts: NDArray[np.float64], *, kind: str) -> Mapping[str, Dropped]:
    """Sum up what every reason took: `kind` is ``spots`` or ``genes``."""
    table = {}
    for reason in sorted({text for text in reasons if text}):
        rows = reasons == reason
        table[reason] = Dropped(**{kind: int(rows.sum())}, counts=plain_number(counts[rows].sum()))
    return table
