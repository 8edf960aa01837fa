"""Reading of a built dataset: samples by number or key, and batches, with Parquet tables as the only index.

Opening reads tables and no shard. A sample costs one positional read (with zarr shards one per plane) and its decoding;
a batch is filled patch by patch (`stpatch.dataset.filling`).
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.access import ShardReader
from stpatch.dataset.batch import Batch, SparseBatch
from stpatch.dataset.filling import Filler
from stpatch.dataset.formats.base import Address
from stpatch.dataset.genes import PAD_NAME, gene_ids, projected, read_panel, read_vocabulary
from stpatch.dataset.manifest import Manifest, read_manifest
from stpatch.dataset.order import Order
from stpatch.dataset.planes import X
from stpatch.dataset.request import Request, resolve_request
from stpatch.dataset.sample import Sample, by_kind
from stpatch.dataset.selection import column_codes, rows_with
from stpatch.dataset.slide_rows import SlideRows
from stpatch.dataset.tables import codes, indices, numbers, patch_columns, read_table
from stpatch.errors import DatasetError
from stpatch.registry import FORMATS

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PAD_NAME", "Batch", "Dataset", "SparseBatch", "open_dataset"]

_OF_SHARDS = ("key", "split", "shard", "slide_id")
"""Columns of patches.parquet that are texts."""


def open_dataset(
    path: str | Path,
    split: str | None = None,
    *,
    values: str | None = None,
    dtype: str | None = None,
    genes: Sequence[str | int] | None = None,
    **cropping: Any,
) -> Dataset:
    """Open one split of a built dataset; see `stpatch.open`."""
    folder = Path(path)
    manifest = read_manifest(folder)
    names = list(manifest.splits)
    if split is None and len(names) == 1:
        split = names[0]
    if split is None or split not in manifest.splits:
        raise DatasetError(
            "name the split to open" if split is None else "there is no such split",
            where=folder,
            found=split,
            expected=" or ".join(names) or "a dataset with splits",
        )
    if FORMATS.get(manifest.layout.format).whole_slides:
        from stpatch.dataset.cropping.dataset import Cropping, named, open_slides

        channels = named(genes, cropping.pop("channels", None))
        asked = Cropping(channels=channels, **cropping)
        return open_slides(folder, manifest, split, values=values, dtype=dtype, cropping=asked)
    if given := sorted(name for name, value in cropping.items() if value is not None):
        raise DatasetError(
            "the dataset's patches are cut already", where=folder, found=", ".join(given),
            expected="a dataset of whole slides", hint="build it with shards.format: slides to cut it when it is read",
        )  # fmt: skip
    ids = None if genes is None else gene_ids(genes, read_vocabulary(folder, manifest), where=folder)
    request = resolve_request(manifest, values=values, dtype=dtype, genes=ids, where=folder)
    return Dataset(folder, manifest=manifest, split=split, request=request)


class Dataset:
    """The samples of one split, in the order of the shards.

    Open with `stpatch.open`. Reading is safe from threads and from worker processes, forked or spawned.

    Attributes
    ----------
    folder, manifest, split
        As opened.
    request
        Which values, dtype and genes were asked for.
    """

    def __init__(self, folder: Path, *, manifest: Manifest, split: str, request: Request) -> None:
        self.folder = folder
        self.manifest = manifest
        self.split = split
        self.request = request
        self._layout = manifest.layout
        self._reader = ShardReader(folder, manifest.layout)
        self._shards = manifest.splits[split].shards
        self._starts = np.array(manifest.splits[split].starts, np.int64)
        columns = patch_columns(manifest.layout, draws=manifest.draws)
        path = folder / manifest.tables["patches"].path
        self._rows = read_table(path, columns, split=split)
        self._check_rows()
        self._slides = SlideRows(folder / manifest.tables["slides"].path)
        self._slide_of = self._slides_of_rows()
        self._at = np.arange(self._rows.num_rows, dtype=np.int64)
        self._chosen: NDArray[np.int64] | None = None
        self._columns = {name: numbers(self._rows[name], where=path) for name in columns if name not in _OF_SHARDS}
        self._filler = Filler(
            self._reader,
            layout=self._layout,
            request=request,
            method=str(manifest.normalization["method"]),
            panel=self.panel,
        )

    # -- one sample -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._at)

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
        size = self._size(number) or self._layout.shape[1:]
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
        names = [name for name in ("row", "col", "n_spots", "draw") if name in self._columns]
        return {
            "slide_id": self.slide_ids[self._slide_of[number]],
            **{name: int(self._columns[name][number]) for name in names},
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
        mask: NDArray[np.bool_] = self._slides.measured(self._slide_of[[number]], genes[None])[0]
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
        how = Order(samples=len(self), batch_size=size, seed=seed, shuffle=shuffle, pools=self.pools)
        order = how.epoch(epoch).sequence
        stop = len(self) - len(self) % size if drop_last else len(self)
        dataset = self.at_epoch(epoch)
        return (dataset.batch(order[start : min(start + size, stop)]) for start in range(0, stop, size))

    def batch(self, numbers: Sequence[Any] | NDArray[np.integer[Any]]) -> Any:
        """Return some samples, by number or key, stacked: a `Batch`, or a `SparseBatch` for ``values="sparse"``."""
        chosen = self._resolve(numbers)
        addresses, slides = self._addresses(chosen), self._slide_of[chosen]
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
        chosen = self._resolve(numbers)
        part = copy.copy(self)
        part.__dict__.pop("_keys", None)
        part._rows = self._rows.take(indices(chosen))
        part._at = self._at[chosen]
        part._chosen = part._at
        part._slide_of = self._slide_of[chosen]
        part._columns = {name: column[chosen] for name, column in self._columns.items()}
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
        return self.subset(rows_with(columns, samples=self._rows, slides=self.slides, slide_of=self._slide_of))

    def codes(self, column: str) -> tuple[NDArray[np.int32], list[Any]]:
        """Return (samples,) positions of each sample's value in the list of a column's different values.

        Columns are those of `select`; a missing value is None.
        """
        return column_codes(column, samples=self._rows, slides=self.slides, slide_of=self._slide_of)

    # -- the dataset ----------------------------------------------------------------------------------------------

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """The categories of each label map; a pixel's value is the position in the list, -1 = none."""
        return self.manifest.labels

    @property
    def table(self) -> pa.Table:
        """The rows of patches.parquet, one per sample, in order."""
        return self._rows

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
        spots, ids = self._columns["n_spots"], np.bincount(self._slide_of, minlength=len(self.slide_ids))
        return {
            "samples": len(self),
            "slides": int((ids > 0).sum()),
            "spots_per_sample": {
                name: float(value)
                for name, value in zip(("min", "median", "max"), np.quantile(spots, [0, 0.5, 1]), strict=True)
            }
            if len(self)
            else {},
            "coverage": float(self._columns["coverage"].mean()) if len(self) else None,
            "samples_by_slide": {self.slide_ids[slide]: int(ids[slide]) for slide in np.flatnonzero(ids)},
        }

    @cached_property
    def vocabulary(self) -> NDArray[np.object_]:
        """Gene names by gene id; the pad's is ``<pad>``, an id that no slide measured has ``""``."""
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
        return (_reopen, (self.folder, self.split, self.request, self._chosen))

    def __repr__(self) -> str:
        channels = self._layout.shape[0] if self.request.genes is None else len(self.request.genes)
        shape = ", ".join(map(str, (channels, *self._layout.shape[1:])))
        name = self.manifest.dataset.get("name")
        return f"<stpatch.Dataset {name} {self.split}: {len(self)} x ({shape}) {self.request.values}>"

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
        """Return the numbers of keys, -1 where there is none. No index of all keys is made or kept."""
        import pyarrow as pa
        import pyarrow.compute as pc

        # Looking a few keys up in the column costs less than a dictionary of ten million keys in every worker.
        wanted = pa.array(keys, pa.string())
        rows = pc.indices_nonzero(pc.is_in(self._rows["key"], value_set=wanted))
        at = pc.index_in(wanted, value_set=self._rows["key"].take(rows)).to_pylist()
        return np.array([-1 if found is None else rows[found].as_py() for found in at], dtype=np.int64)

    def _addresses(self, chosen: NDArray[np.int64]) -> list[Address]:
        rows = self._at[chosen]
        shards = np.searchsorted(self._starts, rows, side="right") - 1  # not all are full in a dataset that grew
        indexes = rows - self._starts[shards]
        offsets, lengths = (self._columns[name][chosen].tolist() for name in ("offset", "nbytes"))
        keys = self._rows["key"].take(indices(chosen)).to_pylist()
        sizes = map(self._size, chosen)
        return [
            Address(shard=self._shards[shard], index=index, byte_range=byte_range, key=key, size=size)
            for shard, index, byte_range, key, size in zip(
                shards.tolist(), indexes.tolist(), zip(offsets, lengths, strict=True), keys, sizes, strict=True
            )
        ]

    def _size(self, number: int | np.integer[Any]) -> tuple[int, int] | None:
        if not self._layout.variable:
            return None
        return int(self._columns["height"][number]), int(self._columns["width"][number])

    @cached_property
    def _panel(self) -> NDArray[np.int32]:
        return read_panel(self.folder, self.manifest)

    def _check_rows(self) -> None:
        expected = self.manifest.splits[self.split].patches
        if self._rows.num_rows != expected:
            raise DatasetError(
                "manifest and table disagree",
                where=self.folder / self.manifest.tables["patches"].path,
                found=f"{self._rows.num_rows} patches of split {self.split}",
                expected=expected,
            )

    def _slides_of_rows(self) -> NDArray[np.int64]:
        """Return (samples,) the slides as rows of slides.parquet."""
        known = {slide_id: number for number, slide_id in enumerate(self._slides.ids)}
        used, names = codes(self._rows["slide_id"])
        unknown = [name for name in names if name not in known]
        if unknown:
            raise DatasetError(
                "a patch names an unknown slide",
                where=self.folder / self.manifest.tables["slides"].path,
                found=unknown[0],
                hint="fetch the dataset's files again, or build it again",
            )
        return np.array([known[name] for name in names], dtype=np.int64)[used]


def _reopen(folder: Path, split: str, request: Request, chosen: NDArray[np.int64] | None) -> Dataset:
    dataset = Dataset(folder, manifest=read_manifest(folder), split=split, request=request)
    return dataset if chosen is None else dataset.subset(chosen)
