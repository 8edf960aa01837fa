"""What readers make of a dataset: stpatch's own in every way to open it, and other programs that read its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stpatch.dataset.genes import PAD_NAME
from stpatch.dataset.manifest import Manifest
from stpatch.dataset.opening import open_dataset
from stpatch.dataset.reader import Dataset
from stpatch.errors import ConfigError, DatasetError
from stpatch.registry import FORMATS


def check_readers(folder: Path, manifest: Manifest) -> Iterator[DatasetError]:
    """Yield where a dataset whose files and samples are in order cannot be opened, or gives something else.

    For every split: its first and last sample by number, by key and in a batch, as counts, normalized and sparse, and
    with chosen genes; then what other programs read (`ShardFormat.check_split`).
    """
    format_ = FORMATS.get(manifest.layout.format)
    for name, split in manifest.splits.items():
        try:
            yield from _check_own(folder, manifest, name)
        except (DatasetError, ConfigError) as problem:
            yield DatasetError(f"a split cannot be opened: {problem.what}", where=problem.where, found=problem.found)
        yield from format_.check_split(folder, name=name, split=split, layout=manifest.layout)


def _check_own(folder: Path, manifest: Manifest, split: str) -> Iterator[DatasetError]:
    whole_slides = FORMATS.get(manifest.layout.format).whole_slides  # windows are cut anew at every opening
    counts = manifest.values == "counts"
    ways: list[dict[str, Any]] = [{"values": "counts"}, {"values": "sparse"}] if counts else [{}]
    if counts and manifest.normalization["method"] != "pearson_residuals":
        ways.append({"values": "normalized"})
    with open_dataset(folder, split) as dataset:
        expected = manifest.splits[split].patches
        if len(dataset) != expected and not whole_slides:
            yield DatasetError(
                "a split has another length when opened", where=split, found=len(dataset), expected=expected
            )
            return
        names = [name for name in dataset.vocabulary.tolist() if name not in ("", PAD_NAME)][:2]
        first = {number: dataset[number] for number in _ends(dataset)}
        if not all(_same_by_key(dataset, number) for number in first):
            yield DatasetError("a sample's key gives another sample", where=f"split {split}")
    for way in [*ways, {"genes": names}] if names else ways:
        with open_dataset(folder, split, **way) as other:
            ends = _ends(other)
            if not ends:
                continue
            other.batch(ends)
            for number in ends:
                sample = other[number]
                same = way.get("values") not in ("counts", "sparse") or whole_slides
                if not np.isfinite(sample.x).all() or not (same or np.array_equal(sample.x, first[number].x)):
                    yield DatasetError(
                        "ways to read a sample disagree", where=f"split {split}, sample {number}", found=way
                    )


def _ends(dataset: Dataset) -> list[int]:
    return sorted({0, len(dataset) - 1}) if len(dataset) else []


def _same_by_key(dataset: Dataset, number: int) -> bool:
    sample = dataset[number]
    return sample.key in dataset and np.array_equal(dataset[sample.key].x, sample.x)
