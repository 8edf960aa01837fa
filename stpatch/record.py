"""Arrays in one file: a NumPy record, which is parsed at once and read without a copy.

A slide has several small files of arrays, and a corpus thousands of slides: an archive of many members costs more to
open than all that it holds.
"""

from __future__ import annotations

import hashlib
import io
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import DatasetError
from stpatch.storage import atomic_file


def write_record(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays of numbers by name as one .npy file, atomically; equal arrays give equal bytes."""
    fields = [(name, array.dtype, array.shape) for name, array in arrays.items()]
    record = np.zeros((), np.dtype(fields, align=True))  # zeros: what lies between the fields is written too
    for name, array in arrays.items():
        record[name] = array
    with atomic_file(path) as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(record))
        file.write(record.reshape(1).view(np.uint8).data)


def read_record(path: Path, *, what: str, stage: str, sha256: str | None = None) -> dict[str, NDArray[Any]]:
    """Read the arrays that `write_record` wrote; they are read-only.

    Parameters
    ----------
    path
        The file.
    what, stage
        What it holds and the stage that makes it, for the message.
    sha256
        The file's checksum, as its receipt has it; None: not looked at.

    Raises
    ------
    DatasetError
        The file cannot be read, is not a record of numbers, is cut short, or is not the one that was written.
    """
    try:
        return _arrays(path.read_bytes(), sha256)
    except (OSError, EOFError, ValueError, TypeError, SyntaxError, tokenize.TokenError) as error:
        raise DatasetError(
            f"{what} cannot be read", where=path, found=error, hint=f"remove it and run the {stage} stage again"
        ) from error


def _arrays(data: bytes, sha256: str | None) -> dict[str, NDArray[Any]]:
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError("its checksum is not the one it was written with")
    stream = io.BytesIO(data)
    np.lib.format.read_magic(stream)
    _, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.names is None or dtype.hasobject or len(data) != stream.tell() + dtype.itemsize:
        raise ValueError("it is not a record of numbers, or it is cut short")
    record: NDArray[Any] = np.ndarray((), dtype, buffer=data, offset=stream.tell())
    return {name: record[name] for name in dtype.names}
