"""What a shard format is: how encoded samples become files and come back, and the words about it in the card."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.entries import FileEntry, ShardEntry, SplitEntry, WrittenShard
from stpatch.dataset.layout import Layout
from stpatch.dataset.planes import Plane, X
from stpatch.dataset.sample import Sample
from stpatch.dataset.snippets import Snippet
from stpatch.errors import DatasetError
from stpatch.storage import crc32c

if TYPE_CHECKING:
    from stpatch.config import Config
    from stpatch.dataset.cropping.stored import StoredSlide
    from stpatch.dataset.manifest import Manifest

Arrays = dict[str, NDArray[Any]]


class Stored(NamedTuple):
    """What a shard holds of a sample: its arrays by plane name, and its meta.json where the format stores one."""

    arrays: Arrays
    meta: bytes | None


class Entries(NamedTuple):
    """Values that are not zero: (n,) int32 positions in the flat array, ascending, and (n,) the values."""

    positions: NDArray[np.int32]
    values: NDArray[Any]


class Address(NamedTuple):
    """Where a sample is, and what must be there. A tuple: a frozen dataclass takes five times as long to make.

    Attributes
    ----------
    shard
        Its shard.
    index
        Its number in the shard.
    byte_range
        (offset, nbytes) in the shard's file, from patches.parquet.
    key
        Its key.
    size
        (height, width) where samples vary.
    checksum
        CRC-32C of its stored bytes, from patches.parquet; None: they are not checked.
    dataset
        The dataset's folder or URL, for messages.
    """

    shard: ShardEntry
    index: int  # type: ignore[assignment]  # tuple's method of this name is not used
    byte_range: tuple[int, int]
    key: str
    size: tuple[int, int] | None = None
    checksum: int | None = None
    dataset: str | None = None

    @property
    def where(self) -> str:
        """The dataset, the shard's file and the key, for messages."""
        where = where_of(self.shard, self.key)
        return where if self.dataset is None else f"{self.dataset}/{where}"


class Range(NamedTuple):
    """A byte range of a file."""

    file: FileEntry
    offset: int
    nbytes: int


class ByteRanges(Protocol):
    """Reads byte ranges of a dataset's files."""

    def expect(self, ranges: Iterable[Range]) -> None:
        """Take note of ranges that will be read soon, such as to fetch them."""
        ...

    def close(self) -> None:
        """Let go of what is kept; a later read opens it again."""
        ...

    def read(self, file: FileEntry, offset: int, nbytes: int, *, where: str) -> bytes:
        """Return bytes of a file; `DatasetError` where it is missing, cut short or has no such range."""
        ...


class SampleReader(ABC):
    """Reads single samples of one dataset; it may keep what serves several samples, and must be safe in threads."""

    @abstractmethod
    def read(self, address: Address) -> Stored:
        """Return one sample.

        Raises
        ------
        DatasetError
            A file is missing, cut short or damaged, or holds another sample there.
        """

    def read_into(self, address: Address, out: Mapping[str, NDArray[Any]]) -> Entries | None:
        """Read one sample's planes to arrays that are there already, such as a sample's part of a batch.

        Parameters
        ----------
        address
            As for `read`.
        out
            Writable arrays by plane name, each of the plane's dtype and of its shape at the sample's size. Planes that
            are not in it are left out.

        Returns
        -------
        Entries or None
            Where `out` has no x: its values but for the zeros.

        Raises
        ------
        DatasetError
            As for `read`.
        """
        stored = self.read(address).arrays
        for name, array in out.items():
            array[...] = stored[name]
        if X in out:
            return None
        positions = np.flatnonzero(stored[X] != 0).astype(np.int32)
        return Entries(positions, stored[X].reshape(-1)[positions])

    def fields(self, address: Address) -> dict[str, bytes] | None:  # noqa: ARG002 - not told, unless overridden
        """Return one sample's bytes as `ShardFormat.encode` gave them, for checks; None where that is not told.

        Raises
        ------
        DatasetError
            As for `read`, or there is something beside the sample that its format does not put there.
        """
        return None

    def ranges(self, address: Address) -> list[Range]:
        """Return the byte ranges that are read for a sample; finding them may read what serves several samples."""
        return [Range(address.shard, *address.byte_range)]

    def checksum(self, address: Address) -> int:
        """Return the CRC-32C of what is stored of a sample, as `check_stored` takes it.

        Raises
        ------
        DatasetError
            As for `read`; or the format does not tell the bytes of a sample.
        """
        raise DatasetError("this format's samples have no checksums", where=address.where)

    def forget(self) -> None:  # noqa: B027 - most readers keep nothing
        """Let go of what is kept."""


