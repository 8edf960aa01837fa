"""A look at the gene names that a slide's files list, without its matrix: for `check`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from stpatch.errors import StpatchError
from stpatch.slides.formats.hdf5.anndata_group import anndata_group, is_anndata, read_genes
from stpatch.slides.formats.hdf5.files import hdf5_file, is_hdf5
from stpatch.slides.formats.hdf5.layers import counts_key
from stpatch.slides.formats.tenx.read import read_features
from stpatch.slides.formats.text.lines import head_or_none, read_lines
from stpatch.slides.source import Probe

_HEADERS = ("st", "merscope", "cosmx")
"""Platforms whose counts tables name the genes in their header."""
_LEAST_COLUMNS = 8
_COLUMNS = ["name", "ensembl_id", "feature_type"]


def peek_genes(probe: Probe) -> pd.DataFrame | None:
    """Return the genes' ``name``, ``ensembl_id`` and ``feature_type`` as the files have them.

    None where only the matrix tells.

    Control probes and other features may be among them: what is asked of the names is what most of them say.
    """
    for path in probe.files:
        try:
            genes = _of_file(path, probe.platform)
        except (StpatchError, OSError, KeyError, ValueError):  # reading the slide tells what is wrong with it
            continue
        if genes is not None and len(genes):
            return genes
    return None


def _of_file(path: Path, platform: str) -> pd.DataFrame | None:
    if path.is_file() and is_hdf5(path):
        if is_anndata(path):
            with anndata_group(path) as group:
                return read_genes(group, counts_key(group))[_COLUMNS]
        with hdf5_file(path) as file:
            if "matrix" in file and "features" in file["matrix"]:
                return read_features(file["matrix"], path)[_COLUMNS]
        return None
    name = path.name.lower()
    if "features.tsv" in name or "genes.tsv" in name:
        rows = [line.replace('"', "").split("\t") for line in read_lines(path)]
        return _table(
            [row[1] if len(row) > 1 else row[0] for row in rows],
            [row[0] for row in rows],
            [row[2].strip() if len(row) > 2 else "" for row in rows],
        )
    if platform in _HEADERS and path.is_file():
        head = head_or_none(path)
        if head is not None and len(head.names) >= _LEAST_COLUMNS:
            blank = [""] * (len(head.names) - 1)
            return _table(list(head.names[1:]), blank, blank)
    return None


def _table(names: list[str], ids: list[str], types: list[str]) -> pd.DataFrame:
    return pd.DataFrame(dict(zip(_COLUMNS, (names, ids, types), strict=True)), dtype=object)
