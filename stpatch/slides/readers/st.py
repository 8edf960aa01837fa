"""Legacy Spatial Transcriptomics arrays: a counts table whose spots are named for their place, and a spots table.

Spots are named ``10x13`` or ``10_13``, x by y, in rows or in columns; some files hold adjusted places
(``16.92x9.015``), which are rounded to the array for its indices and kept as coordinates. The spots table
(``*_selection.tsv``, ``alignment_table_*``) has ``x, y`` and any of ``new_x, new_y``, ``pixel_x, pixel_y``,
``selected``. A table of another section of the same array has the same places, so a mix-up shows only where no place
agrees; swapped x and y do not show at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.config import IngestSection
from stpatch.errors import InputError, InputMissingError
from stpatch.slides.formats.names import check_unique, gene_frame, listed
from stpatch.slides.formats.places import check_finite, fit_affine, nearest_distance, one_parity
from stpatch.slides.formats.text.delimited import numbers, read_table
from stpatch.slides.formats.text.dense import read_dense, transposed
from stpatch.slides.formats.text.lines import Head, first_cells, head_or_none, read_head
from stpatch.slides.geometry import compare, disagreement, settle
from stpatch.slides.readers.registry import register
from stpatch.slides.slide import Geometry, RawSlide
from stpatch.slides.source import Probe, SlideSource

PITCH_UM = 200.0
"""Between spots of the first arrays (spot 100 um)."""
CONTROLS = (r"__.*", r"ambiguous\[.*")
"""What read counters write beside genes: ``__no_feature``, ``__ambiguous[A+B]``."""
LARGEST_PLACE = 10**6
"""Array indices lie below: the six digits of a spot's name."""
SPOT_NAME = re.compile(r"X?(\d{1,6}(?:\.\d+)?)[x_](\d{1,6}(?:\.\d+)?)")
SPOT_COLUMNS = {"", "x", "y", "new_x", "new_y", "pixel_x", "pixel_y", "selected"}
"""Columns of spots tables, and of nothing else: a label table has more."""

_TEXT_SUFFIXES = (".tsv", ".csv", ".txt", ".tsv.gz", ".csv.gz", ".txt.gz")
_STEM_WORDS = re.compile(r"[_.-](stdata|st_data|cnts|counts?|count_matrix|matrix|data)$", re.IGNORECASE)
_LOOKED_AT = 50
_FAR_OFF = 0.5
ROUNDED = 0.25
"""Distance from whole numbers, in array steps, that most places of an array keep: what a lattice allows, too."""
FIRST_ARRAY = 36
"""The first arrays have 33 x 35 places of 200 um; larger indices are another array's."""
_ADJUSTED_SHARE, _FEW, _SPARSE = 0.35, 20, 2.5


@dataclass(frozen=True, kw_only=True)
class SpotTable:
    """A spots table; all arrays have one row a spot.

    Attributes
    ----------
    places
        (n, 2) float64 ``x, y``; array places.
    adjusted, pixels
        (n, 2) float64 ``new_x, new_y`` and ``pixel_x, pixel_y``, None without these columns.
    selected
        (n,) bool.
    """

    path: Path
    places: NDArray[np.float64]
    adjusted: NDArray[np.float64] | None
    pixels: NDArray[np.float64] | None
    selected: NDArray[np.bool_]


