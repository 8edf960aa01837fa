"""The two witnesses of a spot's place, array indices and coordinates: do they agree, and what a slide's lattice is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.axis_fit import rounds_to_square
from stpatch.slides.formats.places import nearest_distance
from stpatch.slides.formats.tenx.lattice import PITCH_UM, is_hexagonal, row_column_ratio, row_step, scale_of
from stpatch.slides.lattice_fit import LatticeFit, find_lattice
from stpatch.slides.slide import Geometry

Verdict = Literal["agree", "bent", "transposed", "turned", "reversed", "mirrored", "disagree", "unknown"]

HALF = 0.5
"""Distance from the affine image of its array place, in pitches, that a spot must keep."""
COLLIDED = 0.05
"""Share of spots whose rounded array place is another spot's; more are sections joined."""

_WRONG, _FAR_SHARE, _PAIR, _PAIR_SHARE = 0.75, 0.01, 0.75, 0.005
_SQUARE = 0.05
_LISTED = 5
_FEWEST = 8


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What coordinates say about array indices.

    Attributes
    ----------
    verdict
        ``agree``; ``bent``: neighbours are neighbours, but no straight map fits; ``transposed``: rows run along x and
        columns along y (a mirror image); ``turned``: by a quarter, not mirrored; ``reversed``: by a half;
        ``mirrored``: one axis runs backwards; ``disagree``; ``unknown``: too few spots to tell.
    rows
        Row numbers of the spots that disagree.
    farthest
        Largest distance of a spot from where its indices say, in pitches.
    """

    verdict: Verdict
    rows: NDArray[np.intp]
    farthest: float


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A slide's places as both witnesses give them; fields as in `RawSlide`."""

    array: NDArray[np.int32] | None
    geometry: Geometry
    um_per_unit: float | None
    pitch: float | None
    notes: tuple[str, ...]

    @property
    def pitch_um(self) -> float | None:
        """Distance of neighbouring spots in micrometres, None where unknown."""
        return None if self.um_per_unit is None or self.pitch is None else self.um_per_unit * self.pitch


def seen_geometry(settled: Settled, xy: NDArray[np.float64]) -> str:
    """Return a probe's geometry: "" where spots without array indices round to a square lattice all the same."""
    if settled.geometry != "irregular" or settled.pitch is None:
        return settled.geometry
    return "" if rounds_to_square(xy, settled.pitch) else "irregular"


def compare(array: NDArray[np.int32], xy: NDArray[np.float64], *, hexagonal: bool) -> Comparison:
    """Return whether coordinates are an affine image of array indices.

    Two looks, since each misses something. The map of all indices to the coordinates, fitted by least squares and anew
    without the spots that lie far off, must leave no spot three quarters of a pitch away and at most 1 in 100 more than
    half a pitch. And neighbours on the array must be neighbours in the coordinates, one usual step apart (at most 1 in
    200 pairs is not): indices that jump over an empty row leave small distances, but wrong steps. Where only the first
    fails and a cubic map fits, the picture is bent, and the indices are right.
    """
    places = array.astype(np.float64) * ((3**0.5 / 2, 0.5) if hexagonal else (1.0, 1.0))  # in pitches
    none = np.zeros(0, np.intp)
    if len(array) < _FEWEST or np.linalg.matrix_rank(places - places.mean(axis=0)) < 2:
        return Comparison(verdict="unknown", rows=none, farthest=0.0)
    linear, away = _trimmed(places, xy)
    pairs = _wrong_steps(array, xy, linear, hexagonal=hexagonal)
    farthest = float(away.max())
    straight = farthest < _WRONG and (away > HALF).mean() <= _FAR_SHARE
    steady = len(pairs[0]) <= _PAIR_SHARE * pairs[1]
    if straight and steady:
        return Comparison(verdict=_orientation(linear), rows=none, farthest=farthest)
    if steady and pairs[1] > len(array) / 2 and _cubic(places, xy, linear).max() < HALF:
        return Comparison(verdict="bent", rows=none, farthest=farthest)
    rows = np.flatnonzero(away > HALF) if not straight else np.unique(pairs[0])
    return Comparison(verdict="disagree", rows=rows, farthest=farthest)


