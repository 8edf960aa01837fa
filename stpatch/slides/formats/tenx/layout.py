"""Which files make a Space Ranger slide: the matrix, its positions and scale factors, under any of their names.

Names may have a prefix (GEO's sample, a portal's id), positions may lie in ``spatial``, in a folder of that end or
beside the matrix, and everything may be flat in one folder. A prefix keeps the samples of one folder apart. Where there
are none of these names, the joined positions of ``spaceranger aggr`` count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from stpatch.errors import InputError, InputMissingError
from stpatch.slides.formats.hdf5.files import looks_hdf5
from stpatch.slides.formats.names import listed
from stpatch.slides.formats.tenx.aggr import POSITIONS as AGGR_POSITIONS
from stpatch.slides.formats.tenx.aggr import aggr_libraries, aggr_positions
from stpatch.slides.formats.tenx.mex import is_mex
from stpatch.slides.formats.tenx.positions import POSITIONS, positions_in

MATRIX = re.compile(r"(?P<prefix>.+[_.-])?(?P<kind>filtered|raw)_(feature|gene)_bc_matri(x|ces)(_h5)?(?P<h5>\.h5)?")
PORTAL = re.compile(r"(?P<prefix>.+_)(?P<kind>filtered|unfiltered)")
"""Folders of a portal that writes ``<id>_filtered`` and ``<id>_spatial``."""
SCALE = re.compile(r"(?P<prefix>.+[_.-])?scalefactors_json\.json(\.gz)?")
_FLAT = re.compile(r"(?P<prefix>.*?)((?P<kind>filtered|raw)_feature_bc_matrix[_.-])?matrix\.mtx(\.gz)?")
_PACKED = re.compile(rf"{MATRIX.pattern}\.(gz|zip|tar|tgz|tar\.gz)")
_SPATIAL = re.compile(r"(?P<prefix>.+[_.-])?spatial")
_ORDER = (("filtered", "h5"), ("filtered", "mex"), ("raw", "h5"), ("raw", "mex"))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What belongs together.

    Attributes
    ----------
    matrix
        HDF5 file, MEX folder, or the ``.mtx`` file of a MEX in a folder with others.
    positions, scale
        Files; None where there are none.
    notes
        How the matrix was chosen.
    """

    matrix: Path
    positions: Path | None
    scale: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_filtered(self) -> bool:
        """Whether the matrix holds spots in tissue alone, by its name."""
        match = MATRIX.fullmatch(self.matrix.name) or PORTAL.fullmatch(self.matrix.name)
        return match is not None and match["kind"] == "filtered"


@dataclass(frozen=True, kw_only=True)
class _Matrix:
    path: Path
    prefix: str
    kind: str
    form: str


def layout_of_file(path: Path, *, coordinates: Path | None = None) -> Layout | None:
    """Return the layout of a matrix that is named itself; None where the file is no such matrix by name or content."""
    match = MATRIX.fullmatch(path.name)
    is_mtx = _FLAT.fullmatch(path.name) is not None
    if match is None and not is_mtx and not (path.suffix == ".h5" and looks_hdf5(path)):
        return None
    flat = _FLAT.fullmatch(path.name) if is_mtx else match
    prefix = (flat["prefix"] or "") if flat is not None else ""
    matrix = path.parent if is_mtx and len(_matrices(path.parent)) < 2 else path
    return _with_places(matrix, folder=path.parent, prefix=prefix, coordinates=coordinates)


def layout_of_named(matrix: Path, *, folder: Path, coordinates: Path | None = None) -> Layout | None:
    """Return the layout of a matrix that the samplesheet names, whose positions lie in `folder`; None without these."""
    if not matrix.exists():
        raise InputMissingError(
            "there is no such matrix", where=matrix, hint="check the path in the samplesheet's column matrix"
        )
    match = MATRIX.fullmatch(matrix.name)
    prefix = (match["prefix"] or "") if match is not None else ""
    layout = _with_places(matrix, folder=folder, prefix=prefix, coordinates=coordinates)
    return layout if layout.positions is not None else None


