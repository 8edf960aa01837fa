"""Reading of a built dataset: samples by number or key, and batches, with Parquet tables as the only index.

Opening reads tables and no shard. A sample costs one positional read (with zarr shards one per plane) and its decoding;
a batch is filled patch by patch (`stpatch.dataset.filling`).
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.access import ShardReader
from stpatch.dataset.ahead import ahead
from stpatch.dataset.batch import Batch, SparseBatch
from stpatch.dataset.filling import Filler
from stpatch.dataset.formats.base import Address
from stpatch.dataset.genes import PAD_NAME, projected, read_panel, read_vocabulary
from stpatch.dataset.home import Home
from stpatch.dataset.order import AT_ONCE, Epoch, Order
from stpatch.dataset.planes import X
from stpatch.dataset.request import Request, verifies
from stpatch.dataset.rows import SLIDE, open_rows
from stpatch.dataset.sample import Sample, by_kind
from stpatch.dataset.selection import Columns
from stpatch.dataset.slide_rows import SlideRows
from stpatch.dataset.stats import quick_look
from stpatch.dataset.tables import indices, patch_columns, read_table
from stpatch.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PAD_NAME", "Batch", "Dataset", "SparseBatch"]


class Dataset:
    """The samples of one split, in the order of the shards.

    Open with `stpatch.open`. Reading is safe from threads and from worker processes, forked or spawned.

    Attributes
    ----------
    place, manifest, split
        As opened; `place` is a folder or a URL.
    folder
        Where the manifest and the tables lie: the dataset's folder, or where those of a URL are kept.
    request
        Which values, dtype and genes were asked for.
    verified
        Whether the bytes of every sample that is read are held against their checksum in patches.parquet.
    """

    def __init__(self, home: Home, *, split: str, request: Request, verify: bool | None = None) -> None:
        self._home = home
        self.place, self.folder = home.place, home.folder
        self.manifest = manifest = home.manifest
        self.split = split
        self.request = request
        self._layout = manifest.layout
        self._reader = ShardReader(home.folder, manifest.layout, files=home.files)
        self._shards = manifest.splits[split].shards
        self._shard_starts = np.array(manifest.splits[split].starts[:-1], np.int64)
        self._table = home.folder / manifest.tables["patches"].path
        self._table_columns = patch_columns(manifest.layout, draws=manifest.draws)
        entry = manifest.tables["patches"]
        self.verified = verifies(self._table_columns, verify=verify, where=home.place)
        self._rows = open_rows(
            self._table,
            entry,
            self._table_columns,
            split=split,
            rows=manifest.patches,
            fetch=lambda: home.table("patches"),
        )
        self._check_rows()
        self._slides = SlideRows(home.table("slides"))
        self._known_slides = self._slides.rows_of(self._rows.slide_ids)
        self._chosen: NDArray[np.int64] | None = None
        self._filler = Filler(
            self._reader,
            layout=self._layout,
            request=request,
            method=str(manifest.normalization["method"]),
            panel=self.panel,
        )

    # -- one sample -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._rows) if self._chosen is None else len(self._chosen)

    def __getitem__(self, number: Any) -> Any:
        """Return a sample by its number (negative from the end) or by its key; for a slice, a dataset of its samples.

        `Sample.genes` is always given: with scope panel it is the panel's gene ids. For ``values="sparse"`` a sample
        has dense counts.

        Raises
        ------
        IndexError, KeyError
            There is no such number or key.
        DatasetError
            The shard is missing or damaged.
        """
        if isinstance(number, slice):
            return self.subset(np.arange(len(self), dtype=np.int64)[number])
        number = self.number(number)
        batch = self.batch([number])
        x = batch.dense() if isinstance(batch, SparseBatch) else batch.x
        size = self._layout.shape[1:]
        if self._layout.variable:
            at = self._rows_of(np.array([number]))[0]
            size = (int(self._rows["height"][at]), int(self._rows["width"][at]))
        image = (slice(size[0]), slice(size[1]))
        return Sample(
            key=batch.keys[0],
            x=x[0][(slice(None), *image)],
            totals=batch.totals[0][image],
            genes=batch.genes[0],
            measured=batch.measured[0],
            labels={name: label[0][image] for name, label in batch.labels.items()},
            meta=self.meta(number),
            further={
                plane.name: batch.further[plane.name][0][tuple(map(slice, plane.shape_at(size)))]
                for plane in self._layout.further
            },
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[number] for number in range(len(self)))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self._find([key])[0] >= 0)

    def number(self, key: Any) -> int:
        """Return a sample's number, from its key or from a number that may count from the end."""
        return int(self._resolve([key])[0])

    def meta(self, number: Any) -> dict[str, Any]:
        """Return a sample's slide_id, row, col, n_spots and, where there are several, draw."""
        number = self.number(number)
        at = self._rows_of(np.array([number]))
        names = [name for name in ("row", "col", "n_spots", "draw") if name in self._table_columns]
        return {
            "slide_id": self.slide_ids[int(self._slides_at(at)[0])],
            **{name: int(self._rows[name][at[0]]) for name in names},
        }

    def genes(self, number: Any) -> NDArray[np.int32]:
        """Return the (C,) int32 gene ids of a sample's channels; `Manifest.pad_id` = pad."""
        if self.panel is not None:
            return self.panel
        genes: NDArray[np.int32] = self[number].genes
        return genes

    def measured(self, number: Any) -> NDArray[np.bool_]:
        """Return (C,) whether the sample's slide measured each channel's gene; a 0 elsewhere does not mean absence."""
        number = self.number(number)
        genes = self.genes(number)
        slides = self._slides_at(self._rows_of(np.array([number])))
        mask: NDArray[np.bool_] = self._slides.measured(slides, genes[None])[0]
        return mask

    # -- many samples ---------------------------------------------------------------------------------------------

    def batches(
        self, size: int, *, drop_last: bool = False, shuffle: bool = False, seed: int = 0, epoch: int = 0
    ) -> Iterator[Batch | SparseBatch]:
        """Yield all samples once, `size` at a time.

        Parameters
        ----------
        size
            Samples of a batch; the last one is smaller unless `drop_last`.
        shuffle
            In an order that `seed` and `epoch` fix, the same on every machine; else in the order of the shards.
        """
        if size < 1:
            raise ValueError(f"a batch has at least one sample, not {size}")
        order = Order(samples=len(self), batch_size=size, seed=seed, shuffle=shuffle, pools=self.pools).epoch(epoch)
        stop = len(self) - len(self) % size if drop_last else len(self)
        return self.at_epoch(epoch)._batches(order, size, stop)

    def _batches(self, order: Epoch, size: int, stop: int) -> Iterator[Batch | SparseBatch]:
        for first in range(0, stop, size * AT_ONCE):
            numbers = order.samples(np.arange(first, min(first + size * AT_ONCE, stop), dtype=np.int64))
            batches = [numbers[start : start + size] for start in range(0, len(numbers), size)]
            for chosen in self.read_ahead(batches):
                yield self.batch(chosen)

    def read_ahead(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[np.int64]]:
        """Yield batches' sample numbers; of a URL, what the next ones need is fetched while one is read."""
        if not self._home.is_remote:
            yield from batches
            return
        yield from ahead(batches, lambda numbers: self._reader.expect(self._addresses(self._rows_of(numbers))))

    def batch(self, numbers: Sequence[Any] | NDArray[np.integer[Any]]) -> Any:
        """Return some samples, by number or key, stacked: a `Batch`, or a `SparseBatch` for ``values="sparse"``."""
        chosen = self._resolve(numbers)
        at = self._rows_of(chosen)
        addresses, slides = self._addresses(at), self._slides_at(at)
        if self._home.is_remote:
            self._reader.expect(addresses)
        target_sums = self._slides.target_sums[slides]
        stacked, nonzeros = self._filler.fill(addresses, target_sums)
        sparse = self.request.leaves_out_zeros
        planes = by_kind(stacked if not sparse else {X: None, **stacked}, self._layout)
        x, genes = planes.pop("x"), planes.pop("genes")
        if genes is None:
            genes = np.broadcast_to(self._panel, (len(chosen), self._layout.shape[0]))
        measured = self._slides.measured(slides, genes)
        if self.request.genes is not None:
            genes, measured = projected(genes, measured, self.request.genes)
        common = {
            "keys": [address.key for address in addresses],
            "numbers": chosen,
            "slides": slides,
            "genes": genes,
            "measured": measured,
            **planes,
        }
        if not sparse:
            return Batch(x=x, **common)
        return SparseBatch(
            shape=self._layout.shape,
            indptr=np.cumsum([0, *(len(found.values) for found in nonzeros)], dtype=np.int64),
            positions=np.concatenate([np.empty(0, np.int32), *(found.positions for found in nonzeros)]),
            counts=np.concatenate([np.empty(0, self._layout.dtype), *(found.values for found in nonzeros)]),
            target_sums=target_sums,
            method=str(self.manifest.normalization["method"]),
            **common,
        )

    def at_epoch(self, epoch: int) -> Dataset:  # noqa: ARG002 - samples that are stored are the same in all epochs
        """Return the dataset as it is in an epoch: where samples are cut when they are read, these may be others."""
        return self

    @property
    def pools(self) -> tuple[NDArray[np.int64], int] | None:
        """What an epoch's order keeps together: the (samples,) pool members and how many of them; None: nothing."""
        return None

    # -- some of the samples --------------------------------------------------------------------------------------

    def subset(self, numbers: Sequence[Any] | NDArray[np.integer[Any]]) -> Dataset:
        """Return a dataset of some samples, by number or key, in that order; files and tables are shared."""
        part = copy.copy(self)
        part._chosen = self._rows_of(self._resolve(numbers))
        return part

    def select(self, **columns: Any) -> Dataset:
        """Return a dataset of the samples with given values in columns of the tables.

        Parameters
        ----------
        **columns
            A value, or a list or set of them, for each column of `table` or of `slides`, the samplesheet's metadata
            included. ``slide`` is short for ``slide_id``.

        Raises
        ------
        DatasetError
            There is no such column.
        """
        return self.subset(self._columns().samples_with(columns))

    def codes(self, column: str) -> tuple[NDArray[np.int32], list[Any]]:
        """Return (samples,) positions of each sample's value in the list of a column's different values.

        Columns are those of `select`; a missing value is None.
        """
        return self._columns().codes(column)

    # -- the dataset ----------------------------------------------------------------------------------------------

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """The categories of each label map; a pixel's value is the position in the list, -1 = none."""
        return self.manifest.labels

    @property
    def table(self) -> pa.Table:
        """The rows of patches.parquet, one per sample, in order; read anew each time, all of the split."""
        table = read_table(self._home.table("patches"), self._table_columns, split=self.split)
        return table if self._chosen is None else table.take(indices(self._chosen))

    @property
    def slide_ids(self) -> list[str]:
        """The slide_id of each row of `slides`."""
        return self._slides.ids

    @cached_property
    def slides(self) -> pa.Table:
        """All slides of the dataset, one per row, with the samplesheet's metadata as columns."""
        return self._slides.table

    def stats(self) -> dict[str, Any]:
        """Return a quick look: samples, slides, spots per sample, mean coverage, and samples by slide."""
        at = self._all_rows()
        columns = (self._rows[name][at] for name in ("n_spots", "coverage"))
        return quick_look(*columns, slides=self._slides_at(at), slide_ids=self.slide_ids)

    @cached_property
    def vocabulary(self) -> NDArray[np.object_]:
        """Gene names by gene id; the pad's is ``<pad>``, an id that no slide measured has ``""``."""
        self._home.table("genes")
        return read_vocabulary(self.folder, self.manifest)

    @cached_property
    def panel(self) -> NDArray[np.int32] | None:
        """(C,) int32 gene ids of the channels; None where they differ between slides or patches."""
        return self._panel if self.manifest.scope == "panel" else None

    def close(self) -> None:
        """Close the shards' files; a later read opens them again."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to a spawned worker as the request to open the dataset again."""
        return (_reopen, (self._home, self.split, self.request, {"verify": self.verified}, self._chosen))

    def __repr__(self) -> str:
        channels = self._layout.shape[0] if self.request.genes is None else len(self.request.genes)
        shape = ", ".join(map(str, (channels, *self._layout.shape[1:])))
        name = self.manifest.dataset.get("name")
        checked = "" if self.verified else ", not verified"
        return f"<stpatch.Dataset {name} {self.split}: {len(self)} x ({shape}) {self.request.values}{checked}>"

    # -- inside ---------------------------------------------------------------------------------------------------

    def _resolve(self, numbers: Sequence[Any] | NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return numbers from 0 up, from keys and from numbers that may count from the end."""
        if isinstance(numbers, np.ndarray) and numbers.dtype.kind in "iu":
            given = numbers.astype(np.int64)
        else:
            keys = [key for key in numbers if isinstance(key, str)]
            found = iter(self._find(keys).tolist() if keys else ())
            given = np.empty(len(numbers), np.int64)
            for at, key in enumerate(numbers):
                given[at] = next(found) if isinstance(key, str) else operator.index(key)
                if isinstance(key, str) and given[at] < 0:
                    raise KeyError(key)
        outside = (given < -len(self)) | (given >= len(self))
        if outside.any():
            raise IndexError(f"number {given[outside][0]} of {len(self)} samples")
        return np.where(given < 0, given + len(self), given)

    def _find(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the numbers of keys, -1 where there is none."""
        rows = self._rows.find(keys)
        if self._chosen is None:
            return rows
        # Keys are looked up seldom in a part of a dataset: one pass over it costs less than an index that is kept.
        places = [np.flatnonzero(self._chosen == row)[:1] for row in rows]
        return np.array([place[0] if len(place) else -1 for place in places], dtype=np.int64)

    def _rows_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the samples' rows of the split."""
        return numbers if self._chosen is None else self._chosen[numbers]

    def _all_rows(self) -> NDArray[np.int64]:
        return np.arange(len(self), dtype=np.int64) if self._chosen is None else self._chosen

    def _slides_at(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of slides.parquet for rows of patches.parquet."""
        slides: NDArray[np.int64] = self._known_slides[self._rows[SLIDE][at]]
        return slides

    def _columns(self) -> Columns:
        at = self._all_rows()
        return Columns(
            rows=self._rows,
            at=at,
            split=self.split,
            shards=[shard.path for shard in self._shards],
            shard_starts=self._shard_starts,
            slides=self.slides,
            slide_of=self._slides_at(at),
        )

    def _addresses(self, at: NDArray[np.int64]) -> list[Address]:
        shards = np.searchsorted(self._shard_starts, at, "right") - 1
        indexes, dataset = at - self._shard_starts[shards], self.place
        offsets, lengths = (self._rows[name][at].tolist() for name in ("offset", "nbytes"))
        sizes: list[tuple[int, int] | None] = [None] * len(at)
        checksums = self._rows["crc32c"][at].tolist() if self.verified else [None] * len(at)
        if self._layout.variable:
            sides = (self._rows[name][at].tolist() for name in ("height", "width"))
            sizes = list(zip(*sides, strict=True))
        return [
            Address(
                shard=self._shards[shard],
                index=index,
                byte_range=byte_range,
                key=key,
                size=size,
                checksum=checksum,
                dataset=dataset,
            )
            for shard, index, byte_range, key, size, checksum in zip(
                shards.tolist(),
                indexes.tolist(),
                zip(offsets, lengths, strict=True),
                self._rows.keys(at),
                sizes,
                checksums,
                strict=True,
            )
        ]

    @cached_property
    def _panel(self) -> NDArray[np.int32]:
        self._home.table("genes")
        return read_panel(self.folder, self.manifest)

    def _check_rows(self) -> None:
        expected = self.manifest.splits[self.split].patches
        if len(self._rows) != expected:
            raise DatasetError(
                "manifest and table disagree",
                where=self.folder / self.manifest.tables["patches"].path,
                found=f"{len(self._rows)} patches of split {self.split}",
                expected=expected,
            )


def _reopen(
    home: Home, split: str, request: Request, options: Mapping[str, Any], chosen: NDArray[np.int64] | None
) -> Dataset:
    dataset = Dataset(home, split=split, request=request, **options)
    return dataset if chosen is None else dataset.subset(chosen)
