"""Cuts samples from stored slides, as a reader of shards reads them: the planes of one sample to arrays."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.cropping.pool import SlidePool
from stpatch.dataset.formats.base import Address, Arrays, Entries, SampleReader, Stored
from stpatch.dataset.layout import Layout
from stpatch.dataset.planes import GENES, LABEL, TOTALS, X
from stpatch.image.labels import NO_LABEL
from stpatch.kernels.window import Window


class WindowAddress(NamedTuple):
    """Where a sample is cut: for one whose samples are stored, see `Address`.

    Attributes
    ----------
    key
        The sample's key.
    size
        (height, width) where samples vary.
    slide
        Row of slides.parquet.
    window
        The window.
    number, draw
        By which channels are drawn.
    """

    key: str
    size: tuple[int, int] | None
    slide: int
    window: Window
    number: int
    draw: int


class WindowReader(SampleReader):
    """Cuts samples; each thread has its own buffers.

    Parameters
    ----------
    pool
        The slides.
    layout
        Of the samples.
    """

    def __init__(self, pool: SlidePool, layout: Layout) -> None:
        self.pool, self._layout = pool, layout
        self._local = threading.local()

    def forget(self) -> None:
        """Let go of all slides."""
        self.pool.forget()

    def read(self, address: Address | WindowAddress) -> Stored:
        """Return one sample."""
        arrays: Arrays = {
            plane.name: np.empty(plane.shape_at(address.size), plane.dtype) for plane in self._layout.planes
        }
        self.read_into(address, arrays)
        return Stored(arrays, None)

    def read_into(self, address: Address | WindowAddress, out: Mapping[str, NDArray[Any]]) -> Entries | None:
        """Cut one sample; see `SampleReader.read_into`."""
        if not isinstance(address, WindowAddress):
            raise TypeError(f"{address} is no window")
        slide, window = self.pool.get(address.slide), address.window
        choice = slide.choose(window, address.number, address.draw)
        if GENES in out:
            out[GENES][...] = choice.ids
        if TOTALS in out:
            out[TOTALS][...] = slide.image.totals(window)
        for name, plane in slide.labels.items():
            if (key := f"{LABEL}{name}") in out:
                out[key][...] = window.cut(plane, outside=NO_LABEL)
        x = out.get(X)
        if slide.panel is not None:
            if x is not None and x.flags.c_contiguous and np.can_cast(slide.panel.count_dtype, x.dtype):
                slide.panel.counts(window, out=x)
                return None
            counts = slide.panel.counts(window)
        else:
            counts = slide.image.counts(window, choice.positions, out=self._room(len(choice.ids), window))
        if x is not None:
            np.copyto(x, counts, casting="same_kind")
            return None
        flat = counts.reshape(-1)
        positions = np.flatnonzero(flat != 0).astype(np.int32)
        return Entries(positions, flat[positions])

    def _room(self, channels: int, window: Window) -> NDArray[Any]:
        shape = (channels + 1, window.height, window.width)
        room: NDArray[Any] | None = getattr(self._local, "room", None)
        if room is None or room.shape != shape:
            room = self._local.room = np.empty(shape, self._layout.dtype)
        return room
