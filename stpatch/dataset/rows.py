"""The rows of patches.parquet as plain arrays, for any number of samples: in memory where they are few, else mapped.

Tens of millions of rows would take a worker gigabytes and seconds. So the columns of a large table are written once, as
plain arrays in one file in the user's cache folder, and mapped from there: opening reads nothing, processes share the
pages, and a key is found by its place among sorted hashes instead of in a dictionary of all keys.

::

    array | array | ... | footer: JSON | tail: bytes of the footer, CRC-32C of the footer, MAGIC

The file is named for the SHA-256 of the patches.parquet that it was made of, so that it is never that of another
table, and copies of a dataset share it.
"""

from __future__ import annotations

import itertools
import json
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.entries import FileEntry
from stpatch.dataset.tables import PATCHES, codes, numbers, table_blocks
from stpatch.errors import DatasetError
from stpatch.storage import atomic_file, cache_folder, canonical_json, crc32c, sha256_file

if TYPE_CHECKING:
    import pyarrow as pa

MAPPED_ROWS = 1 << 18
"""Rows from which on a table is mapped. Fewer take some 20 MB and a quarter of a second, and leave no file behind."""
MAGIC = b"stprows1"
TAIL = struct.Struct("<QI8s")
ALIGNMENT = 64

KEY_STARTS, KEY_TEXT, SLIDE = "key starts", "key text", "slide"
HASHES, HASH_ROWS = "hashes", "hash rows"
_TEXTS = [name for name, kind in PATCHES.items() if kind == "string"]

Arrays = Mapping[str, NDArray[Any]]


