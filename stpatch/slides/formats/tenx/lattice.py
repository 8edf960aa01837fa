"""Visium's hexagonal lattice: the facts by which it is recognized, and the scale it gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.slides.formats.places import fit_affine

PITCH_UM = 100.0
"""Distance of neighbouring spots."""

TOLERANCE = 0.05
"""How far the rows' distance may be off 100 * sqrt(3) / 2 um."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Micrometres per pixel, None where the positions do not lie as on a Visium array; `notes` says why."""

    um_per_unit: float | None
    notes: tuple[str, ...] = ()


def is_hexagonal(array: NDArray[np.int32]) -> bool:
    """Whether array_col has the parity of array_row everywhere, and both parities occur."""
    odd = array % 2
    return bool(len(array)) and bool((odd[:, 0] == odd[:, 1]).all()) and bool(odd[:, 0].any() and not odd[:, 0].all())


def check_parity(array: NDArray[np.int32], barcodes: NDArray[np.object_], *, where: Path | str) -> None:
    """Raise `InputError` where array_col does not have the parity of array_row."""
    bad = (array[:, 0] - array[:, 1]) % 2 != 0
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            "the positions are not on Visium's hexagonal lattice",
            where=f"{where}, row {row}, barcode {barcodes[row]}",
            found=f"array_row {array[row, 0]}, array_col {array[row, 1]} ({int(bad.sum())} of {len(bad)} spots)",
            expected="array_col even where array_row is even, odd where it is odd",
        )


def scale_of(array: NDArray[np.int32], xy: NDArray[np.float64], *, where: Path | str) -> Scale:
    """Return the scale: 100 um over the median distance of spots in a row whose array_col differ by 2.

    An affine fit of the coordinates to the array indices checks that the rows lie sqrt(3) / 2 as far apart, and gives
    the scale where no two spots are neighbours.

    Raises
    ------
    InputError
        The rows' and columns' distances are those of a lattice with array_row and array_col swapped.
    """
    order = np.lexsort((array[:, 1], array[:, 0]))
    rows, columns = array[order, 0], array[order, 1]
    neighbours = (np.diff(rows) == 0) & (np.diff(columns) == 2)
    steps = np.linalg.norm(np.diff(xy[order], axis=0)[neighbours], axis=1)
    pitch = float(np.median(steps)) if len(steps) else 0.0
    fit = fit_affine(array, xy)
    if fit is None:
        if pitch > 0:
            return Scale(um_per_unit=PITCH_UM / pitch)
        return Scale(um_per_unit=None, notes=("too few spots to tell the scale: um per pixel is unknown",))
    row_step, column_step = fit.steps
    ratio = row_step / column_step if column_step > 0 else np.inf
    if abs(ratio * np.sqrt(3) - 1) < TOLERANCE:
        raise InputError(
            "array_row and array_col are swapped: their distances are those of the other",
            where=where,
            found=f"{row_step:.4g} px per array_row, {column_step:.4g} px per array_col",
            expected="a ratio of 1.732",
        )
    if abs(ratio / np.sqrt(3) - 1) > TOLERANCE:
        note = f"rows lie {ratio:.3g} columns apart, not 1.732 as on a Visium array: um per pixel is unknown"
        return Scale(um_per_unit=None, notes=(note,))
    if pitch > 0:
        return Scale(um_per_unit=PITCH_UM / pitch)
    return Scale(
        um_per_unit=PITCH_UM / (2 * float(column_step)),
        notes=("no two neighbouring spots: um per pixel is from a fit of all positions to the array",),
    )


def row_column_ratio(array: NDArray[np.int32], xy: NDArray[np.float64]) -> float | None:
    """Return the rows' distance in columns: sqrt(3) on Visium's lattice, 1 on a square one; None for too few spots."""
    fit = fit_affine(array, xy)
    if fit is None:
        return None
    row_step, column_step = fit.steps
    return float(row_step / column_step) if column_step > 0 else None


def row_step(array: NDArray[np.int32], xy: NDArray[np.float64]) -> float | None:
    """Return the median distance of spots in a row, per array column."""
    order = np.lexsort((array[:, 1], array[:, 0]))
    steps = np.diff(array[order], axis=0)
    in_row = (steps[:, 0] == 0) & (steps[:, 1] > 0)
    if not in_row.any():
        return None
    distances = np.linalg.norm(np.diff(xy[order], axis=0)[in_row], axis=1)
    return float(np.median(distances / steps[in_row, 1])) or None
