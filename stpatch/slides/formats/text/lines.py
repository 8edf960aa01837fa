"""Text files at the edge: plain or gzip by content, in blocks of whole lines; the header and the delimiter.

A delimiter is one character; ``" "`` means runs of blanks (spaces and tabs), as R's ``write.table`` leaves them.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TextIO

from stpatch.errors import InputError, InputMissingError

BLOCK = 8 << 20
"""Bytes of text that are worked on together."""
LONGEST_LINE = 1 << 30
HEAD_LIMIT = 1 << 24
"""Bytes of empty lines and comments before a table; a gzip file of a few kilobytes may hold gigabytes of them."""
LONGEST_HEAD = 1 << 28
SMALL = 1 << 29
"""Characters of a text that is read as a whole."""
DELIMITERS = ("\t", ",", ";", " ")
"""Those that are looked for; ``|`` must be named."""
_HEAD_BLOCK = 1 << 16
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_BLANK_FIELDS = re.compile(r'"([^"]*)"|(\S+)')


@dataclass(frozen=True, kw_only=True)
class Head:
    """The first two lines of a delimited table that are not empty.

    Attributes
    ----------
    header, first
        Their fields, without quotes; `first` is empty where there is but one line.
    n_comments
        Lines before the header that start with ``#`` and are no header by their number of fields.
    """

    path: Path
    delimiter: str
    header: tuple[str, ...]
    first: tuple[str, ...]
    n_comments: int = 0

    @property
    def short(self) -> bool:
        """Whether the header is one field short: R does not name the column of row names."""
        return len(self.first) == len(self.header) + 1

    @property
    def names(self) -> tuple[str, ...]:
        """One name a column, "" for the unnamed one."""
        return ("", *self.header) if self.short else self.header


def open_text(path: Path) -> TextIO:
    """Open a text file that may be gzipped (by content, not by name); a byte order mark is skipped."""
    require_file(path)
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP
    if zipped:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline=None)
    return path.open(encoding="utf-8-sig", newline=None)


def require_file(path: Path) -> None:
    """Refuse a path that is not a file: nothing, a folder, or a pipe, which whoever opens it may wait for for ever."""
    if not path.exists():
        raise InputMissingError("there is no such file", where=path, hint="check the path")
    if not path.is_file():
        raise InputError("this is not a file", where=path, hint="check the path; pipes and devices are not read")


def read_lines(path: Path) -> list[str]:
    """Read a small text file's lines without their ends; a file cut short or no text is an `InputError`."""
    try:
        with open_text(path) as file:
            text = file.read(SMALL + 1)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise text_fault(path, error) from error
    if len(text) > SMALL:
        raise InputError(
            "the text is far too long for a list of names",
            where=path,
            found=f"more than {SMALL >> 20} MiB of text in a file of {path.stat().st_size} bytes",
            hint="check the file against the source, and fetch it again",
        )
    return text.splitlines()


def text_fault(path: Path, error: BaseException) -> InputError:
    """Return what a failure to read a text file is to the user."""
    if isinstance(error, FileNotFoundError):
        return InputMissingError("there is no such file", where=path, hint="check the path")
    return InputError(
        "the file cannot be read: it is damaged or cut short",
        where=path,
        found=" ".join(str(error).split())[:300],
        hint="fetch it again",
    )


def arrow_stream(path: Path) -> Any:
    """Return a pyarrow stream of a text file's bytes, unpacked where it is gzipped (by content, not by name)."""
    import pyarrow as pa

    require_file(path)
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP
    return pa.input_stream(str(path), compression="gzip" if zipped else None)


def byte_blocks(path: Path, *, size: int = BLOCK) -> Iterator[bytes]:
    """Yield a file's text bytes in blocks of at most `size`; gzip is unpacked, a cut or damaged one is an error."""
    require_file(path)
    with path.open("rb") as file:
        if file.read(2) == _GZIP:
            file.seek(0)
            yield from _unzipped(file, path, size)
        else:
            file.seek(0)
            while block := file.read(size):
                yield block


def _unzipped(file: BinaryIO, path: Path, size: int) -> Iterator[bytes]:
    decoder, started, packed = zlib.decompressobj(wbits=31), False, b""
    while packed or (packed := file.read(min(size, 1 << 20))):
        try:
            block = decoder.decompress(packed, size)
        except zlib.error as error:
            raise InputError("the gzip file is damaged", where=path, found=error, hint="fetch it again") from error
        started, packed = True, decoder.unconsumed_tail
        if block:
            yield block
        if decoder.eof:
            packed = decoder.unused_data.lstrip(b"\0")
            decoder, started = zlib.decompressobj(wbits=31), False
    if started:
        raise InputError(
            "the gzip file is cut short", where=path, found=f"{path.stat().st_size} bytes", hint="fetch it again"
        )


def line_blocks(path: Path, *, size: int = BLOCK, longest: int = LONGEST_LINE) -> Iterator[bytes]:
    """Yield a file in blocks of whole lines, each block ending in a line end; a byte order mark is left out."""
    rest: list[bytes] = []
    held = 0
    start = True
    for block in byte_blocks(path, size=size):
        if start:
            block, start = block.removeprefix(_BOM), False
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join([*rest, block[:end]])
            rest, held = [], 0
        rest.append(block[end:])
        held += len(block) - end
        if held > longest:
            raise InputError(
                f"a line is longer than {longest >> 20} MiB: this is no table",
                where=path,
                hint="give a table of text with line ends",
            )
    if tail := b"".join(rest):
        yield tail + b"\n"