@register
class StReader:
    """Reader of legacy ST slides."""

    platform = "st"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Recognize a counts table by the spot names of its first column or its header."""
        found = _counts_table(source.path)
        if found is None:
            return None
        head, in_rows = found
        spots = _spots_path(source, head.path)
        names = len(head.names) - 1
        example = head.first[0] if in_rows else head.names[1]
        spot_names = first_cells(head.path, head.delimiter)[1:] if in_rows else head.names[1:]
        known = [name for name in spot_names if SPOT_NAME.fullmatch(name)]
        laid = _laid(_places(known, head.path, in_rows=in_rows), spots, known, options)
        unit = "array" if spots is None or read_spots(spots).pixels is None else "px"
        um = laid.um_per_unit
        return Probe(
            platform=self.platform,
            reason=f"spots named for their array place ({example}) in {'rows' if in_rows else 'columns'}"
            + (f", with {spots.name}" if spots else ""),
            files=(head.path,) if spots is None else (head.path, spots),
            n_spots=None if in_rows else names,
            n_genes=names if in_rows else None,
            unit=unit,
            pitch_um=None if um is None or laid.pitch is None else um * laid.pitch,
            um_per_unit=um,
            geometry=laid.geometry,
            notes=laid.notes,
        )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:
        """Read counts and places; spots without a row in the spots table are outside tissue."""
        path = probe.files[0]
        found = _counts_table(path)
        if found is None:
            raise InputError(
                "the counts table changed since it was looked at",
                where=f"slide {source.slide_id}, {path}",
                hint="run it again when nothing writes to the file",
            )
        table = read_dense(path, delimiter=found[0].delimiter, normalized=options.values == "normalized")
        in_rows = found[1]
        spot_ids, genes = (table.row_ids, table.names) if in_rows else (table.names, table.row_ids)
        check_unique(spot_ids, what="a spot", where=path)
        places = _places(spot_ids, path, in_rows=in_rows)
        laid = _laid(places, probe.files[1] if len(probe.files) > 1 else None, spot_ids, options)
        return RawSlide(
            counts=table.counts if in_rows else transposed(table.counts),
            spot_ids=spot_ids,
            genes=gene_frame(genes),
            xy=np.ascontiguousarray(laid.xy),
            array=laid.array,
            geometry=laid.geometry,
            um_per_unit=laid.um_per_unit,
            pitch=laid.pitch,
            spots=pd.DataFrame({"in_tissue": laid.in_tissue}),
            control_patterns=CONTROLS,
            notes=laid.notes,
        )


@dataclass(frozen=True, kw_only=True)
class _Laid:
    """Where spots lie, as in `RawSlide`; (n,) `in_tissue` by the spots table."""

    xy: NDArray[np.float64]
    in_tissue: NDArray[np.bool_]
    array: NDArray[np.int32] | None
    geometry: Geometry
    um_per_unit: float | None
    pitch: float | None
    notes: tuple[str, ...]


def _laid(
    places: NDArray[np.float64],
    spots_path: Path | None,
    names: Sequence[str] | NDArray[np.object_],
    options: IngestSection,
) -> _Laid:
    """Lay spots out by the places of their names and by their spots table."""
    notes: list[str] = []
    spots = None if spots_path is None else read_spots(spots_path)
    if not _is_array(places):
        notes.append(
            "spot names hold places, but not those of an array (they do not lie near whole numbers, or far from each "
            "other): they are taken as coordinates of unknown unit"
        )
        settled = settle(places, None, ids=np.asarray(names, dtype=object), options=options, where=spots_path or "")
        return _Laid(
            xy=places, in_tissue=np.ones(len(places), bool), notes=(*notes, *settled.notes), array=settled.array,
            geometry=settled.geometry, um_per_unit=settled.um_per_unit, pitch=settled.pitch,
        )  # fmt: skip
    array = np.rint(places[:, ::-1]).astype(np.int32)
    if (places != np.rint(places)).any():
        collisions = len(array) - len(np.unique(array, axis=0))
        notes.append(
            "spot names hold adjusted places: rounded for the array indices"
            + (f"; {collisions} spots share the index of another" if collisions else "")
        )
    xy, in_tissue = places, np.ones(len(places), bool)
    if spots is None:
        notes.append("there is no spots table: coordinates are the spot names' array places, all spots in tissue")
    else:
        xy, in_tissue = _coordinates(places, spots, notes)
        _hear_pixels(spots, options, notes)
    pitch, um_per_unit = _scale(places, array, xy, options, notes)
    return _Laid(
        xy=xy,
        in_tissue=in_tissue,
        array=array,
        geometry="square",
        um_per_unit=um_per_unit,
        pitch=pitch,
        notes=tuple(notes),
    )


def _hear_pixels(spots: SpotTable, options: IngestSection, notes: list[str]) -> None:
    """Hold a spots table's pixels against its array places, where these are whole numbers."""
    if spots.pixels is None or (spots.places != np.rint(spots.places)).any():
        return
    array = spots.places[:, ::-1].astype(np.int32)
    found = compare(array, spots.pixels, hexagonal=False)
    if found.verdict == "disagree" and options.places == "auto":
        raise disagreement(found, array, spots.pixels, where=spots.path)
    if found.verdict == "transposed":
        notes.append("the pixels of the spots table are transposed against x and y: rows of pixels are laid by y")


