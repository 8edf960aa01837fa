"""GEM text: Stereo-seq's molecules by gene and place, streamed.

Optional ``#`` lines, then tab-separated ``geneID[, geneName], x, y, MIDCount`` and further columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numba import njit
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.slides.readers.delimited import gene_frame
from stpatch.slides.readers.molecule_table import GeneCodes, Kind, MoleculeTable, molecule_blocks, open_molecules
from stpatch.slides.readers.text import line_blocks

GENE_ID = ("geneID", "gene")
GENE_NAME = "geneName"
COUNT = ("MIDCount", "MIDCounts", "UMICount")

Block = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Gene numbers, x, y and counts, (n,) each."""


@dataclass(frozen=True, kw_only=True)
class Gem:
    """A GEM file's header.

    Attributes
    ----------
    bin_size
        DNBs a bin's side has in this file (``#BinSize``), 1 for the usual one.
    version
        ``#FileFormat`` and ``#SoftwareVersion``, "" where not given.
    """

    table: MoleculeTable
    gene: str
    name: str | None
    count: str
    bin_size: int
    version: str


def open_gem(path: Path) -> Gem | None:
    """Read a GEM's header; None where the columns are not a GEM's.

    Raises
    ------
    InputError
        A table with a GEM's gene column lacks another column.
    """
    table = open_molecules(path)
    gene = table.first_of(*GENE_ID, GENE_NAME)
    if table.is_parquet or table.delimiter != "\t" or gene is None:
        return None
    if gene not in ("geneID", GENE_NAME) and not {"x", "y"} <= set(table.columns):
        return None
    header = dict(line.split("=", 1) for line in table.comments if "=" in line)
    header = {key.strip(): value.strip() for key, value in header.items()}
    for axis in ("x", "y"):
        table.need(axis)
    return Gem(
        table=table,
        gene=table.need(gene),
        name=GENE_NAME if gene != GENE_NAME and GENE_NAME in table.columns else None,
        count=table.need(*COUNT),
        bin_size=_bin_size(header.get("BinSize", "1"), path),
        version=" ".join(header[key] for key in ("FileFormat", "SoftwareVersion") if header.get(key)),
    )


def _bin_size(text: str, path: Path) -> int:
    if re.fullmatch(r"[1-9]\d{0,5}", text) is None:
        raise InputError("BinSize is no whole number", where=path, found=repr(text))
    return int(text)


class GemReader:
    """Streams a GEM: `blocks`, then `genes`."""

    def __init__(self, gem: Gem) -> None:
        self.gem = gem
        self._codes = GeneCodes()
        self._names: list[str] = []

    def blocks(self) -> Iterator[Block]:
        """Yield gene numbers, x, y and counts."""
        gem, path = self.gem, self.gem.table.path
        kinds: dict[str, Kind] = {gem.gene: "text", "x": "integer", "y": "integer", gem.count: "integer"}
        if gem.name is not None:
            kinds[gem.name] = "text"
        for row, block in molecule_blocks(gem.table, kinds):
            where = f"{path}, in the block from row {row}"
            numbers = self._codes.encode(block[gem.gene], where=f"{where}, column {gem.gene}")
            if gem.name is not None:
                self._learn_names(numbers, block[gem.name])
            if len(numbers) and block[gem.count].min() < 0:
                first = int(np.argmax(block[gem.count] < 0))
                raise InputError(
                    "a count is negative",
                    where=f"{path}, column {gem.count}, row {row + first}",
                    found=block[gem.count][first],
                    expected="whole numbers from 0",
                )
            yield numbers, block["x"], block["y"], block[gem.count]

    def genes(self) -> pd.DataFrame:
        """Return the gene table of all genes seen."""
        ids = self._codes.names
        if self.gem.name is None:
            return gene_frame(ids)
        return pd.DataFrame({"name": self._names, "ensembl_id": ids, "feature_type": ""}, dtype=object)

    def _learn_names(self, numbers: NDArray[np.int32], names: Any) -> None:
        known = len(self._names)
        new = np.arange(known, len(self._codes))
        if not len(new):
            return
        first = np.full(len(self._codes), -1)
        first[numbers[::-1]] = np.arange(len(numbers))[::-1]
        self._names += [str(names[int(row)].as_py()) for row in first[new]]

    def minimum(self) -> tuple[int, int]:
        """Return the smallest x and y, in a pass of its own over the text.

        Raises
        ------
        InputError
            The file has no molecule, or ``#BinSize`` is not 1 and coordinates are no multiples of it.
        """
        size = self.gem.bin_size
        low = _scan(self.gem.table) if size == 1 else None
        if low is None:
            low = self._slow_minimum()
        if low is None:
            raise InputError("the GEM has a header but no rows", where=self.gem.table.path)
        return low

    def _slow_minimum(self) -> tuple[int, int] | None:
        size, path = self.gem.bin_size, self.gem.table.path
        low: tuple[int, int] | None = None
        for row, block in molecule_blocks(self.gem.table, {"x": "integer", "y": "integer"}):
            x, y = block["x"], block["y"]
            if not len(x):
                continue
            if size > 1 and ((x % size) | (y % size)).any():  # (unsure) whether any tool writes bin numbers instead
                raise InputError(
                    "the GEM is binned, but its coordinates are no multiples of its bin",
                    where=f"{path}, in the block from row {row}",
                    expected=f"multiples of BinSize = {size}",
                    mend="give the bin 1 GEM",
                )
            here = int(x.min()), int(y.min())
            low = here if low is None else (min(low[0], here[0]), min(low[1], here[1]))
        return low


def _scan(table: MoleculeTable) -> tuple[int, int] | None:
    """Return the smallest x and y of plain text, None where a field is no plain number (the parser then says what)."""
    low = np.full(2, np.iinfo(np.int64).max)
    x, y = table.columns.index("x"), table.columns.index("y")
    to_skip = len(table.comments) + 1
    for block in line_blocks(table.path):
        start = 0
        while to_skip and start < len(block):
            start = block.index(b"\n", start) + 1
            to_skip -= 1
        if not _lowest(np.frombuffer(block, np.uint8)[start:], x, y, low):
            return None
    return None if low[0] == np.iinfo(np.int64).max else (int(low[0]), int(low[1]))


@njit(cache=True, nogil=True)
def _lowest(text: NDArray[np.uint8], x: int, y: int, low: NDArray[np.int64]) -> bool:
    """Lower `low` to the smallest numbers of fields `x` and `y`; False at the first that is no plain number."""
    p = 0
    while p < len(text):
        field = 0
        seen = 0
        while text[p] != 10:
            if field in (x, y):
                sign = 1
                if text[p] == 45:
                    sign = -1
                    p += 1
                number = 0
                start = p
                while 48 <= text[p] <= 57:
                    number = 10 * number + int(text[p]) - 48
                    p += 1
                if p == start or p - start > 15 or not (text[p] == 9 or text[p] == 10 or text[p] == 13):
                    return False
                axis = 0 if field == x else 1
                low[axis] = min(low[axis], sign * number)
                seen += 1
            while text[p] != 9 and text[p] != 10:
                p += 1
            if text[p] == 9:
                p += 1
                field += 1
        if seen != 2 and field > 0:
            return False
        p += 1
    return True
