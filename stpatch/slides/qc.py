"""Quality control: which spots and genes stay, and a count of all that does not, by reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.config import QcSection
from stpatch.errors import InputError
from stpatch.slides.matrix import Csr, row_facts, row_sums
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


_MITO_NAME = re.compile(
    r"mt-.+|mt[._: ](nd\d.*|cox?\d.*|atp\d.*|cyt?b|r?rnr\d|t[a-z]\d?)"
    r"|mt(nd[1-6]|nd4l|co[123]|atp[68]|cyt?b|rnr[12])",
    re.IGNORECASE,
)
_TELLS_NOTHING = re.compile(r"\d+|ENS(?!G0|MUSG)[A-Z]*G\d+(\.\d+)?|(FBgn|WBGene|AT\dG|LOC|Y[A-P][LR])\d+.*")
"""Names that are ids without a list of mitochondrial ones here: numbers, Ensembl ids of other species."""
MITO_ENSEMBL = frozenset(
    [f"ENSG{number:011d}" for number in (
        198888, 198763, 198804, 198712, 228253, 198899, 198938, 198840, 212907, 198886, 198786, 198695, 198727, 211459,
        210082, 210049, 210077, 209082, 210100, 210107, 210112, 210117, 210127, 210135, 210140, 210144, 210151, 210154,
        210156, 210164, 210174, 210176, 210184, 210191, 210194, 210195, 210196,
    )]
    + [f"ENSMUSG{number:011d}" for number in (*range(64336, 64361), *range(64363, 64373), 65947, 64361)]
)  # fmt: skip
"""The genes of the mitochondrial chromosome in Ensembl: 37 of human, 37 of mouse."""


def mitochondrial(genes: pd.DataFrame) -> NDArray[np.bool_]:
    """Return (genes,) whether a gene is mitochondrial, by its Ensembl id or its symbol.

    Symbols: ``MT-`` in front in any case, also where another sign stands for the dash (``MT.ND1``, ``mt:ND1``).

    Parameters
    ----------
    genes
        Columns ``name`` and ``ensembl_id``.
    """
    by_name = [_MITO_NAME.fullmatch(name) is not None for name in genes["name"]]
    by_id = [text in MITO_ENSEMBL for text in genes["ensembl_id"]]
    return np.array([name or number for name, number in zip(by_name, by_id, strict=True)], dtype=bool)


def mito_notes(genes: pd.DataFrame, mito: NDArray[np.bool_], *, where: object) -> list[str]:
    """Return a note where ``max_mito`` finds no mitochondrial gene.

    Raises
    ------
    InputError
        The genes' names cannot tell: most are neither symbols nor Ensembl ids of human or mouse.
    """
    if mito.any():
        return []
    unknown = [name for name in genes["name"] if _TELLS_NOTHING.fullmatch(name)]
    if 2 * len(unknown) > len(genes):
        raise InputError(
            "max_mito cannot be applied: the genes' names do not say which are mitochondrial",
            where=where,
            found=f"names such as {', '.join(unknown[:3])}",
            expected="symbols (MT-ND1, mt-Nd1), or Ensembl ids of human or mouse",
            hint="give the symbols (ingest.genes.map or reference), or leave ingest.qc.max_mito out",
        )
    return ["max_mito is set, but no gene of the slide is known to be mitochondrial: no spot was dropped for it"]


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


def by_reason(reasons: NDArray[np.object_], counts: NDArray[np.float64], *, kind: str) -> Mapping[str, Dropped]:
    """Sum up what every reason took: `kind` is ``spots`` or ``genes``."""
    table = {}
    for reason in sorted({text for text in reasons if text}):
        rows = reasons == reason
        table[reason] = Dropped(**{kind: int(rows.sum())}, counts=plain_number(counts[rows].sum()))
    return table