class Rows:
    """The rows of one split, in the order of patches.parquet; row numbers count from the split's first.

    Attributes
    ----------
    slide_ids
        The slides that patches of the table are of, as column `SLIDE` numbers them.
    """

    def __init__(self, arrays: Arrays, *, slide_ids: Sequence[str], start: int, stop: int) -> None:
        self.slide_ids = list(slide_ids)
        self._arrays = dict(arrays)
        self._start, self._stop = start, stop
        self._key_text = np.ascontiguousarray(arrays[KEY_TEXT]).data

    def __len__(self) -> int:
        return self._stop - self._start

    @property
    def columns(self) -> list[str]:
        """The names of the columns of numbers."""
        return [name for name in self._arrays if name not in (KEY_STARTS, KEY_TEXT, SLIDE, HASHES, HASH_ROWS)]

    def __getitem__(self, column: str) -> NDArray[Any]:
        """Return a column of numbers, or `SLIDE`, (rows,); it is read-only where it is mapped."""
        return self._arrays[column][self._start : self._stop]

    def keys(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the keys of some rows."""
        text, starts = self._key_text, self._arrays[KEY_STARTS]
        places = rows + self._start
        ranges = zip(starts[places].tolist(), starts[places + 1].tolist(), strict=True)
        return [str(text[start:stop], "ascii") for start, stop in ranges]

    def find(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of keys, (keys,) int64; -1 where the split has no such key."""
        found = np.full(len(keys), -1, np.int64)
        hashes, rows = self._sorted_hashes()
        for number, key in enumerate(keys):
            text = key.encode(errors="replace")
            if not text:
                continue
            wanted = hash_keys(np.frombuffer(text, np.uint8), np.array([0, len(text)]))[0]
            first, stop = (int(np.searchsorted(hashes, wanted, side)) for side in ("left", "right"))
            for place in rows[first:stop].tolist():  # one, unless keys collide
                row = place - self._start
                if 0 <= row < len(self) and self.keys(np.array([row])) == [key]:
                    found[number] = row
        return found

    def _sorted_hashes(self) -> tuple[NDArray[np.uint64], NDArray[np.integer[Any]]]:
        if HASHES not in self._arrays:
            hashes = hash_keys(self._arrays[KEY_TEXT], self._arrays[KEY_STARTS])
            self._arrays |= _by_hash(hashes)
        return self._arrays[HASHES], self._arrays[HASH_ROWS]


def open_rows(
    path: Path,
    entry: FileEntry,
    columns: Mapping[str, str],
    *,
    split: str,
    rows: int,
    cache: Path | None = None,
    fetch: Callable[[], object] = lambda: None,
) -> Rows:
    """Open the rows of a split.

    Parameters
    ----------
    path, entry
        The file of patches.parquet, which is not looked at where its columns are in the cache; its manifest entry.
    columns
        Names and types; see `stpatch.dataset.tables.patch_columns`.
    split
        Name of the split.
    rows
        Of all splits, as the manifest tells them: whether the table is large.
    cache
        Folder for the mapped columns; None: that of the user.
    fetch
        Called before the file is looked at.

    Raises
    ------
    DatasetError
        The table is missing or damaged, or is not the one that the manifest lists.
    """
    if rows < MAPPED_ROWS:
        fetch()
        return _in_memory(path, columns, split)
    try:
        file = (cache or cache_folder() / "tables") / f"{entry.sha256}.rows"
        table = _mapped(file)
        if table is None or set(columns) - set(_TEXTS) - set(table.arrays):
            fetch()
            sha256 = sha256_file(path)
            if sha256 != entry.sha256:
                raise DatasetError(
                    "a file's checksum is wrong", where=path, found=sha256, expected=entry.sha256,
                    hint="fetch the dataset's files again, or build it again",
                )  # fmt: skip
            _write(file, path, columns, rows=rows)
            table = _mapped(file)
    except FileNotFoundError:
        raise DatasetError("a table is missing", where=path, hint="copy or build the dataset again") from None
    except OSError as error:
        warnings.warn(
            f"the columns of {path} are held in memory by every process, since they cannot be written to a cache: "
            f"{error}; set STPATCH_CACHE to a folder that can be written",
            RuntimeWarning,
            stacklevel=2,
        )
        return _in_memory(path, columns, split)
    if table is None:
        raise DatasetError("the columns of a table cannot be read back", where=file, hint="remove the file")
    start, stop = table.splits.get(split, (0, 0))
    return Rows(table.arrays, slide_ids=table.slide_ids, start=start, stop=stop)


def hash_keys(text: NDArray[np.uint8], starts: NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each key, (keys,) uint64: the sum of its bytes, each times a number of its place.

    Parameters
    ----------
    text
        The bytes of all keys, one after the other; no key is empty.
    starts
        (keys + 1,) where each begins, and where the last ends.
    """
    lengths = np.diff(starts)
    if not len(lengths):
        return np.empty(0, np.uint64)
    places = np.arange(int(starts[0]), int(starts[-1])) - np.repeat(starts[:-1], lengths)
    factors = _mixed(np.arange(1, int(lengths.max()) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    terms = (text[int(starts[0]) : int(starts[-1])].astype(np.uint64) + np.uint64(1)) * factors[places]
    return _mixed(np.add.reduceat(terms, starts[:-1] - starts[0]))


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return other numbers for numbers, one to one; each bit depends on all bits (the last step of MurmurHash3)."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values = (values ^ (values >> np.uint64(33))) * np.uint64(factor)
    return values ^ (values >> np.uint64(33))


def _by_hash(hashes: NDArray[np.uint64]) -> dict[str, NDArray[Any]]:
    order = np.argsort(hashes, kind="stable")
    return {HASHES: hashes[order], HASH_ROWS: order.astype(np.uint32 if len(order) < 1 << 32 else np.int64)}


class _Block(NamedTuple):
    """Some rows: their columns of numbers, the key's bytes and where each ends, their slides and splits."""

    numbers: dict[str, NDArray[Any]]
    key_text: NDArray[np.uint8]
    key_lengths: NDArray[np.int64]
    slide: NDArray[np.int32]
    slide_ids: list[str]
    split: NDArray[np.int32]
    splits: list[str]


def _blocks(path: Path, columns: Mapping[str, str], split: str | None) -> Iterator[_Block]:
    wanted = {name: kind for name, kind in columns.items() if name != "shard"}
    for table in table_blocks(path, wanted, split=split):
        text, lengths = _key_bytes(table["key"], path)
        slide, slide_ids = codes(table["slide_id"])
        of_split, splits = codes(table["split"])
        yield _Block(
            {name: numbers(table[name], where=path) for name in wanted if name not in _TEXTS},
            text, lengths, slide, slide_ids, of_split, splits,
        )  # fmt: skip


def _key_bytes(column: pa.ChunkedArray, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the bytes of all keys of a column, and the length of each, from its buffers."""
    texts, lengths = [np.empty(0, np.uint8)], [np.empty(0, np.int64)]
    for chunk in column.chunks:
        if not len(chunk):
            continue
        _, offsets, data = chunk.buffers()
        ends = np.frombuffer(offsets, np.int32, len(chunk) + 1, chunk.offset * 4)
        texts.append(np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]])
        lengths.append(np.diff(ends).astype(np.int64))
    text, sizes = np.concatenate(texts), np.concatenate(lengths)
    if (sizes == 0).any() or (text > 127).any():
        raise DatasetError("a key is damaged", where=path, expected="letters a to z, digits, _ and -")
    return text, sizes


def _in_memory(path: Path, columns: Mapping[str, str], split: str) -> Rows:
    blocks = list(_blocks(path, columns, split))
    slides: dict[str, int] = {}
    for block in blocks:
        for slide_id in block.slide_ids:
            slides.setdefault(slide_id, len(slides))
    lengths = np.concatenate([np.zeros(1, np.int64), *(block.key_lengths for block in blocks)])
    arrays: dict[str, NDArray[Any]] = {
        name: np.concatenate([np.empty(0, _dtype(columns[name])), *(block.numbers[name] for block in blocks)])
        for name in columns
        if name not in _TEXTS
    }
    arrays[SLIDE] = np.concatenate([np.empty(0, np.int32), *(_renumbered(block, slides) for block in blocks)])
    arrays[KEY_STARTS] = np.cumsum(lengths)
    arrays[KEY_TEXT] = np.concatenate([np.empty(0, np.uint8), *(block.key_text for block in blocks)])
    return Rows(arrays, slide_ids=list(slides), start=0, stop=len(lengths) - 1)


def _renumbered(block: _Block, slides: Mapping[str, int]) -> NDArray[np.int32]:
    """Return the slides of a block's rows as all blocks number them."""
    return np.array([slides[slide_id] for slide_id in block.slide_ids], np.int32)[block.slide]


def _dtype(kind: str) -> np.dtype[Any]:
    return np.dtype(kind.rstrip("?"))


def _write(file: Path, path: Path, columns: Mapping[str, str], *, rows: int) -> None:
    """Write the columns of patches.parquet, row group by row group, so that they are never in memory at once."""
    dtypes = {name: _dtype(kind) for name, kind in columns.items() if name not in _TEXTS}
    dtypes |= {SLIDE: np.dtype(np.int32), KEY_STARTS: np.dtype(np.int64), HASHES: np.dtype(np.uint64)}
    dtypes[HASH_ROWS] = np.dtype(np.uint32 if rows < 1 << 32 else np.int64)
    places: dict[str, tuple[int, int]] = {}
    end = 0
    for name, dtype in dtypes.items():
        count = rows + (name == KEY_STARTS)
        places[name] = (end, count)
        end = -(-(end + count * dtype.itemsize) // ALIGNMENT) * ALIGNMENT
    text_start = end
    hashes = np.empty(rows, np.uint64)
    slides: dict[str, int] = {}
    splits: dict[str, tuple[int, int]] = {}
    row = text = 0
    with atomic_file(file) as out:

        def put(name: str, at: int, values: NDArray[Any]) -> None:
            out.seek(places[name][0] + at * dtypes[name].itemsize)
            out.write(np.ascontiguousarray(values, dtypes[name]).data)

        put(KEY_STARTS, 0, np.zeros(1, np.int64))
        for block in _blocks(path, columns, None):
            count = len(block.slide)
            if row + count > rows:
                break
            for slide_id in block.slide_ids:
                slides.setdefault(slide_id, len(slides))
            for name, values in block.numbers.items():
                put(name, row, values)
            put(SLIDE, row, _renumbered(block, slides))
            starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(block.key_lengths)])
            put(KEY_STARTS, row + 1, starts[1:] + text)
            hashes[row : row + count] = hash_keys(block.key_text, starts)
            out.seek(text_start + text)
            out.write(np.ascontiguousarray(block.key_text).data)
            _extend(splits, block, row, path)
            row, text = row + count, text + len(block.key_text)
        if row != rows:
            raise DatasetError("manifest and table disagree", where=path, found=f"{row} patches or more", expected=rows)
        for name, values in _by_hash(hashes).items():
            put(name, 0, values)
        places[KEY_TEXT] = (text_start, text)
        dtypes[KEY_TEXT] = np.dtype(np.uint8)
        value = {
            "arrays": {name: [dtypes[name].str, *place] for name, place in places.items()},
            "slide_ids": list(slides),
            "splits": splits,
        }
        footer = canonical_json(value).encode()
        out.seek(text_start + text)
        out.write(footer + TAIL.pack(len(footer), crc32c(footer), MAGIC))


def _extend(splits: dict[str, tuple[int, int]], block: _Block, row: int, path: Path) -> None:
    """Take a block's rows to the ranges of rows of the splits."""
    edges = [0, *(np.flatnonzero(np.diff(block.split)) + 1).tolist(), len(block.split)]
    for first, stop in itertools.pairwise(edges):
        if first == stop:
            continue
        name = block.splits[block.split[first]]
        start, before = splits.get(name, (row + first, row + first))
        if before != row + first:
            raise DatasetError(
                "the rows of a split do not stand together", where=path, found=f"{name} at row {row + first}",
                hint="fetch the dataset's files again, or build it again",
            )  # fmt: skip
        splits[name] = (start, row + stop)


class _Table(NamedTuple):
    """What a file of columns holds."""

    arrays: dict[str, NDArray[Any]]
    slide_ids: list[str]
    splits: dict[str, tuple[int, int]]


def _mapped(file: Path) -> _Table | None:
    """Map a file of columns; None where there is none, or it is not as it was written."""
    try:
        data = np.memmap(file, np.uint8, mode="r").view(np.ndarray)
    except (FileNotFoundError, ValueError):
        return None
    if len(data) < TAIL.size:
        return None
    length, checksum, magic = TAIL.unpack(data[-TAIL.size :].tobytes())
    footer = data[max(len(data) - TAIL.size - length, 0) : len(data) - TAIL.size].tobytes()
    if magic != MAGIC or len(footer) != length or checksum != crc32c(footer):
        return None
    value = json.loads(footer)
    arrays = {
        name: data[start : start + count * np.dtype(dtype).itemsize].view(dtype)
        for name, (dtype, start, count) in value["arrays"].items()
    }
    return _Table(arrays, value["slide_ids"], {name: tuple(place) for name, place in value["splits"].items()})
