"""AnnData, as ``.h5ad`` or zarr: Visium through scanpy, HEST, Curio, converted CosMx and everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
from stpatch.slides.formats.hdf5.layers import counts_key, named_key, read_counts, read_features
from stpatch.slides.formats.names import check_unique
from stpatch.slides.formats.places import check_finite, nearest_distance
from stpatch.slides.formats.tenx.lattice import (
    PITCH_UM,
    is_hexagonal,
    row_column_ratio,
    row_step,
    scale_of,
)
from stpatch.slides.readers.registry import register
from stpatch.slides.slide import Geometry, RawSlide
from stpatch.slides.source import Probe, SlideSource

SPATIAL_KEYS = ("obsm/spatial", "obsm/X_spatial")
SPATIAL_COLUMNS = (("x", "y"), ("pxl_col_in_fullres", "pxl_row_in_fullres"))
GLOBAL_KEYS = ("obsm/global", "obsm/spatial_fov")
GLOBAL_COLUMNS = ("CenterX_global_px", "CenterY_global_px")
ARRAY_COLUMNS = ("array_row", "array_col")


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
            return probe_group(
                group, platform=self.platform, normalized=options.values == "normalized", layer=options.layer
            )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:  # noqa: ARG002
        """Read counts, coordinates and the spot table."""
        with anndata_group(source.path) as group:
            return read_group(group, normalized=options.values == "normalized", layer=options.layer)


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


def probe_group(group: AnnDataGroup, *, platform: str, normalized: bool, layer: str | None = None) -> Probe:
    """Describe an AnnData group by its headers."""
    key = matrix_key(group, normalized=normalized, layer=layer)
    n_spots, n_genes = group.shape(key)
    columns = group.columns("obs") if group.has("obs") else []
    place = _coordinates_key(group, columns)
    is_array = set(ARRAY_COLUMNS) <= set(columns)
    path = group.path
    return Probe(
        platform=platform,
        reason=f"AnnData encoding, coordinates in {place}",
        files=tuple(sorted(item for item in path.rglob("*") if item.is_file())) if path.is_dir() else (path,),
        n_spots=n_spots,
        n_genes=n_genes,
        unit="px" if is_array or group.has("uns/spatial") else "unknown",
        spot_columns=tuple(columns),
    )


def _coordinates_key(group: AnnDataGroup, columns: list[str]) -> str:
    for key in SPATIAL_KEYS:
        if group.has(key):
            return key
    for x, y in SPATIAL_COLUMNS:
        if {x, y} <= set(columns):
            return f"obs[{x}, {y}]"
    raise InputError(
        "the AnnData file has no coordinates",
        where=group.path,
        found=f"obsm: {', '.join(group.keys('obsm')) or 'empty'}",
        expected='obsm["spatial"], or obs columns x and y',
    )


def read_group(
    group: AnnDataGroup,
    *,
    normalized: bool,
    layer: str | None = None,
    select: NDArray[np.bool_] | None = None,
    xy: NDArray[np.float64] | None = None,
) -> RawSlide:
    """Read an AnnData group as one slide.

    Parameters
    ----------
    normalized
        Take float32 values instead of raw counts: those of X, or of `layer`.
    layer
        The matrix to read (``ingest.layer``); None: found.
    select
        (rows,) which rows are the slide's; None = all.
    xy
        (rows, 2) coordinates from elsewhere; None = the group's own.
    """
    obs = group.frame("obs")
    notes: tuple[str, ...] = ()
    if normalized:
        key = matrix_key(group, normalized=True, layer=layer)
        counts = group.matrix(key, normalized=True)
    else:
        key, counts, notes = read_counts(group, layer=layer)
    genes = read_features(group, key)
    if counts.shape != (len(obs), len(genes)):
        raise InputError(
            "the matrix and its tables differ in size",
            where=group.where(key),
            found=f"{counts.shape[0]} x {counts.shape[1]}",
            expected=f"{len(obs)} x {len(genes)}, the rows of obs and var",
        )
    if xy is None:
        xy, more = read_coordinates(group, obs)
        notes += more
    if select is not None:
        counts, obs, xy = sparse.csr_matrix(counts[select]), obs[select], xy[select]
    ids: NDArray[np.object_] = obs.index.to_numpy(dtype=object)
    check_unique(ids, what="a spot id", where=group.where("obs"))
    check_finite(xy, ids=ids, where=group.where("coordinates"))
    array, more = _array_indices(obs, group)
    geometry, um_per_unit, pitch, scale_notes = _lattice(array, xy, scale_factors(group), group)
    return RawSlide(
        counts=counts,
        spot_ids=ids,
        genes=genes,
        xy=np.ascontiguousarray(xy, dtype=np.float64),
        array=array,
        geometry=geometry,
        um_per_unit=um_per_unit,
        pitch=pitch,
        spots=_spot_table(obs, group),
        control_patterns=CONTROL_NAMES,
        notes=(*notes, *more, *scale_notes),
    )


def read_coordinates(group: AnnDataGroup, obs: pd.DataFrame) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return (n, 2) coordinates (x, y) and notes.

    ``obsm["spatial"]``, else ``obs[x, y]``; those local to fields of view give way to global ones, or are refused.
    """
    place = _coordinates_key(group, list(obs.columns))
    in_obs = not place.startswith("obsm/")
    xy = _columns(obs, place[4:-1].split(", "), group) if in_obs else _obsm(group, place, len(obs))
    if "fov" not in obs or not _is_local(xy, obs["fov"]):
        return xy, ()
    for key in GLOBAL_KEYS:
        if group.has(key):
            other = _obsm(group, key, len(obs))
            if not _is_local(other, obs["fov"]):
                return other, (f"{place} is local to each field of view: coordinates are from {key}",)
    if set(GLOBAL_COLUMNS) <= set(obs.columns):
        note = f"{place} is local to each field of view: coordinates are from obs {', '.join(GLOBAL_COLUMNS)}"
        return _columns(obs, list(GLOBAL_COLUMNS), group), (note,)
    raise InputError(
        "the coordinates are local to each field of view, so that all fields lie on top of each other",
        where=group.where(place),
        found=f"{obs['fov'].nunique()} fields of view over one area",
        expected='global coordinates in obsm["spatial"] or obsm["global"]',
        hint="add the fields' offsets to the coordinates, or read the vendor's own files",
    )


