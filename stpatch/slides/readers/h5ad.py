"""AnnData, as ``.h5ad`` or zarr: Visium through scanpy, HEST, Curio, converted CosMx and everything else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.feature_types import CONTROL_NAMES
from stpatch.slides.formats.barcodes import flags as flag_words
from stpatch.slides.formats.hdf5.anndata_group import (
    AnnDataGroup,
    anndata_group,
    is_anndata,
    scale_factors,
    zarr_attributes,
)
from stpatch.slides.formats.hdf5.files import looks_hdf5
from stpatch.slides.formats.hdf5.layers import choice_notes, counts_key, named_key, read_counts, read_features
from stpatch.slides.formats.names import check_unique
from stpatch.slides.formats.places import check_finite, named_axes
from stpatch.slides.formats.tenx.lattice import is_hexagonal
from stpatch.slides.geometry import Settled, compare, seen_geometry, settle
from stpatch.slides.readers.registry import register
from stpatch.slides.selection import refuse_joined, select_rows, wishes_of
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

SPATIAL_KEYS = ("obsm/spatial", "obsm/X_spatial")
PIXEL_COLUMNS = ("pxl_col_in_fullres", "pxl_row_in_fullres")
GLOBAL_KEYS = ("obsm/global", "obsm/spatial_fov")
GLOBAL_COLUMNS = ("CenterX_global_px", "CenterY_global_px")
ARRAY_COLUMNS = ("array_row", "array_col")
PLAIN_ARRAY_COLUMNS = ("row", "col")
"""What Seurat's files call array indices; other files may call anything so."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """The slide's own rows of a group, and where they lie.

    Attributes
    ----------
    rows
        (all rows,) which are the slide's; None = all.
    obs
        Their spot table, its index their ids.
    xy
        (spots, 2) coordinates of these rows.
    """

    rows: NDArray[np.bool_] | None
    obs: pd.DataFrame
    xy: NDArray[np.float64]
    settled: Settled
    notes: tuple[str, ...]


@register
class H5ad:
    """Reader of one AnnData object with coordinates."""

    platform = "h5ad"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Recognize AnnData by its encoding marks; sizes come from headers."""
        path = source.path
        if path.suffix == ".h5ad" and path.is_file() and not looks_hdf5(path):
            raise InputError(
                "the file ends in .h5ad but is not an HDF5 file", where=path, hint="fetch it again, or repair it"
            )
        if in_spatialdata(path) or not is_anndata(path):
            return None
        with anndata_group(path) as group:
            return probe_group(group, source, options, platform=self.platform)

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:  # noqa: ARG002
        """Read counts, coordinates and the spot table."""
        with anndata_group(source.path) as group:
            return read_group(group, source, options)


def in_spatialdata(path: Path) -> bool:
    """Whether `path` is a SpatialData store or a table inside one (its reader knows their regions)."""
    if not path.is_dir():
        return False
    for folder in (path, path.parent.parent if path.parent.name in ("tables", "table") else path):
        attributes = zarr_attributes(folder)
        if attributes is not None and ("spatialdata_attrs" in attributes or (folder / "tables").is_dir()):
            return True
    return False


def matrix_key(group: AnnDataGroup, *, normalized: bool, layer: str | None) -> str:
    """Return the matrix to read: ``ingest.layer``'s, else X for normalized values and the raw counts' otherwise."""
    if normalized:
        return named_key(group, layer or "X")
    return counts_key(group, layer=layer)


def probe_group(group: AnnDataGroup, source: SlideSource, options: IngestSection, *, platform: str) -> Probe:
    """Describe an AnnData group by its headers and its spot table."""
    key = matrix_key(group, normalized=options.values == "normalized", layer=options.layer)
    n_genes = group.shape(key)[1]
    obs = group.frame("obs")
    place = _coordinates_key(group, list(obs.columns))
    placed = read_places(group, obs, source, options)
    path = group.path
    return Probe(
        platform=platform,
        reason=f"AnnData encoding, coordinates in {place}",
        files=tuple(sorted(item for item in path.rglob("*") if item.is_file())) if path.is_dir() else (path,),
        n_spots=len(placed.obs),
        n_genes=n_genes,
        unit="px" if set(ARRAY_COLUMNS) <= set(obs.columns) or group.has("uns/spatial") else "unknown",
        spot_columns=tuple(str(name) for name in obs.columns),
        um_per_unit=placed.settled.um_per_unit,
        pitch_um=placed.settled.pitch_um,
        geometry=seen_geometry(placed.settled, placed.xy),
        notes=(*placed.notes, *matrix_notes(group, key, options)),
    )


