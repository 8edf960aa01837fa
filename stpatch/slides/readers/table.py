"""Any table: counts and coordinates in two tables, or a loom file; what no vendor's rule can recognize.

The keys of ``ingest.table`` tell what the files cannot; a samplesheet column of a key's name overrides it for its
slide.
Swapped x and y do not show in a table: look at the picture that ``stpatch report`` draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import sparse

from stpatch.config import IngestSection, TableSection
from stpatch.errors import ConfigError, InputError, InputMissingError
from stpatch.slides.feature_types import CONTROL_NAMES
from stpatch.slides.formats.barcodes import flags
from stpatch.slides.formats.hdf5.loom import is_loom, loom_cells, loom_genes, read_loom
from stpatch.slides.formats.molecules.plain import PlainMolecules, find_molecules, plain_slide
from stpatch.slides.formats.molecules.slide import DEFAULT_BIN_UM
from stpatch.slides.formats.names import check_unique, gene_frame, listed
from stpatch.slides.formats.parquet import parquet_parts
from stpatch.slides.formats.places import nearest_distance, square_pitch
from stpatch.slides.formats.text.coordinates import (
    Coordinates,
    array_of,
    find_xy,
    joined_rows,
    matching_column,
    read_coordinates,
    rows_of,
)
from stpatch.slides.formats.text.delimited import numbers, read_table
from stpatch.slides.formats.text.dense import DenseTable, read_dense, read_ids, transposed
from stpatch.slides.formats.text.lines import Head, read_head
from stpatch.slides.formats.text.not_genes import genes_alone, id_like, skip_note
from stpatch.slides.geometry import Settled, seen_geometry, settle
from stpatch.slides.readers.registry import register
from stpatch.slides.selection import Wish, refuse_joined, select_rows, wishes_of
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource


@dataclass(frozen=True, kw_only=True)
class _Spots:
    """Counts (spots, genes), ids, coordinates and columns of the spots, rows alike; the rest as in a raw slide."""

    counts: sparse.csr_matrix
    ids: NDArray[np.object_]
    genes: pd.DataFrame
    xy: NDArray[np.float64]
    columns: pd.DataFrame
    notes: list[str]
    dropped: dict[str, dict[str, int]]

    def take(self, keep: NDArray[np.bool_]) -> _Spots:
        return _Spots(
            counts=self.counts[keep],
            ids=self.ids[keep],
            genes=self.genes,
            xy=self.xy[keep],
            columns=self.columns[keep].reset_index(drop=True),
            notes=self.notes,
            dropped=self.dropped,
        )


@register
class TableReader:
    """Reader of generic tables, by name alone, since a table of text may be anything; loom files are recognized."""

    platform = "table"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Check that the tables are there and their heads have the named columns."""
        if self.platform not in (source.platform, options.platform) and not is_loom(source.path):
            return None
        settings = settings_of(source, options)
        _check_file(source.path, "counts table", "name the counts table itself as the slide's path")
        extra = tuple(path for path in (source.coordinates, source.labels) if path is not None)
        for path in extra:
            _check_file(path, "table", None)
        if (molecules := _molecules(source, settings)) is not None:
            _refuse_picked(source, options, settings)
            return _probe_molecules(molecules, source, options)
        if is_loom(source.path):
            n_genes: int | None = loom_genes(source.path)
            reason = "a loom file"
        else:
            head = read_head(source.path, delimiter=settings.delimiter)
            n_genes = len(head.names) - 1 if settings.genes_in == "columns" else None
            beside = "its own x and y" if source.coordinates is None else f"coordinates in {source.coordinates.name}"
            reason = f"a table of {len(head.names)} columns with {beside}"
        _refuse_unnamed(source, settings)
        spots, settled = _looked_at(source, settings, options)
        return Probe(
            platform=self.platform,
            reason=reason,
            files=(source.path, *extra),
            n_spots=len(spots.ids),
            n_genes=n_genes,
            pitch_um=settled.pitch_um,
            um_per_unit=settled.um_per_unit,
            geometry=seen_geometry(settled, spots.xy),
            notes=settled.notes,
        )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:
        """Read and join the tables, and take the slide's own rows where several slides share them."""
        settings = settings_of(source, options)
        if (molecules := _molecules(source, settings)) is not None:
            return plain_slide(molecules, bin_um=options.bin_um, um_per_unit=options.um_per_unit)
        normalized = options.values == "normalized"
        read = _read_loom if is_loom(probe.files[0]) else _read_tables
        spots = read(source, settings, normalized=normalized)
        own_columns = list(dict.fromkeys([*spots.columns, "in_tissue"]))
        spots = _own_rows(_with_labels(spots, source, settings), source, settings)
        spots = _selected(spots, source, options, settings)
        settled = _settled(spots, source, options)
        return RawSlide(
            counts=spots.counts,
            spot_ids=spots.ids,
            genes=spots.genes,
            xy=np.ascontiguousarray(spots.xy),
            array=settled.array,
            geometry=settled.geometry,
            um_per_unit=settled.um_per_unit,
            pitch=settled.pitch,
            spots=_typed(spots.columns[[name for name in own_columns if name in spots.columns]], source),
            control_patterns=CONTROL_NAMES,
            notes=settled.notes,
            dropped=spots.dropped,
        )


