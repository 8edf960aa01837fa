"""A built dataset as a sequence of samples: by number, by key, in batches; counts or normalized values."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.access import ShardReader
from stpatch.dataset.formats.base import Arrays
from stpatch.dataset.manifest import Manifest, read_manifest
from stpatch.dataset.sample import Sample, by_kind
from stpatch.dataset.tables import GENES, SLIDES, codes, numbers, patch_columns, read_table, unpack_measured
from stpatch.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa

PAD_NAME = "<pad>"
_SLIDE_COLUMNS = ("slide_id", "target_sum", "measured")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples stacked along a first axis.

    Attributes
    ----------
    keys
        (B,) texts.
    x
        (B, C, H, W), as `Sample.x`; smaller samples of unit slide are padded with 0.
    totals
        (B, H, W) float32.
    genes
        (B, C) int32 gene ids; `Manifest.pad_id` (0 unless a vocabulary was given) = pad.
    labels
        (B, H, W) int16 by label name, -1 = none.
    numbers
        (B,) int64, the samples' numbers in the dataset.
    further
        Further planes by name, each with the batch as its first axis.
    """

    keys: list[str]
    x: NDArray[Any]
    totals: NDArray[np.float32]
    genes: NDArray[np.int32]
    labels: Mapping[str, NDArray[np.int16]] = field(default_factory=dict)
    numbers: NDArray[np.int64]
    further: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def open_dataset(path: str | Path, split: str | None = None, *, normalized: bool = False) -> Dataset:
    """Open one split of a built dataset.

    Parameters
    ----------
    path
        The dataset's folder.
    split
        Name of the split; may be left out where the dataset has one only.
    normalized
        Return float32 values by the recorded normalization instead of what is stored.

    Raises
    ------
    DatasetError
        There is no dataset, or no such split, or its manifest or tables are damaged.
    """
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
    return Dataset(folder, manifest=manifest, split=split, normalized=normalized)


