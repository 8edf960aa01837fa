"""A whole dataset, all splits of it, as the views look at it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stpatch.dataset.manifest import read_manifest
from stpatch.dataset.opening import open_dataset
from stpatch.dataset.reader import Dataset
from stpatch.dataset.tables import DIGESTS, GENES, SLIDES, patch_columns, read_table
from stpatch.errors import DatasetError

if TYPE_CHECKING:
    from stpatch.dataset.sample import Sample


class Whole:
    """All splits of the dataset in a folder; tables and splits are opened when they are asked for.

    Attributes
    ----------
    folder, manifest
        Of the dataset.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        self._open: dict[tuple[str, str | None], Dataset] = {}

    @cached_property
    def patches(self) -> pd.DataFrame:
        """One row per sample, over all splits; the index counts rows."""
        draws = self.manifest.channels.get("draws", 1)
        return self._table("patches", patch_columns(self.manifest.layout, draws=draws if isinstance(draws, int) else 1))

    @cached_property
    def slides(self) -> pd.DataFrame:
        """One row per slide."""
        return self._table("slides", SLIDES)

    @cached_property
    def genes(self) -> pd.DataFrame:
        """One row per gene of the vocabulary."""
        return self._table("genes", GENES)

    @cached_property
    def slides_with_digests(self) -> pd.DataFrame:
        """The slides with the digests of their sections, where the dataset has them."""
        import pyarrow.parquet as pq

        path = self.folder / self.manifest.tables["slides"].path
        there = set(pq.read_schema(path).names)
        return self._table("slides", SLIDES | {name: kind for name, kind in DIGESTS.items() if name in there})

    @cached_property
    def gene_names(self) -> dict[int, str]:
        """The vocabulary's names by gene id."""
        return dict(zip(self.genes["gene_id"].tolist(), self.genes["name"].astype(str).tolist(), strict=True))

    def gene_id(self, name: str) -> int:
        """Return the id of a gene, by its name or Ensembl id.

        Raises
        ------
        DatasetError
            There is no such gene; the message names the nearest.
        """
        genes = self.genes
        found = genes[(genes["name"] == name) | (genes["ensembl_id"] == name)]
        if found.empty:
            near = difflib.get_close_matches(name, genes["name"].astype(str), n=1)
            raise DatasetError(
                "there is no such gene",
                where=self.folder / self.manifest.tables["genes"].path,
                found=name,
                expected="a name or an Ensembl id of genes.parquet",
                hint=f"did you mean {near[0]!r}?" if near else None,
            )
        return int(found["gene_id"].iloc[0])

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits, in order."""
        return tuple(self.manifest.splits)

    def split(self, name: str, *, values: str | None = None) -> Dataset:
        """Return one split, open."""
        kind = (name, values)
        if kind not in self._open:
            self._open[kind] = open_dataset(self.folder, name, values=values)
        return self._open[kind]

    def row_of(self, key: str) -> Mapping[str, Any]:
        """Return a sample's row of the patch table.

        Raises
        ------
        DatasetError
            There is no such key; the message names the nearest.
        """
        rows = self.patches[self.patches["key"] == key]
        if rows.empty:
            near = difflib.get_close_matches(key, self.patches["key"].head(20_000), n=1)
            raise DatasetError(
                "there is no such key",
                where=self.folder,
                found=key,
                expected=f"a key of patches.parquet, such as {self.patches['key'].iloc[0]}"
                if len(self.patches)
                else None,
                hint=f"did you mean {near[0]!r}?" if near else None,
            )
        return {str(name): value for name, value in rows.iloc[0].items()}

    def rows_of_shard(self, shard: str) -> pd.DataFrame:
        """Return the rows of a shard's samples; `shard` is a path of patches.parquet, or the file's name.

        Raises
        ------
        DatasetError
            There is no such shard.
        """
        shards = self.patches["shard"]
        rows = self.patches[(shards == shard) | shards.str.endswith(f"/{shard}")]
        if rows.empty:
            known = list(dict.fromkeys(shards))
            raise DatasetError(
                "there is no such shard",
                where=self.folder,
                found=shard,
                expected=", ".join(known[:4]) + (f" and {len(known) - 4} more" if len(known) > 4 else ""),
            )
        return rows

    def sample(self, key: str, *, split: str, values: str | None = None) -> Sample:
        """Return a sample of a split by its key."""
        sample: Sample = self.split(split, values=values)[key]
        return sample

    def names_of(self, sample: Sample, *, split: str) -> tuple[str, ...]:
        """Return the (C,) gene names of a sample's channels, "" = pad."""
        vocabulary = self.split(split).vocabulary
        genes = sample.genes if sample.genes is not None else ()
        return tuple("" if gene == self.manifest.pad_id else str(vocabulary[gene]) for gene in genes)

    def close(self) -> None:
        """Close all files."""
        for dataset in self._open.values():
            dataset.close()
        self._open.clear()

    def _table(self, name: str, columns: Mapping[str, str]) -> pd.DataFrame:
        table = read_table(self.folder / self.manifest.tables[name].path, columns)
        frame: pd.DataFrame = table.to_pandas()
        return frame
