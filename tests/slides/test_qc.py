"""QC: every reason takes its spots or genes, the first one that holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stpatch.config import QcSection
from stpatch.slides.matrix import Csr
from stpatch.slides.qc import by_reason, mitochondrial, rare_genes, spot_reasons

COUNTS = np.array([[0, 0, 0], [1, 0, 0], [2, 2, 0], [1, 1, 6], [9, 9, 9]])
"""Genes A, B and MT-C."""
MITO = np.array([False, False, True])


def csr_of(dense: np.ndarray) -> Csr:
    matrix = sparse.csr_matrix(dense)
    return matrix.data, matrix.indices, matrix.indptr.astype(np.int64)


def reasons_of(spots: pd.DataFrame | None = None, **section: Any) -> list[str]:
    table = pd.DataFrame(index=range(len(COUNTS))) if spots is None else spots
    reasons, totals = spot_reasons(csr_of(COUNTS), spots=table, mito=MITO, section=QcSection(**section))
    assert totals.tolist() == COUNTS.sum(axis=1).tolist()
    return reasons.tolist()


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({}, ["min_counts", "", "", "", ""]),
        ({"min_counts": 0}, [""] * 5),
        ({"min_counts": 2}, ["min_counts", "min_counts", "", "", ""]),
        ({"max_counts": 8}, ["min_counts", "", "", "", "max_counts"]),
        ({"min_genes": 2}, ["min_counts", "min_genes", "", "", ""]),
        ({"max_mito": 0.5}, ["min_counts", "", "", "max_mito", ""]),
        ({"max_mito": 0.75}, ["min_counts", "", "", "", ""]),
        ({"max_mito": 0, "min_counts": 0}, ["", "", "", "max_mito", "max_mito"]),
        ({"min_area": 2}, ["min_counts", "", "", "", ""]),
    ],
)
def test_each_rule(section: dict[str, Any], expected: list[str]) -> None:
    assert reasons_of(**section) == expected


def test_the_first_reason_counts() -> None:
    spots = pd.DataFrame({"in_tissue": [False, True, True, False, True]})
    assert reasons_of(spots) == ["out of tissue", "", "", "out of tissue", ""]
    assert reasons_of(spots, in_tissue=False) == ["min_counts", "", "", "", ""]


def test_areas_and_missing_areas() -> None:
    spots = pd.DataFrame({"area": [1.0, 1.0, 2.0, 3.0, np.nan]})
    found = reasons_of(spots, min_area=2, max_area=2.5, min_counts=0)
    assert found == ["min_area", "min_area", "", "max_area", "min_area"]


def test_mitochondrial_names() -> None:
    names = pd.Series(["MT-CO1", "mt-Nd1", "MTOR", "AMT-1", "Mt-x"])
    assert mitochondrial(names).tolist() == [True, True, False, False, True]


def test_rare_genes_count_kept_spots_only() -> None:
    csr = csr_of(COUNTS)
    keep = np.array([True, True, True, True, False])
    section = QcSection(min_spots_per_gene=2)
    assert rare_genes(csr, keep_rows=keep, n_genes=3, section=section).tolist() == [False, False, True]
    assert not rare_genes(csr, keep_rows=keep, n_genes=3, section=QcSection()).any()


def test_the_record_sums_by_reason() -> None:
    reasons = np.array(["b", "", "a", "b"], dtype=object)
    table = by_reason(reasons, np.array([1.0, 9.0, 2.5, 0.0]), kind="spots")
    assert {name: item.as_json() for name, item in table.items()} == {
        "a": {"spots": 1, "counts": 2.5},
        "b": {"spots": 2, "counts": 1},
    }
    assert list(table) == ["a", "b"]
