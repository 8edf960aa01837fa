"""Spatial transcriptomics slides to sharded multi-channel image patches for pretraining.

`open` gives one split of a built dataset as a `Dataset`; its items are `Sample`, its batches `Batch`. Every error that
stpatch raises on purpose is a `StpatchError`. The names are imported when they are first used, so that importing the
package takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stpatch.dataset.batch import Batch, SparseBatch
    from stpatch.dataset.manifest import Manifest
    from stpatch.dataset.reader import Dataset
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
        RemoteError,
        StpatchError,
        UnitsFailedError,
    )

__version__ = "0.3.0"

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
    "RemoteError",
    "Sample",
    "SparseBatch",
    "StpatchError",
    "UnitsFailedError",
    "__version__",
    "open",
    "stpatch_decoder",
]

_HOMES = {
    "Batch": "stpatch.dataset.batch",
    "Dataset": "stpatch.dataset.reader",
    "Manifest": "stpatch.dataset.manifest",
    "Sample": "stpatch.dataset.sample",
    "SparseBatch": "stpatch.dataset.batch",
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


def open(  # noqa: A001
    path: str | Path,
    split: str | None = None,
    *,
    values: str | None = None,
    dtype: str | None = None,
    genes: Sequence[str | int] | None = None,
    verify: bool | None = None,
    cache: str | Path | None = None,
    crop: Mapping[str, Any] | None = None,
    pitch: int | None = None,
    channels: Mapping[str, Any] | None = None,
    weights: Mapping[str, Any] | None = None,
    fresh: bool | None = None,
    seed: int | None = None,
    pool: int | None = None,
) -> Dataset:
    """Open one split of a built dataset.

    Parameters
    ----------
    path
        The dataset's folder, or its URL (``s3://``, ``gs://``, ``hf://``, ``https://``, ...; extra ``remote``).
    split
        Name of the split; may be left out where the dataset has one only.
    values
        ``counts``; ``normalized``, by the recorded normalization; or ``sparse``, batches of counts without the zeros.
        Left out: what is stored.
    dtype
        Of `x`: ``float32``, or ``float16`` for normalized values. Left out: the stored one for counts, ``float32`` for
        normalized values.
    genes
        Names or gene ids: every sample's channels are these, 0 and not measured where a sample lacks one.
    verify
        Whether the bytes of every sample that is read are held against their checksum, so that no flipped bit gives
        other numbers. Left out: yes, where the dataset has checksums; those of format 1 have none, and what is then
        checked are sizes, keys and what the encoding itself notices.
    cache
        A local folder. Shards are copied to it whole when they are first read, checked and kept; left out, the byte
        ranges of samples are read in place, those of the next batches ahead.
    crop, pitch, channels, weights, fresh, seed, pool
        Of a dataset of whole slides (``shards.format: slides``), whose patches are cut when they are read; what is left
        out is as the dataset was built.

        - `crop`: keys of the config's section ``crop`` (``size``, ``stride``, ``method``, ``min_coverage``, ...), and
          ``samples``, the windows of an epoch where these are fresh.
        - `pitch`: so many stored pixels make a side of a pixel; counts and totals are summed.
        - `channels`: ``{"genes": [...]}``, or a patch rule: ``method``, ``n``, ``draws`` and ``candidates``.
        - `fresh`: whether each epoch draws random windows and random channels anew; left out: in split train.
        - `weights`: fresh windows by a label or a column of the slides: ``{"label": "region", "values": {"a": 5}}``.
        - `seed`: of random windows; left out: the dataset's.
        - `pool`: slides that are kept open at once, of which an epoch mixes the samples; left out: 16.

    Returns
    -------
    stpatch.dataset.reader.Dataset
        ``len``, samples by number or key, ``batches(size)``, ``select(slide=...)``.

    Raises
    ------
    stpatch.errors.DatasetError
        There is no dataset, or no such split, or its manifest or tables are damaged, or it cannot give these values.
    stpatch.errors.RemoteError
        A URL cannot be read, however often that was tried.
    stpatch.errors.MissingExtraError
        The package that reads this kind of URL is not installed.
    """
    from stpatch.dataset.opening import open_dataset

    asked = {"crop": crop, "pitch": pitch, "channels": channels, "weights": weights, "fresh": fresh}
    asked |= {"seed": seed, "pool": pool}
    given = {name: value for name, value in asked.items() if value is not None}
    return open_dataset(path, split, values=values, dtype=dtype, genes=genes, verify=verify, cache=cache, **given)
