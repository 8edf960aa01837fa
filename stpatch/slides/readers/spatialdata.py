"""SpatialData zarr stores: one of their tables, or one region of it; images and labels are never opened."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.config import IngestSection
from stpatch.errors import InputError, InputMissingError, MissingExtraError
from stpatch.slides.formats.hdf5.anndata_group import AnnDataGroup, anndata_group, zarr_attributes
from stpatch.slides.formats.hdf5.files import attribute_text, faults
from stpatch.slides.geometry import seen_geometry
from stpatch.slides.readers.h5ad import SPATIAL_KEYS, Given, matrix_key, matrix_notes, read_group, read_places
from stpatch.slides.readers.registry import register
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

TABLE_FOLDERS = ("tables", "table")
SQUARE = re.compile(r"square_(\d{3})um")
REGION_COLUMN = "region"


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """What a table annotates: its regions, and the obs columns with each row's region and instance."""

    regions: tuple[str, ...]
    region_key: str
    instance_key: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """One table of a store."""

    store: Path
    table: Path


@register
class SpatialData:
    """Reader of one table and region; path ``store.zarr`` or ``store.zarr/tables/<table>``, a column ``region``."""

    platform = "spatialdata"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Recognize the store by its attributes or its tables."""
        place = find_table(source.path, options)
        if place is None:
            return None
        with anndata_group(place.table) as group:
            _check_is_table(place.table)
            annotation = read_annotation(group)
            region = choose_region(annotation, source, place)
            key = matrix_key(group, normalized=options.values == "normalized", layer=options.layer)
            n_genes = group.shape(key)[1]
            columns = group.columns("obs") if group.has("obs") else []
            obs = group.frame("obs")
            given = _given(group, obs, annotation, region, place)
            placed = read_places(group, obs, source, options, given=given)
            notes = (*placed.notes, *matrix_notes(group, key, options))
        name = place.table.name
        files = [item for item in place.table.rglob("*") if item.is_file()]
        where = "obsm/spatial"
        if given.xy is not None:
            shapes = _shapes_folder(place, region)
            files += [item for item in shapes.rglob("*") if item.is_file()]
            where = f"the centroids of shapes/{shapes.name}"
        settled = placed.settled
        return Probe(
            platform=self.platform,
            reason=f"SpatialData store, table {name}" + (f", region {region}" if region else "") + f", {where}",
            files=tuple(sorted(files)),
            version=_version(place.store),
            n_spots=len(placed.obs),
            n_genes=n_genes,
            unit="px" if {"array_row", "array_col"} <= set(columns) else "unknown",
            spot_columns=tuple(columns),
            um_per_unit=settled.um_per_unit,
            pitch_um=settled.pitch_um,
            geometry=seen_geometry(settled, placed.xy),
            notes=notes if given.xy is None else (*notes, _shapes_note(region)),
        )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:
        """Read the table's rows of the region."""
        place = find_table(source.path, options)
        if place is None:
            raise InputError(
                "this is not a SpatialData store",
                where=source.path,
                hint="give the .zarr folder that SpatialData wrote, or another platform",
            )
        with anndata_group(place.table) as group:
            annotation = read_annotation(group)
            region = choose_region(annotation, source, place)
            given = _given(group, group.frame("obs"), annotation, region, place)
            raw = read_group(group, source, options, given=given)
        if given.xy is not None:
            raw = replace(raw, notes=(*raw.notes, _shapes_note(region)))
        return replace(raw, version=probe.version)


def _given(group: AnnDataGroup, obs: pd.DataFrame, annotation: Annotation, region: str, place: Place) -> Given:
    """Return the rows of the region, and the centroids of its shapes where the table has no coordinates."""
    select = _rows_of(obs, annotation, region, place)
    own = any(group.has(name) for name in SPATIAL_KEYS)
    xy = None if own else _centroids(obs, annotation, region, select, place)
    return Given(select=select, xy=xy, bin_um=_bin_size(place))


def _shapes_note(region: str) -> str:
    return f"coordinates are the centroids of shapes/{region} in its own units, before any transformation"


def find_table(path: Path, options: IngestSection) -> Place | None:
    """Return the table that `path` means, None if it is not a SpatialData store.

    The only one; of Visium HD's ``square_*um`` tables the one of ``ingest.hd_bin_um``.

    Raises
    ------
    InputError
        The store has no table, or several and the path names none.
    """
    if not path.is_dir():
        return None
    if path.parent.name in TABLE_FOLDERS and _is_store(path.parent.parent):
        return Place(store=path.parent.parent, table=path)
    if not _is_store(path):
        return None
    tables = sorted(
        item
        for folder in TABLE_FOLDERS
        if (path / folder).is_dir()
        for item in (path / folder).iterdir()
        if item.is_dir() and zarr_attributes(item) is not None
    )
    if not tables:
        raise InputMissingError(
            "the SpatialData store has no table", where=path, expected="tables/<name> with an AnnData group"
        )
    if len(tables) > 1 and all(SQUARE.fullmatch(table.name) for table in tables):
        wanted = [table for table in tables if table.name == f"square_{options.hd_bin_um:03d}um"]
        tables = wanted or tables
    if len(tables) > 1:
        raise InputError(
            "the SpatialData store has several tables",
            where=path,
            found=", ".join(table.name for table in tables),
            hint=f"name one in the samplesheet's path: {path.name}/{tables[0].parent.name}/{tables[0].name}",
        )
    return Place(store=path, table=tables[0])


def _is_store(path: Path) -> bool:
    attributes = zarr_attributes(path) if path.is_dir() else None
    if attributes is None:
        return False
    return "spatialdata_attrs" in attributes or (path / "tables").is_dir() or (path / "table" / "table").is_dir()