def _trimmed(places: NDArray[np.float64], xy: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the (2, 2) linear part of the map and every spot's distance from it in pitches."""
    kept = np.ones(len(places), bool)
    for _ in range(4):
        centre, middle = places[kept].mean(axis=0), xy[kept].mean(axis=0)
        linear = np.linalg.lstsq(places[kept] - centre, xy[kept] - middle, rcond=None)[0]
        away = _in_pitches((xy - middle) - (places - centre) @ linear, linear)
        closer = away <= max(HALF, float(np.median(away)))
        if (closer == kept).all() or np.linalg.matrix_rank(places[closer] - places[closer].mean(axis=0)) < 2:
            break
        kept = closer
    return linear, away


def _in_pitches(vectors: NDArray[np.float64], linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return lengths of coordinate vectors, undone from the map (whose axes may have units of their own)."""
    scale = np.linalg.norm(linear)
    if not scale > 0 or abs(np.linalg.det(linear)) < 1e-4 * scale**2:
        return np.full(len(vectors), np.inf)
    return np.asarray(np.linalg.norm(vectors @ np.linalg.inv(linear), axis=1), np.float64)


def _wrong_steps(
    array: NDArray[np.int32], xy: NDArray[np.float64], linear: NDArray[np.float64], *, hexagonal: bool
) -> tuple[NDArray[np.intp], int]:
    """Return the rows of spots whose neighbour on the array lies elsewhere, and the number of pairs."""
    index = array.astype(np.int64) - array.min(axis=0)
    width = int(index[:, 1].max()) + 5
    key = index[:, 0] * width + index[:, 1] + 2
    order = np.argsort(key, kind="stable")
    wrong: list[NDArray[np.intp]] = []
    n_pairs = 0
    for down, right in ((0, 2), (1, 1), (1, -1)) if hexagonal else ((0, 1), (1, 0)):
        wanted = key + down * width + right
        found = order[np.minimum(np.searchsorted(key, wanted, sorter=order), len(key) - 1)]
        there = np.flatnonzero(key[found] == wanted)
        if len(there) < 3:
            continue
        steps = xy[found[there]] - xy[there]
        off = _in_pitches(steps - np.median(steps, axis=0), linear)
        wrong.append(there[off > _PAIR])
        n_pairs += len(there)
    return (np.concatenate(wrong) if wrong else np.zeros(0, np.intp)), n_pairs


def _cubic(places: NDArray[np.float64], xy: NDArray[np.float64], linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return every spot's distance from the best map of third degree, in pitches."""
    u, v = ((places - places.mean(axis=0)) / np.maximum(np.ptp(places, axis=0), 1)).T
    terms = np.column_stack([u**i * v**j for i in range(4) for j in range(4 - i)])
    if len(places) < 3 * terms.shape[1]:
        return np.array([np.inf])
    fitted = terms @ np.linalg.lstsq(terms, xy, rcond=None)[0]
    return _in_pitches(xy - fitted, linear)


def _orientation(linear: NDArray[np.float64]) -> Verdict:
    """Name the map of (row, column) to (x, y): rows should run along y and columns along x, both forwards."""
    (row_x, row_y), (col_x, col_y) = linear
    mirrored = col_x * row_y - col_y * row_x < 0
    crossed = abs(row_x) + abs(col_y) > abs(row_y) + abs(col_x)
    if crossed:
        return "transposed" if mirrored else "turned"
    if mirrored:
        return "mirrored"
    return "reversed" if row_y < 0 else "agree"


def settle(
    xy: NDArray[np.float64],
    array: NDArray[np.int32] | None,
    *,
    ids: NDArray[np.object_],
    options: IngestSection,
    where: object,
    file_um: float | None = None,
    bin_um: tuple[float, str] | None = None,
    visium: bool | None = None,
    hexagonal: bool | None = None,
) -> Settled:
    """Return a slide's array indices, lattice and scale, after both witnesses were heard.

    Parameters
    ----------
    xy, array
        (n, 2) coordinates, and array indices where the file has them.
    options
        ``places`` says which witness counts where they disagree; ``um_per_unit`` and ``pitch_um`` are the user's.
    file_um
        Micrometres per unit where the file tells them.
    bin_um
        Micrometres of a bin's side, and what tells them.
    visium
        The file is Space Ranger's (True), may be (None: an array that is hexagonal has Visium's 100 um, which is
        noted), or tells nothing of it (False).
    hexagonal
        Whether the array counts as Visium's does; None: by its parity and its rows' distance.

    Raises
    ------
    InputError
        The witnesses disagree, or spots share a place of the array.
    """
    notes: list[str] = []
    fit: LatticeFit | None = None
    is_hex = False
    if array is not None and options.places == "coordinates":
        notes.append("array indices are not used: ingest.places is coordinates")
        array = None
    if array is not None:
        ratio = row_column_ratio(array, xy)
        square = ratio is not None and abs(ratio - 1) <= _SQUARE
        copied = np.array_equal(xy, array[:, ::-1]) or np.array_equal(xy, array)
        is_hex = is_hexagonal(array) and (copied or not square) if hexagonal is None else hexagonal
        if copied and is_hex:
            notes.append("the coordinates are the array indices: rows of a hexagonal array, without a scale")
            check_places(array, xy, ids=ids, hexagonal=True, where=where)
            um, more = _um(options, file_um=None, bin_um=None, array_um=None, pitch=None, on_lattice=True)
            return Settled(array=array, geometry="hex", um_per_unit=um, pitch=None, notes=(*notes, *more))
        array, more, fit = _heard(array, xy, ids=ids, hexagonal=is_hex, options=options, where=where)
        notes += more
    if array is not None:
        geometry: Geometry = "hex" if is_hex else "square"
        pitch, um, more = _scale(array, xy, geometry, where=where, visium=visium)
        notes += more
    else:
        fit = fit or find_lattice(xy)
        geometry, pitch, um = "irregular", nearest_distance(xy)[0], None
        if fit is not None:
            geometry, pitch, array = fit.geometry, fit.pitch, fit.array
            notes.append(f"array indices are from the coordinates: {fit}")
        elif options.places == "coordinates":
            notes.append("the coordinates lie on no lattice: grid.method lattice cannot be had")
    um, more = _um(options, file_um=file_um, bin_um=bin_um, array_um=um, pitch=pitch, on_lattice=array is not None)
    return Settled(array=array, geometry=geometry, um_per_unit=um, pitch=pitch, notes=(*notes, *more))


def _heard(
    array: NDArray[np.int32],
    xy: NDArray[np.float64],
    *,
    ids: NDArray[np.object_],
    hexagonal: bool,
    options: IngestSection,
    where: object,
) -> tuple[NDArray[np.int32] | None, list[str], LatticeFit | None]:
    """Return array indices that agree with the coordinates (None: only the lattice found from them does), and notes."""
    notes = check_places(array, xy, ids=ids, hexagonal=hexagonal, where=where)
    if options.places == "array":
        return array, notes, None
    found = compare(array, xy, hexagonal=hexagonal)
    if found.verdict == "disagree":
        fit = find_lattice(xy)
        if fit is not None and _renumbered(array, fit.array):
            notes.append(
                "array_row and array_col are numbers in order without the empty places between "
                f"({len(found.rows)} of {len(array)} spots do not lie where they say): not used"
            )
            return None, notes, fit
        raise disagreement(found, array, xy, ids=ids, where=where)
    if found.verdict == "bent":
        notes.append(
            f"coordinates are a bent image of the array (up to {found.farthest:.2g} pitches from a straight one): "
            "neighbours agree, places are from the array"
        )
    elif found.verdict == "transposed" and not hexagonal:
        notes.append("array_row runs along x and array_col along y: the two are taken for each other, rows are y")
        return np.ascontiguousarray(array[:, ::-1]), notes, None
    elif found.verdict in ("transposed", "turned", "reversed", "mirrored"):
        words = {
            "transposed": "mirrored: its rows run along x and its columns along y",
            "turned": "turned by a quarter",
            "reversed": "turned by a half",
            "mirrored": "mirrored: one of its axes runs backwards",
        }[found.verdict]
        notes.append(f"against the coordinates the array is {words}; pixels are laid by the array")
    return array, notes, None


def check_places(
    array: NDArray[np.int32], xy: NDArray[np.float64], *, ids: NDArray[np.object_], hexagonal: bool, where: object
) -> list[str]:
    """Return a note on spots that share an array place by rounding; raise where they are more than that."""
    key = (array[:, 0].astype(np.int64) << 32) + array[:, 1]
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[group] != np.arange(len(key)))
    if not len(again):
        return []
    elsewhere = (xy[again] != xy[first[group[again]]]).any(axis=1)
    if hexagonal or len(again) > COLLIDED * len(key) or not elsewhere.all():
        one, other = int(first[group[again[0]]]), int(again[0])
        raise InputError(
            "two spots have one place on the array",
            where=f"{where}, rows {one} and {other}, spots {ids[one]} and {ids[other]}",
            found=f"array_row, array_col = {array[one].tolist()} ({len(again)} such of {len(key)} spots)",
            hint="if the file joins several slides, pick one: ingest.select: {column: value}, or samplesheet columns "
            "select.<column>; or take the spots out",
        )
    return [
        f"{len(again)} spots share the array place of another, such as {ids[first[group[again[0]]]]} and "
        f"{ids[again[0]]} (rounded places): grid.collisions says what becomes of them"
    ]


def _renumbered(array: NDArray[np.int32], true: NDArray[np.int32]) -> bool:
    """Whether indices keep the order of the true places, row by row or column by column, and so only number them."""
    for first, second in ((0, 1), (1, 0)):
        order = np.lexsort((array[:, second], array[:, first]))
        by = true[order].astype(np.int64)
        key = (by[:, first] << 32) + by[:, second]
        if (np.diff(key) > 0).all():
            return True
    return False


def disagreement(
    found: Comparison,
    array: NDArray[np.int32],
    xy: NDArray[np.float64],
    *,
    where: object,
    ids: NDArray[np.object_] | None = None,
) -> InputError:
    """Return the error of witnesses that disagree: which spots, and the key that says which one is right."""
    examples = "; ".join(
        f"row {row}"
        + ("" if ids is None else f", spot {ids[row]}")
        + f": array {array[row].tolist()}, x, y {np.round(xy[row], 3).tolist()}"
        for row in found.rows[:_LISTED]
    )
    return InputError(
        "array indices and coordinates disagree",
        where=where,
        found=f"{len(found.rows)} of {len(array)} spots do not lie where their array_row and array_col say "
        f"(half a pitch is allowed), such as {examples}",
        expected="coordinates that are an affine image of the array indices",
        hint="one of the two belongs to other spots: mend the file, or say which one is right: "
        "ingest.places: array or coordinates (or a samplesheet column places)",
    )


def _scale(
    array: NDArray[np.int32], xy: NDArray[np.float64], geometry: Geometry, *, where: object, visium: bool | None
) -> tuple[float | None, float | None, list[str]]:
    """Return pitch and um per unit of an array, by Visium's 100 um where it is hexagonal, and notes."""
    if geometry != "hex":
        return row_step(array, xy), None, []
    if visium is False:
        return nearest_distance(xy)[0], None, []
    scale = scale_of(array, xy, where=str(where))
    um = scale.um_per_unit
    pitch = nearest_distance(xy)[0] if scale.um_per_unit is None else PITCH_UM / scale.um_per_unit
    notes = list(scale.notes)
    if um is not None and visium is None:
        notes.append(f"array indices lie as on a Visium array: its {PITCH_UM:g} um between spots are assumed")
    return pitch, um, notes


def _um(
    options: IngestSection,
    *,
    file_um: float | None,
    bin_um: tuple[float, str] | None,
    array_um: float | None,
    pitch: float | None,
    on_lattice: bool,
) -> tuple[float | None, list[str]]:
    """Return um per unit: the user's, else the file's, else the platform's; say where nothing tells it."""
    if options.um_per_unit is not None:
        given = options.um_per_unit
        known = array_um or file_um
        if known is not None and abs(given / known - 1) > _SQUARE:
            return given, [f"um_per_unit {given:g} is given; the files say {known:.5g}"]
        return given, []
    if options.pitch_um is not None and pitch:
        return options.pitch_um / pitch, [
            f"um per unit {options.pitch_um / pitch:.5g} is from pitch_um {options.pitch_um:g} as given and the spots' "
            f"distance {pitch:.5g}"
        ]
    if array_um is not None:
        return array_um, []
    if file_um is not None:
        return file_um, []
    if bin_um is not None and pitch:
        return bin_um[0] / pitch, [f"um per unit is from {bin_um[1]} and the bins' distance"]
    if on_lattice:
        return None, ["nothing tells the micrometres: set pitch_um or um_per_unit for sizes in um"]
    return None, []
