"""From a raw slide to the canonical one: genes harmonized, QC applied, rows in order of place.

Sum of counts in = sum of counts kept + what was dropped, by reason; the record lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides import feature_types, qc
from stpatch.slides import genes as gene_identity
from stpatch.slides.absent import DETECTED_ONLY, absent_means
from stpatch.slides.formats.places import check_finite
from stpatch.slides.matrix import Csr, column_sums, filter_in_place, is_canonical, relabel, row_facts
from stpatch.slides.reference import Reference
from stpatch.slides.slide import RawSlide, Slide
from stpatch.slides.source import Probe, SlideSource
from stpatch.storage import plain_number

LISTED = 200
"""How many names a record lists before it says how many more there are."""


def canonical_slide(
    raw: RawSlide,
    *,
    source: SlideSource,
    probe: Probe,
    section: IngestSection,
    labels: pd.DataFrame,
    gene_map: gene_identity.GeneMap | None = None,
    vocabulary: Mapping[str, int] | None = None,
    reference: Reference | None = None,
    consume: bool = False,
) -> Slide:
    """Harmonize, filter and order one slide.

    Parameters
    ----------
    labels
        One categorical column a label, rows as in `raw`.
    consume
        The counts of `raw` may be taken apart: no second matrix is then in memory beside them.

    Raises
    ------
    InputError
        Coordinates that are not numbers, ids given twice, no gene or no spot left.
    """
    where = f"slide {source.slide_id}, {source.path}"
    _check(raw, where)
    organism = source.organism or gene_identity.organism_of([text for text in raw.genes["ensembl_id"] if text][:50])
    harmonized = gene_identity.harmonize(
        raw.genes,
        section=section.genes,
        gene_map=gene_map,
        organism=organism,
        control_patterns=raw.control_patterns,
        where=where,
        reference=reference,
    )
    order = place_order(raw)
    n_raw = raw.counts.shape[1]
    raw_csr = (raw.counts.data, raw.counts.indices, raw.counts.indptr)
    raw_totals = row_facts(raw_csr)[0]
    lists_detected = section.genes.absent == "auto" and probe.platform in DETECTED_ONLY
    needs_sums = lists_detected or bool((harmonized.columns < 0).any())
    raw_sums = column_sums(raw_csr, n_raw)[0] if needs_sums else np.zeros(n_raw)
    absent, absent_notes = absent_means(
        section.genes.absent, platform=probe.platform, gene_sums=raw_sums if lists_detected else None
    )
    dtype = _dtype(raw_csr, harmonized, largest_total=float(raw_totals.max()))
    del raw_csr
    csr = relabel(raw.counts, rows=order, columns=harmonized.columns, dtype=dtype, consume=consume)
    spots = raw.spots.iloc[order] if len(raw.spots.columns) else raw.spots
    mito = qc.mitochondrial(harmonized.genes)
    mito_notes = [] if section.qc.max_mito is None else qc.mito_notes(harmonized.genes, mito, where=where)
    reasons, totals = qc.spot_reasons(csr, spots=spots, mito=mito, section=section.qc)
    keep = reasons == ""
    if not keep.any():
        raise InputError(
            "no spot is left after QC",
            where=where,
            found=", ".join(
                f"{item.spots} of {len(keep)} spots: {reason}"
                for reason, item in qc.by_reason(reasons, totals, kind="spots").items()
            )
            or "a matrix without spots",
            hint="see ingest.qc: in_tissue, min_counts, min_genes, ...",
        )
    if not keep.all():
        csr = filter_in_place(csr, keep_rows=keep, columns=np.arange(len(mito), dtype=np.int32))
    csr = _narrowed(csr, where)
    genes = harmonized.genes
    rows = order[keep]
    dropped: dict[str, dict[str, int | float]] = {reason: {**numbers} for reason, numbers in raw.dropped.items()}
    for part in (
        qc.by_reason(harmonized.reasons, raw_sums, kind="genes"),
        qc.by_reason(reasons, totals, kind="spots"),
    ):
        dropped.update({reason: item.as_json() for reason, item in part.items()})
    kept = totals[keep].sum()
    record: dict[str, Any] = {
        "recognized": probe.reason,
        "version": raw.version or probe.version,
        "notes": list(
            dict.fromkeys(
                [
                    *probe.notes,
                    *raw.notes,
                    *feature_types.notes_of(raw.genes["feature_type"].tolist()),
                    *labels.attrs.get("notes", ()),
                    *absent_notes,
                    *mito_notes,
                ]
            )
        ),
        "counts_in": plain_number(raw_totals.sum() + sum(numbers.get("counts", 0) for numbers in raw.dropped.values())),
        "counts_kept": plain_number(kept),
        "spots_in": int(raw.counts.shape[0]),
        "spots_kept": int(keep.sum()),
        "genes_in": int(raw.counts.shape[1]),
        "genes_merged": harmonized.n_merged,
        "absent": absent,
        "dropped": dropped,
        "vocabulary": _matched(genes, vocabulary, where),
        **({} if harmonized.coverage is None else {"reference": harmonized.coverage.as_json()}),
    }
    return Slide(
        slide_id=source.slide_id,
        platform=probe.platform,
        organism=organism,
        counts=_csr_matrix(csr, len(genes)),
        genes=genes,
        spot_ids=raw.spot_ids[rows],
        xy=np.ascontiguousarray(raw.xy[rows], dtype=np.float64),
        array=None if raw.array is None else np.ascontiguousarray(raw.array[rows], dtype=np.int32),
        geometry=raw.geometry,
        um_per_unit=raw.um_per_unit if section.um_per_unit is None else section.um_per_unit,
        pitch=raw.pitch,
        labels=labels.iloc[rows].reset_index(drop=True) if len(labels.columns) else labels.iloc[:0],
        metadata=dict(source.metadata),
        record=record,
        file_row=rows,
    )


def place_order(raw: RawSlide) -> NDArray[np.int64]:
    """Return the spots' order by place, which does not depend on their order in the files.

    By (array_row, array_col) where the platform has them; else by rows of pitch height (estimated from the spot density
    where there is no pitch), then x; equal places by spot id. A window's spots then lie in few runs of rows.
    """
    keys: list[NDArray[Any]]
    if raw.array is not None:
        keys = [raw.array[:, 1], raw.array[:, 0]]
    else:
        x, y = raw.xy[:, 0], raw.xy[:, 1]
        pitch = raw.pitch
        if not pitch:
            area = float(np.ptp(x) * np.ptp(y)) if len(x) else 0.0
            pitch = (area / len(x)) ** 0.5 if area > 0 else 1.0
        keys = [y, x, np.floor((y - y.min()) / pitch)]
    order = np.lexsort(keys)
    tied = np.logical_and.reduce([np.diff(key[order]) == 0 for key in keys])
    return np.lexsort([raw.spot_ids.astype(str), *keys]) if tied.any() else order


def _check(raw: RawSlide, where: str) -> None:
    n_spots, n_genes = raw.counts.shape
    if n_spots == 0 or n_genes == 0:
        raise InputError("the matrix is empty", where=where, found=f"{n_spots} spots x {n_genes} genes")
    check_finite(raw.xy, where=where, ids=raw.spot_ids)
    ids = pd.Index(raw.spot_ids, dtype=object)
    if not ids.is_unique:
        raise InputError("a spot id is given twice", where=where, found=str(ids[ids.duplicated()].min()))
    data = raw.counts.data
    if data.dtype.kind != "u" and data.min(initial=0) < 0:
        raise InputError("a count is negative", where=where, found=data.min())


def _dtype(csr: Csr, harmonized: gene_identity.Harmonized, *, largest_total: float) -> np.dtype[Any]:
    """Return a dtype that holds every count of the harmonized matrix: columns of one gene are summed."""
    if csr[0].dtype.kind not in "iu":
        return np.dtype(np.float32)
    largest = int(largest_total)  # no count is larger than its row's sum, even where a row gives a column twice
    if largest >= 2**16 and is_canonical(csr):
        kept = harmonized.columns[harmonized.columns >= 0]
        largest = min(largest, int(csr[0].max()) * int(np.bincount(kept).max()))
    return np.dtype(np.uint16 if largest < 2**16 else np.uint32 if largest < 2**32 else np.uint64)


def _narrowed(csr: Csr, where: str) -> Csr:
    data, indices, indptr = csr
    if data.dtype in (np.uint32, np.uint64):
        largest = int(data.max()) if len(data) else 0
        if largest >= 2**32:
            raise InputError("a count is larger than 32 bits hold", where=where, found=largest)
        data = data.astype(np.uint16 if largest < 2**16 else np.uint32, copy=False)
    return data, indices, indptr


def _csr_matrix(csr: Csr, n_genes: int) -> Any:
    from scipy import sparse

    matrix = sparse.csr_matrix((len(csr[2]) - 1, n_genes), dtype=csr[0].dtype)
    matrix.data, matrix.indices, matrix.indptr = csr
    matrix.has_sorted_indices = True
    matrix.has_canonical_format = True
    return matrix


def _matched(genes: pd.DataFrame, vocabulary: Mapping[str, int] | None, where: str) -> dict[str, Any]:
    """Count the genes that an external vocabulary has, by name or as ``organism:gene``."""
    if vocabulary is None:
        return {}
    unmatched = [
        gene
        for gene, organism in zip(genes.index, genes["organism"], strict=True)
        if gene not in vocabulary and f"{organism}:{gene}" not in vocabulary
    ]
    if len(unmatched) == len(genes):
        raise InputError(
            "no gene of the slide is in the vocabulary",
            where=where,
            found=f"genes such as {', '.join(unmatched[:5])}",
            expected=f"names such as {', '.join(list(vocabulary)[:5])}",
            hint="see ingest.genes: identity (symbol or ensembl) and map",
        )
    return {
        "matched": len(genes) - len(unmatched),
        "unmatched": len(unmatched),
        "unmatched_genes": unmatched[:LISTED] + (["..."] if len(unmatched) > LISTED else []),
    }
