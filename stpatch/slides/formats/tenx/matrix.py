"""What every 10x matrix file holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from stpatch.errors import InputError
from stpatch.slides import feature_types
from stpatch.slides.formats.names import check_unique


@dataclass(frozen=True, kw_only=True)
class TenxMatrix:
    """A 10x matrix.

    Attributes
    ----------
    counts
        CSR, (barcodes, features), unsigned integers.
    barcodes
        (barcodes,) str.
    genes
        One row a feature: ``name``, ``ensembl_id`` (the feature's id as it is), ``feature_type`` ("" where unknown).
    version
        Software that wrote it, "" where unknown.
    notes
        What was corrected or left out.
    """

    counts: sparse.csr_matrix
    barcodes: NDArray[np.object_]
    genes: pd.DataFrame
    version: str = ""
    notes: tuple[str, ...] = ()


def no_genes(genes: pd.DataFrame) -> NDArray[np.bool_]:
    """Return (features,) which features are of another kind than RNA by their type."""
    kinds = feature_types.kinds_of(genes["feature_type"].tolist())
    return np.array([kind in ("control", "other") for kind in kinds], dtype=bool)


def check_sizes(where: object, shape: tuple[int, int], barcodes: NDArray[np.object_], genes: pd.DataFrame) -> None:
    """Raise `InputError` where a matrix of `shape` (barcodes, features) has other names, or a barcode twice."""
    found = (len(barcodes), len(genes))
    if found != shape:
        raise InputError(
            "the matrix and its names differ in size",
            where=where,
            found=f"{found[0]} barcodes, {found[1]} features",
            expected=f"{shape[0]} barcodes, {shape[1]} features",
        )
    check_unique(barcodes, what="a barcode", where=where)
