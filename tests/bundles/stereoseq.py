"""Tiny GEM and GEF files of the same molecules."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import pandas as pd


def some_dnbs(*, seed: int = 0, n: int = 400, corner: tuple[int, int] = (9603, 12601)) -> pd.DataFrame:
    """Return molecules by gene and DNB: gene, name, x, y, count; ordered by gene, each (gene, x, y) once."""
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "gene": generator.integers(0, 7, n),
            "x": corner[0] + generator.integers(0, 230, n),
            "y": corner[1] + generator.integers(0, 170, n),
            "count": 1 + generator.poisson(0.3, n),
        }
    )
    frame.loc[0, ["x", "y"]] = corner
    frame = frame.drop_duplicates(["gene", "x", "y"]).sort_values(["gene", "x", "y"], ignore_index=True)
    frame["name"] = [f"Gene{i}" for i in frame["gene"]]
    frame["gene"] = [f"ENSMUSG{i:011d}" for i in frame["gene"]]
    return frame


def write_gem(
    path: Path,
    *,
    dnbs: pd.DataFrame | None = None,
    count: str = "MIDCount",
    names: bool = False,
    comments: tuple[str, ...] = ("FileFormat=GEMv0.1", "BinSize=1", "OffsetX=0", "OffsetY=0"),
    extra: bool = False,
    newline: str = "\n",
    bom: bool = False,
) -> Path:
    """Write a GEM; gzipped where the name ends in .gz."""
    dnbs = some_dnbs() if dnbs is None else dnbs
    columns = {"geneID": dnbs["gene" if names else "name"]} | ({"geneName": dnbs["name"]} if names else {})
    columns |= {"x": dnbs["x"], "y": dnbs["y"], count: dnbs["count"]}
    if extra:
        columns |= {"ExonCount": dnbs["count"], "CellID": 0}
    body = pd.DataFrame(columns).to_csv(sep="\t", index=False, lineterminator="\n")
    text = "".join(f"#{line}\n" for line in comments) + body
    data = (b"\xef\xbb\xbf" if bom else b"") + text.replace("\n", newline).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_gef(
    path: Path,
    *,
    dnbs: pd.DataFrame | None = None,
    bins: tuple[int, ...] = (1,),
    as_numbers: bool = False,
    names: bool = True,
    resolution: int | None = 500,
) -> Path:
    """Write a GEF with these bins; coordinates of coarse ones as DNBs, or as numbers of bins."""
    dnbs = some_dnbs() if dnbs is None else dnbs
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["version"] = np.uint32(4)
        for size in bins:
            summed = dnbs.assign(x=dnbs["x"] // size * size, y=dnbs["y"] // size * size)
            summed = summed.groupby(["gene", "name", "x", "y"], as_index=False)["count"].sum()
            expression = np.zeros(len(summed), [("x", "<i4"), ("y", "<i4"), ("count", "<u2")])
            for axis in ("x", "y"):
                expression[axis] = summed[axis] // size if as_numbers else summed[axis]
            expression["count"] = summed["count"]
            per_gene = summed.groupby(["gene", "name"], sort=True).size()
            fields = [("geneID", "S64"), ("geneName", "S64")] if names else [("gene", "S32")]
            gene = np.zeros(len(per_gene), [*fields, ("offset", "<u4"), ("count", "<u4")])
            gene["count"] = per_gene.to_numpy()
            gene["offset"] = np.cumsum(per_gene.to_numpy()) - per_gene.to_numpy()
            ids, texts = zip(*per_gene.index, strict=True)
            gene[fields[0][0]] = [text.encode() for text in (ids if names else texts)]
            if names:
                gene["geneName"] = [text.encode() for text in texts]
            group = file.create_group(f"geneExp/bin{size}")
            group["gene"] = gene
            group["expression"] = expression
            if resolution is not None:
                group["expression"].attrs["resolution"] = np.uint32(resolution)
    return path
