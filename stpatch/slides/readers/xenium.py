"""Xenium Onboard Analysis output: cells of ``cell_feature_matrix`` and ``cells``, or ``transcripts`` summed to bins."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.config import IngestSection
from stpatch.errors import InputError, InputMissingError
from stpatch.slides.formats.hdf5.files import child, hdf5_file
from stpatch.slides.formats.molecules.slide import (
    DEFAULT_BIN_UM,
    Block,
    bin_table,
    bins_slide,
    default_bin_note,
    need_molecules,
)
from stpatch.slides.formats.molecules.table import Kind, open_molecules
from stpatch.slides.formats.parquet import parquet_parts
from stpatch.slides.formats.tenx.mex import is_mex
from stpatch.slides.formats.tenx.read import is_tenx_h5, probe_tenx, read_features, read_tenx, tenx_files
from stpatch.slides.formats.text.cell_table import (
    cell_ids,
    cell_places,
    further_columns,
    join_cells,
    named_file,
    need_columns,
    read_cells,
    table_columns,
)
from stpatch.slides.readers.registry import register
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

MATRIX = ("cell_feature_matrix.h5", "cell_feature_matrix")
CELLS = ("cells.parquet", "cells.csv.gz", "cells.csv")
TRANSCRIPTS = ("transcripts.parquet", "transcripts.csv.gz", "transcripts.csv")
EXPERIMENT = "experiment.xenium"
CELL_COLUMNS = ("cell_id", "x_centroid", "y_centroid")
TRANSCRIPT_COLUMNS = ("feature_name", "x_location", "y_location")
AREA = "cell_area"
GENE_TYPE, CONTROL_TYPE = "Gene Expression", "Control"
CONTROL_PATTERNS = (
    "BLANK.*", "DeprecatedCodeword.*", "Intergenic.*", "NegControl.*", "UnassignedCodeword.*", "antisense_.*",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The files of an output folder that matter here."""

    folder: Path
    matrix: Path | None
    cells: Path | None
    transcripts: Path | None
    experiment: Path | None

    @property
    def has_cells(self) -> bool:
        """Whether there are cells to read."""
        return self.matrix is not None and self.cells is not None


