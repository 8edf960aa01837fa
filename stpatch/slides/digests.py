"""Digests of a section's counts: what shows one section under two ids, whatever file, format or order it comes in.

A file's checksum knows a file again, and nothing else: the same matrix saved anew, or another vendor's export of it,
has another one. Sums do not depend on any of that. So a section is known by two multisets: the counts of its genes
(which binning leaves as they are) and the counts of its spots (which names and merged genes leave as they are).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_SUMS = 12
"""Sums above 0 that a multiset needs to be evidence by itself: fewer are equal by chance in a large corpus."""


@dataclass(frozen=True, kw_only=True)
class SectionDigests:
    """Digests of one section.

    Attributes
    ----------
    genes, spots
        SHA-256 (hex) of the sorted sums above 0 of the genes and of the spots, "" where fewer than `LEAST_SUMS` say
        too little.
    """

    genes: str
    spots: str

    def as_json(self) -> dict[str, str]:
        """Return the two by name."""
        return {"genes": self.genes, "spots": self.spots}


def section_digests(*, gene_sums: NDArray[np.float64], spot_sums: NDArray[np.float64]) -> SectionDigests:
    """Return the digests of a section.

    Parameters
    ----------
    gene_sums
        (genes,) counts over all spots.
    spot_sums
        (spots,) counts over all genes.
    """
    return SectionDigests(genes=_multiset_digest(gene_sums), spots=_multiset_digest(spot_sums))


def _multiset_digest(sums: NDArray[np.float64]) -> str:
    """Return the digest of sums above 0, in order; "" where they say too little."""
    kept = np.sort(sums[sums > 0])
    if len(kept) < LEAST_SUMS or len(np.unique(kept)) < LEAST_SUMS // 3:
        return ""
    whole = kept.astype(np.int64)
    if (whole == kept).all():
        data = whole.astype("<i8").tobytes()
    else:  # normalized values: other formats round them in other places
        data = np.array([f"{value:.6g}" for value in kept.tolist()]).astype("S").tobytes()
    return hashlib.sha256(data).hexdigest()


def same_sections(digests: Mapping[str, Mapping[str, str]]) -> list[tuple[tuple[str, ...], str]]:
    """Return the slides that are one section: their ids, and what agrees.

    Parameters
    ----------
    digests
        By slide id, `SectionDigests.as_json`.

    Returns
    -------
    Each set of ids (in the given order) with ``the counts of genes and of spots``, ``the counts of spots`` or ``the
    counts of genes``; sets in order of their first slide.
    """
    by_digest: dict[tuple[str, str], list[str]] = {}
    for slide_id, known in digests.items():
        for kind in ("genes", "spots"):
            if known.get(kind):
                by_digest.setdefault((kind, known[kind]), []).append(slide_id)
    kinds_of: dict[tuple[str, ...], list[str]] = {}
    for (kind, _), ids in by_digest.items():
        if len(ids) > 1:
            kinds_of.setdefault(tuple(ids), []).append(kind)
    order = {slide_id: i for i, slide_id in enumerate(digests)}
    return [
        (ids, f"the counts of {' and of '.join(sorted(kinds))}")
        for ids, kinds in sorted(kinds_of.items(), key=lambda item: [order[slide_id] for slide_id in item[0]])
    ]


def not_allowed(ids: Sequence[str], allowed: Sequence[str]) -> bool:
    """Whether slides that are one section are more than the allowed ones beside one."""
    return len(set(ids) - set(allowed)) > 1
