"""Where spots lie: distances of neighbours and the affine map from array indices to coordinates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputError

FARTHEST = 1e12
"""Coordinates lie below, whatever their unit: above, distances of neighbours are lost in rounding."""

_REGULAR_WITHIN, _REGULAR_SHARE = 0.15, 0.9
_COHERENT = 0.85


@dataclass(frozen=True, kw_only=True)
class Affine:
    """Coordinates as an affine function of array indices.

    Attributes
    ----------
    matrix
        (3, 2): coordinates = (first index, second index, 1) @ matrix.
    steps
        (2,) length of one step along either index, in coordinate units.
    residual
        Median distance of the spots from the map, in array steps.
    """

    matrix: NDArray[np.float64]
    steps: NDArray[np.float64]
    residual: float

    @property
    def unit(self) -> float:
        """Length of one array step in coordinate units, mean of both directions."""
        return float(self.steps.mean())

    def __call__(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the (n, 2) coordinates of (n, 2) array places."""
        return np.column_stack([places, np.ones(len(places))]) @ self.matrix


def fit_affine(places: NDArray[np.float64] | NDArray[np.int32], xy: NDArray[np.float64]) -> Affine | None:
    """Fit the map by least squares; None where fewer than three spots, or spots in one line, leave it open.

    Parameters
    ----------
    places, xy
        (n, 2) array places and coordinates of the same spots.
    """
    if len(places) < 3:
        return None
    centre, middle = places.mean(axis=0), xy.mean(axis=0)
    centred = places - centre
    if np.linalg.matrix_rank(centred) < 2:
        return None
    linear = np.asarray(np.linalg.lstsq(centred, xy - middle, rcond=None)[0], np.float64)
    steps = np.linalg.norm(linear, axis=1)
    distance = float(np.median(np.linalg.norm(centred @ linear - (xy - middle), axis=1)))
    unit = float(steps.mean())
    return Affine(
        matrix=np.vstack([linear, middle - centre @ linear]),
        steps=steps,
        residual=distance / unit if unit > 0 else np.inf,
    )


def nearest_distance(xy: NDArray[np.float64]) -> tuple[float | None, bool]:
    """Return the median distance of nearest neighbours, and whether nearly all spots have a neighbour that far away.

    Parameters
    ----------
    xy
        (n, 2) finite coordinates; spots at one place count once, and None comes back for fewer than two places.
    """
    from scipy.spatial import cKDTree

    places = np.unique(xy, axis=0)
    if len(places) < 2:
        return None, False
    distances: NDArray[np.float64] = np.asarray(cKDTree(places).query(places, k=2)[0])
    nearest = distances[:, 1]
    median = float(np.median(nearest))
    regular = np.abs(nearest - median) <= _REGULAR_WITHIN * median
    return median, bool(regular.mean() >= _REGULAR_SHARE)


def square_pitch(xy: NDArray[np.float64], near: float) -> float:
    """Return the pitch of a square lattice along the axes, near the neighbours' distance.

    Adjusted places jitter, and the nearest of four neighbours is nearer than the pitch; the period that all spots
    share is not biased so. Where they share none (a hexagonal lattice), `near` comes back.
    """
    some = xy[:: 1 + len(xy) // 5000]

    def coherence(pitch: float) -> float:
        return float(np.abs(np.exp(2j * np.pi * some / pitch).mean(axis=0)).mean())

    if coherence(near) >= _COHERENT:
        return near
    periods = near * np.linspace(0.9, 1.2, 601)
    scores = [coherence(float(period)) for period in periods]
    best = int(np.argmax(scores))
    return float(periods[best]) if scores[best] >= _COHERENT else near


def one_parity(array: NDArray[np.int32]) -> bool:
    """Whether row + column of (n, 2) array indices is all even or all odd, on both row parities: a checkerboard."""
    rows = array[:, 0] & 1
    parity = (array[:, 0] + array[:, 1]) & 1
    return len(array) >= 4 and bool((parity == parity[0]).all()) and bool((rows != rows[0]).any())


def check_finite(xy: NDArray[np.float64], *, where: object, ids: NDArray[np.object_] | None = None) -> None:
    """Raise `InputError` where one of (n, 2) coordinates is not finite or is too large; `ids` name the spots."""
    for what, good in (
        ("a coordinate is not a finite number", np.isfinite(xy)),
        ("a coordinate is larger than any slide", ~(np.abs(xy) >= FARTHEST)),
    ):
        bad = np.flatnonzero(~good.all(axis=1))
        if len(bad):
            raise InputError(
                what,
                where=f"{where}, row {bad[0]}" + ("" if ids is None else f", spot {ids[bad[0]]}"),
                found=f"{xy[bad[0]].tolist()} ({len(bad)} such spots)",
                expected=f"numbers below {FARTHEST:g}",
                hint="correct the coordinates or take these spots out",
            )


def array_indices(values: NDArray[np.float64], *, where: object) -> NDArray[np.int32]:
    """Return whole numbers as int32; others are an error."""
    rounded = np.rint(values)
    bad = (rounded != values) | (np.abs(values) >= 2**31)
    if bad.any():
        first = int(np.argmax(bad.any(axis=-1)))
        raise InputError(
            "an array index is not a whole number",
            where=f"{where}, spot {first + 1}",
            found=values[first],
            hint="give array indices as whole numbers, or leave their columns out",
        )
    return rounded.astype(np.int32)


AXIS_NAMES = (
    ("x", "y"), ("pxl_col_in_fullres", "pxl_row_in_fullres"), ("imagecol", "imagerow"), ("pixel_x", "pixel_y"),
    ("center_x", "center_y"), ("x_centroid", "y_centroid"), ("centroid_x", "centroid_y"), ("global_x", "global_y"),
    ("x_location", "y_location"), ("xcoord", "ycoord"), ("x_coord", "y_coord"), ("xaxis", "yaxis"),
    ("spatial_x", "spatial_y"), ("spatial1", "spatial2"), ("spatial_1", "spatial_2"), ("sdimx", "sdimy"),
)  # fmt: skip
"""Names that coordinates (x, y) go by, in lower case; columns of an image are x, its rows are y."""


def named_axes(names: Sequence[str]) -> tuple[str, str] | None:
    """Return which columns are x and y by their names, in any case and any order; None where the names do not tell.

    The first pair of `AXIS_NAMES`, else the only pair of names that differ in x and y, or in col and row.
    """
    lower = {name.lower(): name for name in reversed(names)}
    for x, y in AXIS_NAMES:
        if x in lower and y in lower:
            return lower[x], lower[y]
    pairs = []
    for name in lower:
        for axis, other in (
            (r"(?<![a-z])x(?![a-z])", "y"),
            (r"^x(?=axis|coord|pos|pixel)", "y"),
            (r"col(umn)?", "row"),
        ):
            partner = re.sub(axis, other, name)
            if partner != name and partner in lower:
                pairs.append((lower[name], lower[partner]))
                break
    return pairs[0] if len(pairs) == 1 else None