@register
class Xenium:
    """Reader of a Xenium output folder."""

    platform = "xenium"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Recognize the matrix and the cell table, or the transcripts, by their columns."""
        bundle = find_bundle(source.path, named=source)
        if bundle is None:
            return None
        version = software_version(bundle.experiment)
        extra = () if bundle.experiment is None else (bundle.experiment,)
        if options.bin_um is None and bundle.matrix is not None and bundle.cells is not None:
            need_columns(table_columns(bundle.cells), CELL_COLUMNS, where=bundle.cells)
            n_spots, n_genes, _ = probe_tenx(bundle.matrix)
            return Probe(
                platform=self.platform,
                reason=f"{bundle.matrix.name} beside {bundle.cells.name}",
                files=(*tenx_files(bundle.matrix), *parquet_parts(bundle.cells), *extra),
                version=version,
                n_spots=n_spots,
                n_genes=n_genes,
                unit="um",
                um_per_unit=1.0,
                spot_columns=table_columns(bundle.cells),
                geometry="irregular",
            )
        transcripts = _transcripts(bundle, options)
        need_columns(table_columns(transcripts), TRANSCRIPT_COLUMNS, where=transcripts)
        features = () if bundle.matrix is None or bundle.matrix.is_dir() else (bundle.matrix,)
        return Probe(
            platform=self.platform,
            reason=f"{transcripts.name} with {', '.join(TRANSCRIPT_COLUMNS)}",
            files=(*parquet_parts(transcripts), *features, *extra),
            version=version,
            unit="um",
            pitch_um=options.bin_um or DEFAULT_BIN_UM,
            um_per_unit=1.0,
        )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:
        """Read the cells, or stream the transcripts into bins of ``ingest.bin_um``."""
        bundle = find_bundle(source.path, named=source)
        if bundle is None:
            raise InputError(
                "this is not a Xenium folder", where=source.path, hint="give the output folder, or another platform"
            )
        if options.bin_um is None and bundle.matrix is not None and bundle.cells is not None:
            return _read_cells(bundle.matrix, bundle.cells, version=probe.version)
        return _read_transcripts(bundle, options, version=probe.version)


def find_bundle(path: Path, *, named: SlideSource | None = None) -> Bundle | None:
    """Return the bundle that `path` (its folder or ``experiment.xenium``) is; None where there is none.

    Files that the samplesheet names (`named`) go before those that are found.

    Raises
    ------
    InputMissingError
        There is a Xenium matrix without cells, or cells without a matrix, and no transcripts either.
    """
    folder = path.parent if path.name == EXPERIMENT else path
    if not folder.is_dir():
        return None

    def first(names: tuple[str, ...]) -> Path | None:
        return next((folder / name for name in names if (folder / name).exists()), None)

    asked = named or SlideSource(slide_id="", path=path)
    matrix, transcripts = first(MATRIX), first(TRANSCRIPTS)
    experiment = first((EXPERIMENT,))
    if any(file is not None for file in (matrix, transcripts, experiment)):  # else it is another platform's folder
        matrix = named_file(asked.matrix, column="matrix") or matrix
        transcripts = named_file(asked.transcripts, column="transcripts") or transcripts
        cells = named_file(asked.coordinates, column="coordinates") or first(CELLS)
    else:
        cells = first(CELLS)
    bundle = Bundle(
        folder=folder,
        matrix=matrix,
        cells=cells,
        transcripts=transcripts,
        experiment=experiment,
    )
    if bundle.has_cells:
        return bundle
    if bundle.transcripts is not None:
        is_ours = set(TRANSCRIPT_COLUMNS) <= set(open_molecules(bundle.transcripts).columns)
        return bundle if is_ours or bundle.experiment is not None else None
    if bundle.experiment is not None or (bundle.matrix is not None and _is_matrix(bundle.matrix)):
        found = [item.name for item in (bundle.matrix, bundle.cells, bundle.experiment) if item is not None]
        raise InputMissingError(
            "the Xenium folder is incomplete",
            where=folder,
            found=", ".join(found),
            expected="cell_feature_matrix.h5 and cells.parquet (or cells.csv.gz), or transcripts.parquet",
        )
    return None


def _is_matrix(path: Path) -> bool:
    return is_mex(path) or is_tenx_h5(path)


def _transcripts(bundle: Bundle, options: IngestSection) -> Path:
    return need_molecules(
        bundle.transcripts, folder=bundle.folder, bin_um=options.bin_um, expected=" or ".join(TRANSCRIPTS)
    )


def software_version(experiment: Path | None) -> str:
    """Return ``analysis_sw_version`` (it may be "R&D"); "" where the file is missing or no JSON: it only informs."""
    if experiment is None:
        return ""
    try:
        facts = json.loads(experiment.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return ""
    return str(facts.get("analysis_sw_version", "")) if isinstance(facts, dict) else ""


def _read_cells(matrix_path: Path, cells_path: Path, *, version: str) -> RawSlide:
    matrix = read_tenx(matrix_path)
    cells = read_cells(cells_path)
    need_columns(cells.columns, CELL_COLUMNS, where=cells_path)
    ids = cell_ids(cells["cell_id"], where=cells_path)
    rows, dropped = join_cells(matrix.barcodes, ids, counts=matrix_path, cells=cells_path)
    xy = cell_places(cells, (CELL_COLUMNS[1], CELL_COLUMNS[2]), rows=rows, where=cells_path)
    in_order = (rows == np.arange(len(rows))).all()
    notes = () if in_order else ("matrix and cell table are in different order: joined by cell_id",)
    return RawSlide(
        counts=matrix.counts,
        spot_ids=matrix.barcodes,
        genes=matrix.genes,
        xy=xy[rows],
        um_per_unit=1.0,
        spots=further_columns(cells, rows=rows, without=CELL_COLUMNS, area=AREA, where=cells_path),
        control_patterns=CONTROL_PATTERNS,
        version=version,
        notes=(*matrix.notes, *notes),
        dropped=dropped,
    )


def _read_transcripts(bundle: Bundle, options: IngestSection, *, version: str) -> RawSlide:
    path = _transcripts(bundle, options)
    table = open_molecules(path)
    gene, x, y = (table.need(name) for name in TRANSCRIPT_COLUMNS)
    features = _features(bundle.matrix)
    bin_um = options.bin_um or DEFAULT_BIN_UM
    quality, flag = table.first_of("qv"), table.first_of("is_gene")
    gene_flag = _GeneFlag(flag)
    further: dict[str, Kind] = {}
    if quality is not None:
        further[quality] = "float"
    if flag is not None:
        further[flag] = "flag"
    binned = bin_table(
        table,
        gene=gene,
        x=x,
        y=y,
        pitch=bin_um,
        genes=[] if features is None else list(features["name"]),
        further=further,
        keep=None if quality is None else lambda block: block[quality] >= options.min_qv,
        see=None if flag is None else gene_flag.see,
    )
    notes = [] if quality is not None else ["the transcripts have no qv: none was left out for its quality"]
    if options.bin_um is None:
        notes.append(default_bin_note(bin_um))
    low = {f"qv below {options.min_qv:g}": {"spots": 0, "counts": binned.n_left_out}} if binned.n_left_out else {}
    return bins_slide(
        binned.bins,
        genes=transcript_genes(binned.genes, features=features, flags=gene_flag.by_number),
        pitch=bin_um,
        um_per_unit=1.0,
        where=path,
        version=version,
        notes=tuple(notes),
        dropped=low,
        control_patterns=CONTROL_PATTERNS,
    )


def _features(matrix: Path | None) -> pd.DataFrame | None:
    """Return the panel from the cell matrix's header, where there is one in HDF5."""
    if matrix is None or matrix.is_dir():
        return None
    with hdf5_file(matrix) as file:
        return read_features(child(file, "matrix", matrix), matrix)


