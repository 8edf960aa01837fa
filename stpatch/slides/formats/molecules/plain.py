"""Tables of molecules of no particular make: x, y[, z], gene[, count], one molecule (or one gene and place) per row.

Resolve, Baysor, ISS, FICTURE and many home-made pipelines write such; those without a header have x, y[, z] and a gene.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from stpatch.errors import InputError
from stpatch.slides.feature_types import CONTROL_NAMES
from stpatch.slides.formats.molecules.slide import DEFAULT_BIN_UM, bin_table, bins_slide, default_bin_note
from stpatch.slides.formats.molecules.table import MoleculeTable, open_molecules
from stpatch.slides.slide import RawSlide

PLACES = (
    ("x", "y"), ("x_location", "y_location"), ("global_x", "global_y"), ("x_global_px", "y_global_px"),
    ("x_um", "y_um"), ("x_px", "y_px"), ("xcoord", "ycoord"), ("x_coord", "y_coord"), ("xc", "yc"),
    ("spotx", "spoty"), ("x_micron", "y_micron"), ("global_x_um", "global_y_um"), ("xpos", "ypos"),
)  # fmt: skip
GENES = (
    "gene", "genes", "gene_name", "genename", "geneid", "gene_id", "feature_name", "target", "target_name", "feature",
    "transcript", "symbol",
)  # fmt: skip
COUNTS = ("count", "counts", "midcount", "midcounts", "umicount", "umi_count", "umi", "n", "n_molecules", "nmolecules")
"""Names of columns, in lower case."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, kw_only=True)
class PlainMolecules:
    """A table and its columns; `count` is None where each row is one molecule."""

    table: MoleculeTable
    x: str
    y: str
    gene: str
    count: str | None


def find_molecules(path: Path, *, x: str | None = None, y: str | None = None) -> PlainMolecules | None:
    """Return the columns of a table of molecules by their names, or by their kinds without a header; None for another.

    Parameters
    ----------
    x, y
        Names of the columns of place (``ingest.table``), where they are not the usual ones.
    """
    try:
        table = open_molecules(path)
    except InputError:
        return None
    if not table.is_parquet and _is_row(table.columns):
        return _without_header(table)
    lower = {name.lower(): name for name in reversed(table.columns)}
    pair = (x, y) if x in table.columns and y in table.columns else _pair(lower)
    gene = next((lower[name] for name in GENES if name in lower), None)
    if pair is None or pair[0] is None or pair[1] is None or gene is None:
        return None
    count = next((lower[name] for name in COUNTS if name in lower), None)
    return PlainMolecules(table=table, x=pair[0], y=pair[1], gene=gene, count=count)


def _pair(lower: dict[str, str]) -> tuple[str, str] | None:
    return next(((lower[a], lower[b]) for a, b in PLACES if a in lower and b in lower), None)


def _is_row(cells: tuple[str, ...]) -> bool:
    """Whether the first line is a row and no header: x, y[, z] and a gene, in this order."""
    return len(cells) in (3, 4, 5) and sum(_NUMBER.fullmatch(cell) is not None for cell in cells) in (2, 3, 4)


def _without_header(table: MoleculeTable) -> PlainMolecules | None:
    text = [i for i, cell in enumerate(table.columns) if not _NUMBER.fullmatch(cell)]
    if len(text) != 1 or text[0] not in (0, 2, 3):
        return None
    names = [f"column {i + 1}" for i in range(len(table.columns))]
    gene = text[0]
    numbers = [i for i in range(len(names)) if i != gene]
    after = [i for i in numbers if i > gene]
    counts = after[-1] if gene in (2, 3) and len(after) == 1 and table.columns[after[-1]].isdecimal() else None
    named = replace(table, columns=tuple(names), has_header=False)
    return PlainMolecules(
        table=named,
        x=names[numbers[0]],
        y=names[numbers[1]],
        gene=names[gene],
        count=None if counts is None else names[counts],
    )


def plain_slide(molecules: PlainMolecules, *, bin_um: float | None, um_per_unit: float | None) -> RawSlide:
    """Sum molecules to bins; without `um_per_unit` coordinates are taken for micrometres, which is noted."""
    side, scale = bin_um or DEFAULT_BIN_UM, um_per_unit or 1.0
    pitch = side / scale
    binned = bin_table(
        molecules.table, gene=molecules.gene, x=molecules.x, y=molecules.y, pitch=pitch, count=molecules.count
    )
    notes = [] if bin_um else [default_bin_note(side)]
    if um_per_unit is None:
        notes.append("coordinates are taken for micrometres: ingest.um_per_unit is not set")
    if not molecules.table.has_header and not molecules.table.is_parquet:
        notes.append(f"the table has no header: {molecules.x} is x, {molecules.y} is y, {molecules.gene} is the gene")
    return bins_slide(
        binned.bins,
        genes=binned.genes,
        pitch=pitch,
        um_per_unit=scale,
        where=molecules.table.path,
        notes=tuple(notes),
        control_patterns=CONTROL_NAMES,
    )
