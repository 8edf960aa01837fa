"""GEF (HDF5): Stereo-seq's bin matrix, ``geneExp/bin{N}``: expression rows by gene, streamed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.slides.formats.hdf5.files import as_texts, attribute_text, child, faults, hdf5_file, looks_hdf5
from stpatch.slides.formats.molecules.gem import Block
from stpatch.slides.formats.names import gene_frame

ROWS = 1 << 20
"""Expression rows that are read together."""
_LEVEL = re.compile(r"bin([1-9]\d*)")


@dataclass(frozen=True, kw_only=True)
class Gef:
    """A GEF file's header.

    Attributes
    ----------
    levels
        Bin sizes that the file holds, in DNBs, ascending.
    resolution_nm
        Distance of two DNBs in nanometres, None where not given.
    n_genes
        Of the finest level.
    """

    path: Path
    levels: tuple[int, ...]
    resolution_nm: float | None
    n_genes: int
    version: str


def open_gef(path: Path) -> Gef | None:
    """Read a GEF's header; None where the file is no GEF."""
    if not looks_hdf5(path):
        return None
    with hdf5_file(path) as file:
        if "geneExp" not in file:
            if "cellBin" in file:
                raise InputError(
                    "this GEF holds cells, not bins",
                    where=path,
                    found="cellBin",
                    expected="geneExp/bin1",
                    hint="give the square-bin GEF (SN.gef or SN.tissue.gef)",
                )
            return None
        group = child(file, "geneExp", path)
        levels = sorted(int(match[1]) for name in group if (match := _LEVEL.fullmatch(name)))
        if not levels:
            raise InputError(
                "the GEF holds no bins",
                where=f"{path}, key geneExp",
                found=sorted(group),
                expected="groups bin1, bin10, ... below geneExp",
            )
        finest = child(group, f"bin{levels[0]}", path)
        genes, expression = child(finest, "gene", path), child(finest, "expression", path)
        return Gef(
            path=path,
            levels=tuple(levels),
            resolution_nm=_resolution(expression, finest, file, path),
            n_genes=int(genes.shape[0]),
            version=attribute_text(file.attrs.get("version")),
        )


def _resolution(expression: Any, group: Any, file: Any, path: Path) -> float | None:
    for place in (expression, group, file):
        if "resolution" in place.attrs:
            value = float(np.atleast_1d(np.asarray(place.attrs["resolution"], dtype=np.float64))[0])
            if value == 0:
                return None
            if not 1 <= value <= 1e6:
                raise InputError(
                    "the resolution is not a length in nm",
                    where=f"{path}, key {place.name}",
                    found=value,
                    expected="a positive number, such as 500",
                )
            return value
    return None