def _check_is_table(table: Path) -> None:
    attributes = zarr_attributes(table)
    if attributes is None or attributes.get("encoding-type") != "anndata":
        raise InputError(
            "the table is not an AnnData group",
            where=table,
            found=f"encoding-type {(attributes or {}).get('encoding-type')!r}",
            expected="encoding-type 'anndata'",
        )


def _version(store: Path) -> str:
    marks = (zarr_attributes(store) or {}).get("spatialdata_attrs", {})
    return str(marks.get("spatialdata_software_version", "")) if isinstance(marks, dict) else ""


def read_annotation(group: AnnDataGroup) -> Annotation:
    """Return what the table annotates, from ``uns["spatialdata_attrs"]``; a table may annotate nothing."""
    key = "uns/spatialdata_attrs"
    if not group.has(key):
        return Annotation(regions=(), region_key="", instance_key="")
    with faults(group.where(key)):
        value: Any = group.read(key)
        regions = np.atleast_1d(np.asarray(value["region"], dtype=object)).tolist()
        return Annotation(
            regions=tuple(attribute_text(region) for region in regions if region is not None),
            region_key=attribute_text(value["region_key"]),
            instance_key=attribute_text(value["instance_key"]),
        )


def choose_region(annotation: Annotation, source: SlideSource, place: Place) -> str:
    """Return the region that the samplesheet names, or the only one; "" for a table without regions.

    A samplesheet column ``region`` counts for tables of several regions only.
    """
    regions = annotation.regions
    if len(regions) < 2:
        return regions[0] if regions else ""
    wanted = source.metadata.get(REGION_COLUMN, "")
    if not wanted:
        raise InputError(
            "the table annotates several regions",
            where=place.table,
            found=", ".join(regions),
            hint=f"give each a row of the samplesheet, its region in a column {REGION_COLUMN!r}",
        )
    if wanted not in regions:
        raise InputError(
            "the table has no such region", where=place.table, found=wanted, expected=f"one of {', '.join(regions)}"
        )
    return wanted


def _rows_of(obs: pd.DataFrame, annotation: Annotation, region: str, place: Place) -> NDArray[np.bool_] | None:
    """Return which rows are the region's, None for all."""
    if len(annotation.regions) < 2:
        return None
    _check_column(obs, annotation.region_key, place)
    rows: NDArray[np.bool_] = (obs[annotation.region_key].astype(str) == region).to_numpy(dtype=bool)
    if not rows.any():
        raise InputError(
            "the region has no rows in its table",
            where=place.table,
            found=region,
            hint="name a region that the table annotates: samplesheet column region",
        )
    return rows


def _check_column(obs: pd.DataFrame, name: str, place: Place) -> None:
    if name not in obs:
        raise InputError(
            "the table lacks a column that its attributes name",
            where=f"{place.table}, key obs",
            found=", ".join(obs.columns) or "no columns",
            expected=name,
        )


def _shapes_folder(place: Place, region: str) -> Path:
    folder = place.store / "shapes" / region
    if not region or not folder.is_dir():
        present = (
            sorted(item.name for item in (place.store / "shapes").iterdir() if item.is_dir())
            if (place.store / "shapes").is_dir()
            else []
        )
        raise InputMissingError(
            "the table has no coordinates and its region no shapes",
            where=place.table,
            found=f"region {region or 'none'}; shapes: {', '.join(present) or 'none'}",
            expected='obsm["spatial"], or shapes/<region> whose centroids are the coordinates',
        )
    return folder


def _centroids(
    obs: pd.DataFrame, annotation: Annotation, region: str, select: NDArray[np.bool_] | None, place: Place
) -> NDArray[np.float64]:
    """Return (rows, 2) centroids of the region's shapes, joined by instance; NaN in rows of other regions."""
    folder = _shapes_folder(place, region)
    _check_column(obs, annotation.instance_key, place)
    shapes = _read_shapes(place, region)
    with faults(folder):
        centres = shapes.geometry.centroid
        points = np.column_stack([centres.x.to_numpy(), centres.y.to_numpy()]).astype(np.float64)
        index = pd.Index([str(item) for item in shapes.index])
    if index.has_duplicates:
        raise InputError(
            "a shape is given twice",
            where=folder,
            found=index[index.duplicated()][0],
            hint="give every shape an id of its own",
        )
    rows = np.ones(len(obs), bool) if select is None else select
    instances = obs[annotation.instance_key].astype(str).to_numpy(dtype=object)[rows]
    found = index.get_indexer(pd.Index(instances))
    if (found < 0).any():
        first = int(np.argmax(found < 0))
        raise InputError(
            "rows of the table have no shape",
            where=f"{folder}, for {place.table.name}",
            found=f"{int((found < 0).sum())} of {len(found)}, such as {annotation.instance_key} {instances[first]}",
            hint="write the store anew, so that table and shapes agree",
        )
    xy: NDArray[np.float64] = np.full((len(obs), 2), np.nan)
    xy[rows] = points[found]
    return xy


def _read_shapes(place: Place, region: str) -> Any:
    """Read one element of shapes through the spatialdata library."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's dependencies announce their own changes
            import spatialdata
    except ImportError as error:
        raise MissingExtraError.of(
            "spatialdata", needs="spatialdata", purpose="reading coordinates from a SpatialData store's shapes"
        ) from error
    with warnings.catch_warnings(), faults(place.store / "shapes" / region):
        warnings.simplefilter("ignore")
        return spatialdata.read_zarr(place.store, selection=("shapes",)).shapes[region]


def _bin_size(place: Place) -> tuple[float, str] | None:
    """Return Visium HD's bin size and what tells it: the table's name."""
    match = SQUARE.fullmatch(place.table.name)
    return None if match is None else (float(match[1]), f"the table's name {place.table.name}")
