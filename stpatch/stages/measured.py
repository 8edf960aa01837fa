"""Which genes count as measured: those that a slide lists, and those whose absence says zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.stages.channels import Channels
from stpatch.stages.job import Job

if TYPE_CHECKING:
    from stpatch.expression.statistics import SlideStatistics
    from stpatch.slides.slide import Slide


def absent_is_zero(job: Job, slide_id: str) -> bool:
    """Whether a gene that the slide's file does not list was measured and had no count (`stpatch.slides.absent`)."""
    return bool(job.receipt("ingest", slide_id).facts["absent"] == "zero")


def zero_genes(
    names: Sequence[str], listed: Sequence[str], *, organisms: Sequence[str], by_organism: bool
) -> list[str]:
    """Return the corpus' genes that a slide has as zeros: those of its organisms that it does not list.

    Parameters
    ----------
    names, listed
        Vocabulary names of the corpus and of the slide.
    organisms
        The slide's; "" among them for genes that a user mapped.
    by_organism
        Whether names of the corpus are ``organism:gene``.
    """
    own = set(listed)
    prefixes = tuple(f"{organism}:" for organism in organisms if organism)
    return [
        name for name in names if name not in own and (not by_organism or ":" not in name or name.startswith(prefixes))
    ]


def measured_ids(job: Job, slide_id: str, channels: Channels, listed: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the gene ids that count as measured on a slide; `listed` are those of its genes, -1 = outside."""
    inside = listed[listed >= 0]
    if not absent_is_zero(job, slide_id):
        return inside
    organisms = job.receipt("ingest", slide_id).facts["organisms"]
    of_id = dict(zip(channels.ids.tolist(), channels.names, strict=True))
    zeros = zero_genes(
        channels.names, [of_id[i] for i in inside.tolist()], organisms=organisms, by_organism=channels.by_organism
    )
    return np.concatenate([inside, channels.ids_of(zeros)])


def with_zeros(statistics: SlideStatistics, names: Sequence[str]) -> SlideStatistics:
    """Return a slide's statistics with further genes that have no count in any spot."""
    if not names:
        return statistics
    size = len(statistics.genes) + len(names)
    own = np.arange(len(statistics.genes))
    n = np.full(size, statistics.n_spots, dtype=np.int64)
    moran = statistics.moran
    if moran is not None:
        weight = np.full(size, moran.weight.flat[0] if moran.weight.size else 0.0)
        wide = moran.scatter_to_axis(own, size)
        moran = replace(wide, weight=weight, values=replace(wide.values, n=n))
    scaled = None if statistics.scaled is None else replace(statistics.scaled.scatter_to_axis(own, size), n=n)
    return replace(
        statistics,
        genes=(*statistics.genes, *names),
        counts=replace(statistics.counts.scatter_to_axis(own, size), n=n),
        values=replace(statistics.values.scatter_to_axis(own, size), n=n),
        scaled=scaled,
        moran=moran,
        scores={key: np.concatenate([score, np.full(len(names), np.nan)]) for key, score in statistics.scores.items()},
    )


def slide_with_zeros(slide: Slide, names: Sequence[str]) -> Slide:
    """Return a slide, genes under their vocabulary names, with further genes without a count."""
    if not names:
        return slide
    from scipy import sparse

    counts = sparse.csr_matrix((slide.n_spots, slide.n_genes + len(names)), dtype=slide.counts.dtype)
    counts.data, counts.indices, counts.indptr = slide.counts.data, slide.counts.indices, slide.counts.indptr
    counts.has_sorted_indices = counts.has_canonical_format = True
    further = pd.DataFrame("", index=pd.Index(list(names), dtype=object), columns=slide.genes.columns)
    return replace(slide, counts=counts, genes=pd.concat([slide.genes, further]))
