"""Simulated tissue: an outline, domains and smooth fields, all as functions of the place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpatch.demo.genes import MARKERS

Float = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """A section at given places.

    Attributes
    ----------
    inside
        (places,) whether there is tissue.
    domain
        (places,) position of the place's domain in `names`.
    names
        The anatomy's domains.
    """

    inside: NDArray[np.bool_]
    domain: NDArray[np.int64]
    names: tuple[str, ...]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Float:
    """Return standard normal numbers made from uniform ones (Box-Muller), whose stream no NumPy version changes."""
    radius = np.sqrt(-2 * np.log1p(-rng.random(shape)))
    return np.asarray(radius * np.cos(2 * np.pi * rng.random(shape)))


def smooth_field(rng: np.random.Generator, places: Float, *, scale: float, waves: int = 48) -> Float:
    """Return a Gaussian random field of unit variance (random Fourier features).

    Parameters
    ----------
    places
        (places, 2), the slide being about 1 wide.
    scale
        Correlation length in the same unit.
    """
    frequency = normal(rng, (2, waves)) / scale
    phase = rng.random(waves) * 2 * np.pi
    return np.asarray(np.sqrt(2 / waves) * np.cos(places @ frequency + phase).sum(axis=1))


def make_tissue(rng: np.random.Generator, places: Float, *, anatomy: str) -> Tissue:
    """Lay a section of `anatomy` (a key of `MARKERS`) over the unit square.

    Parameters
    ----------
    places
        (places, 2) float64, x to the right and y down, in [0, 1].
    """
    inside = _outline(rng, places)
    return Tissue(inside=inside, domain=_ANATOMIES[anatomy](rng, places), names=tuple(MARKERS[anatomy]))


def _outline(rng: np.random.Generator, places: Float) -> NDArray[np.bool_]:
    """Cut a round section with a wavy edge, and a tear where a slow field dips deepest."""
    dx, dy = (places - 0.5).T
    angle, radius = np.arctan2(dy, dx), np.hypot(dx, dy)
    edge = np.full(len(places), 0.455)
    for k in range(2, 7):
        edge += 0.05 / k * (2 * rng.random() - 1) * np.cos(k * angle + 2 * np.pi * rng.random())
    tear = smooth_field(rng, places, scale=0.09)
    return np.asarray((radius < edge) & (tear > -2.3))


def _cortex(rng: np.random.Generator, places: Float) -> NDArray[np.int64]:
    """Lay layers of unequal thickness along a bent depth axis."""
    tilt = 0.5 * (2 * rng.random() - 1)
    x, y = (places - 0.5).T
    depth = y * np.cos(tilt) + x * np.sin(tilt) + 0.55 * (x * np.cos(tilt) - y * np.sin(tilt)) ** 2
    depth += 0.022 * smooth_field(rng, places, scale=0.14)
    return np.asarray(np.digitize(depth, [-0.30, -0.12, -0.03, 0.12, 0.25]), dtype=np.int64)


def _breast(rng: np.random.Generator, places: Float) -> NDArray[np.int64]:
    """Lay nests of carcinoma with immune rims in stroma; ducts with in-situ growth; fat on one side."""
    nest = smooth_field(rng, places, scale=0.13)
    duct = smooth_field(rng, places, scale=0.07)
    turn = 2 * np.pi * rng.random()
    side = (places - 0.5) @ np.array([np.cos(turn), np.sin(turn)]) + 0.05 * smooth_field(rng, places, scale=0.12)
    domain = np.full(len(places), 2)
    domain[duct > 1.2] = 1
    domain[nest > 0.15] = 3
    domain[nest > 0.45] = 0
    domain[(side > 0.24) & (nest < 0.45)] = 4
    return domain


def _lymph_node(rng: np.random.Generator, places: Float) -> NDArray[np.int64]:
    """Lay follicles (germinal centres in mantles) below the capsule, a T zone around them, a medulla inside."""
    dx, dy = (places - 0.5).T
    radius = np.hypot(dx, dy) + 0.015 * smooth_field(rng, places, scale=0.15)
    domain = np.full(len(places), 2)
    domain[np.hypot(dx - 0.08, dy + 0.03) + 0.03 * smooth_field(rng, places, scale=0.1) < 0.15] = 3
    start = rng.random()
    for k in range(9):
        turn = 2 * np.pi * (start + (k + 0.4 * rng.random()) / 9)
        distance, size = 0.27 + 0.05 * rng.random(), 0.055 + 0.03 * rng.random()
        away = np.hypot(dx - distance * np.cos(turn), dy - distance * np.sin(turn))
        domain[(away < size) & (domain != 0)] = 1
        domain[away < 0.6 * size] = 0
    domain[radius > 0.415] = 4
    return domain


_ANATOMIES: dict[str, Callable[[np.random.Generator, Float], NDArray[np.int64]]] = {
    "cortex": _cortex,
    "breast": _breast,
    "lymph node": _lymph_node,
}
