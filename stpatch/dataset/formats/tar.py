"""Format ``tar``: a sample's members one after the other in a USTAR archive, read by byte range.

    <key>.x.blosc  <key>.totals.npy  [<key>.genes.npy]  [<key>.label_<name>.npy ...]  <key>.meta.json

Headers are made by hand, so that the same samples give the same bytes. A member's header differs from the next one's
in its name, its size and its checksum only; everything else is one constant block. That is what makes the writer fast
and its output free of times, owners and hosts.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from numpy.typing import NDArray

from stpatch.dataset.entries import FileEntry, ShardEntry, SplitEntry, WrittenShard
from stpatch.dataset.formats.base import (
    Address,
    ByteRanges,
    Entries,
    SampleReader,
    ShardFormat,
    Stored,
    check_count,
    check_stored,
)
from stpatch.dataset.index import FOLDER, encoded_index, write_index
from stpatch.dataset.layout import META, Layout
from stpatch.dataset.planes import Plane, X
from stpatch.dataset.sample import NAME_LIMIT, Sample, encode_meta, fitting_arrays
from stpatch.dataset.snippets import Snippet, tar_snippets
from stpatch.errors import DatasetError
from stpatch.registry import ENCODINGS, FORMATS
from stpatch.storage import atomic_file, canonical_json, crc32c

if TYPE_CHECKING:
    from stpatch.dataset.manifest import Manifest

BLOCK = 512
END = bytes(2 * BLOCK)
"""What ends an archive: two blocks of zeros, and no padding to a record of 10 kB as GNU tar would add."""
SIZE_LIMIT = 8**11
"""Bytes of a member that eleven octal digits can tell."""

_NUL = b"\0"
_SPACES = b" " * 8
_BEFORE_SIZE = b"0000644\0" + b"0000000\0" * 2  # mode; uid and gid
_MTIME = b"00000000000\0"
_SIZE_DIGITS = 11
_AFTER_SUM = b"0" + bytes(100) + b"ustar\x0000" + bytes(32 + 32 + 8 + 8 + 155 + 12)
# A header's checksum is the sum of its bytes with the checksum's own field as blanks: what is constant is summed once.
_CONSTANT_SUM = sum(_BEFORE_SIZE) + sum(_MTIME) + sum(_SPACES) + sum(_AFTER_SUM)


@FORMATS.register
class Tar(ShardFormat):
    """Samples as members of tar archives, as webdataset reads them."""

    name = "tar"
    tag = "webdataset"
    shard_patterns = ("*/*.tar",)

    def encode(self, sample: Sample, layout: Layout) -> dict[str, bytes]:
        """Return a sample's members by field, in their order."""
        arrays = fitting_arrays(sample, layout)
        members = {plane.member: ENCODINGS.get(plane.encoding).encode(arrays[plane.name]) for plane in layout.planes}
        members[META] = encode_meta(sample, layout)  # last: webdataset tells samples apart by their keys, in any order
        return members

    def write(
        self,
        output: Path,
        encoded: Iterable[tuple[str, Mapping[str, bytes]]],
        *,
        split: str,
        number: int,
        layout: Layout,
    ) -> WrittenShard:
        """Write an archive; see `ShardFormat.write`."""
        path = self.shard_paths(split, number, layout)[""]
        ranges: list[tuple[int, int]] = []
        with atomic_file(output / path) as file:
            shard = TarShard(file)
            ranges.extend(shard.add(key, members) for key, members in encoded)
            check_count(len(ranges), layout, path)
            sha256 = shard.finish()
        entry = ShardEntry(path=path, bytes=shard.size, sha256=sha256, patches=len(ranges))
        return WrittenShard(entry=entry, ranges=tuple(ranges), checksums=tuple(shard.checksums))

    def write_split_files(self, output: Path, *, name: str, split: SplitEntry, layout: Layout) -> list[FileEntry]:  # noqa: ARG002
        """Write the split's shard index for webdataset."""
        return [write_index(output, name, split)]

    def reader(self, files: ByteRanges, layout: Layout) -> TarReader:
        """Return a reader of members."""
        return TarReader(files, layout)

    def shard_number(self, path: str) -> int:
        """Return the number in the archive's name."""
        return int(path.removesuffix(".tar").rpartition("-")[2])

    def shard_paths(self, split: str, number: int, layout: Layout) -> dict[str, str]:  # noqa: ARG002 - one file for all
        """Return the archive's path."""
        return {"": f"{split}/{split}-{number:06d}.tar"}

    def folder(self, split: str) -> str:
        """Return the split's folder of archives."""
        return split

    def shard_bytes(self, end: int) -> int:
        """Return where the archive's end lies after its last sample."""
        return end + len(END)

    def check_split(self, folder: Path, *, name: str, split: SplitEntry, layout: Layout) -> Iterator[DatasetError]:  # noqa: ARG002
        """Yield where the shard index does not list the archives, or an archive does not end as one."""
        path = folder / FOLDER / f"{name}.json"
        if not path.is_file() or path.read_bytes() != encoded_index(name, split):
            yield DatasetError(
                "the shard index does not list the split's shards", where=path, hint="copy or build the dataset again"
            )
        for shard in split.shards:
            with (folder / shard.path).open("rb") as file:
                file.seek(-len(END), io.SEEK_END)
                if file.read() != END:
                    yield DatasetError("an archive does not end with two blocks of zeros", where=folder / shard.path)

    def front_matter(self, manifest: Manifest) -> list[str]:
        """Return the archives of each split, which the Hub shows as webdataset samples."""
        lines = ["- config_name: default", "  data_files:"]
        for name, split in manifest.splits.items():
            if split.shards:
                lines += [f"  - split: {name}", f"    path: {canonical_json(f'{name}/*.tar')}"]
        return lines

    def field_name(self, plane: Plane) -> str:
        """Return the member's name."""
        return plane.member

    def x_words(self, words: str) -> str:
        """Return the encoding's words."""
        return words

    def further_fields(self, layout: Layout) -> list[tuple[str, str]]:
        """Return meta.json."""
        return [(META, "key, slide_id, row, col, n_spots" + (", shape of x" if layout.variable else ""))]

    def snippets(self, manifest: Manifest, split: str) -> list[Snippet]:
        """Return how webdataset, Hugging Face datasets and wids read it."""
        numbers = [self.shard_number(shard.path) for shard in manifest.splits[split].shards]
        return tar_snippets(manifest, split, numbers=numbers)


