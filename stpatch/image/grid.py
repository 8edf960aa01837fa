"""The grid: which pixel every spot falls on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpatch.config import GridSection
from stpatch.errors import ConfigError, InputError
from stpatch.slides.axis_fit import TOLERANCE, square_points

MAX_PIXELS = 400_000_000
"""Largest grid: more than this is a wrong pitch or a stray coordinate, not a slide."""
_ROUNDING = 1e-9
"""Share of a pixel below a pixel's edge that counts as the edge: float noise must not move a spot across it."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A slide's pixels; rows are y, columns are x.

    Attributes
    ----------
    shape
        (rows, columns) of pixels.
    pixel
        (spots,) int64, the spot's flat pixel index ``row * columns + column``; -1 where ``collisions: first``
        dropped it.
    origin
        (x, y) of pixel (0, 0). ``um``: its corner, in coordinate units. ``fit``: the bounding box's corner, in
        coordinate units. ``lattice``: its array (column, row) index, for a hexagonal lattice the even one of the
        two array columns that share the pixel column; without array indices the lattice point, in coordinate units.
    pitch_um
        Side of a pixel in micrometres; None where unknown, and for ``fit``, whose axes differ.
    n_collisions
        Spots that fell on a pixel that an earlier spot had.
    n_dropped
        Spots dropped by ``collisions: first``.
    """

    shape: tuple[int, int]
    pixel: NDArray[np.int64]
    origin: tuple[float, float]
    pitch_um: float | None
    n_collisions: int
    n_dropped: int

    def spots_per_pixel(self) -> NDArray[np.int32]:
        """Return how many spots every pixel has, (rows, columns) int32."""
        counts = np.zeros(self.shape[0] * self.shape[1], dtype=np.int32)
        pixels, numbers = np.unique(self.pixel[self.pixel >= 0], return_counts=True)
        counts[pixels] = numbers
        return counts.reshape(self.shape)


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Row and column of every spot (from 0), and the shape that holds them."""

    row: NDArray[np.int64]
    col: NDArray[np.int64]
    shape: tuple[int, int]
    origin: tuple[float, float]
    pitch_um: float | None


def make_grid(
    *,
    xy: NDArray[np.float64],
    array: NDArray[np.int32] | None,
    geometry: str,
    um_per_unit: float | None,
    pitch: float | None,
    section: GridSection,
    order: NDArray[np.int64] | None = None,
    where: object = None,
) -> Grid:
    """Put every spot on a pixel.

    Parameters
    ----------
    xy
        (spots, 2) float64, in coordinate units.
    array
        (spots, 2) int ``(array_row, array_col)``, or None.
    geometry
        ``square``, ``hex`` or ``irregular``.
    um_per_unit, pitch
        Micrometres per coordinate unit, and distance of neighbouring spots in coordinate units; None where unknown.
    section
        The method, its pixel size, and what happens to spots that fall on one pixel.
    order
        (spots,) each spot's place in the order that ``collisions: first`` goes by; None: the order of the rows.
    where
        What to name in errors, usually the slide.

    Returns
    -------
    Grid
        For ``collisions: sum`` and ``mean`` every spot has a pixel; for ``first`` a pixel keeps the first of its
        spots in `order`.

    Raises
    ------
    InputError
        No spots, coordinates that are not finite, hexagonal indices of mixed parity, a grid of more than `MAX_PIXELS`.
    ConfigError
        ``lattice`` without a lattice, ``um`` without known micrometres.

    Notes
    -----
    ``lattice``: array indices are pixels; on a hexagonal lattice the pixel column is ``array_col // 2``. That keeps
    every spot, one per pixel, and all six neighbours of a spot among the eight of its pixel. The position error is
    what the geometry forces: alternate rows lie half a pitch apart, so along x a spot is a quarter of a pitch off
    its pixel's place (even rows one way, odd rows the other), and along y not at all, where a pixel is one pitch
    wide and sqrt(3)/2 pitches high; shown with square pixels, y is stretched by 2 / sqrt(3). A translation by an
    even number of rows leaves the image as it is; by an odd number, odd rows become even ones and the half pitch
    goes the other way.

    ``lattice`` without array indices: coordinates on a square lattice of known pitch (to 10%) are rounded to it,
    when every spot is closer than a quarter of a pitch to its point and no two spots share one.

    ``um``: ``floor((xy - origin) * um_per_unit / pitch_um)``; the position error is at most half a pixel from the
    pixel's centre, along each axis. The origin is the least x and y of all spots; where spots lie on a lattice it is
    half their spacing (at most half a pixel) further out, since a spot at the centre of its area must not sit on an
    edge between pixels.

    ``fit``: each axis of the bounding box is scaled on its own to ``0 .. size - 1`` and rounded (half to even), so
    the position error is at most half a pixel from the pixel's place; an axis without extent maps to 0.
    """
    _check_coordinates(xy, where)
    if section.method == "um":
        places = _um_places(xy, geometry, um_per_unit, pitch, section, where)
    elif section.method == "fit":
        places = _fit_places(xy, section, where)
    elif array is not None:
        places = _array_places(array, geometry, _known_pitch_um(um_per_unit, pitch), where)
    else:
        places = _rounded_places(xy, um_per_unit, pitch, where)
    pixel = places.row * places.shape[1] + places.col
    pixels, first = np.unique(pixel, return_index=True)
    n_collisions = len(pixel) - len(pixels)
    n_dropped = 0
    if section.collisions == "first":
        if order is not None:
            ranked = np.argsort(order, kind="stable")
            first = ranked[np.unique(pixel[ranked], return_index=True)[1]]
        kept = np.zeros(len(pixel), dtype=bool)
        kept[first] = True
        pixel = np.where(kept, pixel, np.int64(-1))
        n_dropped = n_collisions
    return Grid(
        shape=places.shape,
        pixel=pixel,
        origin=places.origin,
        pitch_um=places.pitch_um,
        n_collisions=n_collisions,
        n_dropped=n_dropped,
    )


