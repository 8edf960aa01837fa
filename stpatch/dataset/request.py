"""What a reader is asked for: which values, in which dtype, of which genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stpatch.dataset.manifest import Manifest
from stpatch.dataset.tables import CHECKSUM
from stpatch.errors import DatasetError

Values = Literal["counts", "normalized", "sparse"]
VALUES: tuple[Values, ...] = ("counts", "normalized", "sparse")
FLOATS = ("float32", "float16")
COUNTS = "counts"
NO_ZEROS: Values = "sparse"
"""The values that are batches of counts without the zeros, whatever encoding the shards have."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """How samples are wanted; `resolve_request` checks it.

    Attributes
    ----------
    values
        ``counts``, ``normalized``, or ``sparse``: batches of counts without the zeros.
    dtype
        NumPy's name of the dtype of `x`.
    genes
        Gene ids that x is projected onto; None: the channels as they are stored.
    """

    values: Values
    dtype: str
    genes: tuple[int, ...] | None = None

    @property
    def leaves_out_zeros(self) -> bool:
        """Whether batches are sparse."""
        return self.values == NO_ZEROS


def resolve_request(
    manifest: Manifest, *, values: str | None, dtype: str | None, genes: Sequence[int] | None, where: object
) -> Request:
    """Return the request, with what was left out filled in.

    Parameters
    ----------
    manifest
        The dataset's.
    values
        Of `VALUES`; None: what is stored.
    dtype
        ``float32`` or ``float16``; None: the stored one for counts, float32 for normalized values.
    genes
        Gene ids of the vocabulary, or None.
    where
        The dataset's folder, for messages.

    Raises
    ------
    DatasetError
        The dataset cannot give these values or this dtype.
    """
    stored = "counts" if manifest.values == COUNTS else "normalized"
    chosen = next((one for one in VALUES if one == (values or stored)), None)
    if chosen is None:
        raise DatasetError("unknown values", where=where, found=values, expected=" or ".join(VALUES))
    if chosen != "normalized" and stored == "normalized":
        raise DatasetError(
            f"the dataset has no counts, so it cannot give values={chosen!r}",
            where=where,
            found="normalized values",
            hint="open it with values='normalized', or build it with shards.values: counts",
        )
    if values == NO_ZEROS and (dtype is not None or genes is not None):
        raise DatasetError(
            "sparse batches hold the stored counts",
            where=where,
            found="dtype" if dtype is not None else "genes",
            hint="leave dtype and genes out, or choose other values",
        )
    tensor = manifest.layout.dtype
    default = "float32" if chosen == "normalized" and values is not None else tensor
    wanted = dtype or default
    if wanted not in (*FLOATS, default):
        raise DatasetError("x cannot have this dtype", where=where, found=dtype, expected=" or ".join(FLOATS))
    if wanted == "float16" and chosen == "counts":
        raise DatasetError(
            "counts do not fit float16, which holds whole numbers up to 2048 only",
            where=where,
            expected=f"float32 or {tensor}",
            hint="leave dtype out, or choose values='normalized'",
        )
    return Request(values=chosen, dtype=wanted, genes=None if genes is None else tuple(map(int, genes)))


def verifies(columns: Mapping[str, str], *, verify: bool | None, where: str) -> bool:
    """Return whether samples are checked: where there are checksums, unless that is not wanted."""
    there = CHECKSUM.keys() <= columns.keys()
    if verify and not there:
        raise DatasetError(
            "the dataset has no checksums of its samples, so that nothing can be checked when they are read",
            where=where,
            found="format 1",
            expected="format 2 or later",
            hint="build it again, or leave verify out and run stpatch validate once",
        )
    return there and verify is not False
