"""Encodings: how one array becomes bytes. One module each, found by name; see `base.Encoding`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stpatch.registry import ENCODINGS

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


def encode(array: NDArray[Any], encoding: str = "blosc") -> bytes:
    """Return an array as bytes in an encoding; see `base.Encoding.encode`."""
    return ENCODINGS.get(encoding).encode(array)


def decode(
    data: bytes | memoryview,
    encoding: str = "blosc",
    *,
    dtype: DTypeLike | None = None,
    shape: tuple[int, ...] | None = None,
    where: object = None,
) -> NDArray[Any]:
    """Return the array of `encode`'s bytes; see `base.Encoding.decode`."""
    return ENCODINGS.get(encoding).decode(data, dtype=dtype, shape=shape, where=where)
