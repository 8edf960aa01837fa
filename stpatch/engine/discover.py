"""From a folder as it was downloaded to a samplesheet: what is a slide there, and what its own tables say of it."""

from __future__ import annotations

import csv
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from stpatch.config import IngestSection
from stpatch.errors import ConfigError, StpatchError
from stpatch.image.groups import is_missing
from stpatch.slides.formats.hdf5.anndata_group import anndata_group
from stpatch.slides.identity import organism_name, told_organism
from stpatch.slides.peek import peek_genes
from stpatch.slides.readers.registry import probe_source
from stpatch.slides.sheet import COLUMNS, slide_id_of
from stpatch.slides.source import Probe, SlideSource
from stpatch.storage import is_safe_id

IGNORED = (
    ".svs",
    ".tif",
    ".tiff",
    ".png",
    ".jpg",
    ".jpeg",
    ".pdf",
    ".html",
    ".cloupe",
    ".zip",
    ".md",
    ".json",
    ".yaml",
    ".yml",
)
"""Files that hold no counts; anything else is looked at."""
META_ENDINGS = (".csv", ".tsv", ".txt")
OBS_FACTS = (
    "donor_id", "patient", "patient_id", "subject_id", "sample_id", "tissue", "organ", "disease", "assay", "sex",
    "development_stage", "self_reported_ethnicity", "organism", "species", "library_id",
)  # fmt: skip
"""Columns of an AnnData's spot table that describe the slide where all of its spots agree."""
ORGANISM_COLUMNS = ("organism", "species")
ID_COLUMNS = ("slide_id", "id", "sample_id", "sample", "slide", "name", "section", "geo_accession", "gsm", "library_id")
_COUNT_TABLE = re.compile(r"(?P<id>.+)_count\.(csv|tsv)(\.gz)?", re.IGNORECASE)
_DEPTH = 8


@dataclass
class Found:
    """One slide of the folder."""

    slide_id: str
    path: Path
    platform: str
    coordinates: Path | None = None
    labels: Path | None = None
    facts: dict[str, str] = field(default_factory=dict)


@dataclass
class Discovery:
    """The slides of a folder, and what was no slide although it looked like one."""

    slides: list[Found] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    labels: list[Path] = field(default_factory=list)
    axes: tuple[str, str] | None = None

    @property
    def platform(self) -> str:
        """The platform of most slides."""
        return Counter(slide.platform for slide in self.slides).most_common(1)[0][0]


def discover(where: str) -> Discovery:
    """Look for slides below a folder, or among the paths of a glob.

    A folder that a reader recognizes is one slide, and is not looked into; what a slide's reader opens is no slide of
    its own.

    Raises
    ------
    ConfigError
        Nothing is there, or nothing in it is a slide.
    """
    paths = [Path(path) for path in sorted(glob.glob(os.path.expanduser(where), recursive=True))]  # noqa: PTH207, PTH111
    if not paths:
        raise ConfigError(
            "there is no such file or folder", where="--from", found=where, hint="name a folder or a glob"
        )
    found = Discovery()
    taken: set[Path] = set()
    root = paths[0] if len(paths) == 1 and paths[0].is_dir() else paths[0].parent
    for path in paths:
        _look(path, found, taken, depth=0)
    if not found.slides:
        reasons = "; ".join(found.notes[:4])
        raise ConfigError(
            "no slide is recognized there",
            where=f"--from {where}",
            found=reasons or f"{len(paths)} path{'s' if len(paths) > 1 else ''} without a known layout",
            hint="unpack archives first; describe other tables with platform table in a samplesheet",
        )
    _name(found.slides, root)
    _describe(found, root)
    return found


def _look(path: Path, found: Discovery, taken: set[Path], *, depth: int) -> None:
    name = path.name.lower()
    if name.startswith(".") or path.resolve() in taken or depth > _DEPTH:
        return
    if path.is_file() and name.endswith(IGNORED) and not name.endswith(".zarr.zip"):
        return
    if path.is_file() and _is_labels(path.name):
        found.labels.append(path)
        return
    if pair := _counts_and_coordinates(path):
        taken.update(item.resolve() for item in pair)
        found.slides.append(Found("", pair[0], "table", coordinates=pair[1]))
        found.axes = found.axes or _axes(pair[1])
        return
    problem: StpatchError | None = None
    try:
        probe = probe_source(SlideSource(slide_id="x", path=path), IngestSection())
    except StpatchError as error:
        problem = error
    else:
        taken.update(item.resolve() for item in probe.files)
        found.slides.append(Found("", path, probe.platform, facts=_own_facts(path, probe)))
        return
    if path.is_dir() and not name.endswith(".zarr"):
        before = len(found.slides)
        for child in _ordered(path):
            _look(child, found, taken, depth=depth + 1)
        if len(found.slides) == before and _is_telling(problem):
            found.notes.append(f"{path}: {problem.what}")
    elif _is_telling(problem):
        found.notes.append(f"{path}: {problem.what}")


