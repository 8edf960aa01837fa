"""CosMx fields of view: where they lie, and how large a pixel is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.slides.formats.names import listed
from stpatch.slides.formats.text.delimited import numbers, read_table

PIXEL_UM = 0.120280945
"""The vendor's pixel."""
EARLY_PIXEL_UM = 0.18
"""The pixel of early public releases (2022), whose stage moved in whole micrometres."""
WITHIN_UM = 1e-3
PLAUSIBLE_UM = (0.02, 2.0)


@dataclass(frozen=True, kw_only=True)
class Pixel:
    """Micrometres a pixel, and where the number is from ("" where the user said it)."""

    um: float
    note: str


@dataclass(frozen=True, kw_only=True)
class Fovs:
    """A table of FOV positions.

    Attributes
    ----------
    fov
        (n,) numbers.
    px, mm
        (n, 2) (x, y) where the table has them.
    """

    path: Path
    fov: NDArray[np.int64]
    px: NDArray[np.float64] | None
    mm: NDArray[np.float64] | None

    def corners(self, fov: NDArray[np.float64], *, um: float, where: object) -> NDArray[np.float64]:
        """Return (n, 2) px of the corners of these FOVs; one that is not in the table is an `InputError`."""
        px = self.px if self.px is not None else None if self.mm is None else self.mm * (1000.0 / um)
        if px is None:
            raise InputError(
                "the table of FOVs has no positions",
                where=self.path,
                hint="export the file anew from the vendor's software, or fetch it again",
            )
        order = np.argsort(self.fov)
        place = np.searchsorted(self.fov[order], fov)
        known = place < len(order)
        known[known] = self.fov[order][place[known]] == fov[known]
        if not known.all():
            absent = np.unique(fov[~known])
            raise InputError(
                "FOVs have no position",
                where=f"{where} and {self.path}",
                found=f"no FOV {listed([f'{number:g}' for number in absent])}; the table has {listed(self.fov)}",
                expected="every FOV in the table of positions",
            )
        corners: NDArray[np.float64] = px[order][place]
        return corners


def read_fovs(path: Path) -> Fovs:
    """Read ``fov_positions``: FOV and place in px, in mm or in both; column names in any case.

    Raises
    ------
    InputError
        A column is missing, a value is not a number, a FOV is given twice.
    """
    frame = read_table(path)
    frame.columns = frame.columns.str.lower()
    if "fov" not in frame.columns:
        raise InputError(
            "the table has no column fov", where=path, found=listed(list(frame.columns)), expected="fov (or FOV)"
        )
    fov = numbers(frame["fov"], where=path)
    if (fov != np.rint(fov)).any() or (np.abs(fov) >= 2**53).any() or len(np.unique(fov)) != len(fov):
        raise InputError(
            "FOV numbers are not whole or not unique",
            where=path,
            found=listed(frame["fov"].to_numpy()),
            expected="one row a FOV, numbered with whole numbers",
        )

    def pair(*choices: tuple[str, str]) -> NDArray[np.float64] | None:
        for x, y in choices:
            if x in frame.columns and y in frame.columns:
                return np.column_stack([numbers(frame[x], where=path), numbers(frame[y], where=path)])
        return None

    px = pair(("x_global_px", "y_global_px"))
    mm = pair(("x_global_mm", "y_global_mm"), ("x_mm", "y_mm"))
    if px is None and mm is None:
        raise InputError(
            "the table has no positions",
            where=path,
            found=listed(list(frame.columns)),
            expected="x_global_px and y_global_px, x_mm and y_mm, or x_global_mm and y_global_mm",
        )
    return Fovs(path=path, fov=fov.astype(np.int64), px=px, mm=mm)


def pixel_of(fovs: Fovs | None, *, um_per_unit: float | None) -> Pixel:
    """Return the pixel's size by fact where the FOVs tell it, else the vendor's.

    In order: the user's word; FOV positions in px and in mm, which give the ratio; positions in px that are all whole
    micrometres at 0.18 um a pixel and no whole pixels, as in the early releases; 0.120280945 um.
    """
    if um_per_unit is not None:
        return Pixel(um=um_per_unit, note="")
    if fovs is not None and fovs.px is not None:
        if fovs.mm is not None and (ratio := _ratio(fovs.px, fovs.mm)) is not None:
            return Pixel(um=ratio, note=f"{ratio:.9g} um a pixel, from the FOVs' positions in mm and px")
        um = fovs.px * EARLY_PIXEL_UM
        whole_um = np.abs(um - np.rint(um)) < WITHIN_UM
        whole_px = np.abs(fovs.px - np.rint(fovs.px)) < WITHIN_UM
        if whole_um.all() and not whole_px.all():
            note = f"{EARLY_PIXEL_UM} um a pixel, as in early releases: the FOVs then lie at whole um"
            return Pixel(um=EARLY_PIXEL_UM, note=note)
    note = f"{PIXEL_UM} um a pixel, the platform's value; ingest.um_per_unit sets another"
    return Pixel(um=PIXEL_UM, note=note)


def _ratio(px: NDArray[np.float64], mm: NDArray[np.float64]) -> float | None:
    """Return um a pixel from the axis along which the FOVs spread most; None where they do not, or it is no pixel."""
    if len(px) < 2:
        return None
    axis = int(np.argmax(np.ptp(mm, axis=0)))
    spread = float(np.ptp(px[:, axis]))
    ratio = float(np.ptp(mm[:, axis])) * 1000 / spread if spread > 0 else 0.0
    return ratio if PLAUSIBLE_UM[0] <= ratio <= PLAUSIBLE_UM[1] else None
