"""MERSCOPE: cells of ``cell_by_gene`` and ``cell_metadata``, or ``detected_transcripts`` summed to bins."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from stpatch.config import IngestSection
from stpatch.errors import InputError, InputMissingError
from stpatch.slides.formats.molecules.slide import (
    DEFAULT_BIN_UM,
    bin_table,
    bins_slide,
    default_bin_note,
    need_molecules,
)
from stpatch.slides.formats.molecules.table import open_molecules
from stpatch.slides.formats.names import gene_frame, listed
from stpatch.slides.formats.parquet import parquet_parts
from stpatch.slides.formats.text.cell_table import (
    cell_ids,
    cell_places,
    further_columns,
    join_cells,
    named_file,
    need_columns,
    one_file,
    read_cells,
    table_columns,
)
from stpatch.slides.formats.text.dense import read_dense
from stpatch.slides.formats.text.not_genes import genes_alone, id_like, skip_note
from stpatch.slides.readers.registry import register
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

COUNTS = re.compile(r"(?P<prefix>.*?)(cell|entity)_by_gene(?P<suffix>.*?)\.(csv(\.gz)?|parquet)", re.IGNORECASE)
CELLS = re.compile(r"(?P<prefix>.*?)(cell|entity)_metadata(?P<suffix>.*?)\.(csv(\.gz)?|parquet)", re.IGNORECASE)
TRANSCRIPTS = re.compile(r".*detected_transcripts.*\.(csv(\.gz)?|parquet)", re.IGNORECASE)
CELL_ID = ("EntityID", "", "X", "cell", "cell_id", "Unnamed: 0")
"""Columns that hold the id in ``cell_metadata``; the first that is there."""
COUNT_IDS = ("cell", "EntityID", "cell_id", "cellID")
"""Columns that hold the id in ``cell_by_gene``; the first that is there, else the first column."""
PLACE = ("center_x", "center_y")
TRANSCRIPT_COLUMNS = ("gene", "global_x", "global_y")
VOLUME = "volume"
CONTROL_PATTERNS = (".*blank.*",)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The files of an output folder that matter here."""

    folder: Path
    counts: Path | None
    cells: Path | None
    transcripts: Path | None