def _is_telling(problem: StpatchError) -> bool:
    return not problem.what.startswith("no platform recognizes")


def _is_labels(name: str) -> bool:
    """Whether a table's name says that it holds labels (``A1_labeled_coordinates.tsv``)."""
    return re.search(r"(^|[_.-])(label(ed|s)?|annotations?)([_.-]|$)", name.lower()) is not None


def _ordered(folder: Path) -> list[Path]:
    """Return what a folder holds: matrices before the tables that go with them, then by name."""
    return sorted(folder.iterdir(), key=lambda path: (path.is_file() and _is_beside(path.name), path.name))


def _is_beside(name: str) -> bool:
    return (
        re.search(r"meta|coord|position|selection|spots?_|locations?|barcodes|features|genes|cells\.", name.lower())
        is not None
    )


def _counts_and_coordinates(path: Path) -> tuple[Path, Path] | None:
    """Return counts and coordinates of the layout ``gene_exp/<id>_count.csv``, ``coord/<id>_coord.csv``."""
    match = _COUNT_TABLE.fullmatch(path.name)
    if match is None or not path.is_file():
        return None
    for folder in (path.parent.parent / "coord", path.parent):
        for ending in ("csv", "csv.gz", "tsv", "tsv.gz"):
            other = folder / f"{match['id']}_coord.{ending}"
            if other.is_file():
                return path, other
    return None


def _axes(path: Path) -> tuple[str, str] | None:
    from stpatch.slides.formats.text.lines import head_or_none

    head = head_or_none(path)
    names = {name.lower(): name for name in head.names} if head is not None else {}
    return (names["xaxis"], names["yaxis"]) if {"xaxis", "yaxis"} <= set(names) else None


def _own_facts(path: Path, probe: Probe) -> dict[str, str]:
    """Return what the slide's own files say: the facts that all spots share, and the organism of its ids."""
    facts: dict[str, str] = {}
    if probe.platform in ("h5ad", "spatialdata") and path.is_file():
        try:
            with anndata_group(path) as group:
                facts = _shared_facts(group.frame("obs"))
        except (StpatchError, OSError, KeyError, ValueError):
            facts = {}
    genes = peek_genes(probe)
    if genes is not None:
        told, by = told_organism([text or name for name, text in zip(genes["name"], genes["ensembl_id"], strict=True)])
        if told and by != "case":
            facts.setdefault("organism", told)
    return facts


def _shared_facts(obs: object) -> dict[str, str]:
    import pandas as pd

    facts = {}
    if isinstance(obs, pd.DataFrame):
        for name in OBS_FACTS:
            if name in obs and len(obs[name].dropna().unique()) == 1:
                value = str(obs[name].dropna().iloc[0]).strip()
                if not is_missing(value):
                    facts[name] = value
    return facts


def _name(slides: Sequence[Found], root: Path) -> None:
    """Give every slide an id: its file's or folder's name; with the folders above where names repeat."""
    for slide in slides:
        match = _COUNT_TABLE.fullmatch(slide.path.name)
        slide.slide_id = _safe(match["id"] if match else _stem(slide.path, root))
    for depth in range(1, _DEPTH):
        repeated = {name for name, n in Counter(slide.slide_id.lower() for slide in slides).items() if n > 1}
        if not repeated:
            return
        for slide in slides:
            parents = [part.name for part in slide.path.parents]
            if slide.slide_id.lower() in repeated and depth <= len(parents) and parents[depth - 1]:
                slide.slide_id = _safe(f"{parents[depth - 1]}_{slide.slide_id}")
    for number, slide in enumerate(slides):
        slide.slide_id = f"{slide.slide_id}_{number}"


_ENDINGS = re.compile(
    r"[_.-]?(filtered|raw)?_?(feature_bc_matrix|gene_bc_matrices)?(_h5)?$|[_.-](counts?|stdata|exprMat_file)$",
    re.IGNORECASE,
)


def _stem(path: Path, root: Path) -> str:
    name = slide_id_of(path)
    stem = _ENDINGS.sub("", name)
    if stem or path == root:
        return stem or name
    return slide_id_of(path.parent)  # a matrix of a plain name: the folder says whose


def _safe(text: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9_.+-]+", "_", text).strip("_.+-")[:80]
    return safe if is_safe_id(safe) else f"slide_{safe}"[:80].rstrip("_")


