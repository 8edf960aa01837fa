"""GEM text: Stereo-seq's molecules by gene and place, streamed.

Optional ``#`` lines, then tab-separated ``geneID[, geneName], x, y, MIDCount`` and further columns. Plain blocks, genes
in runs of rows as the vendor writes them, are parsed by a compiled loop; all others by pyarrow, which also says what is
wrong with a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.kernels import gem as kernels
from stpatch.slides.formats.molecules.table import (
    CSV_BLOCK,
    GeneCodes,
    Kind,
    MoleculeTable,
    molecule_blocks,
    open_molecules,
)
from stpatch.slides.formats.names import gene_frame
from stpatch.slides.formats.text.lines import line_blocks

SHORTEST_RUN = 4
"""Rows that a gene has in a run on average, for the compiled loop to pay."""

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
        raise InputError("BinSize is no whole number", where=path, found=repr(text), expected="a whole number from 1")
    return int(text)


class GemReader:
    """Streams a GEM: `blocks`, then `genes`."""

    def __init__(self, gem: Gem) -> None:
        self.gem = gem
        self._codes = GeneCodes()
        self._names: list[str] = []

    def blocks(self) -> Iterator[Block]:
        """Yield gene numbers, x, y and counts."""
        row = 0
        for text in _row_blocks(self.gem.table):
            plain = self._plain(text)
            for numbers, x, y, count in self._any(text, row) if plain is None else (plain,):
                if len(count) and count.min() < 0:
                    first = int(np.argmax(count < 0))
                    raise InputError(
                        "a count is negative",
                        where=f"{self.gem.table.path}, column {self.gem.count}, row {row + first}",
                        found=count[first],
                        expected="whole numbers from 0",
                    )
                yield numbers, x, y, count
                row += len(numbers)

    def _plain(self, block: NDArray[np.uint8]) -> Block | None:
        """Parse a block of plain rows; None where it is not that plain."""
        gem, columns = self.gem, self.gem.table.columns
        n_lines = int(np.count_nonzero(block == kernels.LF))
        values = np.empty((3, n_lines), np.int64)
        runs = np.empty((n_lines // SHORTEST_RUN + 2, 5), np.int64)
        fields = [columns.index(name) for name in (gem.gene, gem.name or gem.gene, "x", "y", gem.count)]
        if fields[1] < fields[0]:
            return None
        n_rows, n_runs = (int(n) for n in kernels.parse_rows(block, np.array(fields), len(columns), values, runs))
        if n_rows < 0:
            return None
        spans = runs[:n_runs].tolist()
        try:
            ids = [block[start:stop].tobytes().decode().rstrip("\r") for _, start, stop, _, _ in spans]
            names = [block[start:stop].tobytes().decode().rstrip("\r") for _, _, _, start, stop in spans]
        except UnicodeDecodeError:
            return None
        if not all(text.strip() for text in ids):
            return None
        codes = np.empty(n_runs, np.int32)
        for i, (gene, name) in enumerate(zip(ids, names, strict=True)):
            codes[i] = self._codes.number(gene)
            if codes[i] == len(self._names):
                self._names.append(name)
        lengths = np.diff(runs[:n_runs, 0], append=n_rows)
        return np.repeat(codes, lengths), values[0, :n_rows], values[1, :n_rows], values[2, :n_rows]

    def _any(self, text: NDArray[np.uint8], row: int) -> Iterator[Block]:
        gem = self.gem
        kinds: dict[str, Kind] = {gem.gene: "text", "x": "integer", "y": "integer", gem.count: "integer"}
        if gem.name is not None:
            kinds[gem.name] = "text"
        for start, values in molecule_blocks(gem.table, kinds, text=text, row=row):
            where = f"{gem.table.path}, column {gem.gene}, in the block from row {start}"
            numbers = self._codes.encode(values[gem.gene], where=where)
            self._learn_names(numbers, values[gem.name or gem.gene])
            yield numbers, values["x"], values["y"], values[gem.count]

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
            raise InputError(
                "the GEM has a header but no rows",
                where=self.gem.table.path,
                hint="export the file anew from the vendor's software, or fetch it again",
            )
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
                    hint="give the bin 1 GEM",
                )
            here = int(x.min()), int(y.min())
            low = here if low is None else (min(low[0], here[0]), min(low[1], here[1]))
        return low


def _row_blocks(table: MoleculeTable) -> Iterator[NDArray[np.uint8]]:
    """Yield the text after the header in blocks of whole lines."""
    to_skip = len(table.comments) + 1
    for block in line_blocks(table.path, size=CSV_BLOCK):
        start = 0
        while to_skip and start < len(block):
            start = block.index(b"\n", start) + 1
            to_skip -= 1
        if start < len(block):
            yield np.frombuffer(block, np.uint8)[start:]


def _scan(table: MoleculeTable) -> tuple[int, int] | None:
    """Return the smallest x and y of plain text, None where a field is no plain number (the parser then says what)."""
    low = np.full(2, np.iinfo(np.int64).max)
    x, y = table.columns.index("x"), table.columns.index("y")
    for block in _row_blocks(table):
        if not kernels.lowest(block, x, y, low):
            return None
    return None if low[0] == np.iinfo(np.int64).max else (int(low[0]), int(low[1]))
