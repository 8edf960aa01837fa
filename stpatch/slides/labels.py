"""Labels: columns of the spot table or of a separate label file, one category a spot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.errors import ConfigError, InputError, InputMissingError
from stpatch.slides.formats.barcodes import join_barcodes
from stpatch.slides.formats.names import listed
from stpatch.slides.formats.text.coordinates import ID_NAMES, joined_rows, matching_column, rows_of
from stpatch.slides.formats.text.delimited import numbers, read_table
from stpatch.slides.formats.text.lines import read_head
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import SlideSource

_MISSING = frozenset(
    {"", "na", "nan", "-nan", "none", "null", "<na>", "n/a", "#n/a", "#na", "n.a.", "n.a", "nat", "nil", "missing",
     "not available", "-", "--", ".", "?"}
)  # fmt: skip
"""Words for no label, in lower case."""
_PLACES = (("array_col", "array_row"), ("x", "y"), ("new_x", "new_y"))
"""Columns (x, y) of array places, the first pair that is there is taken."""
_PLACE_NAMES = frozenset(name for pair in _PLACES for name in pair)


def attach_labels(raw: RawSlide, source: SlideSource, names: Sequence[str], label_table: Path | None) -> pd.DataFrame:
    """Return one categorical column a label, rows as in the raw slide; missing = no label.

    A label is a column of the slide's spot table or of the label table. The label table is joined by the column that
    holds most spot ids, else by array places ``x, y`` (rounded: pathologists' tables have adjusted ones).

    Parameters
    ----------
    names
        The labels wanted (``ingest.labels``).
    label_table
        The samplesheet's label file of this slide.

    Returns
    -------
    Categories are text, in natural order ("2" before "10"). ``attrs["notes"]`` counts the spots without a label and
    the label rows without a spot.

    A slide may lack a label that others have: all its spots are then without, and a note says so.

    Raises
    ------
    ConfigError
        A label is in both tables.
    InputError
        The label table fits no spot of the slide, or gives a spot two labels.
    """
    frame = pd.DataFrame(index=pd.RangeIndex(len(raw.spot_ids)))
    notes: list[str] = []
    if names:
        joined = pd.DataFrame(index=frame.index)
        if label_table is not None:
            joined, notes = _joined(raw, label_table)
        own = [str(name) for name in raw.spots.columns]
        for name in names:
            if not _is_known(name, own, [str(column) for column in joined], source):
                frame[name] = pd.Categorical([None] * len(frame), categories=[])
                notes.append(f"label {name}: the slide has no such column; columns {listed([*own, *joined.columns])}")
                continue
            values = raw.spots[name] if name in own else joined[name]
            frame[name] = categories(values)
            without = int(frame[name].isna().sum())
            if without:
                notes.append(f"label {name}: {without} of {len(frame)} spots have none")
    if label_table is not None and label_table.is_file():
        unasked = [name for name in label_columns(label_table) if name not in names]
        if unasked and not names:
            notes.append(f"columns of {label_table.name} that ingest.labels does not ask for: {listed(unasked)}")
    frame.attrs["notes"] = notes
    return frame


def categories(values: pd.Series) -> pd.Categorical:
    """Return text categories in natural order; whole numbers lose their ".0", empty cells and NaN are missing."""
    texts = np.array([_text(value) for value in values], dtype=object)
    known = sorted({text for text in texts if text is not None}, key=natural_key)
    return pd.Categorical(texts, categories=known)


def _text(value: Any) -> str | None:
    if value is None or value is pd.NA:
        return None
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, (float, np.floating)):
        value = str(int(value)) if float(value).is_integer() else str(float(value))
    text = str(value).strip()
    return None if text.lower() in _MISSING else text


def natural_key(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return the key that sorts categories as people do: "2" before "10"; no two texts have the same."""
    parts = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]
    return parts, text


def label_columns(path: Path) -> tuple[str, ...]:
    """Return the columns of a label table that may be labels, from its header."""
    columns = [name for name in read_head(path).names if name]
    return tuple(name for name in columns if name.lower() not in (ID_NAMES | _PLACE_NAMES))


def _is_known(name: str, own: list[str], joined: list[str], source: SlideSource) -> bool:
    where = f"slide {source.slide_id}, key ingest.labels"
    if name in own and name in joined:
        raise ConfigError(
            f"label {name!r} is in the slide's spot table and in its label table",
            where=where,
            found=source.labels,
            hint="rename the column of the label table",
        )
    return name in own or name in joined