def _is_array(places: NDArray[np.float64]) -> bool:
    """Whether places are an array's: most lie near whole numbers, and spots have neighbours."""
    if not len(places):
        return True
    off = np.abs(places - np.rint(places)).max(axis=1)
    if (off > ROUNDED).mean() > _ADJUSTED_SHARE:
        return False
    near = nearest_distance(np.rint(places))[0]
    return len(places) < _FEW or near is None or near < _SPARSE


def _counts_table(path: Path) -> tuple[Head, bool] | None:
    """Return the head of the counts table, and whether spots are in its rows; None where there is none."""
    if path.is_file():
        return _as_counts(path)
    candidates = sorted(p for p in path.iterdir() if p.name.lower().endswith(_TEXT_SUFFIXES) and p.is_file())
    tables = [table for table in map(_as_counts, candidates) if table is not None]
    if len(tables) > 1:
        raise InputError(
            "the folder holds several ST counts tables",
            where=path,
            found=listed([head.path.name for head, _ in tables]),
            expected="one",
            hint="name the table itself as the slide's path",
        )
    return tables[0] if tables else None


def _as_counts(path: Path) -> tuple[Head, bool] | None:
    head = head_or_none(path)
    if head is None or len(head.names) < 2 or len(head.first) < 2:
        return None
    if not re.fullmatch(r"\d+(\.\d*)?([eE][+-]?\d+)?", head.first[1]):
        return None
    in_rows = SPOT_NAME.fullmatch(head.first[0]) is not None
    in_columns = all(SPOT_NAME.fullmatch(name) for name in head.names[1 : _LOOKED_AT + 1])
    return (head, in_rows) if in_rows != in_columns else None


def _places(names: Iterable[str], path: Path, *, in_rows: bool) -> NDArray[np.float64]:
    places = []
    for number, name in enumerate(names):
        match = SPOT_NAME.fullmatch(name)
        if match is None:
            raise InputError(
                "a spot is not named for its place",
                where=f"{path} {'row' if in_rows else 'column'} {number + 2}",
                found=repr(name),
                expected="x by y, as in 10x13 or 10_13",
            )
        places.append((float(match[1]), float(match[2])))
    return np.array(places, dtype=np.float64).reshape(-1, 2)


def _spots_path(source: SlideSource, counts: Path) -> Path | None:
    """Return the spots table: the named one, else the one of the slide's name beside the counts or next door."""
    if source.coordinates is not None:
        if not source.coordinates.is_file():
            raise InputMissingError(
                "there is no such spots table",
                where=source.coordinates,
                hint="check the path in the samplesheet's column coordinates",
            )
        return source.coordinates
    word = _whole_word(counts)
    folder = counts.absolute().parent
    candidates = _candidates([folder], word, counts)
    if not candidates and folder.parent != folder.parent.parent:
        candidates = _candidates(_folders(folder.parent, but=folder), word, counts, without_counts=True)
    if len({path.read_bytes() for path in candidates}) > 1:
        raise InputError(
            "several spots tables fit this slide's name, and they differ",
            where=counts,
            found=listed([str(path) for path in candidates]),
            hint="name one: a coordinates column in the samplesheet",
        )
    return candidates[0] if candidates else None


