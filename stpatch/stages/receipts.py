"""Receipts: a small JSON per unit, written last and atomically. Nothing else records progress.

A receipt holds the unit's request (a digest of its config sections and its upstream fingerprints), the software that
made it, its input files' size and SHA-256, and its outputs' size and SHA-256. A unit whose receipt matches is skipped;
anything else is redone. A receipt is sealed by a digest of itself: one with a damaged bit counts as none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stpatch.stages.provenance import Software
from stpatch.storage import digest, read_sealed, sha256_file, write_sealed


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One input file as it was when the unit ran."""

    path: str
    bytes: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> InputFile:
        """Measure a file."""
        stat = path.stat()
        return cls(path=str(path), bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=sha256_file(path))

    def unchanged(self, checksums: Checksums | None = None) -> bool:
        """Whether the file is still the same: by size and time, else by checksum, which `checksums` may know."""
        path = Path(self.path)
        try:
            stat = path.stat()
        except OSError:
            return False
        if stat.st_size != self.bytes:
            return False
        if stat.st_mtime_ns == self.mtime_ns:
            return True
        return (sha256_file(path) if checksums is None else checksums.sha256(path)) == self.sha256


@contextlib.contextmanager
def measured_meanwhile(paths: Iterable[Path]) -> Iterator[Callable[[], tuple[InputFile, ...]]]:
    """Measure files on a second thread while this one reads them; yields a function that waits for the results."""
    thread = ThreadPoolExecutor(1)
    try:
        files = [thread.submit(InputFile.of, path.absolute()) for path in paths]
        yield lambda: tuple(file.result() for file in files)
    finally:
        thread.shutdown(cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class Output:
    """One file that a unit wrote; `path` is relative to the work dir or the output folder."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What is known of a finished unit.

    Attributes
    ----------
    stage, unit
        Which one.
    request
        Digest of what it depends on, beside its input files.
    location
        Where its input files were sought.
    software
        What made it.
    inputs, outputs
        The files that it read and wrote.
    facts
        What later stages ask of it, as JSON values.
    revision
        Set where the unit was redone and the same request gave other bytes, because libraries were upgraded.
    """

    stage: str
    unit: str
    request: str
    location: str = ""
    software: Software = field(default_factory=Software)
    inputs: tuple[InputFile, ...] = ()
    outputs: tuple[Output, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    revision: str = ""

    @property
    def contents(self) -> list[list[str | int]]:
        """Name, size and SHA-256 of each input file: neither its folder nor its time."""
        return [[Path(item.path).name, item.bytes, item.sha256] for item in self.inputs]

    @cached_property
    def fingerprint(self) -> str:
        """What downstream units depend on: the request, the inputs' contents and the revision.

        The code is not in it, so that datasets of equal settings and inputs have equal fingerprints; a change of the
        code redoes downstream units by itself, see `stpatch.engine.graph.Stage.code`.
        """
        parts = [self.stage, self.unit, self.request, self.contents]
        return digest([*parts, self.revision] if self.revision else parts)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What is known of a unit that failed."""

    stage: str
    unit: str
    request: str
    message: str
    kind: str


class ReceiptBook:
    """The receipts and failures below one folder of the work dir."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, tuple[tuple[int, int, int], Receipt]] = {}

    def _path(self, stage: str, unit: str, suffix: str) -> str:
        return f"{self.folder}/{stage}/{unit}{suffix}"  # a text: stages ask for thousands of receipts, many times

    def receipt(self, stage: str, unit: str) -> Receipt | None:
        """Return a unit's receipt, None if there is none (an unreadable one counts as none: the unit is redone).

        A file is parsed again only when it has changed: stages ask for the same receipts many times.
        """
        path = self._path(stage, unit, ".json")
        try:
            stat = os.stat(path)  # noqa: PTH116 - as above
            mark = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            known = self._known.get(path)
            if known is None or known[0] != mark:
                known = self._known[path] = (mark, _parsed(read_sealed(path)))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return known[1]

    def failure(self, stage: str, unit: str) -> Failure | None:
        """Return a unit's failure, None if there is none."""
        path = self._path(stage, unit, ".failed.json")
        if not os.path.exists(path):  # noqa: PTH110 - as above
            return None
        try:
            return Failure(**read_sealed(Path(path)))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, receipt: Receipt) -> None:
        """Record a finished unit."""
        write_sealed(Path(self._path(receipt.stage, receipt.unit, ".json")), asdict(receipt))
        Path(self._path(receipt.stage, receipt.unit, ".failed.json")).unlink(missing_ok=True)

    def write_failure(self, failure: Failure) -> None:
        """Record a failed unit."""
        Path(self._path(failure.stage, failure.unit, ".json")).unlink(missing_ok=True)
        write_sealed(Path(self._path(failure.stage, failure.unit, ".failed.json")), asdict(failure))


def _parsed(value: Any) -> Receipt:
    return Receipt(
        stage=value["stage"],
        unit=value["unit"],
        request=value["request"],
        location=value["location"],
        software=Software(**value["software"]),
        inputs=tuple(InputFile(**item) for item in value["inputs"]),
        outputs=tuple(Output(**item) for item in value["outputs"]),
        facts=value["facts"],
        revision=value["revision"],
    )


def outputs_present(outputs: Iterable[Output], roots: Mapping[str, Path]) -> bool:
    """Whether all outputs are there with their sizes; a path starts with the name of its root."""
    for output in outputs:
        try:
            root, _, rest = output.path.partition("/")
            if os.stat(f"{roots[root]}/{rest}").st_size != output.bytes:  # noqa: PTH116 - of thousands of units
                return False
        except OSError:
            return False
    return True


class Checksums:
    """The SHA-256 of files, each read at most once while it stays as it is: a run checks what it builds on once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int, int], str] = {}

    def sha256(self, path: Path) -> str:
        """Return a file's SHA-256; its name, size, time and inode say whether it is the file that was read before."""
        stat = path.stat()
        mark = (str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if mark not in self._known:
            self._known[mark] = sha256_file(path)
        return self._known[mark]

    def damaged(self, outputs: Iterable[Output], roots: Mapping[str, Path]) -> list[Path]:
        """Return the outputs that are there and are not what was written, by their checksums.

        Those of several files are taken together, on as many threads as there are processors: hashing needs no lock.
        """
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            found = threads.map(lambda output: self._damage(output, file_of(output.path, roots)), outputs)
            return [path for path in found if path is not None]

    def _damage(self, output: Output, path: Path) -> Path | None:
        try:
            return None if self.sha256(path) == output.sha256 else path
        except FileNotFoundError:
            return None
        except OSError:  # a bad place of the disk: it cannot be read, so it is not what was written
            return path


def file_of(path: str, roots: Mapping[str, Path]) -> Path:
    """Return the file behind an output's path: ``work/slides/A1.h5ad`` -> work dir / ``slides/A1.h5ad``."""
    root, _, rest = path.partition("/")
    return roots[root] / rest


def measure(path: Path, *, root: str, base: Path, sha256: str | None = None) -> Output:
    """Return what a receipt says of a file below `base`; `sha256` where the writer has it already."""
    relative = path.relative_to(base).as_posix()
    return Output(path=f"{root}/{relative}", bytes=path.stat().st_size, sha256=sha256 or sha256_file(path))