def first_cells(path: Path, delimiter: str) -> list[str]:
    """Return the first cell of every line that is not empty, without quotes; the file is read in blocks."""
    cut = delimiter.encode() if delimiter.strip(" ") else None
    return [
        line.split(cut, 1)[0].strip().strip(b'"').decode(errors="replace")
        for block in line_blocks(path)
        for line in block.split(b"\n")
        if line.strip()
    ]


def split_line(line: str, delimiter: str, *, where: object) -> tuple[str, ...]:
    """Return a line's fields without quotes and surrounding blanks."""
    if delimiter == " ":
        return tuple(a or b for a, b in _BLANK_FIELDS.findall(line)) if '"' in line else tuple(line.split())
    if '"' not in line:
        return tuple(field.strip() for field in line.split(delimiter))
    try:
        return tuple(field.strip() for field in next(csv.reader([line], delimiter=delimiter)))
    except csv.Error as error:
        raise InputError(
            "a line cannot be cut into fields", where=where, found=error, hint="correct the quotes of this line"
        ) from error


def read_head(path: Path, *, delimiter: str | None = None) -> Head:
    """Read the header and the first row of a delimited table.

    Parameters
    ----------
    delimiter
        None: the one of tab, comma, semicolon and blanks that cuts both lines alike into the most fields.

    Raises
    ------
    InputError
        The file is empty or is no text.
    """
    if delimiter is not None and delimiter not in (*DELIMITERS, "|"):
        raise InputError(
            "this is not a delimiter", where=path, found=repr(delimiter), expected="tab, comma, ;, | or blank"
        )
    lines: list[str] = []
    comments = read = 0
    for block in line_blocks(path, size=_HEAD_BLOCK, longest=LONGEST_HEAD):
        if b"\0" in block:
            raise InputError("this is not a text file", where=path, expected="a table of text")
        if read > HEAD_LIMIT and block.count(b"\n") > 1:  # a block of one line is a long line
            raise InputError(
                "there is no table in sight",
                where=path,
                found=f"{read >> 20} MiB of empty lines and comments in a file of {path.stat().st_size} bytes",
                expected="a table, after at most 16 MiB of them",
                hint="check the file against the source, and fetch it again",
            )
        read += len(block) if block.count(b"\n") > 1 else 0
        for line in block.split(b"\n"):
            if line.strip() and len(lines) - comments < 2:
                lines.append(_decoded(line, path))
                comments += lines[-1].startswith("#")
        if len(lines) - comments == 2:
            break
    lines, comments = _without_comments(lines, comments, path)
    if not lines:
        raise InputError("the table is empty", where=path, hint="fetch the file again, or repair it")
    if delimiter is None:
        delimiter = _sniffed(lines, path)
    fields = [split_line(line, delimiter, where=path) for line in lines]
    return Head(
        path=path,
        delimiter=delimiter,
        header=fields[0],
        first=fields[1] if len(fields) > 1 else (),
        n_comments=comments,
    )


def _without_comments(lines: list[str], n_hashes: int, path: Path) -> tuple[list[str], int]:
    """Return the first two lines of the table and how many lines of comments went before.

    A line that starts with ``#`` is the header where it is cut into as many fields as the line that follows.
    """
    if not n_hashes or not lines[0].startswith("#"):
        return lines[:2], 0
    rest = [line for line in lines if not line.startswith("#")]
    first = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    if not rest:
        return lines[:2], 0
    widths = {delimiter: len(split_line(rest[0], delimiter, where=path)) for delimiter in DELIMITERS}
    delimiter = max(widths, key=lambda name: widths[name])
    last = lines[first - 1]
    if widths[delimiter] > 1 and len(split_line(last, delimiter, where=path)) in (
        widths[delimiter],
        widths[delimiter] - 1,
    ):
        return lines[first - 1 : first + 1], first - 1
    return rest[:2], first


def head_or_none(path: Path, *, delimiter: str | None = None) -> Head | None:
    """Read a head for recognition: None where the file is no table of text at all."""
    try:
        return read_head(path, delimiter=delimiter)
    except InputError:
        return None


def _decoded(line: bytes, path: Path) -> str:
    try:
        return line.rstrip(b"\r").decode()
    except UnicodeDecodeError as error:
        raise InputError("the text is not UTF-8", where=path, found=error, hint="save the table as UTF-8") from error


def _sniffed(lines: list[str], path: Path) -> str:
    best, most = ",", (0, 0)
    for delimiter in DELIMITERS:
        counts = [len(split_line(line, delimiter, where=path)) for line in lines]
        alike = counts[-1] - counts[0] in (0, 1)
        if counts[-1] > 1 and (alike, counts[0]) > most:
            best, most = delimiter, (alike, counts[0])
    return best


def refuse_ragged(head: Head, *, row: int, fields: int) -> NoReturn:
    """Raise the `InputError` of a row (a line of the file) with another number of cells than the header."""
    n_fields = len(head.names)
    raise InputError(
        "a row has another number of cells than the table",
        where=f"{head.path} row {row}",
        found=f"{fields} cells" if fields <= n_fields else f"more than {n_fields} cells",
        expected=f"{n_fields}",
        hint="the file may be cut short or edited: fetch it again",
    )
