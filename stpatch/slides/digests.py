"""Digests of a section's counts: what shows one section under two ids, whatever file, format or order it comes in.

A file's checksum knows a file again, and nothing else: the same matrix saved anew, or another vendor's export of it,
has another one. Sums do not depend on any of that. So a section is known by its genes' names with their counts and
its spots' counts; and, where they are many, by two multisets alone: the counts of its genes (which binning and other
names leave as they are) and the counts of its spots (which other names and merged genes leave as they are).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_SUMS = 40
"""Sums above 0 that a multiset needs to be evidence by itself: fewer are equal by chance in a large corpus."""
LEAST_IN_ALL = 12
"""Sums above 0 of genes and spots that a section needs to be known again at all."""
KINDS = ("matrix", "genes", "spots")


@dataclass(frozen=True, kw_only=True)
class SectionDigests:
    """Digests of one section.

    Attributes
    ----------
    matrix
        SHA-256 (hex) of the genes with counts, by name, with their sums, and of the spots' sums in order of size.
    genes, spots
        SHA-256 (hex) of the sorted sums above 0 of the genes and of the spots.

    Each is "" where its sums are too few to tell sections apart.
    """

    matrix: str
    genes: str
    spots: str

    def as_json(self) -> dict[str, str]:
        """Return the digests by name."""
        return {"matrix": self.matrix, "genes": self.genes, "spots": self.spots}


def section_digests(
    *, names: Sequence[str], gene_sums: NDArray[np.float64], spot_sums: NDArray[np.float64]
) -> SectionDigests:
    """Return the digests of a section.

    Parameters
    ----------
    names
        (genes,) identities.
    gene_sums
        (genes,) counts over all spots.
    spot_sums
        (spots,) counts over all genes.
    """
    found = np.flatnonzero(gene_sums > 0).tolist()
    order = sorted(found, key=lambda i: (names[i], gene_sums[i]))
    matrix = hashlib.sha256("\n".join(str(names[i]) for i in order).encode())
    matrix.update(_bytes_of(gene_sums[order]))
    matrix.update(_bytes_of(np.sort(spot_sums[spot_sums > 0])))
    known = len(found) + int((spot_sums > 0).sum()) >= LEAST_IN_ALL
    return SectionDigests(
        matrix=matrix.hexdigest() if known else "",
        genes=_multiset_digest(gene_sums),
        spots=_multiset_digest(spot_sums),
    )


def _multiset_digest(sums: NDArray[np.float64]) -> str:
    """Return the digest of sums above 0, in order; "" where they say too little."""
    kept = np.sort(sums[sums > 0])
    if len(kept) < LEAST_SUMS or len(np.unique(kept)) < LEAST_SUMS // 8:
        return ""
    return hashlib.sha256(_bytes_of(kept)).hexdigest()


def _bytes_of(sums: NDArray[np.float64]) -> bytes:
    whole = sums.astype(np.int64)
    if (whole == sums).all():
        return whole.astype("<i8").tobytes()
    return "\n".join(f"{value:.6g}" for value in sums.tolist()).encode()  # normalized values: formats round them anew


def same_sections(digests: Mapping[str, Mapping[str, str]]) -> list[tuple[tuple[str, ...], str]]:
    """Return the slides that are one section: their ids, and what agrees.

    Parameters
    ----------
    digests
        By slide id, `SectionDigests.as_json`.

    Returns
    -------
    Each set of ids (in the given order) with what agrees: ``genes and counts``, or ``the counts of genes``, ``the
    counts of spots`` or both; sets in order of their first slide.
    """
    by_digest: dict[tuple[str, str], list[str]] = {}
    for slide_id, known in digests.items():
        for kind in KINDS:
            if known.get(kind):
                by_digest.setdefault((kind, known[kind]), []).append(slide_id)
    kinds_of: dict[tuple[str, ...], list[str]] = {}
    for (kind, _), ids in by_digest.items():
        if len(ids) > 1:
            kinds_of.setdefault(tuple(ids), []).append(kind)
    order = {slide_id: i for i, slide_id in enumerate(digests)}
    return [
        (ids, "genes and counts" if "matrix" in kinds else f"the counts of {' and of '.join(sorted(kinds))}")
        for ids, kinds in sorted(kinds_of.items(), key=lambda item: [order[slide_id] for slide_id in item[0]])
    ]


def not_allowed(ids: Sequence[str], allowed: Sequence[str]) -> bool:
    """Whether slides that are one section are more than the allowed ones beside one."""
    return len(set(ids) - set(allowed)) > 1