def _check_coordinates(xy: NDArray[np.float64], where: object) -> None:
    if len(xy) == 0:
        raise InputError(
            "the slide has no spots to put on a grid", where=where, hint="loosen ingest.qc or leave it out"
        )
    bad = ~np.isfinite(xy).all(axis=1)
    if bad.any():
        raise InputError(
            f"{int(bad.sum())} of {len(xy)} spots have coordinates that are not finite",
            where=where,
            found=f"row {int(np.argmax(bad))}: {xy[np.argmax(bad)].tolist()}",
            expected="finite x and y for every spot",
            hint="correct the coordinates file, or take those spots out of it",
        )


def _known_pitch_um(um_per_unit: float | None, pitch: float | None) -> float | None:
    return None if um_per_unit is None or pitch is None else um_per_unit * pitch


def _checked_shape(rows: float, cols: float, *, where: object, found: str, hint: str) -> tuple[int, int]:
    """Refuse a grid that no memory holds; takes floats, so that an absurd extent cannot overflow on its way here."""
    if rows * cols > MAX_PIXELS:
        raise InputError(
            f"the grid would have {rows:.10g} x {cols:.10g} pixels",
            where=where,
            found=found,
            expected=f"at most {MAX_PIXELS} pixels",
            hint=hint,
        )
    return int(rows), int(cols)


def _array_places(array: NDArray[np.int32], geometry: str, pitch_um: float | None, where: object) -> _Places:
    row, col = array[:, 0].astype(np.int64), array[:, 1].astype(np.int64)
    step = 1
    if geometry == "hex":
        odd = (row + col) % 2
        if 0 < odd.sum() < len(odd):
            least = int(min(odd.sum(), len(odd) - odd.sum()))
            raise InputError(
                "the array indices are not on a hexagonal lattice",
                where=where,
                found=f"array_row + array_col is even for some spots and odd for others (the fewer: {least})",
                expected="array_col with the parity of array_row, as Visium has it",
                hint="correct the positions file, or set grid: {method: um, pitch_um: ...}",
            )
        col, step = col // 2, 2
    top, left = int(row.min()), int(col.min())
    row, col = row - top, col - left
    n_rows, n_cols = int(row.max()) + 1, int(col.max()) + 1
    shape = _checked_shape(
        n_rows,
        n_cols,
        where=where,
        found=f"array rows {top} to {top + n_rows - 1}, array columns {left * step} to {(left + n_cols - 1) * step}",
        hint="take stray spots out, or set ingest.bin_um to sum bins to a coarser pitch",
    )
    return _Places(row=row, col=col, shape=shape, origin=(float(left * step), float(top)), pitch_um=pitch_um)