class ShardFormat(ABC):
    """One way to store samples in files.

    A new format is a module of this package, named for it, or an entry point of group ``stpatch.formats``; its class
    derives from this one and is decorated with ``FORMATS.register``. What it writes must depend on its arguments
    alone, and final names must appear only when a shard is complete (`stpatch.storage.atomic_file`).

    Attributes
    ----------
    name
        As in the config's ``shards.format``.
    tag
        The card's tag for it on a hub.
    shard_patterns
        Globs, from the dataset's folder, that match every shard file of the format and nothing else.
    libraries
        Packages beside numcodecs and NumPy whose version may change what is written.
    whole_slides
        Whether a shard is a whole slide, written by `write_slide`, from which samples are cut when they are read: there
        are no stored samples, `encode`, `write` and `reader` raise, and a split's shards differ in their windows.
    fixed_shape
        Whether samples that vary are padded to one shape, which a later version cannot enlarge.
    """

    name: ClassVar[str]
    tag: ClassVar[str]
    shard_patterns: ClassVar[tuple[str, ...]]
    libraries: ClassVar[tuple[str, ...]] = ()
    whole_slides: ClassVar[bool] = False
    fixed_shape: ClassVar[bool] = False

    # -- writing ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, sample: Sample, layout: Layout) -> dict[str, bytes]:
        """Return a sample as `write` takes it: bytes by field; `DatasetError` where it does not fit the layout."""

    @abstractmethod
    def write(
        self,
        output: Path,
        encoded: Iterable[tuple[str, Mapping[str, bytes]]],
        *,
        split: str,
        number: int,
        layout: Layout,
    ) -> WrittenShard:
        """Write a shard; its final names appear when it is complete, and never otherwise.

        Parameters
        ----------
        output
            The dataset's folder.
        encoded
            The shard's samples in order: key, and what `encode` made.
        split, number
            Which shard: `number` counts from 0 in its split.
        layout
            The dataset's layout.

        Raises
        ------
        DatasetError
            There are no samples or too many.
        """

    def write_slide(
        self, output: Path, slide: StoredSlide, *, split: str, windows: int, layout: Layout
    ) -> WrittenShard:
        """Write a whole slide as a shard, where the format is one of `whole_slides`.

        Parameters
        ----------
        output
            The dataset's folder.
        slide
            What to write.
        split
            The slide's.
        windows
            How many rows of patches.parquet are windows of the slide.
        layout
            The dataset's layout.

        Raises
        ------
        DatasetError
            The format stores samples.
        """
        del slide, split, windows, layout  # for formats of whole slides
        raise DatasetError(f"format {self.name} stores samples, not whole slides", where=output)

    @abstractmethod
    def write_split_files(self, output: Path, *, name: str, split: SplitEntry, layout: Layout) -> list[FileEntry]:
        """Write what a split has beside its shards, such as an index or array metadata; return the files."""

    def refusal(self, config: Config) -> str | None:  # noqa: ARG002 - a format holds everything, unless overridden
        """Return why a config cannot be built in this format, one sentence; None where it can."""
        return None

    # -- reading ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def reader(self, files: ByteRanges, layout: Layout) -> SampleReader:
        """Return a reader of a dataset's samples."""

    def part_names(self, layout: Layout) -> list[str]:  # noqa: ARG002 - one file holds all planes, unless overridden
        """Return the planes that a shard stores in files of their own."""
        return []

    @abstractmethod
    def shard_number(self, path: str) -> int:
        """Return which of its split's shards a file is, counted from 0, from its path in the dataset's folder."""

    @abstractmethod
    def shard_paths(self, split: str, number: int, layout: Layout) -> dict[str, str]:
        """Return the paths of a shard's files from the dataset's folder: its own by "", those of its parts by plane."""

    def stores_alike(self, earlier: Layout, layout: Layout) -> bool:
        """Whether shards of an earlier version of the format may stand in a dataset of `layout` as they are."""
        return self.part_names(earlier) == self.part_names(layout)

    @abstractmethod
    def folder(self, split: str) -> str:
        """Return the folder that holds a split's shards and nothing else, from the dataset's folder."""

    def shard_bytes(self, end: int) -> int | None:  # noqa: ARG002 - not told by the last sample, unless overridden
        """Return the size of a shard's file whose last sample ends at byte `end`; None where that does not tell it."""
        return None

    def check_split(self, folder: Path, *, name: str, split: SplitEntry, layout: Layout) -> Iterator[DatasetError]:  # noqa: ARG002
        """Yield where other programs would not read a split's files as stpatch does; its samples are whole.

        Parameters
        ----------
        folder
            The dataset's folder.
        name, split
            The split; all its files are there, with the bytes that the manifest tells.
        layout
            The dataset's layout.
        """
        return iter(())

    # -- the card ---------------------------------------------------------------------------------------------------

    def front_matter(self, manifest: Manifest) -> list[str]:  # noqa: ARG002 - no hub reads most formats: the tables then
        """Return the front matter's configs of data files, as lines of YAML.

        A hub reads all configs of a dataset by one and the same builder: either shards or tables, but not both.
        """
        lines = []
        for name in ("patches", "slides", "genes"):
            lines += [f"- config_name: {name}", "  data_files:", f"  - split: {name}", f'    path: "{name}.parquet"']
        return lines

    @abstractmethod
    def field_name(self, plane: Plane) -> str:
        """Return what a plane is called where it is stored."""

    @abstractmethod
    def x_words(self, words: str) -> str:
        """Return what `x` is, given the words of its encoding."""

    def further_fields(self, layout: Layout) -> list[tuple[str, str]]:  # noqa: ARG002 - planes only, unless overridden
        """Return (field, words) of what is stored beside the planes."""
        return []

    def further_reading(self, manifest: Manifest, split: str) -> list[str]:  # noqa: ARG002 - nothing to add
        """Return lines of Markdown that the card ends with: what else can be done with such a dataset."""
        return []

    @abstractmethod
    def snippets(self, manifest: Manifest, split: str) -> list[Snippet]:
        """Return how a split is read without stpatch, the plainest way first."""


def check_count(count: int, layout: Layout, path: str) -> None:
    """Raise `DatasetError` unless a shard has 1 to `Layout.patches` samples."""
    if not 0 < count <= layout.patches:
        raise DatasetError(
            "a shard has no samples or too many", where=path, found=count, expected=f"1 to {layout.patches}"
        )


def check_stored(address: Address, *parts: bytes) -> None:
    """Raise `DatasetError` unless a sample's stored bytes have the checksum that is told, where one is told.

    Parameters
    ----------
    address
        Where they were read.
    parts
        Tar: the sample's byte range. Zarr: the chunks of all its planes, in the order of `Layout.planes`. Any other
        format: whatever it stores of the sample, as it gave it to `stpatch.storage.crc32c` when the shard was written.
    """
    if address.checksum is None:
        return
    found = crc32c(*parts)
    if found != address.checksum:
        raise DatasetError(
            "a sample is not as it was written",
            where=address.where,
            found=f"CRC-32C {found:08x}",
            expected=f"{address.checksum:08x}",
            hint="fetch the shard again, or build the dataset again; stpatch validate finds all that is damaged",
        )


def where_of(file: FileEntry, key: str) -> str:
    """Return a sample's file and key, for messages."""
    return f"{file.path}, {key}"
