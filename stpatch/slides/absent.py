"""Absent is not unmeasured: what it means that a slide's file does not list a gene.

A targeted panel's file, or a reference's full list, says of every gene that it lacks that it was not measured. The
tables of sequencing platforms (legacy ST, GEM, digital expression) list only what was detected: there, a gene that is
absent was measured and had no count.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Absent = Literal["zero", "unmeasured"]

DETECTED_ONLY = ("st", "slideseq", "stereoseq")
"""Platforms of sequenced transcriptomes whose tables leave out genes without a count."""
MOST_EMPTY = 0.1
"""Largest share of listed genes without a count in such a table: spots may have been taken out after it was made. The
full list of a reference has several times as many."""


def absent_means(
    setting: Literal["unmeasured", "zero", "auto"], *, platform: str, gene_sums: NDArray[np.float64] | None
) -> tuple[Absent, list[str]]:
    """Return what a gene is that the slide's file does not list, and a note where that was inferred.

    Parameters
    ----------
    setting
        ``ingest.genes.absent``.
    platform
        The slide's.
    gene_sums
        (genes,) counts of the genes that the file lists, for `platform` of `DETECTED_ONLY`; None: not looked at.
    """
    if setting != "auto":
        return setting, []
    if platform not in DETECTED_ONLY or gene_sums is None or not len(gene_sums):
        return "unmeasured", []
    empty = float((gene_sums == 0).mean())
    if empty > MOST_EMPTY:
        return "unmeasured", []
    return "zero", [
        f"the {platform} table lists detected genes only, so a gene that it lacks counts as measured and 0 "
        "(ingest.genes.absent: unmeasured makes it unknown)"
    ]