class _GeneFlag:
    """The ``is_gene`` flag of every gene, from its first molecule."""

    def __init__(self, column: str | None) -> None:
        self._column = column
        self.by_number: dict[int, bool] = {}

    def see(self, numbers: NDArray[np.int32], block: Block) -> None:
        unique, first = np.unique(numbers, return_index=True)
        flags = block[str(self._column)][first]
        for number, flag in zip(unique.tolist(), flags.tolist(), strict=True):
            self.by_number.setdefault(number, flag)


def transcript_genes(names: list[str], *, features: pd.DataFrame | None, flags: dict[int, bool]) -> pd.DataFrame:
    """Return the gene table of transcripts.

    A gene's type is that of the matrix's feature of its name; of others ``is_gene`` tells; without either all types
    stay unknown and the platform's control patterns decide later.
    """
    rows: list[tuple[str, str, str]] = []
    known: dict[str, Any] = {}
    if features is not None:
        for name, ensembl_id, kind in features.itertuples(index=False):
            known.setdefault(name, (ensembl_id, kind))
    typed = bool(flags) or any(kind for _, kind in known.values())
    for number, name in enumerate(names):
        ensembl_id, kind = known.get(name, ("", ""))
        if typed and not kind:
            is_gene = flags.get(number, not _is_control(name))
            kind = GENE_TYPE if is_gene else CONTROL_TYPE
        rows.append((name, ensembl_id, kind))
    return pd.DataFrame(rows, columns=["name", "ensembl_id", "feature_type"], dtype=object)


def _is_control(name: str) -> bool:
    return any(re.fullmatch(pattern, name, re.IGNORECASE) for pattern in CONTROL_PATTERNS)
