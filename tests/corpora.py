"""Small corpora of canonical slides, made in memory, for tests of statistics and panel rules."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from stpatch.expression.normalize import Normalization, resolve_normalization, spot_totals
from stpatch.expression.rules.base import RuleSpec
from stpatch.expression.select import Panel, select_panel
from stpatch.expression.statistics import SlideStatistics, slide_statistics
from stpatch.slides.slide import Slide

Normalize = Callable[[Slide], Normalization]


def make_slide(
    slide_id: str,
    counts: np.ndarray | sparse.spmatrix,
    genes: Sequence[str] | None = None,
    *,
    xy: np.ndarray | None = None,
    array: np.ndarray | None = None,
    geometry: str = "irregular",
) -> Slide:
    """Make a slide of counts (spots, genes); genes are g0000, g0001, ... where not given."""
    matrix = sparse.csr_matrix(counts)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    if matrix.dtype.kind != "f":
        matrix = matrix.astype(np.uint16 if matrix.nnz == 0 or matrix.data.max() < 2**16 else np.uint32)
    n_spots, n_genes = matrix.shape
    names = [f"g{i:04d}" for i in range(n_genes)] if genes is None else list(genes)
    if xy is None:
        xy = np.column_stack([np.arange(n_spots) % 7, np.arange(n_spots) // 7])
    return Slide(
        slide_id=slide_id,
        platform="table",
        organism="human",
        counts=matrix,
        genes=pd.DataFrame({"name": names, "ensembl_id": ""}, index=pd.Index(names, name="gene")),
        spot_ids=np.array([f"s{i}" for i in range(n_spots)], dtype=object),
        xy=np.asarray(xy, dtype=np.float64),
        array=None if array is None else np.asarray(array, dtype=np.int32),
        geometry=geometry,
        um_per_unit=None,
        pitch=None,
        labels=pd.DataFrame(index=range(n_spots)),
        metadata={},
        record={},
    )


def read_her2st(data_dir: Path, section: str) -> Slide:
    """Read a section of her2st, genes sorted by name, empty genes kept."""
    with gzip.open(data_dir / "her2st" / "ST-cnts" / f"{section}.tsv.gz") as file:
        table = pd.read_csv(file, sep="\t", index_col=0)
    table = table[sorted(table.columns)]
    array = np.array([[int(part) for part in name.split("x")][::-1] for name in table.index])
    counts = sparse.csr_matrix(table.to_numpy())
    return make_slide(section, counts, list(table.columns), xy=array[:, ::-1], array=array, geometry="square")


def normalized_by(method: str, target_sum: float | str = 1e4) -> Normalize:
    """Return a function that resolves a slide's normalization."""

    def resolve(slide: Slide) -> Normalization:
        return resolve_normalization(
            method, target_sum=target_sum, counts=slide.counts, totals=spot_totals(slide.counts)
        )

    return resolve


LOG1P = normalized_by("log1p_total")


def statistics_of(slides: Sequence[Slide], rule: RuleSpec, normalize: Normalize = LOG1P) -> dict[str, SlideStatistics]:
    """Return what the normalize stage would write."""
    return {s.slide_id: slide_statistics(s, normalization=normalize(s), rules=[rule]) for s in slides}


def panel_of(slides: Sequence[Slide], rule: RuleSpec, normalize: Normalize = LOG1P) -> Panel:
    """Run the normalize and select stages in memory."""
    statistics: Mapping[str, SlideStatistics] = statistics_of(slides, rule, normalize)
    by_id = {slide.slide_id: slide for slide in slides}
    return select_panel(
        rule,
        slide_ids=list(by_id),
        load_statistics=statistics.__getitem__,
        load_slide=by_id.__getitem__,
    )
