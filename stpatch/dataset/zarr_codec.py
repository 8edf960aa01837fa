"""The Zarr v3 codec ``stpatch.sparse``: by it plain zarr reads and writes the counts of encoding ``sparse``.

Zarr finds it by the entry point of group ``zarr.codecs`` wherever stpatch is installed; nothing needs to be imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.common import parse_named_configuration
from zarr.registry import register_codec

from stpatch.registry import ENCODINGS

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

NAME = "stpatch.sparse"
ENCODING = "sparse"


@dataclass(frozen=True)
class SparseCodec(ArrayBytesCodec):
    """Makes a chunk of uint16 or uint32 the bytes of encoding ``sparse``; it has no configuration."""

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the codec of an array's metadata."""
        parse_named_configuration(data, NAME, require_configuration=False)
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """Return the codec as an array's metadata name it."""
        return {"name": NAME}

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        array: Any = ENCODINGS.get(ENCODING).decode(
            chunk_data.to_bytes(), dtype=_dtype(chunk_spec), shape=chunk_spec.shape, where=f"codec {NAME}"
        )
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(array)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        frame = ENCODINGS.get(ENCODING).encode(chunk_data.as_numpy_array())
        return chunk_spec.prototype.buffer.from_bytes(frame)

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        """Raise what zarr asks of a codec whose bytes differ in number from chunk to chunk; it has no size to tell."""
        raise NotImplementedError


def _dtype(spec: ArraySpec) -> np.dtype[Any]:
    # zarr 3.0 has NumPy's dtypes here, zarr 3.1 its own
    dtype: Any = spec.dtype
    native: np.dtype[Any] = np.dtype(dtype.to_native_dtype() if hasattr(dtype, "to_native_dtype") else dtype)
    return native.newbyteorder("=")


register_codec(NAME, SparseCodec)