def _molecules(source: SlideSource, settings: TableSection) -> PlainMolecules | None:
    """Return the columns of a table of molecules; None for a table of counts, or one with coordinates beside it."""
    if source.coordinates is not None or is_loom(source.path):
        return None
    return find_molecules(source.path, x=settings.x_column, y=settings.y_column)


def _probe_molecules(molecules: PlainMolecules, source: SlideSource, options: IngestSection) -> Probe:
    columns = ", ".join(name for name in (molecules.x, molecules.y, molecules.gene, molecules.count) if name)
    return Probe(
        platform=TableReader.platform,
        reason=f"a table of molecules with {columns}",
        files=parquet_parts(source.path),
        unit="um" if options.um_per_unit is None else "unknown",
        pitch_um=options.bin_um or DEFAULT_BIN_UM,
        um_per_unit=options.um_per_unit or 1.0,
    )


def _refuse_picked(source: SlideSource, options: IngestSection, settings: TableSection) -> None:
    """Raise where rows are to be picked of a table of molecules, which is read whole."""
    wishes = [
        f"{wish.column} = {', '.join(wish.values)} ({wish.where})"
        for wish in wishes_of(source, options, settings)
        if wish.needed
    ]
    if not wishes and settings.slide_column is not None:
        wishes = [f"slide_column {settings.slide_column}"]
    if wishes:
        raise ConfigError(
            "rows of a table of molecules cannot be picked",
            where=f"slide {source.slide_id}, {source.path}",
            found="; ".join(wishes),
            hint="write each section's molecules to a file of its own",
        )


def settings_of(source: SlideSource, options: IngestSection) -> TableSection:
    """Return ``ingest.table`` with the slide's own samplesheet columns over it."""
    own = {name: text for name, text in source.metadata.items() if name in TableSection.model_fields and text}
    try:
        return TableSection.model_validate({**options.table.model_dump(), **own})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"column {first['loc'][0]} is not valid for platform table",
            where=f"slide {source.slide_id}, {source.where}",
            found=repr(first["input"]),
            expected=first["msg"],
        ) from None


def _check_file(path: Path, what: str, hint: str | None) -> None:
    if path.is_dir():
        raise InputError(f"the {what} is a folder", where=path, expected="a file", hint=hint)
    if not path.is_file():
        raise InputMissingError(f"there is no such {what}", where=path, hint=hint)


def _inner_xy(names: tuple[str, ...], settings: TableSection, source: SlideSource) -> tuple[str, str]:
    if settings.x_column is None or settings.y_column is None:
        raise InputError(
            "a table of counts needs coordinates",
            where=f"slide {source.slide_id}, {source.path}",
            hint="name their table in the samplesheet's coordinates column, or, where x and y are columns of the "
            "counts table, name them: ingest.table.x_column and y_column",
        )
    return find_xy(names, x=settings.x_column, y=settings.y_column, where=source.path)


