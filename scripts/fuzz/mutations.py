"""Damage to files: bytes of any file, cells of text and parquet tables, datasets of HDF5.

Every mutation takes a file and a generator of random numbers, and changes the file in place. It returns a phrase that
says what it did, or None where it does not apply to this file.
"""

# ruff: noqa: ARG001 - every mutation takes a generator, whether it draws or not
from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

Random = np.random.Generator
Mutation = Callable[[Path, Random], str | None]
Promise = Literal["any", "same", "same or refused"]
"""What must come out: anything that is valid, the same slide, or the same slide unless it is refused."""

ODD_CELLS = (
    "", " ", "text", "NaN", "nan", "NA", "inf", "-inf", "-1", "-0", "0.5", "1.0", "1e3", "1e300", "1e-300", "1e9999",
    "2.0000000001", "65536", "4294967296", "9223372036854775808", "99999999999999999999999999",
    "0x10", "1_000", "1,5", "٣", "True",
    "\"", "'", "=1+1", "\x00", "é", "-", "+7", " 7 ", "007", "7abc", "x" * 3000,
)  # fmt: skip
ODD_NUMBERS = (np.nan, np.inf, -np.inf, -1.0, 0.5, 1e300, 1e19, 3e9, -0.0, 65536.0)
_TEXT_ENDS = (".csv", ".tsv", ".txt", ".gem", ".mtx", ".json", ".xenium")


def cut(path: Path, rng: Random) -> str | None:
    data = path.read_bytes()
    end = int(rng.integers(0, len(data))) if data else 0
    path.write_bytes(data[:end])
    return f"cut at byte {end} of {len(data)}"


def halve(path: Path, rng: Random) -> str | None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return "cut in half"


def flip(path: Path, rng: Random) -> str | None:
    data = bytearray(path.read_bytes())
    hits = int(rng.choice([1, 1, 2, 8, 64])) if data else 0
    places: list[int] = rng.integers(0, len(data), hits).tolist() if data else []
    for byte in places:
        data[byte] ^= int(rng.integers(1, 256))
    path.write_bytes(bytes(data))
    return f"flipped bytes {places[:8]}"


def delete_bytes(path: Path, rng: Random) -> str | None:
    data = path.read_bytes()
    start, length = int(rng.integers(0, len(data) + 1)), int(rng.choice([1, 2, 7, 64, 512]))
    path.write_bytes(data[:start] + data[start + length :])
    return f"deleted {length} bytes at {start}"


def insert_bytes(path: Path, rng: Random) -> str | None:
    data = path.read_bytes()
    start, new = int(rng.integers(0, len(data) + 1)), rng.bytes(int(rng.choice([1, 2, 7, 64, 512])))
    path.write_bytes(data[:start] + new + data[start:])
    return f"inserted {len(new)} bytes at {start}"


def zero_bytes(path: Path, rng: Random) -> str | None:
    data = path.read_bytes()
    start, length = int(rng.integers(0, len(data) + 1)), int(rng.choice([1, 8, 64, 512]))
    path.write_bytes(data[:start] + bytes(len(data[start : start + length])) + data[start + length :])
    return f"zeroed {length} bytes at {start}"


def repeat_bytes(path: Path, rng: Random) -> str | None:
    data = path.read_bytes()
    start, length = int(rng.integers(0, len(data) + 1)), int(rng.choice([1, 16, 256]))
    path.write_bytes(data[: start + length] + data[start:])
    return f"repeated {length} bytes at {start}"


def empty(path: Path, rng: Random) -> str | None:
    path.write_bytes(b"")
    return "emptied"


def remove(path: Path, rng: Random) -> str | None:
    path.unlink()
    return "removed"


def pack(path: Path, rng: Random) -> str | None:
    """Gzip a text file or unpack it, under the name it has."""
    text = _text(path)
    if text is None:
        return None
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        path.write_bytes(text)
        return "unpacked under its name"
    path.write_bytes(gzip.compress(text, mtime=0))
    return "gzipped under its name"


def windows_ends(path: Path, rng: Random) -> str | None:
    text = _text(path)
    return None if text is None else _put(path, text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), "CRLF")


def byte_order_mark(path: Path, rng: Random) -> str | None:
    text = None if path.name == "zarr.json" else _text(path)  # a library's own format, which allows none
    return None if text is None else _put(path, b"\xef\xbb\xbf" + text, "byte order mark")


def no_last_end(path: Path, rng: Random) -> str | None:
    text = _text(path)
    return None if text is None else _put(path, text.rstrip(b"\r\n"), "no last line end")