def _rounded_places(xy: NDArray[np.float64], um_per_unit: float | None, pitch: float | None, where: object) -> _Places:
    """Round coordinates to the square lattice that they lie on, or refuse."""
    hint = "set grid: {method: um, pitch_um: ...} or grid: {method: fit, size: ...}"
    expected = "array indices, or coordinates on a square lattice of known pitch"
    if pitch is None:
        raise ConfigError(
            "grid.method lattice needs a lattice",
            where=where,
            found="no array indices and no pitch",
            expected=expected,
            hint=hint,
        )
    points, error, phase, spacing = square_points(xy, pitch)
    if error >= TOLERANCE:
        raise ConfigError(
            "grid.method lattice needs a lattice",
            where=where,
            found=f"no array indices, and a spot {error:.2f} of the pitch {pitch:g} away from its lattice point",
            expected=f"{expected} (within {TOLERANCE} of it)",
            hint=hint,
        )
    least = points.min(axis=0)
    extent = points.max(axis=0) - least + 1
    shape = _checked_shape(
        float(extent[1]),
        float(extent[0]),
        where=where,
        found=_extent(xy, f"pitch {pitch:g}"),
        hint="take stray spots out",
    )
    col, row = (points - least).astype(np.int64).T
    shared = len(row) - len(np.unique(row * shape[1] + col))
    if shared:
        raise ConfigError(
            "grid.method lattice needs a lattice",
            where=where,
            found=f"no array indices, and {shared} spots that round to a lattice point of another spot",
            expected=expected,
            hint=hint,
        )
    x, y = phase + least * spacing
    return _Places(
        row=row, col=col, shape=shape, origin=(float(x), float(y)), pitch_um=_known_pitch_um(um_per_unit, pitch)
    )


def _um_places(
    xy: NDArray[np.float64],
    geometry: str,
    um_per_unit: float | None,
    pitch: float | None,
    section: GridSection,
    where: object,
) -> _Places:
    pitch_um = section.pitch_um
    if pitch_um is None:
        raise ConfigError(
            "grid.method um needs grid.pitch_um", where=where, hint="set grid.pitch_um to the side of a pixel in um"
        )
    if um_per_unit is None:
        raise ConfigError(
            "grid.method um needs micrometres, and the slide's files do not tell them",
            where=where,
            hint="set ingest.um_per_unit, or use grid: {method: fit, size: ...}",
        )
    origin = xy.min(axis=0)
    if pitch is not None and geometry != "irregular":
        spacing = pitch * (np.array([0.5, 3**0.5 / 2]) if geometry == "hex" else np.ones(2))
        origin = origin - np.minimum(spacing, pitch_um / um_per_unit) / 2
    steps = np.floor((xy - origin) * um_per_unit / pitch_um + _ROUNDING)
    extent = steps.max(axis=0) + 1
    shape = _checked_shape(
        float(extent[1]),
        float(extent[0]),
        where=where,
        found=_extent(xy, f"{um_per_unit:g} um per unit, grid.pitch_um {pitch_um:g}"),
        hint="set a larger grid.pitch_um, correct ingest.um_per_unit, or take stray spots out",
    )
    col, row = steps.astype(np.int64).T
    return _Places(row=row, col=col, shape=shape, origin=(float(origin[0]), float(origin[1])), pitch_um=pitch_um)


def _fit_places(xy: NDArray[np.float64], section: GridSection, where: object) -> _Places:
    if section.size is None:
        raise ConfigError(
            "grid.method fit needs grid.size",
            where=where,
            hint="set grid.size to the number of pixels per side, such as 140",
        )
    shape = _checked_shape(
        section.size, section.size, where=where, found=f"grid.size {section.size}", hint="set a smaller grid.size"
    )
    least = xy.min(axis=0)
    extent = xy.max(axis=0) - least
    scaled = (xy - least) / np.where(extent > 0, extent, 1.0) * (section.size - 1)
    col, row = np.rint(scaled).astype(np.int64).T
    return _Places(row=row, col=col, shape=shape, origin=(float(least[0]), float(least[1])), pitch_um=None)


def _extent(xy: NDArray[np.float64], scale: str) -> str:
    (x0, y0), (x1, y1) = xy.min(axis=0), xy.max(axis=0)
    return f"x {x0:g} to {x1:g}, y {y0:g} to {y1:g}, {scale}"