def missing_labels(
    names: Sequence[str], slides: Sequence[tuple[tuple[str, ...] | None, Path | None]]
) -> list[ConfigError]:
    """Return the problem of each label that no slide has, as far as headers tell.

    Parameters
    ----------
    slides
        Columns of each slide's spot table (None: not known) and its label table.
    """
    columns: set[str] = set()
    for own, table in slides:
        if own is None or (table is not None and not table.is_file()):
            return []
        columns |= {*own, *(read_head(table).names if table is not None else ())}
    return [no_label(name, sorted(columns)) for name in names if name not in columns]


def no_label(name: str, columns: Sequence[str]) -> ConfigError:
    """Return the error of a label that no slide has.

    Parameters
    ----------
    columns
        Columns of the slides' tables that may be labels.
    """
    return ConfigError(
        f"no slide has a label {name!r}",
        where="key ingest.labels",
        found=f"columns {listed(columns)}" if columns else "slides without further columns",
        hint="name one of these columns, or the slides' label files in the samplesheet's column labels",
    )


def _joined(raw: RawSlide, path: Path) -> tuple[pd.DataFrame, list[str]]:
    if not path.is_file():
        raise InputMissingError(
            "there is no such label table", where=path, hint="check the path in the samplesheet's column labels"
        )
    table = read_table(path)
    table.columns = pd.Index([str(name) for name in table.columns], dtype=object)
    key, shared = matching_column(table, list(table.columns), raw.spot_ids)
    notes: list[str] = []
    if key is not None and shared == len(raw.spot_ids):
        row = rows_of(raw.spot_ids, table[key], where=path)
    elif key is not None or _has_ids(raw, table):
        row, more = _rows_by_form(raw, table, path, key=key)
        notes += more
    else:
        row = _rows_by_place(raw, table, path)
    found = row >= 0
    unused = len(table) - len(np.unique(row[found]))
    if unused:
        notes.append(f"{unused} rows of {path.name} belong to no spot")
    joined = table.iloc[np.maximum(row, 0)].reset_index(drop=True).astype(object)
    joined[~found] = None
    return joined, notes


def _has_ids(raw: RawSlide, table: pd.DataFrame) -> bool:
    return any(join_barcodes(raw.spot_ids, table[name]).note for name in table.columns if table[name].is_unique)


def _rows_by_form(
    raw: RawSlide, table: pd.DataFrame, path: Path, *, key: str | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return (spots,) row of the label table by ids that may agree but for a suffix, a prefix or quotes."""
    names = [key] if key is not None else [name for name in table.columns if table[name].is_unique]
    joined = [joined_rows(raw.spot_ids, table[name], where=path) for name in names]
    return max(joined, key=lambda pair: int((pair[0] >= 0).sum()))


def _rows_by_place(raw: RawSlide, table: pd.DataFrame, path: Path) -> NDArray[np.int64]:
    """Return (spots,) row of the label table by array place, -1 without one."""
    pair = next((pair for pair in _PLACES if set(pair) <= set(table.columns)), None)
    if raw.array is None or pair is None:
        raise InputError(
            "the label table cannot be joined to the spots",
            where=path,
            found=f"columns {listed(list(table.columns))}, none with ids such as {listed(raw.spot_ids[:3])}",
            expected="a column of spot ids" + (", or array places x and y" if raw.array is not None else ""),
        )
    exact = np.column_stack([numbers(table[name], where=path) for name in pair])
    places = np.rint(exact)
    row_of: dict[tuple[float, float], int] = {}
    for row, place in enumerate(places.tolist()):
        x, y = place
        first = row_of.setdefault((x, y), row)
        if first != row:
            raise InputError(
                "a label table has two rows of one array place",
                where=f"{path} rows {first + 2} and {row + 2}",
                found=f"{pair[0]}, {pair[1]} = {exact[first].tolist()} and {exact[row].tolist()}",
                hint="take one of them out, or give the table a column of spot ids",
            )
    rows = np.array([row_of.get((float(x), float(y)), -1) for y, x in raw.array.tolist()], dtype=np.int64)
    if (rows < 0).all():
        raise InputError(
            "no row of the label table belongs to a spot: is it another slide's?",
            where=path,
            hint="give the table of this slide, with the ids or places of its spots",
        )
    return rows