def _whole_word(counts: Path) -> re.Pattern[str]:
    stem = re.sub(r"\.(tsv|csv|txt)?(\.gz)?$", "", counts.name, flags=re.IGNORECASE)
    stem = _STEM_WORDS.sub("", stem)
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(stem)}(?![A-Za-z0-9])")


def _folders(parent: Path, *, but: Path) -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if path != but and path.is_dir())
    except PermissionError:
        return []


def _candidates(
    folders: Sequence[Path], word: re.Pattern[str], counts: Path, *, without_counts: bool = False
) -> list[Path]:
    """Return the spots tables of that name; a folder next door that has such counts too is another slide's."""
    found: list[Path] = []
    for folder in folders:
        try:
            paths = sorted(folder.iterdir())
        except PermissionError:
            continue
        named = [p for p in paths if p.name.lower().endswith(_TEXT_SUFFIXES) and word.search(p.name) and p.is_file()]
        if without_counts and any(_as_counts(path) for path in named):
            continue
        found += [path for path in named if path.name != counts.name and _is_spots(path)]
    return found


def _is_spots(path: Path) -> bool:
    head = head_or_none(path)
    columns = set() if head is None else set(head.names)
    return columns >= {"x", "y"} and columns <= SPOT_COLUMNS and len(columns - {""}) > 2


def read_spots(path: Path) -> SpotTable:
    """Read a spots table.

    Raises
    ------
    InputError
        Columns ``x`` and ``y`` are missing, a cell is not a number, or a place is given twice.
    """
    head = read_head(path)
    if not {"x", "y"} <= set(head.names):
        raise InputError(
            "the spots table has no columns x and y",
            where=path,
            found=f"columns {listed(head.names)}",
            hint="give its header the names x, y[, pixel_x, pixel_y][, selected], or read the slide as platform table",
        )
    table = read_table(path, delimiter=head.delimiter)

    def pair(x: str, y: str) -> NDArray[np.float64] | None:
        if x not in table or y not in table:
            return None
        xy = np.column_stack([numbers(table[name], where=path) for name in (x, y)])
        check_finite(xy, where=f"{path}, columns {x} and {y}")
        return xy

    places = np.column_stack([numbers(table[name], where=path) for name in ("x", "y")])
    far = (np.abs(places) >= LARGEST_PLACE).any(axis=1)
    if far.any():
        row = int(np.argmax(far))
        raise InputError(
            "a place is far from any array",
            where=f"{path} row {row + 2}",
            found=f"x, y = {places[row].tolist()}",
            expected=f"array indices below {LARGEST_PLACE}",
        )
    _, first, count = np.unique(places, axis=0, return_index=True, return_counts=True)
    if (count > 1).any():
        row = int(first[count > 1][0])
        raise InputError(
            "a place is given twice",
            where=f"{path} row {row + 2}",
            found=f"x, y = {places[row].tolist()}",
            hint="keep one row a place",
        )
    selected = numbers(table["selected"], where=path) != 0 if "selected" in table else np.ones(len(table), bool)
    return SpotTable(
        path=path,
        places=places,
        adjusted=pair("new_x", "new_y"),
        pixels=pair("pixel_x", "pixel_y"),
        selected=selected,
    )


