"""Spatial transcriptomics slides to sharded multi-channel image patches for pretraining.

`open` gives one split of a built dataset as a `Dataset`; its items are `Sample`, its batches `Batch`. Every error that
stpatch raises on purpose is a `StpatchError`. The names are imported when they are first used, so that importing the
package takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from stpatch.dataset.manifest import Manifest
    from stpatch.dataset.reader import Batch, Dataset
    from stpatch.dataset.sample import Sample
    from stpatch.dataset.webdataset import stpatch_decoder
    from stpatch.errors import (
        ConfigError,
        DatasetError,
        InputError,
        InputMissingError,
        MismatchError,
        MissingExtraError,
        ProblemsError,
        StpatchError,
        UnitsFailedError,
    )

__version__ = "0.2.0"

__all__ = [
    "Batch",
    "ConfigError",
    "Dataset",
    "DatasetError",
    "InputError",
    "InputMissingError",
    "Manifest",
    "MismatchError",
    "MissingExtraError",
    "ProblemsError",
    "Sample",
    "StpatchError",
    "UnitsFailedError",
    "__version__",
    "open",
    "stpatch_decoder",
]

_HOMES = {
    "Batch": "stpatch.dataset.reader",
    "Dataset": "stpatch.dataset.reader",
    "Manifest": "stpatch.dataset.manifest",
    "Sample": "stpatch.dataset.sample",
    "stpatch_decoder": "stpatch.dataset.webdataset",
}
"""The modules of the public names; those that are not here are errors."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES.get(name, "stpatch.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names beside the module's own."""
    return sorted({*globals(), *__all__})


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
