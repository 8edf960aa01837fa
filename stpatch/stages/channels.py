"""What `select` decides and every later stage reads: the vocabulary and the channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.errors import DatasetError
from stpatch.seeds import name_keys
from stpatch.storage import read_json


@dataclass(frozen=True)
class Channels:
    """Vocabulary and channels.

    Attributes
    ----------
    names, ids
        The genes of the vocabulary that some slide measured, by ascending id.
    pad_id
        The id that stands for no gene.
    by_organism
        Whether vocabulary names are ``organism:gene`` (a corpus of several organisms).
    n_channels
        Channels of a sample.
    panel
        Gene ids in channel order, scope panel; else None.
    slide_panels
        Gene ids in channel order by slide, scope slide; else None.
    candidates
        Gene ids that a patch rule may draw from; None = all.
    """

    names: Sequence[str]
    ids: NDArray[np.int32]
    pad_id: int
    by_organism: bool
    n_channels: int
    panel: NDArray[np.int32] | None
    slide_panels: dict[str, NDArray[np.int32]] | None
    candidates: NDArray[np.int32] | None

    @cached_property
    def _id_of(self) -> dict[str, int]:
        return dict(zip(self.names, self.ids.tolist(), strict=True))

    @cached_property
    def _name_of(self) -> dict[int, str]:
        return dict(zip(self.ids.tolist(), self.names, strict=True))

    def name_of(self, gene_id: int) -> str:
        """Return a gene's vocabulary name."""
        return self._name_of[int(gene_id)]

    def names_of(self, genes: pd.DataFrame) -> list[str]:
        """Return the vocabulary names of a slide's gene table."""
        return vocabulary_names(genes, by_organism=self.by_organism)

    def ids_of(self, names: Sequence[str]) -> NDArray[np.int32]:
        """Return (genes,) int32 ids of vocabulary names, -1 for a name that is not in the vocabulary."""
        if names == self.names:
            return self.ids.copy()
        get = self._id_of.get
        return np.fromiter((get(name, -1) for name in names), np.int32, len(names))

    @cached_property
    def _keys(self) -> NDArray[np.uint64]:
        return name_keys(self.names)

    def keys_of(self, gene_ids: NDArray[np.int32]) -> NDArray[np.uint64]:
        """Return `stpatch.seeds.name_keys` of genes by their ids, which must be of the vocabulary."""
        return self._keys[np.searchsorted(self.ids, gene_ids)]

    def channels_of(self, slide_id: str) -> NDArray[np.int32] | None:
        """Return a slide's channel list, or its candidates; None where a patch rule may draw from all genes."""
        if self.panel is not None:
            return self.panel
        if self.slide_panels is not None:
            return self.slide_panels[slide_id]
        return self.candidates


def vocabulary_names(genes: pd.DataFrame, *, by_organism: bool) -> list[str]:
    """Return the vocabulary names of a slide's gene table: the gene, or ``organism:gene`` where the corpus has several.

    Genes that the user mapped carry no organism: they are shared.
    """
    if not by_organism:
        return [str(gene) for gene in genes.index.tolist()]
    return [
        f"{organism}:{gene}" if organism else str(gene)
        for gene, organism in zip(genes.index, genes["organism"], strict=True)
    ]


def channels_json(channels: Channels) -> dict[str, Any]:
    """Return vocabulary and channels as a JSON value."""
    return {
        "names": list(channels.names),
        "ids": channels.ids.tolist(),
        "pad_id": channels.pad_id,
        "by_organism": channels.by_organism,
        "n_channels": channels.n_channels,
        "panel": None if channels.panel is None else channels.panel.tolist(),
        "slide_panels": None
        if channels.slide_panels is None
        else {slide_id: ids.tolist() for slide_id, ids in channels.slide_panels.items()},
        "candidates": None if channels.candidates is None else channels.candidates.tolist(),
    }


def read_channels(path: Path) -> Channels:
    """Read what the select stage stored; the same file is parsed once per process."""
    stat = path.stat()
    return _read_channels(path, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=2)
def _read_channels(path: Path, _mtime_ns: int, _inode: int) -> Channels:
    try:
        value = read_json(path)
    except ValueError as error:
        raise DatasetError(
            "vocabulary and channels cannot be read", where=path, found=error, hint="run the select stage again"
        ) from error

    def ids(numbers: list[int] | None) -> NDArray[np.int32] | None:
        return None if numbers is None else np.array(numbers, np.int32)

    by_slide = value["slide_panels"]
    return Channels(
        names=value["names"],
        ids=np.array(value["ids"], np.int32),
        pad_id=value["pad_id"],
        by_organism=value["by_organism"],
        n_channels=value["n_channels"],
        panel=ids(value["panel"]),
        slide_panels=None
        if by_slide is None
        else {slide_id: np.array(numbers, np.int32) for slide_id, numbers in by_slide.items()},
        candidates=ids(value["candidates"]),
    )