def _obsm(group: AnnDataGroup, key: str, n_spots: int) -> NDArray[np.float64]:
    value: Any = group.read(key)
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
    return xy[:, :2]


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


def _array_indices(obs: pd.DataFrame, group: AnnDataGroup) -> tuple[NDArray[np.int32] | None, tuple[str, ...]]:
    """Return (n, 2) array indices from obs, None where there are none or they are not whole numbers."""
    if not set(ARRAY_COLUMNS) <= set(obs.columns):
        return None, ()
    columns = _columns(obs, list(ARRAY_COLUMNS), group)
    if not np.isfinite(columns).all() or (columns != np.rint(columns)).any() or (np.abs(columns) >= 2**31).any():
        return None, ("obs array_row and array_col are not whole numbers: they are not used",)
    twice = pd.DataFrame(columns).duplicated().to_numpy()
    if twice.any():
        row = int(np.argmax(twice))
        libraries = group.keys("uns/spatial")
        raise InputError(
            "two spots have one place on the array",
            where=f"{group.where('obs')}, row {row}, spot {obs.index[row]}",
            found=f"array_row, array_col = {columns[row].astype(int).tolist()} ({int(twice.sum())} such)"
            + (f"; libraries {', '.join(libraries)}" if len(libraries) > 1 else ""),
            hint="if the file joins several slides, write each to a file of its own",
        )
    return columns.astype(np.int32), ()


def _lattice(
    array: NDArray[np.int32] | None, xy: NDArray[np.float64], factors: dict[str, float], group: AnnDataGroup
) -> tuple[Geometry, float | None, float | None, tuple[str, ...]]:
    """Return geometry, um per unit, pitch and notes, by the facts of array indices and coordinates."""
    um_per_unit = factors.get("microns_per_pixel")
    if array is None:
        return "irregular", um_per_unit, nearest_distance(xy)[0], ()
    ratio = row_column_ratio(array, xy)
    if is_hexagonal(array) and (ratio is None or abs(ratio - 1) > 0.05):
        scale = scale_of(array, xy, where=group.where("obs"))
        pitch = nearest_distance(xy)[0] if scale.um_per_unit is None else PITCH_UM / scale.um_per_unit
        return "hex", scale.um_per_unit, pitch, scale.notes
    pitch = row_step(array, xy)
    if um_per_unit is None and pitch and "bin_size_um" in factors:
        um_per_unit = factors["bin_size_um"] / pitch
    return "square", um_per_unit, pitch, ()


def _spot_table(obs: pd.DataFrame, group: AnnDataGroup) -> pd.DataFrame:
    spots = obs.reset_index(drop=True)
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