def matrix_notes(group: AnnDataGroup, key: str, options: IngestSection) -> tuple[str, ...]:
    """Return why the counts are from this matrix, as reading them says."""
    return () if options.values == "normalized" else choice_notes(group, key, layer=options.layer)


def _coordinates_key(group: AnnDataGroup, columns: list[str]) -> str:
    for key in SPATIAL_KEYS:
        if group.has(key):
            return key
    pair = named_axes([name for name in columns if name not in (*ARRAY_COLUMNS, *PLAIN_ARRAY_COLUMNS)])
    if pair is not None:
        return f"obs[{pair[0]}, {pair[1]}]"
    raise InputError(
        "the AnnData file has no coordinates",
        where=group.path,
        found=f"obsm: {', '.join(group.keys('obsm')) or 'empty'}; obs: {', '.join(columns) or 'no columns'}",
        expected='obsm["spatial"], or obs columns x and y',
        hint="rename the columns that hold them to x and y",
    )


class Given(NamedTuple):
    """What is known of a group's rows from elsewhere.

    Attributes
    ----------
    select
        (rows,) which rows may be the slide's; None = all.
    xy
        (rows, 2) coordinates; None = the group's own.
    bin_um
        Micrometres of a bin's side and what tells them, where it is not the group.
    """

    select: NDArray[np.bool_] | None = None
    xy: NDArray[np.float64] | None = None
    bin_um: tuple[float, str] | None = None


NOTHING_GIVEN = Given()


def read_places(
    group: AnnDataGroup,
    obs: pd.DataFrame,
    source: SlideSource,
    options: IngestSection,
    *,
    given: Given = NOTHING_GIVEN,
) -> Placed:
    """Pick the slide's rows and settle where they lie; what `probe` tells and what `read` uses."""
    select, xy, bin_um = given
    all_ids: NDArray[np.object_] = obs.index.to_numpy(dtype=object)
    rows = np.ones(len(obs), bool) if select is None else select
    wishes = wishes_of(source, options)
    if select is not None:  # the reader has chosen the region itself
        wishes = [wish for wish in wishes if wish.column != "region" or wish.needed]
    where = group.where("obs")
    picked, notes = select_rows(_columns_of(obs[rows]), all_ids[rows], wishes, where=where)
    if picked is not None:
        rows = rows.copy()
        rows[rows] = picked
    own = obs[rows]
    if xy is None:
        xy, more = read_coordinates(group, obs, rows)
        notes += more
    else:
        xy = xy[rows]
    ids = all_ids[rows]
    check_unique(ids, what="a spot id", where=where)
    check_finite(xy, ids=ids, where=group.where("coordinates"))
    array, more = _array_indices(own, xy, group)
    notes += more
    notes += refuse_joined(
        xy,
        _columns_of(own.drop(columns=[*ARRAY_COLUMNS, *PLAIN_ARRAY_COLUMNS], errors="ignore")),
        ids,
        where=where,
        array=array,
        single=_is_single(group) or bool(wishes) or select is not None,
        libraries=[name for name in group.keys("uns/spatial") if group.keys(f"uns/spatial/{name}")],
    )
    factors = scale_factors(group, first=[value for wish in wishes for value in wish.values])
    settled = settle(
        xy,
        array,
        ids=ids,
        options=options,
        where=where,
        file_um=factors.get("microns_per_pixel"),
        bin_um=(factors["bin_size_um"], "the file's bin_size_um") if "bin_size_um" in factors else bin_um,
    )
    return Placed(rows=None if rows.all() else rows, obs=own, xy=xy, settled=settled, notes=(*notes, *settled.notes))


def _columns_of(obs: pd.DataFrame) -> dict[str, pd.Series]:
    return {str(name): obs[name] for name in obs.columns}


def _is_single(group: AnnDataGroup) -> bool:
    """Return what CELLxGENE's ``uns["spatial"]["is_single"]`` says; True where it is not there."""
    key = "uns/spatial/is_single"
    return bool(np.asarray(group.read(key)).all()) if group.has(key) else True