class TarReader(SampleReader):
    """Reads samples of tar shards: one byte range holds all members of a sample."""

    def __init__(self, files: ByteRanges, layout: Layout) -> None:
        self._files = files
        self._layout = layout
        self._ends = [
            (plane.name, f".{plane.member}".encode("ascii"), ENCODINGS.get(plane.encoding)) for plane in layout.planes
        ]
        self._decoders = [(plane, plane.member, ENCODINGS.get(plane.encoding)) for plane in layout.planes]

    def checksum(self, address: Address) -> int:
        """Return that of the sample's byte range."""
        return crc32c(self._files.read(address.shard, *address.byte_range, where=address.where))

    def read(self, address: Address) -> Stored:
        """Return one sample; see `SampleReader.read`."""
        where = address.where
        data = self._files.read(address.shard, *address.byte_range, where=where)
        check_stored(address, data)
        found, fields = parse_sample(data, where=where)
        if found != address.key:
            raise DatasetError("a byte range holds another sample", where=where, found=found, expected=address.key)
        if tuple(fields) != self._layout.fields:
            raise DatasetError(
                "a sample has other fields than the dataset",
                where=where,
                found=", ".join(fields),
                expected=", ".join(self._layout.fields),
            )
        arrays = {
            plane.name: encoding.decode(
                fields[member], dtype=plane.dtype, shape=plane.shape_at(address.size), where=f"{where}, {plane.name}"
            )
            for plane, member, encoding in self._decoders
        }
        return Stored(arrays, bytes(fields[META]))

    def fields(self, address: Address) -> dict[str, bytes]:
        """Return one sample's members; see `SampleReader.fields`."""
        data = self._files.read(address.shard, *address.byte_range, where=address.where)
        key, found = parse_sample(data, where=address.where)
        members = {name: bytes(member) for name, member in found.items()}
        again = io.BytesIO()
        TarShard(again).add(key, members)
        if again.getvalue() != data:
            raise DatasetError("a member's padding is not zeros", where=address.where)
        return members

    def read_into(self, address: Address, out: Mapping[str, NDArray[Any]]) -> Entries | None:
        """Read members to arrays; see `SampleReader.read_into`.

        A sample whose headers are not, byte for byte but for size and checksum, those that the writer makes for this
        key is left to `read`, which says what is wrong.
        """
        where = address.where
        data = self._files.read(address.shard, *address.byte_range, where=where)
        check_stored(address, data)
        entries: Entries | None = None
        view, offset, name = memoryview(data), 0, address.key.encode("ascii")
        for plane, end, encoding in self._ends:
            # the headers of a sample's members differ in the ends of their names, in their sizes and checksums only
            start = offset + BLOCK
            head = (name + end).ljust(NAME_LIMIT, _NUL) + _BEFORE_SIZE
            if not (data.startswith(head, offset) and data.startswith(_AFTER_SUM, start - len(_AFTER_SUM))):
                break
            try:
                stop = start + int(data[offset + len(head) : offset + len(head) + _SIZE_DIGITS], 8)
            except ValueError:
                break
            if not start <= stop <= len(data):
                break
            if plane in out:
                encoding.decode_into(view[start:stop], out[plane], where=f"{where}, {plane}")
            elif plane == X:
                x = self._layout.planes[0]
                shape = x.shape_at(address.size)
                entries = Entries(*encoding.decode_entries(view[start:stop], dtype=x.dtype, shape=shape, where=where))
            offset = stop + (start - stop) % BLOCK
        else:
            return entries
        return super().read_into(address, out)


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
    checksums
        CRC-32C of each sample's byte range.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size = 0
        self.checksums: list[int] = []

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
        data = b"".join(blocks)
        self.checksums.append(crc32c(data))
        return self._write(data)

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
        File and key, for the message.

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
