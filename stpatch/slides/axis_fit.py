"""Evenly spaced points under coordinates: what a lattice without array indices rounds to."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.25
"""Largest distance, in spacings, of a spot from the lattice point that its coordinates are rounded to."""
_SAMPLED = 2000
"""Spots that are enough to find a lattice's spacing."""


def fit_axis(values: NDArray[np.float64], pitch: float) -> tuple[float, float]:
    """Return the (place, spacing) of the evenly spaced points that coordinates of one axis lie on.

    The spacing is `pitch` where that serves. A pitch measured as a distance of nearest neighbours is too small when
    places are adjusted or distorted, and a few per cent add up to a whole point over a slide: then the spacing
    within 10% of `pitch` with the strongest period is taken, and both are fitted by least squares. Nothing here
    says that the points fit: the caller measures the distance that is left.

    Parameters
    ----------
    values
        (spots,) float64 coordinates, in any order.
    pitch
        Distance of neighbouring spots, roughly.
    """
    # Sorted, so that no sum, and with it no last bit of the origin, depends on the spots' order.
    values = np.sort(values)
    phase = _phase(values, pitch)
    if _off(values, phase, pitch) < TOLERANCE:
        return phase, pitch
    sample = values[:: max(len(values) // _SAMPLED, 1)]
    reach = math.ceil(8 * 0.1 * (values[-1] - values[0]) / pitch)
    spacings = pitch * np.linspace(0.9, 1.1, 2 * min(reach, _SAMPLED) + 1)
    strengths = [abs(_turns(sample, spacing)) for spacing in spacings]
    spacing = float(spacings[int(np.argmax(strengths))])
    points = np.rint((values - _phase(values, spacing)) / spacing)
    if points[0] < points[-1]:
        centred = points - points.mean()
        spacing = float((centred * (values - values.mean())).sum() / (centred**2).sum())
    return float(values.mean() - spacing * points.mean()), spacing


def square_points(
    xy: NDArray[np.float64], pitch: float
) -> tuple[NDArray[np.float64], float, NDArray[np.float64], NDArray[np.float64]]:
    """Round coordinates to the square lattice along the axes that they lie on.

    Returns
    -------
    points, error, phase, spacing
        (spots, 2) whole numbers; the largest distance of a spot from its point, in spacings; (2,) place and spacing of
        the lattice along each axis. Nothing here says that the points fit: see `TOLERANCE`.
    """
    fitted = np.array([fit_axis(xy[:, axis], pitch) for axis in (0, 1)])
    phase, spacing = fitted[:, 0], fitted[:, 1]
    steps = (xy - phase) / spacing
    points = np.rint(steps)
    return points, float(np.abs(steps - points).max()), phase, spacing


def rounds_to_square(xy: NDArray[np.float64], pitch: float) -> bool:
    """Whether coordinates round to a square lattice of about this pitch, one spot per point."""
    points, error, _, _ = square_points(xy, pitch)
    return error < TOLERANCE and len(np.unique(points, axis=0)) == len(points)


def _turns(values: NDArray[np.float64], spacing: float) -> complex:
    return complex(np.exp(2j * np.pi * ((values - values[0]) / spacing)).sum())


def _phase(values: NDArray[np.float64], spacing: float) -> float:
    """Return a lattice point's coordinate: the circular mean of the (sorted) coordinates over the spacing."""
    return float(values[0] + np.angle(_turns(values, spacing)) / (2 * np.pi) * spacing)


def _off(values: NDArray[np.float64], phase: float, spacing: float) -> float:
    """Return the largest distance from a lattice point, in spacings."""
    steps = (values - phase) / spacing
    return float(np.abs(steps - np.rint(steps)).max())