def read_group(
    group: AnnDataGroup,
    source: SlideSource,
    options: IngestSection,
    *,
    given: Given = NOTHING_GIVEN,
) -> RawSlide:
    """Read an AnnData group as one slide."""
    obs = group.frame("obs")
    notes: tuple[str, ...] = ()
    if options.values == "normalized":
        key = matrix_key(group, normalized=True, layer=options.layer)
        counts = group.matrix(key, normalized=True)
    else:
        key, counts, notes = read_counts(group, layer=options.layer)
    genes = read_features(group, key)
    if counts.shape != (len(obs), len(genes)):
        raise InputError(
            "the matrix and its tables differ in size",
            where=group.where(key),
            found=f"{counts.shape[0]} x {counts.shape[1]}",
            expected=f"{len(obs)} x {len(genes)}, the rows of obs and var",
        )
    placed = read_places(group, obs, source, options, given=given)
    settled = placed.settled
    return RawSlide(
        counts=counts if placed.rows is None else sparse.csr_matrix(counts[placed.rows]),
        spot_ids=placed.obs.index.to_numpy(dtype=object),
        genes=genes,
        xy=np.ascontiguousarray(placed.xy, dtype=np.float64),
        array=settled.array,
        geometry=settled.geometry,
        um_per_unit=settled.um_per_unit,
        pitch=settled.pitch,
        spots=_spot_table(placed.obs, group),
        control_patterns=CONTROL_NAMES,
        notes=(*notes, *placed.notes),
    )


def read_coordinates(
    group: AnnDataGroup, obs: pd.DataFrame, rows: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return (rows that are true, 2) coordinates (x, y) and notes.

    ``obsm["spatial"]``, else the columns of obs that are named for x and y; those local to fields of view give way to
    global ones, or are refused.
    """
    place = _coordinates_key(group, list(obs.columns))
    own = obs[rows]
    notes: tuple[str, ...] = ()
    if place.startswith("obsm/"):
        xy, notes = _obsm(group, place, len(obs))
        xy = xy[rows]
        if set(PIXEL_COLUMNS) <= set(obs.columns) and not notes:
            pixels = _columns(own, list(PIXEL_COLUMNS), group)
            if not np.allclose(pixels, xy) and np.allclose(pixels[:, ::-1], xy):
                xy, notes = (
                    pixels,
                    (f"{place} holds rows before columns: x and y are from obs {', '.join(PIXEL_COLUMNS)}",),
                )
    else:
        names = place[4:-1].split(", ")
        xy = _columns(own, names, group)
        if names != ["x", "y"] and names != list(PIXEL_COLUMNS):
            notes = (f"coordinates are from obs: x is {names[0]}, y is {names[1]}",)
    if "fov" not in own or not _is_local(xy, own["fov"]):
        return xy, notes
    for key in GLOBAL_KEYS:
        if group.has(key):
            other = _obsm(group, key, len(obs))[0][rows]
            if not _is_local(other, own["fov"]):
                return other, (f"{place} is local to each field of view: coordinates are from {key}",)
    if set(GLOBAL_COLUMNS) <= set(obs.columns):
        note = f"{place} is local to each field of view: coordinates are from obs {', '.join(GLOBAL_COLUMNS)}"
        return _columns(own, list(GLOBAL_COLUMNS), group), (note,)
    raise InputError(
        "the coordinates are local to each field of view, so that all fields lie on top of each other",
        where=group.where(place),
        found=f"{own['fov'].nunique()} fields of view over one area",
        expected='global coordinates in obsm["spatial"] or obsm["global"]',
        hint="add the fields' offsets to the coordinates, read the vendor's own files, or pick one field: "
        "ingest.select: {fov: ...}",
    )


def _obsm(group: AnnDataGroup, key: str, n_spots: int) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return (n, 2) coordinates and notes; a table's columns are taken by their names where these tell x and y."""
    value: Any = group.read(key)
    notes: tuple[str, ...] = ()
    if isinstance(value, pd.DataFrame):
        names = [str(name) for name in value.columns]
        value.columns = pd.Index(names, dtype=object)
        pair = named_axes(names)
        if pair is not None:
            value = value[list(pair)]
            if names[:2] != list(pair):
                notes = (f"columns of {key} are taken by name: x is {pair[0]}, y is {pair[1]}",)
        else:
            notes = (f"columns {', '.join(names)} of {key} are taken as x and y in this order",)
    try:
        xy = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            "the coordinates are not numbers",
            where=group.where(key),
            found=error,
            hint="write numbers to obsm['spatial']",
        ) from error
    if xy.ndim != 2 or xy.shape[0] != n_spots or xy.shape[1] not in (2, 3):
        raise InputError(
            "the coordinates have the wrong shape",
            where=group.where(key),
            found=xy.shape,
            expected=f"({n_spots}, 2) or ({n_spots}, 3)",
        )
    return xy[:, :2], notes