def _read_loom(source: SlideSource, settings: TableSection, *, normalized: bool) -> _Spots:
    loom = read_loom(source.path, id_column=settings.id_column, normalized=normalized)
    return _placed_cells(loom.counts, loom.cell_ids, loom.genes, loom.cells, source, settings)


def _placed_cells(
    counts: sparse.csr_matrix,
    ids: NDArray[np.object_],
    genes: pd.DataFrame,
    columns: pd.DataFrame,
    source: SlideSource,
    settings: TableSection,
) -> _Spots:
    """Return a loom's cells with coordinates of a table beside it, else of two of their attributes."""
    if source.coordinates is not None:
        return _joined(counts, ids, genes, _coordinates(source.coordinates, settings), columns=columns)
    notes: list[str] = []
    x, y = find_xy([str(name) for name in columns], x=settings.x_column, y=settings.y_column, where=source.path)
    xy = np.column_stack([numbers(columns[name].astype(str), where=source.path, first_row=1) for name in (x, y)])
    columns = columns.drop(columns=[x, y])
    if "Valid" in columns and "in_tissue" not in columns:
        columns = columns.rename(columns={"Valid": "in_tissue"})
        invalid = int((numbers(columns["in_tissue"].astype(str), where=source.path, first_row=1) == 0).sum())
        notes.append(f"{invalid} cells with Valid = 0 count as outside tissue (kept with ingest.qc.in_tissue: false)")
    return _Spots(counts=counts, ids=ids, genes=genes, xy=xy, columns=columns, notes=notes, dropped={})


def _coordinates(path: Path, settings: TableSection) -> Coordinates:
    return read_coordinates(path, x_column=settings.x_column, y_column=settings.y_column, id_column=settings.id_column)


def _read_tables(source: SlideSource, settings: TableSection, *, normalized: bool) -> _Spots:
    path = source.path
    if source.coordinates is None:
        return _read_one_table(source, settings, normalized=normalized)
    places = _coordinates(source.coordinates, settings)
    head = read_head(path, delimiter=settings.delimiter)
    skipped = () if settings.genes_in == "rows" else id_like(head.names[1:])
    table = read_dense(path, delimiter=head.delimiter, skip=skipped, normalized=normalized)
    genes_in = _genes_in(table, places, settings, path)
    if genes_in == "rows":
        return _joined(transposed(table.counts), table.names, gene_frame(table.row_ids), places)
    counts, names, notes = genes_alone(table.counts, table.names)
    spots = _joined(counts, table.row_ids, gene_frame(names), places)
    spots.notes.extend((*skip_note(skipped), *notes))
    return spots


def _read_one_table(source: SlideSource, settings: TableSection, *, normalized: bool) -> _Spots:
    head = read_head(source.path, delimiter=settings.delimiter)
    wanted = _own_columns(head, source, settings)
    skipped = id_like(head.names, without=wanted)
    table = read_dense(source.path, delimiter=head.delimiter, id_columns=wanted, skip=skipped, normalized=normalized)
    counts, names, notes = genes_alone(table.counts, table.names)
    return _placed_rows(counts, names, table.ids, source, notes=[*skip_note(skipped), *notes])


def _own_columns(head: Head, source: SlideSource, settings: TableSection) -> list[str]:
    """Return the columns of a counts table that are the ids, x, y and what tells slides apart."""
    x, y = _inner_xy(head.names, settings, source)
    ids = settings.id_column if settings.id_column is not None else head.names[0]
    if ids in (x, y):
        raise InputError(
            "the first column is a coordinate: which one holds the ids?",
            where=source.path,
            found=f"columns {listed(head.names)}",
            hint="name it: ingest.table.id_column",
        )
    return [ids, x, y, *([settings.slide_column] if settings.slide_column in head.names else [])]


