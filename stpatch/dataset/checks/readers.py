"""What readers make of a dataset: stpatch's own in every way to open it, and other programs that read its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
    with open_dataset(folder, split) as dataset:
        if len(dataset) != manifest.splits[split].patches:
            yield DatasetError("a split has another length when opened", where=split, found=len(dataset))
        if not len(dataset):
            return
        ends = sorted({0, len(dataset) - 1})
        wrong = [number for number in ends if not _same_by_key(dataset, number)]
        names = [name for name in dataset.vocabulary.tolist() if name not in ("", PAD_NAME)][:2]
        counts = manifest.values == "counts"
        for values in ("counts", "sparse") if counts else (None,):
            with open_dataset(folder, split, values=values) as other:
                x = other[ends[-1]].x
                wrong += [] if np.array_equal(x, dataset[ends[-1]].x) or counts else ends[-1:]
        with open_dataset(folder, split, genes=names or None) as other:
            other.batch(ends)
        if counts and manifest.normalization["method"] != "pearson_residuals":
            with open_dataset(folder, split, values="normalized") as other:
                if not np.isfinite(other.batch(ends).x).all():
                    wrong += ends
        for number in sorted(set(wrong)):
            yield DatasetError("ways to read a sample disagree", where=f"split {split}, sample {number}")


def _same_by_key(dataset: Dataset, number: int) -> bool:
    sample = dataset[number]
    return sample.key in dataset and np.array_equal(dataset[sample.key].x, sample.x)