def layout_of_folder(folder: Path, *, prefix: str, coordinates: Path | None = None) -> Layout:
    """Return the layout of a MEX folder that is named itself; its positions are in it or beside it."""
    layout = _with_places(folder, folder=folder, prefix=prefix, coordinates=coordinates)
    return (
        layout
        if layout.positions is not None
        else _with_places(folder, folder=folder.parent, prefix=prefix, coordinates=coordinates)
    )


def layout_in(folder: Path, *, coordinates: Path | None = None) -> Layout | None:
    """Return the layout of a folder, None where it has neither matrix nor positions of these names.

    Filtered goes before raw, HDF5 before MEX; what else there was is noted.

    Raises
    ------
    InputMissingError
        There is a matrix by Space Ranger's name but no positions, or the other way round.
    InputError
        There are matrices of several samples, or the matrix is packed.
    """
    if not folder.is_dir():
        return None
    found = _matrices(folder)
    if not found:
        return _without_matrix(folder)
    best = next(key for key in _ORDER if any((one.kind, one.form) == key for one in found))
    chosen = [one for one in found if (one.kind, one.form) == best]
    if len(chosen) > 1 or len({one.prefix for one in found}) > 1:
        chosen = chosen if len(chosen) > 1 else found
        raise InputError(
            "the folder has several matrices",
            where=folder,
            found=listed([one.path.name for one in chosen]),
            expected="one sample per slide",
            hint=f"give each its own row of the samplesheet, with the matrix as path: {chosen[0].path.name}",
        )
    (matrix,) = chosen
    layout = _with_places(matrix.path, folder=folder, prefix=matrix.prefix, coordinates=coordinates)
    if layout.positions is None:
        if not any(MATRIX.fullmatch(one.path.name) for one in found) and not any(map(_is_spatial, folder.iterdir())):
            return None  # a MEX of another make
        aggregation = aggr_libraries(folder)
        raise InputMissingError(
            "the folder has a matrix but no positions"
            if aggregation is None
            else "this is output of spaceranger aggr without the positions of its spots",
            where=folder,
            found=listed(sorted(item.name for item in folder.iterdir())),
            expected="a folder spatial with tissue_positions.csv, tissue_positions_list.csv or "
            "tissue_positions.parquet, or one of these beside the matrix; names may have a prefix"
            + ("" if aggregation is None else f"; or {AGGR_POSITIONS} beside the matrix"),
            hint="name the positions in the samplesheet's column coordinates"
            + ("" if aggregation is None else f", or give the single runs that {aggregation.name} lists"),
        )
    others = [one.path.name for one in found if one is not matrix]
    note = f"read {matrix.path.name}; left {', '.join(others)} (filtered goes before raw, HDF5 before MEX)"
    notes = (note,) if others else ()
    return Layout(matrix=layout.matrix, positions=layout.positions, scale=layout.scale, notes=notes)


def _matrices(folder: Path) -> list[_Matrix]:
    """Return the matrices of a folder by their names; a single 10x HDF5 file of another name where there is none."""
    found: list[_Matrix] = []
    for item in sorted(folder.iterdir()):
        match = MATRIX.fullmatch(item.name)
        portal = PORTAL.fullmatch(item.name)
        if match and match["h5"] and item.is_file():
            found.append(_Matrix(path=item, prefix=match["prefix"] or "", kind=match["kind"], form="h5"))
        elif match and not match["h5"] and (inner := _mex_of(item)) is not None:
            found.append(_Matrix(path=inner, prefix=match["prefix"] or "", kind=match["kind"], form="mex"))
        elif portal and is_mex(item):
            kind = "filtered" if portal["kind"] == "filtered" else "raw"
            found.append(_Matrix(path=item, prefix=portal["prefix"], kind=kind, form="mex"))
    flat = [(item, match) for item in sorted(folder.iterdir()) if (match := _FLAT.fullmatch(item.name))]
    for item, match in flat if not found else ():
        path = folder if len(flat) == 1 else item
        found.append(_Matrix(path=path, prefix=match["prefix"], kind=match["kind"] or "filtered", form="mex"))
    return found