def _placed_rows(
    counts: sparse.csr_matrix,
    names: Sequence[str] | NDArray[np.object_],
    ids: pd.DataFrame,
    source: SlideSource,
    *,
    notes: Sequence[str] = (),
) -> _Spots:
    """Return rows whose id columns are those of `_own_columns`."""
    xy = np.column_stack([numbers(ids.iloc[:, i], where=source.path) for i in (1, 2)])
    return _Spots(
        counts=counts,
        ids=ids.iloc[:, 0].to_numpy(object),
        genes=gene_frame(names),
        xy=xy,
        columns=ids.iloc[:, 3:],
        notes=list(notes),
        dropped={},
    )


def _genes_in(table: DenseTable, places: Coordinates, settings: TableSection, path: Path) -> str:
    """Return the axis of the genes: the other one holds the ids of the coordinates, or has as many as there are."""
    if settings.genes_in != "auto":
        return settings.genes_in
    others = [places.id_column] if places.id_column is not None else list(places.others)
    in_rows = matching_column(places.table, others, table.row_ids)[1]
    in_columns = matching_column(places.table, others, table.names)[1]
    if not in_rows and not in_columns and places.id_column is None:
        in_rows, in_columns = (int(n == len(places.xy)) for n in table.counts.shape)
    if in_rows == in_columns:
        n_rows, n_columns = table.counts.shape
        known = (
            "" if places.id_column is None else f" with ids such as {listed(places.table[places.id_column].head(3))}"
        )
        raise InputError(
            "the coordinates fit rows and columns of the counts alike"
            if in_rows
            else "the coordinates fit neither rows nor columns of the counts",
            where=f"{path} and {places.path}",
            found=f"{len(places.xy)} coordinates{known}; {n_rows} rows such as {listed(table.row_ids[:3])}; "
            f"{n_columns} columns such as {listed(table.names[:3])}",
            hint="check that both tables are of one slide; say where the genes are: ingest.table.genes_in; "
            "name the ids: ingest.table.id_column",
        )
    return "columns" if in_rows > in_columns else "rows"


def _joined(
    counts: sparse.csr_matrix,
    ids: NDArray[np.object_],
    genes: pd.DataFrame,
    places: Coordinates,
    *,
    columns: pd.DataFrame | None = None,
) -> _Spots:
    """Join spots and coordinates by id, else by order."""
    id_column = places.id_column
    if id_column is None:
        id_column = matching_column(places.table, places.others, ids)[0]
    if id_column is None:
        if len(ids) != len(places.xy):
            raise InputError(
                "the coordinates have no ids and another length than the counts",
                where=places.path,
                found=f"{len(places.xy)} coordinates",
                expected=f"{len(ids)}, one a spot in the counts' order",
            )
        row = np.arange(len(ids))
        notes = [f"{places.path.name} has no ids: joined to the counts by order"]
    else:
        row, joins = joined_rows(ids, places.table[id_column], where=places.path)
        notes = list(joins)
    placed = row >= 0
    if not placed.any():
        raise InputError(
            "no spot of the counts has coordinates: the tables belong to different slides",
            where=f"{places.path}, column {id_column!r}",
            found=f"ids such as {listed(places.table[id_column].head(3).tolist())}",
            expected=f"ids such as {listed(ids[:3])}",
            hint="check both files; name the column of ids: ingest.table.id_column",
        )
    missing = int((~placed).sum())
    dropped = {"no_coordinates": {"spots": missing, "counts": int(counts[~placed].sum())}} if missing else {}
    empty = len(places.xy) - int(placed.sum())
    if empty:
        notes.append(f"{empty} rows of {places.path.name} have no counts")
    own = places.table[[name for name in places.others if name != id_column]].iloc[row[placed]].reset_index(drop=True)
    if columns is not None:
        kept = columns[placed].reset_index(drop=True)
        own = pd.concat([own, kept[[name for name in kept if name not in own]]], axis=1)
    return _Spots(
        counts=counts[placed] if missing else counts,
        ids=ids[placed],
        genes=genes,
        xy=places.xy[row[placed]],
        columns=own,
        notes=notes,
        dropped=dropped,
    )


