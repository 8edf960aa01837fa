"""Where spots lie: distances of neighbours and the affine map from array indices to coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputError

_REGULAR_WITHIN, _REGULAR_SHARE = 0.15, 0.9
_COHERENT = 0.85


@dataclass(frozen=True, kw_only=True)
class Affine:
    """Coordinates as an affine function of array indices.

    Attributes
    ----------
    matrix
        (3, 2): coordinates = (x index, y index, 1) @ matrix.
    unit
        Length of one array step in coordinate units, mean of both directions.
    residual
        Median distance of the spots from the map, in array steps.
    """

    matrix: NDArray[np.float64]
    unit: float
    residual: float

    def __call__(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the coordinates of (n, 2) array places (x, y)."""
        return np.column_stack([places, np.ones(len(places))]) @ self.matrix


def fit_affine(places: NDArray[np.float64], xy: NDArray[np.float64]) -> Affine | None:
    """Fit the map by least squares; None where fewer than three spots, or spots in one line, leave it open.

    Parameters
    ----------
    places, xy
        (n, 2) array places (x, y) and coordinates of the same spots.
    """
    design = np.column_stack([places, np.ones(len(places))])
    if len(places) < 3 or np.linalg.matrix_rank(design) < 3:
        return None
    matrix = np.asarray(np.linalg.lstsq(design, xy, rcond=None)[0], np.float64)
    unit = float(np.linalg.norm(matrix[:2], axis=1).mean())
    distance = np.linalg.norm(design @ matrix - xy, axis=1)
    return Affine(matrix=matrix, unit=unit, residual=float(np.median(distance)) / unit if unit > 0 else np.inf)


def neighbour_distance(xy: NDArray[np.float64]) -> tuple[float | None, bool]:
    """Return the median distance of nearest neighbours, and whether nearly all spots have a neighbour that far away.

    Parameters
    ----------
    xy
        (n, 2) finite coordinates; None comes back for fewer than two spots or a median of 0.
    """
    from scipy.spatial import cKDTree

    if len(xy) < 2:
        return None, False
    distances: NDArray[np.float64] = np.asarray(cKDTree(xy).query(xy, k=2)[0])
    nearest = distances[:, 1]
    median = float(np.median(nearest))
    if median <= 0:
        return None, False
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


def array_indices(values: NDArray[np.float64], *, where: object) -> NDArray[np.int32]:
    """Return whole numbers as int32; others are an error."""
    rounded = np.rint(values)
    bad = (rounded != values) | (np.abs(values) >= 2**31)
    if bad.any():
        first = int(np.argmax(bad.any(axis=-1)))
        raise InputError("an array index is no whole number", where=f"{where}, spot {first + 1}", found=values[first])
    return rounded.astype(np.int32)