@register
class Merscope:
    """Reader of a MERSCOPE (or VPT) output folder."""

    platform = "merscope"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Recognize the cell tables, or the transcripts, by name and columns."""
        bundle = find_bundle(source.path, named=source)
        if bundle is None:
            return None
        if options.bin_um is None and bundle.counts is not None and bundle.cells is not None:
            columns = table_columns(bundle.cells)
            _id_column(columns, bundle.cells)
            need_columns(columns, PLACE, where=bundle.cells)
            _, skipped = _ids_and_facts(bundle.counts)
            return Probe(
                platform=self.platform,
                reason=f"{bundle.counts.name} beside {bundle.cells.name} with {' and '.join(PLACE)}",
                files=(bundle.counts, *parquet_parts(bundle.cells)),
                n_genes=len(table_columns(bundle.counts)) - 1 - len(skipped),
                unit="um",
                um_per_unit=1.0,
                spot_columns=columns,
                geometry="irregular",
                notes=skip_note(skipped),
            )
        transcripts = _transcripts(bundle, options)
        need_columns(open_molecules(transcripts).columns, TRANSCRIPT_COLUMNS, where=transcripts)
        return Probe(
            platform=self.platform,
            reason=f"{transcripts.name} with {', '.join(TRANSCRIPT_COLUMNS)}",
            files=parquet_parts(transcripts),
            unit="um",
            pitch_um=options.bin_um or DEFAULT_BIN_UM,
            um_per_unit=1.0,
        )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:  # noqa: ARG002
        """Read the cells, or stream the transcripts into bins of ``ingest.bin_um``."""
        bundle = find_bundle(source.path, named=source)
        if bundle is None:
            raise InputError(
                "this is not a MERSCOPE folder",
                where=source.path,
                hint="give the folder with cell_by_gene.csv and cell_metadata.csv, or another platform",
            )
        if options.bin_um is None and bundle.counts is not None and bundle.cells is not None:
            return _read_cells(bundle.counts, bundle.cells)
        return _read_transcripts(_transcripts(bundle, options), bin_um=options.bin_um)


def find_bundle(path: Path, *, named: SlideSource | None = None) -> Bundle | None:
    """Return the bundle that `path` is: a folder, or one of its files; None where there is none.

    Counts and cells of one segmentation have the same words before and behind ``cell_by_gene``. Files that the
    samplesheet names (`named`) go before those that are found.

    Raises
    ------
    InputError
        A file is there several times, or one of the two cell tables is missing and there are no transcripts.
    """
    if path.is_file():
        if TRANSCRIPTS.fullmatch(path.name):
            bundle = Bundle(folder=path.parent, counts=None, cells=None, transcripts=path)
            return bundle if _is_ours(path) else None
        if not COUNTS.fullmatch(path.name):
            return None
    folder = path if path.is_dir() else path.parent
    asked = named or SlideSource(slide_id="", path=path)
    transcripts = named_file(asked.transcripts, column="transcripts") or one_file(folder, TRANSCRIPTS)
    counts = named_file(asked.matrix, column="matrix") or (path if path.is_file() else _only_counts(folder))
    cells = None if counts is None else named_file(asked.coordinates, column="coordinates")
    bundle = Bundle(folder=folder, counts=counts, cells=cells or _cells_of(counts, folder), transcripts=transcripts)
    if bundle.counts is None and bundle.cells is None:
        return bundle if transcripts is not None and _is_ours(transcripts) else None
    if (bundle.counts is None or bundle.cells is None) and transcripts is None:
        raise InputMissingError(
            "the MERSCOPE folder is incomplete",
            where=folder,
            found=", ".join(item.name for item in (bundle.counts, bundle.cells) if item is not None),
            expected="cell_by_gene.csv and cell_metadata.csv, or detected_transcripts.csv",
        )
    return bundle


def _only_counts(folder: Path) -> Path | None:
    found = sorted(item for item in folder.iterdir() if COUNTS.fullmatch(item.name))
    if len(found) > 1:
        raise InputError(
            "the folder holds several segmentations",
            where=folder,
            found=listed([item.name for item in found]),
            expected="one slide per folder, or the table of one segmentation",
            hint=f"give one of them as path: {found[0].name}; the cell table of the same prefix goes with it",
        )
    return found[0] if found else None


def _cells_of(counts: Path | None, folder: Path) -> Path | None:
    """Return the cell table of the same words as the counts, else the only one."""
    found = {item: match for item in sorted(folder.iterdir()) if (match := CELLS.fullmatch(item.name))}
    ours = COUNTS.fullmatch(counts.name) if counts is not None else None
    if ours is not None and len(found) > 1:
        words = (ours["prefix"], ours["suffix"])
        found = {item: match for item, match in found.items() if (match["prefix"], match["suffix"]) == words} or found
    if len(found) > 1:
        raise InputError(
            "the folder holds several cell tables",
            where=folder,
            found=listed([item.name for item in found]),
            expected="one, or one whose words are those of the counts table",
            hint="name the one in the samplesheet's column coordinates",
        )
    return next(iter(found), None)


def _is_ours(path: Path) -> bool:
    return "gene" in open_molecules(path).columns


def _id_column(columns: tuple[str, ...], path: Path) -> str:
    found = next((name for name in CELL_ID if name in columns), None)
    if found is None:
        raise InputError(
            "the cell table has no column of ids",
            where=path,
            found=f"columns {listed(columns)}",
            expected="EntityID, cell, X or a first column without a name",
        )
    return found


def _transcripts(bundle: Bundle, options: IngestSection) -> Path:
    return need_molecules(
        bundle.transcripts, folder=bundle.folder, bin_um=options.bin_um, expected="detected_transcripts.csv"
    )


def _ids_and_facts(counts: Path) -> tuple[str, tuple[str, ...]]:
    """Return the column of ids of a table of counts, and further columns that are no genes by their names."""
    columns = table_columns(counts)
    id_name = next((name for name in COUNT_IDS if name in columns), columns[0])
    return id_name, id_like(columns, without=(id_name,))


def _read_cells(counts_path: Path, cells_path: Path) -> RawSlide:
    id_name, skipped = _ids_and_facts(counts_path)
    dense = read_dense(counts_path, id_columns=[id_name], skip=skipped)
    counts, names, notes = genes_alone(dense.counts, dense.names)
    cells = read_cells(cells_path)
    need_columns(cells.columns, PLACE, where=cells_path)
    id_column = _id_column(tuple(cells.columns), cells_path)
    table_ids = cell_ids(cells[id_column], where=cells_path)
    ids = cell_ids(dense.ids[id_name], where=counts_path)
    rows, dropped = join_cells(ids, table_ids, counts=counts_path, cells=cells_path)
    xy = cell_places(cells, PLACE, rows=rows, where=cells_path)
    return RawSlide(
        counts=counts,
        spot_ids=ids,
        genes=gene_frame(names),
        xy=xy[rows],
        um_per_unit=1.0,
        spots=further_columns(cells, rows=rows, without=(id_column, *PLACE), area=VOLUME, where=cells_path),
        control_patterns=CONTROL_PATTERNS,
        notes=(*skip_note(skipped), *notes),
        dropped=dropped,
    )


def _read_transcripts(path: Path, *, bin_um: float | None) -> RawSlide:
    table = open_molecules(path)
    gene, x, y = (table.need(name) for name in TRANSCRIPT_COLUMNS)
    pitch = bin_um or DEFAULT_BIN_UM
    binned = bin_table(table, gene=gene, x=x, y=y, pitch=pitch)
    return bins_slide(
        binned.bins,
        genes=binned.genes,
        pitch=pitch,
        um_per_unit=1.0,
        where=path,
        notes=() if bin_um else (default_bin_note(pitch),),
        control_patterns=CONTROL_PATTERNS,
    )