def _with_labels(spots: _Spots, source: SlideSource, settings: TableSection) -> _Spots:
    """Add what the label table, joined by id, says about places: array indices, tissue, which slide a spot is of."""
    if source.labels is None:
        return spots
    table = read_table(source.labels)
    key, _ = matching_column(table, list(table.columns), spots.ids)
    if key is None:
        return spots
    row = rows_of(spots.ids, table[key], where=source.labels)
    places = ("array_row", "array_col", "in_tissue", settings.slide_column)
    new = [name for name in table.columns if name in places and name != key and name not in spots.columns]
    taken = table[new].iloc[np.maximum(row, 0)].reset_index(drop=True)
    taken[row < 0] = ""
    if (row < 0).any():  # array indices are for all spots or none
        taken = taken.drop(columns=["array_row", "array_col", "in_tissue"], errors="ignore")
    columns = pd.concat([spots.columns, taken], axis=1)
    return _Spots(**{**spots.__dict__, "columns": columns})


def _own_rows(spots: _Spots, source: SlideSource, settings: TableSection) -> _Spots:
    column = settings.slide_column
    if column is None:
        return spots
    where = f"slide {source.slide_id}, ingest.table.slide_column {column!r}"
    if column not in spots.columns:
        raise InputError(
            f"there is no column {column!r} in the coordinates or the labels table",
            where=where,
            found=f"columns {listed(list(spots.columns))}",
            hint="set ingest.table.slide_column to a column of theirs",
        )
    texts = spots.columns[column].astype(str)
    value = _slide_value(source, settings)
    known = f"values {listed(sorted(set(texts)))}"
    if value is None:
        raise _unnamed(column, known, where=where)
    own = (texts == value).to_numpy()
    if not own.any():
        raise InputError(
            f"no spot has {column} = {value!r}",
            where=where,
            found=known,
            hint="set ingest.table.slide_value to a value of the column",
        )
    spots.notes.append(f"{int(own.sum())} of {len(own)} spots have {column} = {value}")
    return spots.take(own)


def _slide_value(source: SlideSource, settings: TableSection) -> str | None:
    return settings.slide_value or source.metadata.get(settings.slide_column or "") or None


def _refuse_unnamed(source: SlideSource, settings: TableSection) -> None:
    """Raise where several slides share the tables and the samplesheet does not say which one is meant."""
    column = settings.slide_column
    if column is None or _slide_value(source, settings) is not None:
        return
    for path in (source.coordinates, source.labels):
        if path is not None and column in read_head(path).names:
            raise _unnamed(column, f"values {listed(sorted(set(read_table(path)[column])))}", where=path)


def _unnamed(column: str, known: str, *, where: object) -> InputError:
    return InputError(
        "the table holds several slides, and this one is not named",
        where=where,
        found=known,
        hint=f"add a samplesheet column slide_value (or {column}) that names each slide's rows",
    )


def _selected(spots: _Spots, source: SlideSource, options: IngestSection, settings: TableSection) -> _Spots:
    """Pick rows by ``ingest.select`` and the samplesheet's columns; refuse sections that lie over one another."""
    columns = {str(name): spots.columns[name] for name in spots.columns}
    picked, notes = select_rows(columns, spots.ids, _wishes(source, options, settings), where=source.path)
    if picked is not None:
        spots = spots.take(picked)
    spots.notes.extend(notes)
    return spots


def _wishes(source: SlideSource, options: IngestSection, settings: TableSection) -> list[Wish]:
    """Return what rows are picked by beside the slide's own column, which has its rules."""
    wishes = wishes_of(source, options, settings)
    return [wish for wish in wishes if wish.column != settings.slide_column]


