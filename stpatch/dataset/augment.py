"""Changes of a batch while it is read: flips and quarter turns, fewer channels, more channels; NumPy alone.

Everything random is drawn from (seed, epoch, sample number, place), never from a worker's generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import ConfigError
from stpatch.seeds import Keys, below, raw_draws

if TYPE_CHECKING:
    from stpatch.dataset.reader import Dataset

Symmetry = Literal["none", "flips", "turns", "all"]
SQUARE_PLATFORMS = ("visium_hd", "stereoseq", "st")
"""Platforms whose printed array is square, so that pixels of grid `lattice` are squares in their true places."""

_CODES: Mapping[str, tuple[int, ...]] = {
    "none": (0,),
    "flips": (0, 1, 2, 3),
    "turns": (0, 3, 5, 6),
    "all": (0, 1, 2, 3, 4, 5, 6, 7),
}
"""The symmetries of a square by their bits: 1 reverses rows, 2 reverses columns, then 4 swaps rows and columns. Quarter
turns are 0 (none), 3 (half), and 4 with one reversal."""


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """The arrays of a batch that are changed, each with the batch as its first axis.

    Attributes
    ----------
    x
        (B, C, H, W).
    genes, measured
        (B, C) int32 and bool.
    images
        By name, with the positions of the row and column axes: totals, labels and further planes that have both.
    """

    x: NDArray[Any]
    genes: NDArray[np.int32]
    measured: NDArray[np.bool_]
    images: Mapping[str, tuple[NDArray[Any], int, int]]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What is done to each sample.

    Attributes
    ----------
    seed
        Of the draws.
    symmetry
        ``none``; ``flips`` of rows and columns; quarter ``turns``; ``all`` eight symmetries of the square. Each is
        drawn with the same probability.
    channels
        Number of channels that are drawn without replacement, in their order; pads only where there are too few
        others. None keeps all.
    pad_channels
        Number of channels of the result; those that are missing hold 0, `pad_id`, and are not measured.
    pad_id
        The gene id that stands for no gene.
    """

    seed: int = 0
    symmetry: Symmetry = "none"
    channels: int | None = None
    pad_channels: int | None = None
    pad_id: int = 0

    def __post_init__(self) -> None:
        if self.symmetry not in get_args(Symmetry):
            raise ConfigError("unknown symmetry", found=self.symmetry, expected=", ".join(get_args(Symmetry)))
        for key in ("channels", "pad_channels"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError("a sample has at least one channel", where=key, found=value)

    def apply(
        self, arrays: Arrays, *, epoch: int, numbers: NDArray[np.int64], places: NDArray[np.int64] | None = None
    ) -> Arrays:
        """Return the arrays of a batch, changed.

        Parameters
        ----------
        arrays
            The batch.
        epoch, numbers, places
            Of the draws: the epoch, the (B,) sample numbers, and where samples repeat in an epoch, (B,) their places in
            it.
        """
        if self.symmetry != "none":
            arrays = self._turn(arrays, self._draws("symmetry", epoch, numbers, places, 1)[:, 0])
        if self.channels is not None and self.channels < arrays.x.shape[1]:
            arrays = self._choose(arrays, self._draws("channels", epoch, numbers, places, arrays.x.shape[1]))
        return arrays if self.pad_channels is None else self._pad(arrays)

    def _draws(
        self, what: str, epoch: int, numbers: NDArray[np.int64], places: NDArray[np.int64] | None, count: int
    ) -> NDArray[np.uint64]:
        keys = Keys(self.seed, what, epoch)
        draws = np.empty((len(numbers), count), dtype=np.uint64)
        for row, number in enumerate(numbers):
            words = keys.words(int(number), 0 if places is None else int(places[row]))
            philox = np.random.Philox(key=int.from_bytes(words.tobytes(), "little"))
            draws[row] = raw_draws(np.random.Generator(philox), count)
        return draws

    def _turn(self, arrays: Arrays, draws: NDArray[np.uint64]) -> Arrays:
        choices = np.array(_CODES[self.symmetry])
        codes = choices[below(draws, len(choices))]
        images = {
            name: (_turned(image, codes, row, col), row, col) for name, (image, row, col) in arrays.images.items()
        }
        return replace(arrays, x=_turned(arrays.x, codes, 2, 3), images=images)

    def _choose(self, arrays: Arrays, draws: NDArray[np.uint64]) -> Arrays:
        top = np.uint64(63)
        order = (draws >> np.uint64(1)) | ((arrays.genes == self.pad_id).astype(np.uint64) << top)
        chosen = np.sort(np.argsort(order, axis=1, kind="stable")[:, : self.channels], axis=1)
        rows = np.arange(len(chosen))[:, None]
        return replace(
            arrays, x=arrays.x[rows, chosen], genes=arrays.genes[rows, chosen], measured=arrays.measured[rows, chosen]
        )

    def _pad(self, arrays: Arrays) -> Arrays:
        have, want = arrays.x.shape[1], self.pad_channels or 0
        if have > want:
            raise ConfigError(
                "samples have more channels than they shall be padded to",
                where="pad_channels",
                found=f"{have} channels",
                expected=f"at most {want}",
                hint="raise pad_channels, or draw fewer with channels",
            )
        width = ((0, 0), (0, want - have))
        return replace(
            arrays,
            x=np.pad(arrays.x, (*width, (0, 0), (0, 0))),
            genes=np.pad(arrays.genes, width, constant_values=self.pad_id),
            measured=np.pad(arrays.measured, width),
        )


def _turned(image: NDArray[Any], codes: NDArray[np.int64], row: int, col: int) -> NDArray[Any]:
    out = np.empty_like(image)
    for code in np.unique(codes):
        chosen = codes == code
        part = image[chosen]
        if code & 1:
            part = np.flip(part, row)
        if code & 2:
            part = np.flip(part, col)
        out[chosen] = part.swapaxes(row, col) if code & 4 else part
    return out


def check_symmetry(symmetry: Symmetry, dataset: Dataset, *, strict: bool = True) -> None:
    """Raise where a symmetry is not exact on a dataset's grid.

    On squares of micrometres (``grid.method: um``) all are exact. So they are on a square lattice; but Visium's
    hexagonal one is stored with every other row moved by half a pixel, which neither a flip nor a turn keeps, and of
    other platforms the dataset does not say whether their lattice is square. ``fit`` scales each axis on its own: flips
    are exact, turns are not.

    Parameters
    ----------
    symmetry
        As in `Augment`.
    dataset
        From `stpatch.open`; the platforms of the slides of its split count.
    strict
        False checks only what cannot be done at all: shapes.

    Raises
    ------
    ConfigError
        It is not exact, or samples are not square, or differ in size.
    """
    if symmetry == "none":
        return
    manifest = dataset.manifest
    height, width = manifest.layout.shape[1:]
    method = manifest.grid.get("method")
    found = expected = None
    hint = "leave symmetry out"
    if manifest.layout.variable:
        found, expected = "samples that differ in size, padded", "samples of one size"
    elif symmetry != "flips" and height != width:
        found, expected = f"samples of {height} x {width} pixels", "square samples, or symmetry flips"
    elif strict:
        hint += ", or pass symmetry_check='off' where you know the lattice or accept the error"
        used, platforms = dataset.codes("platform")
        other = sorted({platforms[code] for code in np.unique(used)} - set(SQUARE_PLATFORMS))
        if method == "fit" and symmetry != "flips":
            found, expected = "grid fit, which scales each axis on its own", "grid um, or symmetry flips"
        elif method not in ("um", "lattice", "fit"):
            found, expected = f"grid {method}", "grid um, lattice or fit"
        elif method == "lattice" and other:
            found = f"the lattice of {', '.join(other)}, which may be hexagonal"
            expected = f"grid um, or the square lattice of {', '.join(SQUARE_PLATFORMS)}"
    if found is not None:
        raise ConfigError(
            f"symmetry {symmetry} is not exact on this dataset",
            where="symmetry",
            found=found,
            expected=expected,
            hint=hint,
        )
