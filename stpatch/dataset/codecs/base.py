"""What an encoding is: one array as bytes and back, as a tar member and as a zarr chunk, and the words about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stpatch.errors import DatasetError


class Encoding(ABC):
    """One way to store an array.

    A new encoding is a module of this package, named for it, or an entry point of group ``stpatch.encodings``; its
    class derives from this one and is decorated with ``ENCODINGS.register``. Equal arrays must give equal bytes on
    every machine: no threads that write in the order in which they finish, no time stamps.

    Attributes
    ----------
    name
        As in the config's ``shards.encoding``.
    tells_shape
        Whether the bytes of a member tell dtype and shape; otherwise the manifest does.
    words
        What a member is, for the dataset's card.
    counts_only
        Whether `x` must hold counts (``shards.values: counts``).
    """

    name: ClassVar[str]
    tells_shape: ClassVar[bool]
    words: ClassVar[str]
    counts_only: ClassVar[bool] = False

    @property
    def suffix(self) -> str:
        """The end of a tar member's name, after its last dot."""
        return self.name

    @abstractmethod
    def encode(self, array: NDArray[Any]) -> bytes:
        """Return an array of integers, floats or bools, of any byte order and memory layout, as bytes."""

    @abstractmethod
    def decode(
        self,
        data: bytes | memoryview,
        *,
        dtype: DTypeLike | None = None,
        shape: tuple[int, ...] | None = None,
        where: object = None,
    ) -> NDArray[Any]:
        """Return the array, writable and in C order.

        Parameters
        ----------
        data
            As `encode` made it, or anything else: it comes from a file.
        dtype, shape
            What the bytes must hold; may be left out where `tells_shape`.
        where
            File and key, for the message.

        Raises
        ------
        DatasetError
            The bytes are damaged, cut short, too long, or hold another dtype or shape.
        """

    def decode_into(self, data: bytes | memoryview, out: NDArray[Any], *, where: object = None) -> None:
        """Decode to an array that is there already, such as a sample's part of a batch.

        Parameters
        ----------
        data
            As for `decode`.
        out
            Writable; its dtype and shape are what the bytes must hold.
        where
            File and key, for the message.

        Raises
        ------
        DatasetError
            As for `decode`; what `out` then holds is of no meaning.
        """
        out[...] = self.decode(data, dtype=out.dtype, shape=out.shape, where=where)

    def decode_entries(
        self, data: bytes | memoryview, *, dtype: DTypeLike, shape: tuple[int, ...], where: object = None
    ) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """Return the (n,) int32 positions in the flat array of all values but zeros, ascending, and (n,) those values.

        An encoding that stores no zeros does this without making the array.
        """
        flat = self.decode(data, dtype=dtype, shape=shape, where=where).reshape(-1)
        # NumPy finds what is true among booleans three times as fast as what is not zero among integers
        index = np.flatnonzero(flat != 0).astype(np.int32)
        return index, flat[index]

    def encode_chunk(self, array: NDArray[Any]) -> bytes:
        """Return an array as the inner chunk of a zarr shard, as `zarr_compressors` would write it."""
        return self.encode(array)

    def decode_chunk(
        self, data: bytes, *, dtype: DTypeLike, shape: tuple[int, ...], where: object = None
    ) -> NDArray[Any]:
        """Return the array of a zarr chunk; see `decode`."""
        return self.decode(data, dtype=dtype, shape=shape, where=where)

    def decode_chunk_into(self, data: bytes, out: NDArray[Any], *, where: object = None) -> None:
        """Decode a zarr chunk to an array that is there already; see `decode_into`."""
        out[...] = self.decode_chunk(data, dtype=out.dtype, shape=out.shape, where=where)

    def zarr_compressors(self, dtype: np.dtype[Any]) -> list[Any] | None:  # noqa: ARG002 - refuses them all
        """Return the zarr v3 compressors by which plain zarr reads the chunks; None: chunks are plain values.

        Raises
        ------
        DatasetError
            The encoding cannot be used in zarr shards.
        """
        raise DatasetError(
            "an encoding cannot be used in zarr shards", where="shards.encoding", found=self.name,
            hint="choose another shards.encoding, or shards.format: tar",
        )  # fmt: skip

    def zarr_serializer(self, dtype: np.dtype[Any]) -> Any:  # noqa: ARG002 - plain values, unless overridden
        """Return the zarr v3 codec that makes bytes of a chunk; None: ``bytes``, the little-endian values.

        Where there is one, plain zarr reads the chunks of `x` only where the codec's package is installed, so that the
        card shows how to read them by their byte range.
        """
        return None

    def bytes_per_value(self, dtype: DTypeLike) -> float:
        """Return about how many bytes a value takes, for estimates before a build."""
        return float(np.dtype(dtype).itemsize)

    @abstractmethod
    def snippet(self, member: str, *, dtype: str, shape: str) -> tuple[list[str], list[str]]:
        """Return imports, and lines that make ``x`` from a webdataset ``sample``, without stpatch; for the card.

        Parameters
        ----------
        member
            Name of the member in the sample: ``x.<suffix>``.
        dtype, shape
            Of `x`, the shape as Python text.
        """


def little_endian(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in C order and little-endian; the same one where it is so already."""
    array = np.ascontiguousarray(array)
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def damaged(what: str, where: object, found: object, expected: object) -> DatasetError:
    """Return the error about bytes that cannot be decoded."""
    return DatasetError(
        f"a frame {what}",
        where=where,
        found=found,
        expected=expected,
        hint="copy the shard again, or build the dataset again",
    )