def _coordinates(
    places: NDArray[np.float64], spots: SpotTable, notes: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return (n, 2) coordinates and (n,) in tissue of the counts' spots; the spots table's pixels where it has them."""
    row = _rows_of(places, spots)
    known = row >= 0
    if not known.any():
        raise InputError(
            "no spot of the counts is in the spots table: it belongs to another slide",
            where=spots.path,
            found=f"places such as {listed(['x'.join(f'{v:g}' for v in place) for place in spots.places[:3]])}",
            expected=f"places such as {listed(['x'.join(f'{v:g}' for v in place) for place in places[:3]])}",
            hint="name the right table: a coordinates column in the samplesheet",
        )
    unused = int(spots.selected.sum() - spots.selected[row[known]].sum())
    if unused:
        notes.append(f"{unused} selected rows of {spots.path.name} have no counts")
    missing = int((~known).sum())
    if missing:
        notes.append(f"{missing} spots are not in {spots.path.name}: outside tissue")
    in_tissue = known.copy()
    in_tissue[known] = spots.selected[row[known]]
    xy = places.copy()
    if spots.pixels is None:
        if spots.adjusted is not None:
            xy[known] = spots.adjusted[row[known]]
        return xy, in_tissue
    affine = fit_affine(places[known], spots.pixels[row[known]])
    if affine is None and missing:
        notes.append(f"too few places in {spots.path.name} to place the other spots in pixels: array places instead")
        return xy, in_tissue
    if affine is not None and affine.residual > _FAR_OFF:
        raise InputError(
            "pixel positions do not follow the array places",
            where=spots.path,
            found=f"half of the spots lie more than {affine.residual:.2g} array steps from where they should",
            hint="the table is damaged or belongs to another slide",
        )
    if affine is not None:
        xy = affine(places)
    xy[known] = spots.pixels[row[known]]
    return xy, in_tissue


def _rows_of(places: NDArray[np.float64], spots: SpotTable) -> NDArray[np.int64]:
    """Return (n,) the spots table's row of each place, -1 without one.

    Places are compared with ``x, y``, with ``new_x, new_y`` and after rounding; what agrees most is taken.
    """
    keys = [(places, spots.places, 3), (np.rint(places), np.rint(spots.places), 0)]
    if spots.adjusted is not None:
        keys.insert(1, (places, spots.adjusted, 2))
    best = np.full(len(places), -1)
    for ours, theirs, decimals in keys:
        row_of: dict[tuple[float, float], int] = {}
        for row, place in enumerate(np.round(theirs, decimals).tolist()):
            row_of.setdefault((place[0], place[1]), row)
        rows = np.array([row_of.get((place[0], place[1]), -1) for place in np.round(ours, decimals).tolist()])
        if (rows >= 0).sum() > (best >= 0).sum():
            best = rows
    return best


def _scale(
    places: NDArray[np.float64],
    array: NDArray[np.int32],
    xy: NDArray[np.float64],
    options: IngestSection,
    notes: list[str],
) -> tuple[float | None, float | None]:
    """Return pitch and um per unit: 200 um an array step, measured in coordinate units by regression.

    Later arrays put a second lattice between the spots of the first (every place has an even x + y, neighbours lie
    diagonally). Their pitch is not written in the files, and no public source was at hand: it is left unknown until
    the config gives ``ingest.pitch_um`` or ``ingest.um_per_unit``.
    """
    affine = fit_affine(places, xy)
    step = None if affine is None else affine.unit
    checkerboard = one_parity(array) and (nearest_distance(array.astype(np.float64))[0] or 0) > 1.4
    if step is None:
        return None, options.um_per_unit
    pitch = step * 2**0.5 if checkerboard else step
    if options.um_per_unit is not None:
        return pitch, options.um_per_unit
    if options.pitch_um is not None:
        return pitch, options.pitch_um / pitch
    if checkerboard:
        notes.append("spots lie on a checkerboard of unknown pitch: set ingest.pitch_um for sizes in um")
        return pitch, None
    if int(array.max(initial=0)) > FIRST_ARRAY:
        notes.append(
            f"places up to {int(array.max())} are of no array of {PITCH_UM:g} um (33 x 35): the pitch is unknown; set "
            "pitch_um (as ingest key or samplesheet column) for sizes in um"
        )
        return pitch, None
    notes.append(
        f"{PITCH_UM:g} um between spots are assumed, as on the first ST arrays: nothing in the files tells it; set "
        "pitch_um (as ingest key or samplesheet column) where the chip has another (DBiT-seq: 10 to 50)"
    )
    return pitch, PITCH_UM / pitch