def _mex_of(item: Path) -> Path | None:
    """Return the MEX folder that `item` is, or that lies in it by a genome's name, as the first versions wrote it."""
    if not item.is_dir():
        return None
    if is_mex(item):
        return item
    inner = [child for child in item.iterdir() if is_mex(child)]
    return inner[0] if len(inner) == 1 else None


def _is_spatial(item: Path) -> bool:
    return POSITIONS.fullmatch(item.name) is not None or (item.is_dir() and _SPATIAL.fullmatch(item.name) is not None)


def _with_places(matrix: Path, *, folder: Path, prefix: str, coordinates: Path | None) -> Layout:
    """Return the layout with the positions and scale factors that go with a matrix of this prefix."""
    if coordinates is not None and not coordinates.is_file():
        raise InputMissingError(
            "there is no such table of positions",
            where=coordinates,
            hint="check the path in the samplesheet's column coordinates",
        )
    places = _places(folder, prefix)
    if matrix.is_dir() and matrix == folder:
        places += [place for place in _places(folder.parent, prefix) if place != folder.parent]
    positions, scale = coordinates, None
    for place in places:
        own = positions_in(place)
        if positions is None and own:
            positions = own.get(prefix) or (next(iter(own.values())) if len(own) == 1 else None)
            if positions is None:
                raise InputError(
                    "the folder has several positions tables",
                    where=place,
                    found=listed([path.name for path in own.values()]),
                    expected=f"one whose name starts with {prefix!r}, as the matrix's does" if prefix else "one",
                    hint="name one in the samplesheet's column coordinates",
                )
        scales = {match["prefix"] or "": item for item in place.iterdir() if (match := SCALE.fullmatch(item.name))}
        if scale is None and scales:
            scale = scales.get(prefix) or (next(iter(scales.values())) if len(scales) == 1 else None)
    if positions is None:
        positions = aggr_positions(folder) or aggr_positions(matrix.parent)
    return Layout(matrix=matrix, positions=positions, scale=scale)


def _places(folder: Path, prefix: str) -> list[Path]:
    """Return the folders in which positions are looked for, the likeliest first."""
    names = ["spatial", f"{prefix}spatial"]
    places = [folder / name for name in dict.fromkeys(names) if (folder / name).is_dir()]
    others = [item for item in sorted(folder.iterdir()) if item.is_dir() and _SPATIAL.fullmatch(item.name)]
    if not places and len(others) == 1:
        places = others
    return [*places, folder]


def _without_matrix(folder: Path) -> Layout | None:
    packed = sorted(item.name for item in folder.iterdir() if _PACKED.fullmatch(item.name))
    places = [place for place in _places(folder, "") if place != folder]
    if packed and any(positions_in(place) for place in (*places, folder)):
        raise InputError(
            "the matrix is packed",
            where=folder,
            found=listed(packed),
            hint=f"unpack it first: {unpack_command(packed[0])}",
        )
    if any(positions_in(place) for place in places):
        raise InputMissingError(
            "the folder has positions but no matrix",
            where=folder,
            expected="filtered_feature_bc_matrix.h5, raw_feature_bc_matrix.h5 or a folder of that name with "
            "matrix.mtx, features.tsv and barcodes.tsv",
        )
    return None


def unpack_command(name: str) -> str:
    """Return the command that unpacks a file of this name."""
    lower = name.lower()
    if lower.endswith((".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")):
        return f"tar xf {name}"
    if lower.endswith(".zarr.zip"):
        return f"unzip {name} -d {name[:-4]}"
    if lower.endswith(".zip"):
        return f"unzip {name}"
    return f"gunzip -k {name}"
