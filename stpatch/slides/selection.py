"""Which rows of a file are the slide's: rows picked by column and value, and sections joined in one file found.

One file may hold many sections. Rows are picked by ``ingest.select``, or for each slide by samplesheet columns
``select.<column>``, ``region``, ``library_id``, or ``slide_column`` and ``slide_value``. Where nothing is picked and
sections lie over one another, the slide is refused, with the column that tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.config import IngestSection, TableSection
from stpatch.errors import InputError
from stpatch.slides.formats.names import listed
from stpatch.slides.formats.places import nearest_distance
from stpatch.slides.labels import natural_key
from stpatch.slides.lattice_fit import find_lattice
from stpatch.slides.source import SlideSource

PREFIX = "select."
"""Samplesheet columns that start so pick rows by the column named after it."""
KNOWN_COLUMNS = ("library_id", "region")
"""Samplesheet columns that pick rows where the file has the column; else they are metadata."""
SUFFIX, FRONT = "barcode_suffix", "barcode_prefix"
"""What may be picked by in every file of barcodes: ``2`` of ``ACGT...-2``, ``A_`` of ``A_ACGT...-1``."""
SECTION_COLUMNS = (
    "library_id", "library_key", "library", "section_id", "section", "section_label", "brain_section_label",
    "slice_id", "slice", "slide_id", "slide", "sample_id", "sample_name", "sample", "capture_area", "puck_id", "puck",
    "array_id", "orig.ident", "batch", "dataset_id", "dataset", "donor_id", "donor", "patient_id", "patient",
    "mouse_id", "mouse", "animal", "subject", "core_id", "core", "fov", "region",
)  # fmt: skip
"""Columns (in any case) whose values may be sections, those that mean it most first."""

_PLACES_ONLY = frozenset({"fov", "region"})  # may divide one section finely: only spots of one place show sections
_BARCODE = re.compile(r"^(?P<front>.*?)(?P<letters>[ACGTN]{10,})(?:[-_](?P<end>.+))?$")
_MIXED, _SAMPLED, _NEIGHBOURS, _FEWEST = 0.1, 50_000, 4, 10
_SHARED, _MOST_SHARED = 0.05, 0.5
_MOST_VALUES = 500
_MOST_LATTICES, _CLOSER, _ALIKE = 20, 0.6, 1.05


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One condition on rows: a column has one of these values; `needed`: a file without the column is refused."""

    column: str
    values: tuple[str, ...]
    where: str
    needed: bool


def wishes_of(source: SlideSource, options: IngestSection, table: TableSection | None = None) -> list[Wish]:
    """Return what the config and the slide's samplesheet row pick rows by; the row's own goes before the config's."""
    found: dict[str, Wish] = {}
    row = source.where or f"slide {source.slide_id}"

    def add(column: str, value: str | Sequence[str], where: str, *, needed: bool) -> None:
        values = (value,) if isinstance(value, str) else tuple(value)
        found[column] = Wish(column=column, values=values, where=where, needed=needed)

    for column, value in options.select.items():
        add(column, value, f"key ingest.select.{column}", needed=True)
    for column in KNOWN_COLUMNS:
        if source.metadata.get(column):
            add(column, source.metadata[column], f"{row}, column {column}", needed=False)
    settings = table or options.table
    slide_column = source.metadata.get("slide_column") or settings.slide_column
    slide_value = source.metadata.get("slide_value") or settings.slide_value
    if slide_column and slide_value:
        add(slide_column, slide_value, f"{row}, columns slide_column and slide_value", needed=True)
    for name, value in source.metadata.items():
        if name.startswith(PREFIX) and value:
            add(name[len(PREFIX) :], value, f"{row}, column {name}", needed=True)
    return list(found.values())


def barcode_parts(ids: Sequence[str] | NDArray[np.object_]) -> dict[str, NDArray[np.object_]]:
    """Return the prefix and suffix of every id that is a barcode; no columns where some are none."""
    matches = [_BARCODE.match(str(text)) for text in ids]
    if not matches or any(match is None for match in matches):
        return {}
    parts = [(match["front"], match["end"] or "") for match in matches if match is not None]
    return {
        FRONT: np.array([front for front, _ in parts], dtype=object),
        SUFFIX: np.array([end for _, end in parts], dtype=object),
    }