def _settled(spots: _Spots, source: SlideSource, options: IngestSection) -> Settled:
    """Settle where spots lie; the notes are those on the spots and on their places."""
    check_unique(spots.ids, what="a spot", where=source.path)
    where = source.path if source.coordinates is None else f"{source.path} and {source.coordinates}"
    array, _ = array_of(spots.columns, where=where)
    columns = {str(name): spots.columns[name] for name in spots.columns if name not in ("array_row", "array_col")}
    notes = refuse_joined(
        spots.xy, columns, spots.ids, where=where, array=array if options.places != "coordinates" else None
    )
    settled = settle(spots.xy, array, ids=spots.ids, options=options, where=where, visium=False)
    if settled.array is None:  # no lattice, but perhaps spots that lie evenly
        pitch, um_per_unit = _scale(spots.xy, options)
        settled = replace(settled, pitch=pitch, um_per_unit=um_per_unit)
    return replace(settled, notes=tuple(dict.fromkeys((*spots.notes, *notes, *settled.notes))))


def _looked_at(source: SlideSource, settings: TableSection, options: IngestSection) -> tuple[_Spots, Settled]:
    """Settle where the slide's spots lie, as `read` does but without a count."""
    if is_loom(source.path):
        ids, columns = loom_cells(source.path, id_column=settings.id_column)
        spots = _placed_cells(_no_counts(len(ids)), ids, gene_frame([]), columns, source, settings)
    elif source.coordinates is not None:
        spots = _joined_names(source.path, _coordinates(source.coordinates, settings), settings)
    else:
        head = read_head(source.path, delimiter=settings.delimiter)
        rows = read_ids(source.path, delimiter=head.delimiter, id_columns=_own_columns(head, source, settings))
        spots = _placed_rows(_no_counts(len(rows)), [], rows, source)
    spots = _own_rows(_with_labels(spots, source, settings), source, settings)
    spots = _selected(spots, source, options, settings)
    return spots, _settled(spots, source, options)


def _joined_names(path: Path, places: Coordinates, settings: TableSection) -> _Spots:
    """Join coordinates to the names of the counts' rows or columns, whichever are the spots."""
    head = read_head(path, delimiter=settings.delimiter)
    rows = read_ids(path, delimiter=head.delimiter)
    skipped = () if settings.genes_in == "rows" else id_like(head.names[1:])
    columns = np.array([name for name in head.names[1:] if name not in skipped], dtype=object)
    names = DenseTable(ids=rows, names=columns, counts=sparse.csr_matrix((len(rows), len(columns)), dtype=np.uint16))
    ids = columns if _genes_in(names, places, settings, path) == "rows" else names.row_ids
    return _joined(_no_counts(len(ids)), ids, gene_frame([]), places)


def _no_counts(n_spots: int) -> sparse.csr_matrix:
    return sparse.csr_matrix((n_spots, 0), dtype=np.uint16)


def _scale(xy: NDArray[np.float64], options: IngestSection) -> tuple[float | None, float | None]:
    """Return pitch (measured where the spots lie evenly) and um per unit (from the config)."""
    distance, regular = nearest_distance(xy)
    pitch = square_pitch(xy, distance) if regular and distance is not None else None
    um_per_unit = options.um_per_unit
    if um_per_unit is None and pitch is not None and options.pitch_um is not None:
        um_per_unit = options.pitch_um / pitch
    if pitch is None and um_per_unit is not None and options.pitch_um is not None:
        pitch = options.pitch_um / um_per_unit
    return pitch, um_per_unit


def _typed(columns: pd.DataFrame, source: SlideSource) -> pd.DataFrame:
    """Give the columns that QC knows their types."""
    frame = columns.drop(columns=["array_row", "array_col"], errors="ignore").copy()
    if "in_tissue" in frame:
        words = flags(frame["in_tissue"].astype(str))
        known = not np.isnan(words).any()
        frame["in_tissue"] = (words if known else numbers(frame["in_tissue"].astype(str), where=source.path)) != 0
    if "area" in frame:
        frame["area"] = numbers(frame["area"].astype(str), where=source.path, missing=True)
    return frame
