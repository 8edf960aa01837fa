"""QC: every reason takes its spots or genes, the first one that holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stpatch.config import QcSection
from stpatch.errors import InputError
from stpatch.slides.matrix import Csr
from stpatch.slides.qc import MITO_ENSEMBL, by_reason, mito_notes, mitochondrial, spot_reasons

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


def table(*names: str) -> pd.DataFrame:
    ids = [name.split(".")[0] if name.startswith("ENS") else "" for name in names]
    return pd.DataFrame({"name": list(names), "ensembl_id": ids})


@pytest.mark.parametrize(
    "name",
    ["MT-CO1", "mt-Nd1", "Mt-x", "MT.ND1", "mt:ND5", "MT_CYB", "MTND1", "mt-Cytb", "ENSG00000198888",
     "ENSG00000198888.3", "ENSMUSG00000064341", "ENSG00000211459"],
)  # fmt: skip
def test_mitochondrial_genes_are_known_by_symbol_and_by_id(name: str) -> None:
    assert mitochondrial(table(name)).tolist() == [True]


@pytest.mark.parametrize(
    "name", ["MTOR", "AMT-1", "MT1X", "MT2A", "Mt1", "MTCO2P12", "ENSG00000141510", "MTND1P23", "MTRR", "ND", "COX1"]
)
def test_genes_that_only_look_like_it_are_not(name: str) -> None:
    assert mitochondrial(table(name)).tolist() == [False]


def test_mitochondrial_chromosomes_have_37_genes() -> None:
    assert sum(text.startswith("ENSG") for text in MITO_ENSEMBL) == 37
    assert sum(text.startswith("ENSMUSG") for text in MITO_ENSEMBL) == 37


@pytest.mark.parametrize("names", [["4535", "7157"], ["ENSDARG00000063895", "ENSDARG00000035559"], ["FBgn0013680"]])
def test_names_that_cannot_tell_are_refused(names: list[str]) -> None:
    genes = table(*names)
    with pytest.raises(InputError, match=r"max_mito cannot be applied(?s:.*)hint"):
        mito_notes(genes, mitochondrial(genes), where="slide A")


def test_symbols_without_a_mitochondrial_one_give_a_note() -> None:
    genes = table("ACTB", "TP53", "4535")
    assert "no gene of the slide is known to be mitochondrial" in mito_notes(genes, mitochondrial(genes), where="")[0]
    assert mito_notes(table("MT-ND1"), np.array([True]), where="") == []


def test_the_record_sums_by_reason() -> None:
    reasons = np.array(["b", "", "a", "b"], dtype=object)
    table = by_reason(reasons, np.array([1.0, 9.0, 2.5, 0.0]), kind="spots")
    assert {name: item.as_json() for name, item in table.items()} == {
        "a": {"spots": 1, "counts": 2.5},
        "b": {"spots": 2, "counts": 1},
    }
    assert list(table) == ["a", "b"]