def select_rows(
    columns: Mapping[str, pd.Series],
    ids: NDArray[np.object_],
    wishes: Sequence[Wish],
    *,
    where: object,
) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """Return which rows the wishes pick (None: all) and notes.

    Parameters
    ----------
    columns
        The spot table's columns; ``barcode_suffix`` and ``barcode_prefix`` are there without being in it.
    ids
        (n,) spot ids.

    Raises
    ------
    InputError
        A column is not there, no row has the value, or the conditions together leave no row.
    """
    if not wishes:
        return None, ()
    parts = barcode_parts(ids) if any(wish.column in (SUFFIX, FRONT) for wish in wishes) else {}
    keep = np.ones(len(ids), bool)
    used, notes = False, []
    for wish in wishes:
        column = columns[wish.column] if wish.column in columns else parts.get(wish.column)
        if column is None:
            if wish.needed:
                raise InputError(
                    f"there is no column {wish.column!r} to pick rows by",
                    where=f"{wish.where}; {where}",
                    found=f"columns {listed(sorted(columns))}" if len(columns) else "no columns",
                    hint="name a column of the file's spot table (or barcode_suffix, barcode_prefix)",
                )
            notes.append(f"samplesheet column {wish.column} picks no rows here: the file has no such column")
            continue
        texts = texts_of(column)
        own = np.isin(texts, [_text(value) for value in wish.values])
        known = sorted(set(texts.tolist()), key=natural_key)
        if not own.any():
            if not wish.needed and (len(known) < 2 or wish.column in _PLACES_ONLY):
                notes.append(f"samplesheet column {wish.column} picks no rows here: the file has {listed(known)}")
                continue
            raise InputError(
                f"no row has {wish.column} = {' or '.join(wish.values)}",
                where=f"{wish.where}; {where}",
                found=f"values {listed(known)}",
                hint=None
                if wish.needed
                else f"name one of these, or, where the column is metadata, call it other than {wish.column}",
            )
        if not own.all():
            notes.append(f"{int(own.sum())} of {len(own)} rows have {wish.column} = {', '.join(wish.values)}")
        keep &= own
        used = True
    if not keep.any():
        raise InputError(
            "no row meets all the conditions",
            where=where,
            found="; ".join(f"{wish.column} = {', '.join(wish.values)}" for wish in wishes),
            hint="see ingest.select and the samplesheet's columns select.*, region and library_id",
        )
    return (None if keep.all() or not used else keep), tuple(notes)


