"""One slide as a croppable dataset stores it: its canonical counts, its grid, and its channels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stpatch.dataset.cropping.stored import ALL_GENES, StoredSlide, stored_counts
from stpatch.slides.store import read_slide
from stpatch.stages.channels import Channels
from stpatch.stages.crop import read_cut
from stpatch.stages.cutter import label_codes
from stpatch.stages.job import Job


def stored_slide(job: Job, slide_id: str, *, channels: Channels, categories: Mapping[str, list[str]]) -> StoredSlide:
    """Return a slide with its spots in tile order.

    Parameters
    ----------
    job, slide_id
        The slide, ingested and cropped.
    channels
        Of the corpus.
    categories
        The categories of each label, over all slides.
    """
    slide, cut, facts = read_slide(job.slide_path(slide_id)), read_cut(job.patches_path(slide_id)), job.totals(slide_id)
    rows, columns = cut.grid.shape
    pixel = cut.grid.pixel
    order, counts, genes, indptr, gene_ids = stored_counts(
        (slide.counts.data, slide.counts.indices, slide.counts.indptr), cut.gene_ids, pixel, columns
    )
    wanted = channels.channels_of(slide_id)
    row, col = np.divmod(pixel[order], columns)
    row[pixel[order] < 0] = col[pixel[order] < 0] = -1
    nothing = [None] * len(order)
    return StoredSlide(
        slide_id=slide_id,
        grid_shape=(rows, columns),
        counts=counts,
        genes=genes,
        indptr=indptr,
        gene_ids=gene_ids.astype(np.int32),
        channels=np.array([ALL_GENES], np.int32) if wanted is None else wanted.astype(np.int32),
        pixels=np.stack([row, col], axis=1).astype(np.int32),
        totals=facts["totals"][order].astype(np.float64),
        largest=facts["largest"][order].astype(np.uint32),
        labels={
            name: codes[order] for name, codes in label_codes(slide.labels, categories, n_spots=len(order)).items()
        },
        spots={
            "spot_id": slide.spot_ids[order].tolist(),
            "x": slide.xy[order, 0],
            "y": slide.xy[order, 1],
            "array_row": nothing if slide.array is None else slide.array[order, 0],
            "array_col": nothing if slide.array is None else slide.array[order, 1],
        },
        facts={"geometry": str(slide.geometry), "um_per_unit": slide.um_per_unit, "pitch": slide.pitch},
    )
