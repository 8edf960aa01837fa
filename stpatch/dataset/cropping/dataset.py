"""`stpatch.open` on a dataset of whole slides: the same `Dataset`, whose samples are cut when they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.config import CropSection
from stpatch.dataset.cropping.asked import TRAIN, Cropping, crop_section, reopened_manifest
from stpatch.dataset.cropping.cut import WindowAddress, WindowReader
from stpatch.dataset.cropping.pool import SlideLibrary, SlidePool
from stpatch.dataset.cropping.rule import ChannelRule, named, resolve_rule
from stpatch.dataset.cropping.weights import quotas_of, resolve_weights
from stpatch.dataset.cropping.windows import (
    EPOCH,
    EpochRows,
    FixedWindows,
    FreshWindows,
    WindowRows,
    Windows,
    fixed_rows,
)
from stpatch.dataset.filling import Filler
from stpatch.dataset.formats.base import ByteRanges, Stored
from stpatch.dataset.genes import read_panel, read_vocabulary
from stpatch.dataset.home import Home
from stpatch.dataset.reader import Dataset
from stpatch.dataset.request import Request, resolve_request
from stpatch.dataset.slide_rows import SlideRows
from stpatch.dataset.tables import codes, numbers, patch_columns, read_table, schema
from stpatch.errors import ConfigError, DatasetError
from stpatch.kernels.formula import METHODS, Formula
from stpatch.kernels.window import Window
from stpatch.storage import key_text

if TYPE_CHECKING:
    import pyarrow as pa


def open_slides(home: Home, split: str, *, values: str | None, dtype: str | None, cropping: Cropping) -> CroppedDataset:
    """Open one split of a dataset of slides; see `stpatch.open`."""
    request = resolve_request(home.manifest, values=values, dtype=dtype, genes=None, where=home.place)
    return CroppedDataset(home, split=split, request=request, cropping=cropping)


class CroppedDataset(Dataset):
    """The samples of one split of a dataset of whole slides, ordered by slide.

    With `fresh` windows or draws a sample number means another window, or other channels, in each epoch: `at_epoch`
    returns the dataset as it is in one. A sample of an epoch is the same on every machine, for any number of ranks and
    workers, and after a resume.

    Parameters
    ----------
    home, split, request
        As in `Dataset`.
    cropping
        What was asked for.
    quotas
        Windows per slide, where another process has counted them already.
    """

    def __init__(
        self,
        home: Home,
        *,
        split: str,
        request: Request,
        cropping: Cropping,
        quotas: Mapping[int, int] | None = None,
    ) -> None:
        # `Dataset` reads shards of samples; what it does with their numbers is taken over, how it finds them is not.
        self._home, self.place, self.folder, self.verified = home, home.place, home.folder, False
        self.split, self.request, self.cropping = split, request, cropping
        manifest = self._stored = home.manifest
        self._slides = SlideRows(home.table("slides"))
        self._files = home.files
        for table in ("genes", "patches"):
            home.table(table)
        self._library = SlideLibrary(
            self._files,
            self._shards_by_slide(),
            layout=manifest.layout,
            folder=None if home.is_remote else home.folder,
            pitch=cropping.pitch,
        )
        section, samples = crop_section(manifest, cropping.crop)
        self._rule = self._resolved_rule()
        self.fresh = split == TRAIN if cropping.fresh is None else cropping.fresh
        self._windows = self._made_windows(section, samples, quotas)
        shape = self._largest_window(section)
        layout = replace(
            manifest.layout,
            dtype=self._counts_dtype(),
            shape=(self._rule.n, *shape),
            genes=self._rule.panel is None,
            variable=section.unit == "slide",
        )
        self.manifest = reopened_manifest(manifest, layout, section, self._rule)
        if request.values == "counts" and request.dtype == manifest.layout.dtype:
            self.request = replace(request, dtype=layout.dtype)  # coarser pixels may need wider counts
        self._layout = layout
        self._reader = _Reader(self._files, WindowReader(self._made_pool(), layout))  # type: ignore[assignment]
        self._filler = Filler(
            self._reader,
            layout=layout,
            request=self.request,
            method=str(manifest.normalization["method"]),
            panel=self._rule.panel,
        )
        self._chosen = None
        self._epoch = 0
        self._table_columns = patch_columns(layout, draws=self._rule.draws)
        slides, self._shard_starts = np.unique(self._windows.slide, return_index=True)
        by_place = np.argsort(self._shard_starts)
        self._shard_starts = self._shard_starts[by_place]
        self._shards = tuple(self._library.shard(int(slide)) for slide in slides[by_place])

    # -- epochs -----------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch whose samples these are."""
        return self._epoch

    def at_epoch(self, epoch: int) -> CroppedDataset:
        """Return the dataset in an epoch; the same one where nothing is drawn anew."""
        if epoch == self._epoch or not self.fresh:
            return self
        other = self._view()
        other._epoch = epoch
        return other

    @property
    def pools(self) -> tuple[NDArray[np.int64], int]:
        """The (samples,) slide of each sample, and of how many slides an epoch's order mixes the samples."""
        return self._windows.slide[self._all_rows()], self.cropping.pool

    @property
    def library(self) -> SlideLibrary:
        """The split's stored slides."""
        return self._library

    @property
    def open_bytes(self) -> int:
        """Bytes of the slides that this process has open, in memory or mapped."""
        return self._reader.pool.nbytes  # type: ignore[attr-defined, no-any-return]

    # -- what `Dataset` asks for ------------------------------------------------------------------------------------

    def subset(self, numbers: Sequence[Any] | NDArray[np.integer[Any]]) -> CroppedDataset:
        """Return a dataset of some samples, by number or key, in that order; slides are shared."""
        part = self._view()
        part._chosen = self._rows_of(self._resolve(numbers))
        return part

    def stored(self, number: int) -> Stored:
        """Return the planes of a sample as a shard would hold them."""
        return self._reader.read(self._addresses(self._rows_of(np.array([number])))[0])

    @cached_property
    def panel(self) -> NDArray[np.int32] | None:
        """(C,) int32 gene ids of the channels; None where they differ between slides or patches."""
        return self._rule.panel

    @cached_property
    def _panel(self) -> NDArray[np.int32]:
        if self._rule.panel is None:
            raise DatasetError("the samples' channels differ", where=self.folder)
        return self._rule.panel

    @property
    def table(self) -> pa.Table:
        """The samples as a table like patches.parquet: what an epoch draws, without a count read."""
        import pyarrow as pa

        at = self._all_rows()
        rows = self._rows.of(at)
        known: dict[str, Any] = {
            "key": self._rows.keys(at),
            "split": [self.split] * len(at),
            "shard": [self._library.path(slide) for slide in rows.slide.tolist()],
            "slide_id": [self.slide_ids[slide] for slide in rows.slide.tolist()],
        }
        fields = schema(self._table_columns)
        columns = [
            pa.array(known[name] if name in known else self._rows[name][at], fields.field(name).type)
            for name in self._table_columns
        ]
        return pa.Table.from_arrays(columns, schema=fields)

    def read_ahead(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[np.int64]]:
        """Yield batches' sample numbers: slides are read when they are first cut."""
        yield from batches

    @cached_property
    def _rows(self) -> EpochRows:  # type: ignore[override]  # it answers what the mapped table answers
        return EpochRows(self._windows, self._epoch, self._keys_of)

    def _slides_at(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._windows.slide[at]

    def _addresses(self, at: NDArray[np.int64]) -> list[Any]:
        rows = self._windows.rows(at, self._epoch)
        keys, variable = self._keys_of(rows), self._layout.variable
        columns = (
            getattr(rows, name).tolist() for name in ("slide", "number", "row", "col", "height", "width", "draw")
        )
        return [
            WindowAddress(
                key=key,
                size=(height, width) if variable else None,
                slide=slide,
                window=Window(row, col, height, width),
                number=number,
                draw=draw,
            )
            for key, slide, number, row, col, height, width, draw in zip(keys, *columns, strict=True)
        ]

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to a spawned worker as the request to open the dataset again."""
        quotas = self._windows.quotas if isinstance(self._windows, FreshWindows) else None
        state = (self._home, self.split, self._asked, self.cropping, quotas, self._chosen, self._epoch)
        return (_reopen, state)

    # -- inside -------------------------------------------------------------------------------------------------------

    @cached_property
    def _asked(self) -> Request:
        """The request as it was before the dtype followed the pitch."""
        if self.request.values == "counts" and self.request.dtype == self._layout.dtype:
            return replace(self.request, dtype=self._stored.layout.dtype)
        return self.request

    def _view(self) -> CroppedDataset:
        """Return a copy that shares slides and files, without what was made for this one's samples."""
        other: CroppedDataset = object.__new__(type(self))  # `copy` would go by `__reduce__`, and open it again
        other.__dict__.update(self.__dict__)
        other.__dict__.pop("_rows", None)
        return other

    def _keys_of(self, rows: WindowRows) -> list[str]:
        """Return the samples' keys: as a build would name them, with the epoch where windows are drawn anew."""
        draws = self._rule.draws > 1 or (self.fresh and self._rule.random and self._epoch > 0)
        names = [key_text(slide_id) for slide_id in self.slide_ids]
        keys = []
        for slide, number, draw in zip(rows.slide.tolist(), rows.number.tolist(), rows.draw.tolist(), strict=True):
            epoch, own = divmod(number, EPOCH)
            key = f"{names[slide]}-{f'e{epoch}-' if epoch else ''}{own:06d}"
            keys.append(f"{key}-{draw}" if draws else key)
        return keys

    def _shards_by_slide(self) -> dict[int, Any]:
        by_name = {key_text(slide_id): row for row, slide_id in enumerate(self._slides.ids)}
        found = {}
        for shard in self._stored.splits[self.split].shards:
            name = Path(shard.path).parts[1]
            if name not in by_name:
                raise DatasetError(
                    "a stored slide is not in the table of slides",
                    where=self.folder / shard.path,
                    found=name,
                    hint="fetch the dataset's files again, or build it again",
                )
            found[by_name[name]] = shard
        return found

    def _resolved_rule(self) -> ChannelRule:
        manifest = self._stored
        panel = read_panel(self.folder, manifest) if manifest.scope == "panel" else None
        return resolve_rule(
            manifest,
            self.cropping.channels,
            panel=panel,
            vocabulary=read_vocabulary(self.folder, manifest),
            where=self.folder,
        )

    def _made_windows(self, section: CropSection, samples: int | None, quotas: Mapping[int, int] | None) -> Windows:
        cropping, manifest = self.cropping, self._stored
        draws = self._rule.draws
        seed = int(manifest.dataset.get("seed", 0)) if cropping.seed is None else cropping.seed
        weights = resolve_weights(cropping.weights, manifest, self._slides, self._library)
        fresh_windows = (
            self.fresh and section.unit == "patch" and section.method == "random" and cropping.crop is not None
        )
        if not fresh_windows and (weights is not None or samples is not None):
            raise ConfigError(
                "weights and a number of samples belong to fresh random windows",
                where="stpatch.open",
                found=f"fresh {self.fresh}, crop {dict(cropping.crop or {})}",
                hint="add crop={'method': 'random'} and fresh=True",
            )
        if fresh_windows:
            counted = self._library.spots_per_pixel
            if quotas is None:
                quotas = quotas_of(self._library, section, samples=samples, weights=weights)
            return FreshWindows(
                counted,
                quotas=quotas,
                section=section,
                draws=draws,
                seed=seed,
                slide_ids=self.slide_ids,
                weights=None if weights is None else weights.of_pixels,
            )
        if cropping.crop is None and cropping.pitch == 1:
            rows = self._listed_windows(draws)
        else:
            rows = fixed_rows(
                self._library.spots_per_pixel,
                self._library.slides,
                self.slide_ids,
                section=section,
                draws=draws,
                seed=seed,
            )
        return FixedWindows(rows, draws=draws, fresh=self.fresh and self._rule.random)

    def _listed_windows(self, draws: int) -> WindowRows:
        """Return the windows of patches.parquet, with the rule's draws."""
        manifest = self._stored
        path = self.folder / manifest.tables["patches"].path
        wanted = dict(patch_columns(manifest.layout, draws=manifest.draws).items())
        table = read_table(path, wanted, split=self.split)
        used, names = codes(table["slide_id"])
        known = {slide_id: row for row, slide_id in enumerate(self.slide_ids)}
        if unknown := [name for name in names if name not in known]:
            raise DatasetError("a patch names an unknown slide", where=path, found=unknown[0])
        slide = np.array([known[name] for name in names], np.int64)[used]
        first = np.ones(table.num_rows, bool)
        if manifest.draws > 1:
            first = numbers(table["draw"], where=path) == 0
        keys = table["key"].to_pylist()
        prefix = [len(key_text(name)) + 1 for name in names]
        number = [int(key[prefix[code] :].split("-")[0]) for key, code in zip(keys, used.tolist(), strict=True)]
        columns = {name: numbers(table[name], where=path) for name in ("row", "col", "n_spots", "coverage")}
        height, width = manifest.layout.shape[1:]
        for name, value in (("height", height), ("width", width)):
            columns[name] = (
                numbers(table[name], where=path)
                if manifest.layout.variable
                else np.full(table.num_rows, value, np.int32)
            )
        rows = WindowRows(
            slide=slide, number=np.array(number, np.int64), draw=np.zeros(len(slide), np.int32), **columns
        ).take(first)
        rows = rows.take(np.repeat(np.arange(len(rows)), draws))
        return replace(rows, draw=np.tile(np.arange(draws, dtype=np.int32), len(rows) // draws))

    def _largest_window(self, section: CropSection) -> tuple[int, int]:
        if section.unit == "patch":
            return section.size
        if section.unit == "spot" or not len(self._windows):
            return (1, 1)
        if self.cropping.crop is None and self.cropping.pitch == 1:
            return self._stored.layout.shape[1:]
        grids = [self._slides.table[name].to_pylist() for name in ("rows", "cols")]  # of all splits
        return max(-(-n // self.cropping.pitch) for n in grids[0]), max(-(-n // self.cropping.pitch) for n in grids[1])

    def _counts_dtype(self) -> str:
        stored = self._stored.layout.dtype
        if self.cropping.pitch == 1 or stored == "uint32":
            return stored
        largest = max((self._library.largest_count(slide) for slide in self._library.slides), default=0.0)
        return "uint16" if largest < 2**16 else "uint32"

    def _made_pool(self) -> SlidePool:
        method = METHODS.get(str(self._stored.normalization["method"]), 0)
        recipes = {
            slide: Formula(method=method, target_sum=1.0 if np.isnan(target) else float(target))
            for slide, target in enumerate(self._slides.target_sums)
        }
        return SlidePool(
            self._library,
            rule=self._rule,
            recipes=recipes,
            slide_ids=self.slide_ids,
            slides=self.cropping.pool,
            labels=self._stored.layout.labels,
            pad_id=self._stored.pad_id,
        )


class _Reader:
    """What `Dataset` and `Filler` take for a reader of shards."""

    def __init__(self, files: ByteRanges, reader: WindowReader) -> None:
        self._files, self._reader = files, reader
        self.read, self.read_into, self.pool = reader.read, reader.read_into, reader.pool

    def expect(self, addresses: Iterable[Any]) -> None:
        """Do nothing: slides are read whole."""

    def close(self) -> None:
        self._files.close()
        self._reader.forget()


def _reopen(
    home: Home,
    split: str,
    request: Request,
    cropping: Cropping,
    quotas: Mapping[int, int] | None,
    chosen: NDArray[np.int64] | None,
    epoch: int,
) -> CroppedDataset:
    dataset = CroppedDataset(home, split=split, request=request, cropping=cropping, quotas=quotas).at_epoch(epoch)
    return dataset if chosen is None else dataset.subset(chosen)


__all__ = ["CroppedDataset", "Cropping", "named", "open_slides"]