def shuffle_rows(path: Path, rng: Random) -> str | None:
    """Shuffle the rows below the header (and a matrix market file's below its head)."""
    if path.suffix == ".parquet":
        return _on_frame(path, lambda frame: frame.iloc[rng.permutation(len(frame))], "shuffled rows")
    lines = _lines(path)
    if lines is None or path.name.endswith((".json", ".xenium")):
        return None
    head = 0
    while head < len(lines) and lines[head].startswith((b"#", b"%")):
        head += 1
    if b"tissue_positions_list" not in path.name.encode() and not path.name.startswith(("barcodes", "features")):
        head += 1
    body = lines[head:]
    return _put(path, b"\n".join([*lines[:head], *(body[i] for i in rng.permutation(len(body)))]) + b"\n", "shuffled")


def odd_cell(path: Path, rng: Random) -> str | None:
    """Replace one cell of a table by something that is no proper number (or is a strange one)."""
    odd = str(rng.choice(np.array(ODD_CELLS, dtype=object)))

    def change(rows: list[list[bytes]]) -> str:
        row = int(rng.integers(0, len(rows)))
        column = int(rng.integers(0, len(rows[row])))
        rows[row][column] = odd.encode()
        return f"cell ({row}, {column}) = {odd[:20]!r}"

    return _on_cells(path, change)


def odd_column(path: Path, rng: Random) -> str | None:
    """Replace every cell of a column by the same odd one."""
    odd = str(rng.choice(np.array(ODD_CELLS, dtype=object)))

    def change(rows: list[list[bytes]]) -> str:
        column = int(rng.integers(0, len(rows[-1])))
        for row in rows[1:]:
            if column < len(row):
                row[column] = odd.encode()
        return f"column {column} = {odd[:20]!r}"

    return _on_cells(path, change)


def drop_column(path: Path, rng: Random) -> str | None:
    if path.suffix == ".parquet":
        return _on_frame(path, lambda f: f.drop(columns=f.columns[int(rng.integers(0, len(f.columns)))]), "drop column")

    def change(rows: list[list[bytes]]) -> str:
        column = int(rng.integers(0, max(len(row) for row in rows)))
        for row in rows:
            del row[column : column + 1]
        return f"dropped column {column}"

    return _on_cells(path, change)


def repeat_column(path: Path, rng: Random) -> str | None:
    def change(rows: list[list[bytes]]) -> str:
        column = int(rng.integers(0, max(len(row) for row in rows)))
        for row in rows:
            row[column:column] = row[column : column + 1]
        return f"repeated column {column}"

    return _on_cells(path, change)


def swap_columns(path: Path, rng: Random) -> str | None:
    def change(rows: list[list[bytes]]) -> str:
        a, b = (int(i) for i in rng.integers(0, max(len(row) for row in rows), 2))
        for row in rows[int(rng.integers(0, 2)) :]:
            if max(a, b) < len(row):
                row[a], row[b] = row[b], row[a]
        return f"swapped columns {a} and {b}"

    return _on_cells(path, change)


def change_ids(path: Path, rng: Random) -> str | None:
    """Swap two ids of the first column, give one twice, or give a row another slide's."""

    def change(rows: list[list[bytes]]) -> str:
        a, b = (int(i) for i in rng.integers(0, len(rows), 2))
        kind = int(rng.integers(0, 3))
        if kind == 0:
            rows[a][0], rows[b][0] = rows[b][0], rows[a][0]
        elif kind == 1:
            rows[a][0] = rows[b][0]
        else:
            rows[a][0] = b"another"
        return f"ids of rows {a} and {b}: {('swapped', 'repeated', 'of another slide')[kind]}"

    return _on_cells(path, change)


