"""Opening of a dataset: the one function behind `stpatch.open`, whatever its shards hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stpatch.dataset.genes import gene_ids, read_vocabulary
from stpatch.dataset.home import Home
from stpatch.dataset.reader import Dataset
from stpatch.dataset.request import resolve_request
from stpatch.errors import DatasetError
from stpatch.registry import FORMATS


def open_dataset(
    path: str | Path,
    split: str | None = None,
    *,
    values: str | None = None,
    dtype: str | None = None,
    genes: Sequence[str | int] | None = None,
    verify: bool | None = None,
    cache: str | Path | None = None,
    **cropping: Any,
) -> Dataset:
    """Open one split of a built dataset; see `stpatch.open`."""
    home = Home(path, cache=None if cache is None else Path(cache))
    manifest = home.manifest
    names = list(manifest.splits)
    if split is None and len(names) == 1:
        split = names[0]
    if split is None or split not in manifest.splits:
        raise DatasetError(
            "name the split to open" if split is None else "there is no such split",
            where=home.place,
            found=split,
            expected=" or ".join(names) or "a dataset with splits",
        )
    if FORMATS.get(manifest.layout.format).whole_slides:
        from stpatch.dataset.cropping.dataset import Cropping, named, open_slides

        channels = named(genes, cropping.pop("channels", None))
        return open_slides(home, split, values=values, dtype=dtype, cropping=Cropping(channels=channels, **cropping))
    if given := sorted(name for name, value in cropping.items() if value is not None):
        raise DatasetError(
            "the dataset's patches are cut already", where=home.place, found=", ".join(given),
            expected="a dataset of whole slides", hint="build it with shards.format: slides to cut it when it is read",
        )  # fmt: skip
    ids = None
    if genes is not None:
        home.table("genes")
        ids = gene_ids(genes, read_vocabulary(home.folder, manifest), where=home.place)
    request = resolve_request(manifest, values=values, dtype=dtype, genes=ids, where=home.place)
    return Dataset(home, split=split, request=request, verify=verify)
