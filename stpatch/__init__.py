"""Spatial transcriptomics slides to sharded multi-channel image patches for pretraining."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from stpatch.dataset.reader import Dataset

__version__ = "0.1.0"


def open(path: str | Path, split: str | None = None, *, normalized: bool = False) -> Dataset:  # noqa: A001
    """Open one split of a built dataset.

    Parameters
    ----------
    path
        The dataset's folder.
    split
        Name of the split; may be left out where the dataset has one only.
    normalized
        Return float32 values by the recorded normalization instead of what is stored.

    Returns
    -------
    stpatch.dataset.reader.Dataset
        ``len``, samples by number or key, ``batches(size)``.

    Raises
    ------
    stpatch.errors.DatasetError
        There is no dataset, or no such split, or its manifest or tables are damaged.
    """
    from stpatch.dataset.reader import open_dataset

    return open_dataset(path, split, normalized=normalized)