def change_rows(path: Path, rng: Random) -> str | None:
    """Drop, repeat or cut off rows, or cut a row short."""
    lines = _lines(path)
    if lines is None or not lines:
        return None
    row, kind = int(rng.integers(0, len(lines))), int(rng.integers(0, 5))
    if kind == 0:
        del lines[row]
    elif kind == 1:
        lines.insert(row, lines[row])
    elif kind == 2:
        lines[row] = lines[row][: len(lines[row]) // 2]
    elif kind == 3:
        del lines[1:]
    else:
        lines.insert(row, b"")
    what = ("dropped", "repeated", "cut short", "all but the first dropped", "a blank line before it")[kind]
    return _put(path, b"\n".join(lines) + b"\n", f"row {row}: {what}")


def other_delimiter(path: Path, rng: Random) -> str | None:
    text = _text(path)
    if text is None:
        return None
    old, new = (b"\t", b",") if b"\t" in text else (b",", [b"\t", b";", b" "][int(rng.integers(0, 3))])
    return _put(path, text.replace(old, new), f"delimiter {new!r}")


def odd_dataset(path: Path, rng: Random) -> str | None:
    """Damage one dataset or attribute of an HDF5 file, or one column of a parquet file."""
    if path.suffix == ".parquet":
        return _on_frame(path, lambda frame: _odd_frame(frame, rng), "odd values in a column")
    import h5py

    if not h5py.is_hdf5(path):
        return None
    with h5py.File(path, "r+") as file:
        found: list[str] = []
        file.visit(found.append)
        name = sorted(found)[int(rng.integers(0, len(found)))]
        kind = int(rng.integers(0, 9))
        item = file[name]
        if kind == 0 or isinstance(item, h5py.Group):
            names = sorted(item.attrs)
            if names and rng.integers(0, 2):
                attribute = names[int(rng.integers(0, len(names)))]
                if rng.integers(0, 2):
                    del item.attrs[attribute]
                else:
                    item.attrs[attribute] = [np.array([-1, 2]), "text", 1.5][int(rng.integers(0, 3))]
                return f"attribute {attribute} of {name}"
            del file[name]
            return f"deleted {name}"
        values = item[()]
        attributes = dict(item.attrs)
        del file[name]
        what, values = _odd_array(np.asarray(values), kind, rng)
        if values is None:
            file.create_group(name)
        else:
            file[name] = values
            file[name].attrs.update(attributes)
        return f"{what} in {name}"


def _odd_array(values: np.ndarray[Any, Any], kind: int, rng: Random) -> tuple[str, Any]:
    if kind == 1:
        return "a group", None
    if kind == 2 or not values.size or values.ndim == 0:
        return "a text", "text"
    if kind == 3:
        return "fewer rows", values[: len(values) // 2]
    if kind == 4:
        return "more rows", np.concatenate([values, values[:1]])
    if kind == 5:
        return "no row", values[:0]
    if kind == 6:
        return "one more axis", values[None]
    if values.dtype.kind in "iuf":
        odd = rng.choice(np.array(ODD_NUMBERS))
        changed = values.astype(np.float64) if not np.isfinite(odd) or not float(odd).is_integer() else values.copy()
        place = tuple(int(rng.integers(0, length)) for length in values.shape)
        with np.errstate(all="ignore"):
            changed[place] = np.array(odd).astype(changed.dtype)
        return f"{odd}", changed
    changed = values.copy()
    changed[-1] = changed[0]
    return "a repeated entry", changed


def _odd_frame(frame: Any, rng: Random) -> Any:
    column = frame.columns[int(rng.integers(0, len(frame.columns)))]
    values = frame[column]
    kind = int(rng.integers(0, 4))
    row = int(rng.integers(0, len(frame)))
    if kind == 0 and values.dtype.kind in "iuf":
        changed = values.astype(float)
        changed.iloc[row] = rng.choice(np.array(ODD_NUMBERS))
    elif kind == 1:
        changed = values.astype(str)
    elif kind == 2:
        changed = values.astype(object)
        changed.iloc[row] = None
    else:
        changed = values.copy()
        changed.iloc[row] = changed.iloc[0]
    return frame.assign(**{column: changed})


BYTES: tuple[Mutation, ...] = (
    cut, halve, flip, flip, flip, delete_bytes, insert_bytes, zero_bytes, repeat_bytes, empty, remove,
)  # fmt: skip
CELLS: tuple[Mutation, ...] = (
    odd_cell, odd_cell, odd_cell, odd_column, drop_column, repeat_column, swap_columns, change_ids, change_ids,
    change_rows, other_delimiter, odd_dataset, odd_dataset, odd_dataset,
)  # fmt: skip
HARMLESS: tuple[tuple[Mutation, Promise], ...] = (
    (windows_ends, "same"),
    (byte_order_mark, "same"),
    (no_last_end, "same"),
    (shuffle_rows, "same or refused"),
    (pack, "same or refused"),
)


def _text(path: Path) -> bytes | None:
    name = path.name.removesuffix(".gz")
    if not name.endswith(_TEXT_ENDS):
        return None
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def _put(path: Path, text: bytes, what: str) -> str:
    packed = path.read_bytes()[:2] == b"\x1f\x8b"
    path.write_bytes(gzip.compress(text, mtime=0) if packed else text)
    return what


def _lines(path: Path) -> list[bytes] | None:
    text = _text(path)
    return None if text is None else text.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")


def _on_cells(path: Path, change: Callable[[list[list[bytes]]], str]) -> str | None:
    lines = _lines(path)
    if lines is None or path.name.endswith((".json", ".xenium")):
        return None
    joined = b"\n".join(lines)
    delimiter = next((mark for mark in (b"\t", b",") if mark in joined), b" ")
    rows = [line.split(delimiter) for line in lines]
    what = change(rows)
    return _put(path, b"\n".join(delimiter.join(row) for row in rows) + b"\n", what)


def _on_frame(path: Path, change: Callable[[Any], Any], what: str) -> str | None:
    import pandas as pd

    frame = pd.read_parquet(path)
    try:
        change(frame).to_parquet(path, index=False)
    except (TypeError, ValueError, OverflowError):  # no such table can be written
        return None
    return what