class Dataset:
    """The samples of one split, in the order of the shards.

    Open with `stpatch.open`. Reading is safe from threads and from worker processes, forked or spawned.

    Attributes
    ----------
    manifest, split, normalized
        As opened.
    """

    def __init__(self, folder: Path, *, manifest: Manifest, split: str, normalized: bool) -> None:
        self.folder = folder
        self.manifest = manifest
        self.split = split
        self.normalized = normalized
        self._layout = manifest.layout
        self._reader = ShardReader(folder, manifest.layout)
        self._shards = manifest.splits[split].shards
        columns = patch_columns(manifest.layout, draws=manifest.draws)
        path = folder / manifest.tables["patches"].path
        self._rows = read_table(path, columns, split=split)
        self._keys = self._rows["key"]
        self._check_rows()
        self._read_slides()
        numeric = [name for name in columns if name not in ("key", "split", "shard", "slide_id")]
        self._columns = {name: numbers(self._rows[name], where=path) for name in numeric}

    # -- one sample -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    def __getitem__(self, number: Any) -> Sample:
        """Return a sample by its number (negative from the end) or by its key.

        `Sample.genes` is always given: with scope panel it is the panel's gene ids.

        Raises
        ------
        IndexError, KeyError
            There is no such number or key.
        DatasetError
            The shard is missing or damaged.
        """
        number = self.number(number)
        planes = by_kind(self._arrays(number), self._layout)
        if self.normalized:
            planes["x"] = self._normalize(planes["x"][None], planes["totals"][None], np.array([number]))[0]
        if planes["genes"] is None:
            planes["genes"] = self.panel
        return Sample(key=self._key(number), meta=self.meta(number), **planes)

    def __iter__(self) -> Iterator[Sample]:
        return (self[number] for number in range(len(self)))

    def __contains__(self, key: object) -> bool:
        return key in self._numbers

    def number(self, key: Any) -> int:
        """Return a sample's number, from its key or from a number that may count from the end."""
        if isinstance(key, str):
            return self._numbers[key]
        number = operator.index(key)
        if not -len(self) <= number < len(self):
            raise IndexError(f"number {number} of {len(self)} samples")
        return number % len(self)

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
        genes: NDArray[np.int32] = self._arrays(self.number(number))["genes"]
        return genes

    def measured(self, number: Any) -> NDArray[np.bool_]:
        """Return (C,) whether the sample's slide measured each channel's gene; a 0 elsewhere does not mean absence."""
        number = self.number(number)
        genes = self.genes(number)
        mask = self._measured[self._slide_of[number]]
        if genes.max(initial=0) >= len(mask) or genes.min(initial=0) < 0:
            raise DatasetError(
                "a gene id is not in the vocabulary",
                where=self._key(number),
                found=int(genes.max()),
                expected="an id of genes.parquet",
            )
        return mask[genes]

    # -- many samples ---------------------------------------------------------------------------------------------

    def batches(self, size: int, *, drop_last: bool = False) -> Iterator[Batch]:
        """Yield all samples in order, `size` at a time; the last batch is smaller unless `drop_last`."""
        if size < 1:
            raise ValueError(f"a batch has at least one sample, not {size}")
        stop = len(self) - len(self) % size if drop_last else len(self)
        return (self.batch(range(start, min(start + size, stop))) for start in range(0, stop, size))

    def batch(self, numbers: Sequence[Any]) -> Batch:
        """Return some samples, by number or key, stacked."""
        chosen = np.array([self.number(number) for number in numbers], dtype=np.int64)
        stacked: Arrays = {}
        for plane in self._layout.planes:
            stacked[plane.name] = np.full((len(chosen), *plane.shape), plane.fill, dtype=plane.dtype)
        for row, number in enumerate(chosen):
            for name, array in self._arrays(int(number)).items():
                stacked[name][row][tuple(map(slice, array.shape))] = array
        planes = by_kind(stacked, self._layout)
        if self.normalized:
            planes["x"] = self._normalize(planes["x"], planes["totals"], chosen)
        if planes["genes"] is None:
            planes["genes"] = np.broadcast_to(self._panel(), (len(chosen), self._layout.shape[0]))
        return Batch(keys=[self._key(int(number)) for number in chosen], numbers=chosen, **planes)

    # -- the dataset ----------------------------------------------------------------------------------------------

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """The categories of each label map; a pixel's value is the position in the list, -1 = none."""
        return self.manifest.labels

    @property
    def table(self) -> pa.Table:
        """The rows of patches.parquet, one per sample, in order."""
        return self._rows

    @cached_property
    def vocabulary(self) -> NDArray[np.object_]:
        """Gene names by gene id; the pad's is ``<pad>``, an id that no slide measured has ``""``."""
        path = self.folder / self.manifest.tables["genes"].path
        ids, pad_id = numbers(self._genes["gene_id"], where=path), self.manifest.pad_id
        names = np.full(max(int(ids.max(initial=0)), pad_id) + 1, "", dtype=object)
        names[ids] = self._genes["name"].to_pylist()
        names[pad_id] = PAD_NAME
        return names

    @cached_property
    def panel(self) -> NDArray[np.int32] | None:
        """(C,) int32 gene ids of the channels; None where they differ between slides or patches."""
        return self._panel() if self.manifest.scope == "panel" else None

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
        return (_reopen, (self.folder, self.split, self.normalized))

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self._layout.shape))
        what = "normalized" if self.normalized else self.manifest.values
        return f"<stpatch.Dataset {self.manifest.dataset.get('name')} {self.split}: {len(self)} x ({shape}) {what}>"

    # -- inside ---------------------------------------------------------------------------------------------------

    def _arrays(self, number: int) -> Arrays:
        shard, index = divmod(number, self._layout.patches)
        columns = self._columns
        size = None
        if self._layout.variable:
            size = (int(columns["height"][number]), int(columns["width"][number]))
        byte_range = (int(columns["offset"][number]), int(columns["nbytes"][number]))
        shard_entry = self._shards[shard]
        return self._reader.read(shard_entry, index=index, byte_range=byte_range, key=self._key(number), size=size)

    def _key(self, number: int) -> str:
        return str(self._keys[number].as_py())

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {key: number for number, key in enumerate(self._keys.to_pylist())}

    @cached_property
    def _genes(self) -> pa.Table:
        return read_table(self.folder / self.manifest.tables["genes"].path, GENES)

    def _panel(self) -> NDArray[np.int32]:
        table, path = self._genes, self.manifest.tables["genes"].path
        positions = np.array([-1 if at is None else at for at in table["channel"].to_pylist()], dtype=np.int64)
        ids = numbers(table["gene_id"], where=path)[positions >= 0]
        order = positions[positions >= 0]
        channels = self._layout.shape[0]
        if len(np.unique(order)) != len(order) or order.max(initial=-1) >= channels:
            raise DatasetError("the panel's channels are damaged", where=self.folder / path, expected=channels)
        panel = np.full(channels, self.manifest.pad_id, dtype=np.int32)
        panel[order] = ids
        panel.flags.writeable = False
        return panel

    def _check_rows(self) -> None:
        expected = self.manifest.splits[self.split].patches
        if self._rows.num_rows != expected:
            raise DatasetError(
                "manifest and table disagree",
                where=self.folder / self.manifest.tables["patches"].path,
                found=f"{self._rows.num_rows} patches of split {self.split}",
                expected=expected,
            )

    def _read_slides(self) -> None:
        path = self.folder / self.manifest.tables["slides"].path
        table = read_table(path, {name: SLIDES[name] for name in _SLIDE_COLUMNS})
        self.slide_ids: list[str] = table["slide_id"].to_pylist()
        self._target_sums = np.array(
            [np.nan if target is None else target for target in table["target_sum"].to_pylist()], dtype=np.float64
        )
        self._measured = _Masks(table["measured"].to_pylist())
        known = {slide_id: number for number, slide_id in enumerate(self.slide_ids)}
        used, names = codes(self._rows["slide_id"])
        unknown = [name for name in names if name not in known]
        if unknown:
            raise DatasetError(
                "a patch names an unknown slide",
                where=path,
                found=unknown[0],
                hint="fetch the dataset's files again, or build it again",
            )
        self._slide_of = np.array([known[name] for name in names], dtype=np.int64)[used]

    def _normalize(
        self, x: NDArray[Any], totals: NDArray[np.float32], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        if self.manifest.values == "normalized":
            return x.astype(np.float32)
        from stpatch.expression.normalize import Normalization, normalize_dense

        method = str(self.manifest.normalization["method"])
        out = np.empty(x.shape, dtype=np.float32)
        slides = self._slide_of[numbers]
        for target in np.unique(self._target_sums[slides]):
            rows = np.flatnonzero(np.isclose(self._target_sums[slides], target, rtol=0, atol=0, equal_nan=True))
            normalization = Normalization(method=method, target_sum=None if np.isnan(target) else float(target))
            whole = len(rows) == len(x)
            part = normalize_dense(x if whole else x[rows], totals if whole else totals[rows], normalization)
            if whole:
                return part
            out[rows] = part
        return out


class _Masks:
    """Which genes each slide measured, unpacked when asked for."""

    def __init__(self, packed: list[bytes]) -> None:
        self._packed = packed

    def __getitem__(self, slide: int) -> NDArray[np.bool_]:
        packed = self._packed[slide]
        return unpack_measured(packed, 8 * len(packed) - 1)


def _reopen(folder: Path, split: str, normalized: bool) -> Dataset:  # noqa: FBT001 - called by pickle alone
    return open_dataset(folder, split, normalized=normalized)