def _describe(found: Discovery, root: Path) -> None:
    """Join the folder's own metadata tables to the slides by the column that holds most of their ids."""
    slides = {_key(slide.slide_id): slide for slide in found.slides}
    for path in found.labels:
        slide = slides.get(_key(re.split(r"[_.-](?:label|annotation)", path.name, flags=re.IGNORECASE)[0]))
        if slide is not None:
            slide.labels = path
    folders = [root, root.parent] if root.is_dir() else [root.parent]
    seen = [path for folder in folders for path in sorted(folder.iterdir()) if path.name.lower().endswith(META_ENDINGS)]
    for path in seen:
        rows = _rows(path)
        if not rows:
            continue
        columns = [name for name in rows[0] if name.strip().lower() in ID_COLUMNS] or list(rows[0])[:1]
        hits = {name: sum(_key(row[name]) in slides for row in rows) for name in columns}
        best = max(hits, key=lambda name: hits[name])
        if not hits[best]:
            continue
        found.notes.append(f"{path.name}: {hits[best]} of {len(slides)} slides described, by column {best}")
        for row in rows:
            slide = slides.get(_key(row[best]))
            if slide is not None:
                slide.facts = {**{name: text for name, text in row.items() if name != best and text}, **slide.facts}


def _key(text: str) -> str:
    return re.sub(r"\.(h5ad|h5|csv|tsv)(\.gz)?$", "", text.strip().lower())


def _rows(path: Path) -> list[dict[str, str]]:
    """Return a small table's rows; nothing where it is none, or a matrix."""
    if path.stat().st_size > 64 * 2**20:
        return []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix.lower() in (".tsv", ".txt") else ",")
            header = [name.strip() for name in next(reader, [])]
            if not 1 < len(header) <= 200 or len(set(header)) < len(header) or not all(header[1:]):
                return []
            header[0] = header[0] or "index"
            return [dict(zip(header, map(str.strip, row), strict=True)) for row in reader if len(row) == len(header)]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def sheet_text(found: Discovery, folder: Path) -> str:
    """Return the samplesheet as CSV: ids, paths (from `folder` where they lie below), platforms, and all metadata."""
    rows = [_row(slide, folder) for slide in sorted(found.slides, key=lambda slide: slide.slide_id)]
    further = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    header = [name for name in COLUMNS if any(row.get(name) for row in rows)] + list(further)
    lines = [header, *([row.get(name, "") for name in header] for row in rows)]
    return "".join(_line(line) for line in lines)


def _row(slide: Found, folder: Path) -> dict[str, str]:
    facts = dict(slide.facts)
    organism = next((facts[name] for column in ORGANISM_COLUMNS for name in facts if name.lower() == column), "")
    row = {"slide_id": slide.slide_id, "path": _from(slide.path, folder), "platform": slide.platform}
    row["organism"] = organism_name(organism)
    if slide.coordinates is not None:
        row["coordinates"] = _from(slide.coordinates, folder)
    if slide.labels is not None:
        row["labels"] = _from(slide.labels, folder)
    for name, text in facts.items():
        if name.lower() not in ORGANISM_COLUMNS[:1]:
            row[name if name.lower() not in COLUMNS else f"original_{name}"] = text
    return row


def _from(path: Path, folder: Path) -> str:
    whole, base = path.resolve(), folder.resolve()
    return os.path.relpath(whole, base) if whole.is_relative_to(base) else str(whole)


def _line(cells: Iterable[str]) -> str:
    quoted = (f'"{text.replace(chr(34), chr(34) * 2)}"' if re.search(r'[",\r\n]', text) else text for text in cells)
    return ",".join(quoted) + "\n"


def label_notes(found: Discovery) -> list[str]:
    """Return a note on label files, whose columns the config must name to use them."""
    files = [slide.labels for slide in found.slides if slide.labels is not None]
    if not files:
        return []
    columns = list(next(iter(_rows(files[0])), {}))
    told = f"; columns of {files[0].name}: {', '.join(columns)}" if columns else ""
    return [f"{len(files)} slides have a label file: name its columns in ingest.labels to use them{told}"]


def config_text(found: Discovery, preset: str, *, sheet: str, name: str) -> str:
    """Return a preset with the samplesheet's name, the dataset's, and what the tables' axes are called."""
    text = re.sub(r"(?m)^(  sheet: )\S+", lambda match: match.group(1) + sheet, preset)
    text = re.sub(r"(?m)^(  name: )\S+", lambda match: match.group(1) + name, text, count=1)
    text = re.sub(r"(?m)^(  output: )\S+", lambda match: match.group(1) + f"out/{name}", text, count=1)
    text = re.sub(r"to out/[\w.-]+\.work", lambda _match: f"to out/{name}.work", text)
    if len({slide.platform for slide in found.slides}) > 1:
        text = re.sub(r"(?m)^(  platform: )\S+", r"\1auto", text)
    for key, column in zip(("x_column", "y_column"), found.axes or (), strict=False):
        text = re.sub(rf"(?m)^(    {key}: )\S+", partial(_with, column), text)
    return text


def _with(value: str, match: re.Match[str]) -> str:
    return match.group(1) + value
