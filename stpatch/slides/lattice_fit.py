"""Finds the lattice that coordinates lie on, hexagonal or square, from the coordinates alone: pitch, angle, origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

NEAR = 0.25
"""Distance from a lattice point, in pitches, that nearly all spots must keep."""

_FEWEST = 9
_FAR_SHARE, _RMS, _LOST = 0.01, 0.15, 0.3
_SAMPLED = 20_000
_NEIGHBOURS = 0.3
_FIRST = 20
_GROWTH = 1.5
_PITCHES, _DEGREES = 0.1, 6.0
_HALF_TURN = 25.0


@dataclass(frozen=True, kw_only=True)
class LatticeFit:
    """A lattice under coordinates.

    Attributes
    ----------
    geometry
        ``square`` or ``hex``.
    array
        (n, 2) int32 ``(array_row, array_col)`` from 0, no two spots alike; on a hexagonal lattice ``array_col`` has the
        parity of ``array_row``, as Visium counts.
    pitch
        Distance of neighbouring lattice points in coordinate units.
    angle
        Degrees from the x axis to the lattice's rows, clockwise on a picture whose y points down; -45 to 90.
    origin
        (x, y) of array place (0, 0).
    residual, farthest
        Root mean square and largest distance of a spot from its lattice point, in pitches.
    """

    geometry: Literal["square", "hex"]
    array: NDArray[np.int32]
    pitch: float
    angle: float
    origin: tuple[float, float]
    residual: float
    farthest: float

    def __str__(self) -> str:
        name = "hexagonal" if self.geometry == "hex" else "square"
        x, y = self.origin
        return (
            f"a {name} lattice of pitch {self.pitch:.5g} at {self.angle:.2f} degrees from ({x:.6g}, {y:.6g}); "
            f"spots lie {self.residual:.3f} pitches from it (root mean square), {self.farthest:.3f} at most"
        )


def find_lattice(xy: NDArray[np.float64]) -> LatticeFit | None:
    """Return the lattice that all spots lie on, one spot per point; None where there is none.

    The directions to the nearest neighbours tell hexagonal from square (their sixth or fourth harmonic is stronger) and
    the angle. From a few spots in the middle the fit grows outwards: each time the spots within one and a half times
    the distance are numbered by the fit so far, and all numbered ones are fitted anew by least squares, so that no
    error of the first pitch adds up over the slide.

    Parameters
    ----------
    xy
        (n, 2) finite coordinates, in any order.

    Notes
    -----
    Spots that lie anywhere are on average 0.4 pitches from the nearest point of any lattice. Accepted are at most 0.15
    (root mean square), and 1 in 100 spots further away than 0.25.
    """
    from scipy.spatial import cKDTree

    if len(xy) < _FEWEST:
        return None
    centre = np.median(xy, axis=0)
    points = xy - centre
    tree = cKDTree(points)
    some = points[:: 1 + len(points) // _SAMPLED]
    found, number = tree.query(some, k=min(7, len(points)))
    nearest = float(np.median(found[:, 1]))
    if not nearest > 0:
        return None
    steps, length = points[number[:, 1:]] - some[:, None, :], found[:, 1:]
    close = np.abs(length / nearest - 1) < _NEIGHBOURS
    if not close.any():
        return None
    steps, length = steps[close], length[close]
    turns = np.arctan2(steps[:, 1], steps[:, 0])
    harmonics = {fold: complex(np.exp(1j * fold * turns).mean()) for fold in (4, 6)}
    best = None
    for fold in sorted(harmonics, key=lambda fold: -abs(harmonics[fold])):
        direction = float(np.angle(harmonics[fold])) / fold
        best = _grown(points, tree, fold, direction, float(np.median(length)), centre)
        if best is not None:
            break
    return best


def _grown(
    points: NDArray[np.float64], tree: object, fold: int, direction: float, pitch: float, centre: NDArray[np.float64]
) -> LatticeFit | None:
    angle = _row_angle(direction, fold)
    unit = np.array([np.cos(angle), np.sin(angle)])
    turn = np.pi / 2 if fold == 4 else np.pi / 3
    basis = pitch * np.array([unit, [np.cos(angle + turn), np.sin(angle + turn)]])  # rows: one step along either axis
    start = points[int(tree.query(np.zeros(2))[1])]  # type: ignore[attr-defined]
    origin = start
    distance = np.linalg.norm(points - start, axis=1)
    order = np.argsort(distance, kind="stable")
    reach = distance[order]
    count = min(_FIRST, len(points))
    while True:
        inside = points[order[:count]]
        index = np.rint((inside - origin) @ np.linalg.inv(basis))
        middle, centred = inside.mean(axis=0), index - index.mean(axis=0)
        squares = centred.T @ centred
        if np.linalg.det(squares) > 0.5:  # whole numbers: 0 or at least 1 where they are not on one line
            basis = np.linalg.solve(squares, centred.T @ (inside - middle))
            origin = middle - index.mean(axis=0) @ basis
            if not abs(np.linalg.det(basis)) > 1e-3 * pitch**2:
                return None
            away = np.linalg.norm(inside - origin - index @ basis, axis=1)
            if np.sqrt(np.mean(away**2)) > _LOST * pitch:  # no lattice: not to be sought over the whole slide
                return None
        elif count == len(points):
            return None
        if count == len(points):
            break
        count = max(count + 1, int(np.searchsorted(reach, _GROWTH * reach[count - 1], side="right")))
    return _accepted(points, basis, origin, fold, centre)


def _row_angle(direction: float, fold: int) -> float:
    """Return the lattice direction that rows run along, in radians: the one nearest to the x axis.

    A hexagonal lattice turned by a quarter has its directions at 30, 90 and 150 degrees: then the rows run along y.
    """
    step = 2 * np.pi / fold
    nearest = (direction + step / 2) % step - step / 2
    if fold == 6 and abs(nearest) > np.radians(_HALF_TURN):
        return float(min((nearest + k * step for k in range(-3, 4)), key=lambda a: abs(a - np.pi / 2)))
    return float(nearest)


def _accepted(
    points: NDArray[np.float64],
    basis: NDArray[np.float64],
    origin: NDArray[np.float64],
    fold: int,
    centre: NDArray[np.float64],
) -> LatticeFit | None:
    lengths = np.linalg.norm(basis, axis=1)
    pitch = float(lengths.mean())
    between = float(np.degrees(np.arccos(np.clip(basis[0] @ basis[1] / lengths.prod(), -1, 1))))
    if abs(lengths / pitch - 1).max() > _PITCHES or abs(between - (90 if fold == 4 else 60)) > _DEGREES:
        return None
    index = np.rint((points - origin) @ np.linalg.inv(basis))
    away = np.linalg.norm(points - origin - index @ basis, axis=1) / pitch
    residual = float(np.sqrt(np.mean(away**2)))
    if residual > _RMS or (away > NEAR).mean() > _FAR_SHARE:
        return None
    along, down = index.astype(np.int64).T
    key = (down - down.min()) * (int(np.ptp(along)) + 1) + along
    if len(np.unique(key)) < len(key):
        return None
    row, col = (down, along) if fold == 4 else (down, 2 * along + down)
    row, col, (top, left) = _from_zero(row, col, hexagonal=fold == 6)
    zero = np.array([left, top]) if fold == 4 else np.array([(left - top) / 2, top])
    x, y = centre + origin + zero @ basis
    return LatticeFit(
        geometry="square" if fold == 4 else "hex",
        array=np.column_stack([row, col]).astype(np.int32),
        pitch=float(f"{pitch:.12g}"),  # what a sum rounds to is no place to stand on
        angle=float(round(np.degrees(np.arctan2(basis[0, 1], basis[0, 0])), 6)) + 0.0,
        origin=(float(x), float(y)),
        residual=residual,
        farthest=float(away.max()),
    )


def _from_zero(
    row: NDArray[np.int64], col: NDArray[np.int64], *, hexagonal: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[int, int]]:
    """Return rows and columns from 0, and what was taken off; parities of a hexagonal lattice stay alike."""
    top, left = int(row.min()), int(col.min())
    if hexagonal and (top + left) % 2:
        left -= 1
    return row - top, col - left, (top, left)