class GefReader:
    """Streams one level of a GEF: `blocks`, then `genes`."""

    def __init__(self, gef: Gef, *, level: int) -> None:
        self.gef = gef
        self.level = level
        self._key = f"geneExp/bin{level}"
        self._step = 0

    def blocks(self) -> Iterator[Block]:
        """Yield gene numbers, x, y and counts; x and y in DNBs."""
        step = self._step or self._find_step()
        with hdf5_file(self.gef.path) as file:
            level = child(file, self._key, self.gef.path)
            expression = self._expression(level)
            numbers, ends = self._slices(self._table(level), len(expression))
            for start in range(0, len(expression), ROWS):
                rows = expression[start : start + ROWS]
                x, y = (rows[axis].astype(np.int64) * step for axis in ("x", "y"))
                count = rows["count"].astype(np.int64)
                if count.min() < 0:
                    raise InputError(
                        "a count is negative",
                        where=self._where("expression"),
                        found=count.min(),
                        hint="export the file anew from the vendor's software, or fetch it again",
                    )
                gene = numbers[np.searchsorted(ends, np.arange(start, start + len(rows)), side="right")]
                yield gene, x, y, count

    def genes(self) -> pd.DataFrame:
        """Return the gene table."""
        with hdf5_file(self.gef.path) as file:
            table = self._table(child(file, self._key, self.gef.path))
            with faults(self._where("gene")):
                ids = as_texts(table["geneID" if "geneID" in (table.dtype.names or ()) else "gene"])
                if "geneName" not in (table.dtype.names or ()):
                    return gene_frame(ids)
                names = as_texts(table["geneName"])
        return pd.DataFrame({"name": names, "ensembl_id": ids, "feature_type": ""}, dtype=object)

    def minimum(self) -> tuple[int, int]:
        """Return the smallest x and y in DNBs, in a pass of its own."""
        step = self._step or self._find_step()
        low = np.full(2, np.iinfo(np.int64).max)
        for rows in self._rows():
            low = np.minimum(low, [rows["x"].min(), rows["y"].min()])
        return int(low[0]) * step, int(low[1]) * step

    def _find_step(self) -> int:
        """Return how many DNBs one coordinate step has.

        Coordinates of bin N > 1 are DNBs (all are multiples of N) or numbers of bins, by the writer's version (unsure);
        the numbers tell which.
        """
        n_rows, multiples, low, high = 0, True, np.iinfo(np.int64).max, 0
        for rows in self._rows():
            n_rows += len(rows)
            for axis in ("x", "y"):
                multiples = multiples and not (rows[axis] % self.level).any()
                low, high = min(low, int(rows[axis].min())), max(high, int(rows[axis].max()))
        if n_rows == 0:
            raise InputError(
                "the GEF has no expression rows",
                where=self._where("expression"),
                hint="export the file anew from the vendor's software, or fetch it again",
            )
        if low < 0:
            raise InputError(
                "a coordinate is negative",
                where=self._where("expression"),
                found=low,
                hint="export the file anew from the vendor's software, or fetch it again",
            )
        if self.level > 1 and multiples and low == high:
            raise InputError(
                "one bin alone does not tell whether its coordinates are DNBs or bins",
                where=self._where("expression"),
                hint="give a GEF with bin1",
            )
        self._step = 1 if multiples else self.level
        return self._step

    def _rows(self) -> Iterator[Any]:
        with hdf5_file(self.gef.path) as file:
            expression = self._expression(child(file, self._key, self.gef.path))
            for start in range(0, len(expression), ROWS):
                yield expression[start : start + ROWS]

    def _expression(self, level: Any) -> h5py.Dataset:
        expression = child(level, "expression", self.gef.path)
        self._need_fields(expression, "expression", ("x", "y", "count"))
        for name in ("x", "y", "count"):
            if expression.dtype[name].kind not in "iu":
                raise InputError(
                    "an expression field is not a whole number",
                    where=self._where(f"expression, field {name}"),
                    found=expression.dtype[name],
                    hint="export the file anew from the vendor's software, or fetch it again",
                )
        return expression

    def _table(self, level: Any) -> NDArray[Any]:
        genes = child(level, "gene", self.gef.path)
        self._need_fields(genes, "gene", ("offset", "count"))
        if not {"gene", "geneID"} & set(genes.dtype.names):
            self._need_fields(genes, "gene", ("geneID",))
        return np.asarray(genes[:])

    def _need_fields(self, dataset: Any, key: str, needed: tuple[str, ...]) -> None:
        names = getattr(getattr(dataset, "dtype", None), "names", None) or ()
        missing = [name for name in needed if name not in names]
        if missing or len(dataset.shape) != 1:
            raise InputError(
                f"the dataset misses the field {', '.join(missing)}" if missing else "the dataset is not a list",
                where=self._where(key),
                found=", ".join(names) or dataset,
                expected=", ".join(needed),
            )

    def _slices(self, table: NDArray[Any], n_rows: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return gene numbers in the order of their rows, and where each one's rows end."""
        offset, count = table["offset"].astype(np.int64), table["count"].astype(np.int64)
        used = np.flatnonzero(count)
        order = used[np.argsort(offset[used], kind="stable")]
        ends = np.cumsum(count[order])
        starts = ends - count[order]
        if (starts != offset[order]).any() or (int(ends[-1]) if len(ends) else 0) != n_rows:
            raise InputError(
                "the genes' offset and count do not cut the expression rows into whole pieces",
                where=self._where("gene"),
                found=f"{int(count.sum())} rows by gene, {n_rows} rows in expression",
                hint="the file is damaged: fetch it again",
            )
        return order.astype(np.int32), ends

    def _where(self, key: str) -> str:
        return f"{self.gef.path}, key {self._key}/{key}"
