"""From molecules to a raw slide of bins: what the imaging platforms' transcript tables have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.errors import InputError, InputMissingError
from stpatch.slides.formats.molecules.binner import Bins, MoleculeBinner
from stpatch.slides.formats.molecules.table import GeneCodes, Kind, MoleculeTable, molecule_blocks
from stpatch.slides.formats.names import gene_frame
from stpatch.slides.slide import RawSlide

DEFAULT_BIN_UM = 10.0
"""Bin of a bundle that holds molecules and no cells, where ``ingest.bin_um`` is not set."""

Block = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Binned:
    """Bins with their genes' names, by gene number."""

    bins: Bins
    genes: list[str]
    n_left_out: int


def default_bin_note(bin_um: float) -> str:
    """Return the note of a bin that nobody asked for."""
    return f"ingest.bin_um is not set: molecules were summed to bins of {bin_um:g} um"


def need_molecules(path: Path | None, *, folder: Path, bin_um: float | None, expected: str) -> Path:
    """Return the molecule table of a bundle; a bundle without one is an `InputMissingError`."""
    if path is None:
        raise InputMissingError(
            "ingest.bin_um asks for binned molecules, but there is no molecule table",
            where=folder,
            found=f"ingest.bin_um = {bin_um}",
            expected=expected,
            hint="leave ingest.bin_um out to read the cells",
        )
    return path


def bin_table(
    table: MoleculeTable,
    *,
    gene: str,
    x: str,
    y: str,
    pitch: float,
    count: str | None = None,
    genes: Sequence[str] = (),
    further: Mapping[str, Kind] | None = None,
    move: Callable[[Block], tuple[NDArray[np.float64], NDArray[np.float64]]] | None = None,
    keep: Callable[[Block], NDArray[np.bool_]] | None = None,
    see: Callable[[NDArray[np.int32], Block], None] | None = None,
) -> Binned:
    """Stream a table of one molecule a row into bins.

    Bins are counted from coordinate 0, so their corners are whole multiples of the pitch.

    Parameters
    ----------
    gene, x, y
        Columns.
    pitch
        Side of a bin in coordinate units.
    count
        Column of the molecules that a row stands for; None: one.
    genes
        Genes that are known to be measured, whether a molecule has them or not; they get the first numbers.
    further
        Further columns, for `move`, `keep` and `see`.
    move
        Returns (x, y) of a block's molecules where the columns alone are not the place on the slide.
    keep
        Which molecules of a block count; None keeps all. Genes of which none is kept stay as measured genes.
    see
        Called with the gene numbers of every block, all molecules.
    """
    codes = GeneCodes(genes)
    binner = MoleculeBinner(pitch=pitch, where=table.path)
    kinds: dict[str, Kind] = {gene: "text", x: "float", y: "float", **(further or {})}
    if count is not None:
        kinds[count] = "integer"
    n_left_out = 0
    for row, block in molecule_blocks(table, kinds):
        numbers = codes.encode(block[gene], where=f"{table.path}, column {gene}, in the block from row {row}")
        if see is not None:
            see(numbers, block)
        place = (block[x], block[y]) if move is None else move(block)
        if count is not None and (block[count] < 0).any():
            raise InputError("a count is negative", where=f"{table.path}, column {count}, in the block from row {row}")
        if keep is None:
            binner.add(numbers, *place, *(() if count is None else (block[count],)))
            continue
        kept = keep(block)
        n_left_out += int((~kept).sum())
        binner.add(numbers[kept], place[0][kept], place[1][kept])
    return Binned(bins=binner.finish(n_genes=len(codes)), genes=codes.names, n_left_out=n_left_out)


def bins_slide(
    bins: Bins,
    *,
    genes: pd.DataFrame | list[str],
    pitch: float,
    um_per_unit: float | None,
    where: object,
    version: str = "",
    notes: tuple[str, ...] = (),
    dropped: Mapping[str, Mapping[str, int]] | None = None,
    control_patterns: tuple[str, ...] = (),
) -> RawSlide:
    """Return bins as a raw slide on a square lattice; the origin of the bins is noted."""
    if not bins.counts.shape[0]:
        raise InputError(
            "no molecule is left in the table",
            where=where,
            found=", ".join(f"{reason}: {numbers.get('counts', 0)}" for reason, numbers in (dropped or {}).items())
            or "a table without rows",
            hint="lower ingest.min_qv, or fetch the table again",
        )
    corner = (
        f"bins of {pitch:g} coordinate units, corner of bin (0, 0) at x = {bins.origin[0]:g}, y = {bins.origin[1]:g}"
    )
    return RawSlide(
        counts=bins.counts,
        spot_ids=bins.spot_ids,
        genes=gene_frame(genes) if isinstance(genes, list) else genes,
        xy=bins.xy,
        array=bins.array,
        geometry="square",
        um_per_unit=um_per_unit,
        pitch=pitch,
        spots=pd.DataFrame(index=pd.RangeIndex(len(bins.array))),
        control_patterns=control_patterns,
        version=version,
        notes=(*notes, corner),
        dropped={} if dropped is None else dropped,
    )
