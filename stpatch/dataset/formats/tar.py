"""Tar shards: USTAR headers made by hand, so that the same samples give the same bytes, and byte ranges to read by.

A member's header differs from the next one's in its name, its size and its checksum only; everything else is one
constant block. That is what makes the writer fast and its output free of times, owners and hosts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import BinaryIO

from stpatch.dataset.sample import NAME_LIMIT
from stpatch.errors import DatasetError

BLOCK = 512
END = bytes(2 * BLOCK)
SIZE_LIMIT = 8**11
"""Bytes of a member that eleven octal digits can tell."""

_NUL = b"\0"
_SPACES = b" " * 8
_BEFORE_SIZE = b"0000644\0" + b"0000000\0" * 2  # mode; uid and gid
_MTIME = b"00000000000\0"
_AFTER_SUM = b"0" + bytes(100) + b"ustar\x0000" + bytes(32 + 32 + 8 + 8 + 155 + 12)
_CONSTANT_SUM = sum(_BEFORE_SIZE) + sum(_MTIME) + sum(_SPACES) + sum(_AFTER_SUM)


def header(name: bytes, size: int) -> bytes:
    """Return the 512-byte USTAR header of a regular file: mode 0644, owner 0, time 0.

    Raises
    ------
    DatasetError
        The name has more than 100 bytes or the file 8 GiB or more.
    """
    if len(name) > NAME_LIMIT or not 0 <= size < SIZE_LIMIT:
        raise DatasetError(
            "a member does not fit a USTAR header",
            where=name.decode(errors="replace"),
            found=f"a name of {len(name)} bytes, {size} bytes of data",
            expected=f"a name of at most {NAME_LIMIT} bytes, less than {SIZE_LIMIT} bytes of data",
        )
    digits = b"%011o\0" % size
    checksum = _CONSTANT_SUM + sum(name) + sum(digits)
    return b"".join(
        (name.ljust(NAME_LIMIT, _NUL), _BEFORE_SIZE, digits, _MTIME, b"%06o\0 " % checksum, _AFTER_SUM),
    )


class TarShard:
    """Writes samples to a binary file and keeps the SHA-256 of all that it wrote.

    Parameters
    ----------
    file
        Open for writing at its start; stays open.

    Attributes
    ----------
    size
        Bytes written so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size = 0

    def add(self, key: str, fields: Mapping[str, bytes]) -> tuple[int, int]:
        """Append a sample's members in the order given; return their byte range, headers and padding included.

        Returns
        -------
        (offset, nbytes)
        """
        blocks: list[bytes] = []
        start = key.encode("ascii") + b"."
        for name, data in fields.items():
            size = len(data)
            blocks += (header(start + name.encode("ascii"), size), data, bytes(-size % BLOCK))
        return self._write(b"".join(blocks))

    def finish(self) -> str:
        """Write the end of the archive; return the SHA-256 (hex) of the whole file."""
        self._write(END)
        return self._sha256.hexdigest()

    def _write(self, data: bytes) -> tuple[int, int]:
        offset = self.size
        self._file.write(data)
        self._sha256.update(data)
        self.size += len(data)
        return offset, len(data)


def parse_sample(data: bytes, *, where: object = None) -> tuple[str, dict[str, memoryview]]:
    """Split one sample's byte range into its key and fields.

    Parameters
    ----------
    data
        The bytes of all members, headers included, as `TarShard.add` placed them.
    where
        The place to name in errors.

    Raises
    ------
    DatasetError
        The bytes are not whole members of one sample.
    """
    fields: dict[str, memoryview] = {}
    key = ""
    view = memoryview(data)
    offset = 0
    while offset < len(view):
        name, size = _parse_header(view[offset : offset + BLOCK], where)
        member_key, dot, field = name.partition(".")
        if not dot or (fields and member_key != key) or field in fields:
            raise DatasetError(
                "a byte range holds members of more than one sample",
                where=where,
                found=name,
                hint="fetch the dataset's files again, or build it again",
            )
        key = member_key
        start = offset + BLOCK
        if start + size > len(view):
            raise DatasetError(
                "a member ends after its sample's byte range",
                where=where,
                found=name,
                hint="fetch the dataset's files again, or build it again",
            )
        fields[field] = view[start : start + size]
        offset = start + size + -size % BLOCK
    if not fields:
        raise DatasetError(
            "a byte range holds no member", where=where, hint="fetch the dataset's files again, or build it again"
        )
    return key, fields


def _parse_header(block: memoryview, where: object) -> tuple[str, int]:
    raw = bytes(block)
    try:
        size = int(raw[124:135], 8)
        name = raw[:NAME_LIMIT].rstrip(_NUL).decode("ascii")
        intact = header(name.encode("ascii"), size) == raw
    except ValueError:
        intact = False
    if not intact:
        raise DatasetError("a tar header is damaged", where=where, hint="copy or build the shard again")
    return name, size