def _columns(obs: pd.DataFrame, names: list[str], group: AnnDataGroup) -> NDArray[np.float64]:
    columns = []
    for name in names:
        is_number = isinstance(obs[name].dtype, np.dtype) and obs[name].dtype.kind in "iuf"
        column = obs[name] if is_number else pd.to_numeric(obs[name].astype(object), errors="coerce")
        values = column.to_numpy(dtype=np.float64)
        bad = np.flatnonzero(np.isnan(values))
        if len(bad):
            raise InputError(
                f"obs {name!r} is not a number",
                where=f"{group.where('obs')}, row {bad[0]}, spot {obs.index[bad[0]]}",
                found=repr(obs[name].iloc[bad[0]]),
                hint="write numbers to this column of obs",
            )
        columns.append(values)
    return np.column_stack(columns)


def _is_local(xy: NDArray[np.float64], fov: pd.Series) -> bool:
    """Whether the fields of view lie on top of each other: their areas add up to more than the area of all."""
    table = pd.DataFrame({"x": xy[:, 0], "y": xy[:, 1], "fov": fov.astype(str).to_numpy()})
    if table["fov"].nunique() < 2:
        return False
    boxes = table.groupby("fov").agg(["min", "max"])
    areas = (boxes["x"]["max"] - boxes["x"]["min"]) * (boxes["y"]["max"] - boxes["y"]["min"])
    whole = float(np.ptp(xy[:, 0]) * np.ptp(xy[:, 1]))
    return bool(areas.sum() > 1.5 * whole)


def _array_indices(
    obs: pd.DataFrame, xy: NDArray[np.float64], group: AnnDataGroup
) -> tuple[NDArray[np.int32] | None, tuple[str, ...]]:
    """Return (n, 2) array indices from obs, None where there are none or they are not whole numbers."""
    plain = not set(ARRAY_COLUMNS) <= set(obs.columns)
    names = PLAIN_ARRAY_COLUMNS if plain else ARRAY_COLUMNS
    if not set(names) <= set(obs.columns):
        return None, ()
    try:
        columns = _columns(obs, list(names), group)
    except InputError:
        if plain:  # not array indices, whatever else
            return None, ()
        raise
    if not np.isfinite(columns).all() or (columns != np.rint(columns)).any() or (np.abs(columns) >= 2**31).any():
        return None, () if plain else ("obs array_row and array_col are not whole numbers: they are not used",)
    array = columns.astype(np.int32)
    if not plain:
        return array, ()
    agrees = compare(array, xy, hexagonal=is_hexagonal(array)).verdict in ("agree", "turned", "reversed", "mirrored")
    if not agrees:
        return None, ("obs row and col do not follow the coordinates: they are not used as array indices",)
    return array, ("array indices are from obs row and col",)


def _spot_table(obs: pd.DataFrame, group: AnnDataGroup) -> pd.DataFrame:
    spots = obs.reset_index(drop=True)
    if "in_tissue" not in spots and "tissue" in spots and set(PLAIN_ARRAY_COLUMNS) <= set(spots.columns):
        flags = pd.to_numeric(spots["tissue"].astype(object), errors="coerce")  # Seurat's name
        if flags.isin([0, 1]).all():
            spots = spots.assign(in_tissue=flags.astype(np.int64))
    if "in_tissue" in spots:
        flags = spots["in_tissue"]
        if not isinstance(flags.dtype, np.dtype) or flags.dtype.kind not in "iub":
            flags = pd.Series(flag_words(flags.astype(str)), index=spots.index)
        bad = np.flatnonzero(~flags.isin([0, 1]))
        if len(bad):
            raise InputError(
                "in_tissue is neither 0 nor 1",
                where=f"{group.where('obs')}, row {bad[0]}, spot {obs.index[bad[0]]}",
                found=repr(spots["in_tissue"].iloc[bad[0]]),
                expected="0 or 1, or True and False",
            )
        spots = spots.assign(in_tissue=flags == 1)
    return spots