def refuse_joined(
    xy: NDArray[np.float64],
    columns: Mapping[str, pd.Series],
    ids: NDArray[np.object_],
    *,
    where: object,
    array: NDArray[np.int32] | None = None,
    single: bool = True,
    libraries: Sequence[str] = (),
) -> tuple[str, ...]:
    """Raise `InputError` where sections lie over one another; return a note where several lie side by side.

    A column that means a section (`SECTION_COLUMNS`) tells them where its values' clouds mix: of the nearest four
    spots of a spot more than a tenth are another value's. Columns that may divide one section (field of view, region),
    barcode suffixes and all others tell them only where spots share places and no value has a place twice, or where
    each value has a lattice of its own and these lie between one another. Where no column does, spots that lie on no
    lattice may share rounded coordinates, up to half of them: that is noted.

    Parameters
    ----------
    single
        What the file itself says: False refuses.
    libraries
        Names of the libraries that the file holds scale factors of.
    """
    if len(xy) < 2:
        return ()
    lower = {name.lower(): name for name in columns}
    candidates: dict[str, NDArray[np.str_]] = {}
    for name in SECTION_COLUMNS:
        if name in lower:
            texts = texts_of(columns[lower[name]])
            if 1 < len(set(texts.tolist())) <= min(_MOST_VALUES, max(2, len(texts) // 2)):
                candidates[lower[name]] = texts
    for name, texts in candidates.items():
        if name.lower() not in _PLACES_ONLY and _mixed(xy, texts):
            raise _joined("several sections lie over one another", name, texts, where, libraries)
    others = {} if array is not None else {name: columns[name] for name in columns if name not in candidates}
    if (shifted := next((name for name in others if _shifted(xy, others[name])), None)) is not None:
        raise _joined("several lattices lie over one another", shifted, texts_of(others[shifted]), where, libraries)
    places = xy if array is None else array.astype(np.float64)
    _, place, many = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    place = place.ravel()
    shared = many[place] > 1
    if shared.mean() > _SHARED:
        rest = {name: texts_of(columns[name]) for name in columns if name not in candidates}
        parts = {name: texts_of(part) for name, part in barcode_parts(ids).items()}
        for name, texts in {**candidates, **parts, **rest}.items():
            most = _MOST_VALUES if name in candidates else 4 * int(many.max())
            if _separates(place, texts, shared, most=most):
                raise _joined("spots share places: several sections are joined", name, texts, where, libraries)
        if array is None and shared.mean() < _MOST_SHARED and find_lattice(np.unique(xy, axis=0)) is None:
            return (
                f"{int(shared.sum())} of {len(xy)} spots have the coordinates of another: rounded, or sections joined",
            )
        first = int(np.argmax(shared))
        other = int(np.flatnonzero(place == place[first])[1])
        raise InputError(
            "spots share places: several sections may be joined",
            where=f"{where}, rows {first} and {other}, spots {ids[first]} and {ids[other]}",
            found=f"{int(shared.sum())} of {len(xy)} spots, no column tells them apart"
            + (f"; libraries {', '.join(libraries)}" if len(libraries) > 1 else ""),
            hint="write each section to a file of its own, or add a column that tells them apart and pick by it: "
            "ingest.select: {column: value}",
        )
    if not single:
        if candidates:
            name, texts = next(iter(candidates.items()))
            raise _joined(
                "the file says that it joins several sections (is_single is false)", name, texts, where, libraries
            )
        raise InputError(
            "the file says that it joins several sections (is_single is false)",
            where=where,
            found="no column that tells them apart",
            hint="pick the rows: ingest.select: {column: value}, or samplesheet columns select.<column>",
        )
    return tuple(
        f"{name} has {len(set(texts.tolist()))} values ({_values(texts)}) that lie side by side: read as one slide"
        for name, texts in list(candidates.items())[:1]
        if name.lower() not in _PLACES_ONLY
    )


def texts_of(column: pd.Series | NDArray[np.object_]) -> NDArray[np.str_]:
    """Return a column's values as text; 1.0 is "1", True is "true"."""
    if isinstance(column, pd.Series) and isinstance(column.dtype, pd.CategoricalDtype):
        names = np.array([_text(value) for value in column.cat.categories] + [""], dtype=np.str_)
        return np.asarray(names[column.cat.codes.to_numpy()], dtype=np.str_)
    values = column.to_numpy(dtype=object) if isinstance(column, pd.Series) else column
    return np.array([_text(value) for value in values], dtype=np.str_)


def _text(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return ""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    text = str(value).strip()
    if re.fullmatch(r"[+-]?\d+\.0*", text):
        text = text[: text.index(".")]
    return text.lower() if text.lower() in ("true", "false") else text


def _mixed(xy: NDArray[np.float64], texts: NDArray[np.str_]) -> bool:
    """Whether spots of several values lie between one another."""
    from scipy.spatial import cKDTree

    every = 1 + len(xy) // _SAMPLED
    points, values = xy[::every], np.unique(texts[::every], return_inverse=True)[1]
    k = min(_NEIGHBOURS + 1, len(points))
    if k < 2:
        return False
    number = np.asarray(cKDTree(points).query(points, k=k)[1])
    own = number == np.arange(len(points))[:, None]
    own[~own.any(axis=1), 0] = True  # more than k spots in one place: the query may not name the spot itself
    foreign = ((values[number] != values[:, None]) & ~own).sum(axis=1) / (k - 1)
    sizes = np.bincount(values)
    shares = np.bincount(values, weights=foreign) / np.maximum(sizes, 1)
    large = sizes >= _FEWEST
    return bool(foreign.mean() > _MIXED or (shares[large] > 2.5 * _MIXED).any())


def _shifted(xy: NDArray[np.float64], column: pd.Series) -> bool:
    """Whether each of a column's few values is a lattice of one pitch, and all together lie closer than that.

    The values of a column of one section (tissue, cluster) have the section's own pitch.
    """
    if len(xy) > _SAMPLED or column.nunique() > _MOST_LATTICES:
        return False
    texts = texts_of(column)
    names, sizes = np.unique(texts, return_counts=True)
    if len(names) < 2 or sizes.min() < _FEWEST:
        return False
    whole = nearest_distance(xy)[0]
    near = [nearest_distance(xy[texts == name])[0] for name in names]
    if whole is None or any(own is None or whole > _CLOSER * own for own in near):
        return False
    fits = [find_lattice(xy[texts == name]) for name in names]
    pitches = [fit.pitch for fit in fits if fit is not None]
    return len(pitches) == len(names) and max(pitches) < _ALIKE * min(pitches) and whole < _CLOSER * min(pitches)


def _separates(
    place: NDArray[np.intp], texts: NDArray[np.object_] | NDArray[np.str_], shared: NDArray[np.bool_], *, most: int
) -> bool:
    """Whether a column of at most `most` values gives no place one value twice."""
    names, value = np.unique(np.asarray(texts, dtype=np.str_)[shared], return_inverse=True)
    if not 1 < len(names) <= most:
        return False
    key = place[shared].astype(np.int64) * len(names) + value
    return len(np.unique(key)) == len(key)


def _values(texts: NDArray[np.object_] | NDArray[np.str_]) -> str:
    names, counts = np.unique(np.asarray(texts, dtype=np.str_), return_counts=True)
    order = sorted(range(len(names)), key=lambda i: natural_key(str(names[i])))
    return listed([f"{names[i]} ({counts[i]} spots)" for i in order])


def _joined(
    what: str,
    name: str,
    texts: NDArray[np.object_] | NDArray[np.str_],
    where: object,
    libraries: Sequence[str],
) -> InputError:
    first = sorted(set(np.asarray(texts, dtype=np.str_).tolist()), key=natural_key)[0]
    return InputError(
        what,
        where=where,
        found=f"{name}: {_values(texts)}" + (f"; libraries {', '.join(libraries)}" if len(libraries) > 1 else ""),
        hint=f"pick one: ingest.select: {{{name}: {first or chr(34) * 2}}}, or one samplesheet row for each, "
        f"with a column select.{name}",
    )
