"""Near-duplicates: pairs of slides whose genes' shares of all counts are nearly the same.

A section that was downsampled, cut out of a larger one, segmented anew or saved with other genes has other digests. Its
genes have the same shares of its counts, but for the noise of counting:

    a, b      a gene's share on two slides; n, m its pixels' totals that the shares are taken over
    r         Pearson correlation of sqrt(a) and sqrt(b) over the genes that both show, weighted alike

The square root makes the noise of all genes about the same, so that few genes of many counts do not decide. Serial
sections are near too, and two donors' sections of one tissue may be: near is a reason to look, not a proof.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.audit import Audit, audit
from stpatch.dataset.genes import PAD_NAME
from stpatch.dataset.manifest import read_manifest
from stpatch.dataset.opening import open_dataset

NEAR = 0.98
"""Correlation from which a pair is near; tests measure it on copies and on other donors' sections."""
LEAST_GENES = 30
"""Genes that both slides must show."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Shares of counts of a slide's genes.

    Attributes
    ----------
    dataset, slide_id, splits
        Whose it is.
    names
        (genes,) names of the genes that its samples show, ascending.
    shares
        (genes,) their counts by the counts of all genes on the pixels that show them.
    """

    dataset: str
    slide_id: str
    splits: tuple[str, ...]
    names: NDArray[np.str_]
    shares: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Near:
    """A pair of slides that are near, with the correlation and the number of genes it is over."""

    first: Profile
    second: Profile
    correlation: float
    genes: int

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        pair = [
            {"dataset": p.dataset, "slide_id": p.slide_id, "splits": list(p.splits)} for p in (self.first, self.second)
        ]
        return {"slides": pair, "correlation": round(self.correlation, 6), "genes": self.genes}

    def text(self) -> str:
        """Return the line of a report."""
        words = [f"{p.dataset}, slide {p.slide_id} ({', '.join(p.splits)})" for p in (self.first, self.second)]
        return f"near: {words[0]}; {words[1]}: correlation {self.correlation:.4f} over {self.genes} genes"


def profiles(folder: Path) -> list[Profile]:
    """Return the profiles of a dataset's slides, from the counts of all its samples; none where it holds no counts."""
    manifest = read_manifest(folder)
    if manifest.values != "counts":
        return []
    counts: dict[str, NDArray[np.float64]] = {}
    totals: dict[str, NDArray[np.float64]] = {}
    splits: dict[str, list[str]] = {}
    vocabulary: NDArray[np.object_] = np.empty(0, object)
    for split in manifest.splits:
        with open_dataset(folder, split, values="counts") as dataset:
            vocabulary = dataset.vocabulary
            for sample in dataset:
                slide_id = str(sample.meta["slide_id"])
                if slide_id not in counts:
                    counts[slide_id], totals[slide_id] = np.zeros((2, len(vocabulary)))
                if split not in splits.setdefault(slide_id, []):
                    splits[slide_id].append(split)
                shown = np.asarray(sample.measured, bool)  # a reader gives genes and which of them were measured
                genes, x = np.asarray(sample.genes)[shown], sample.x[shown]
                np.add.at(counts[slide_id], genes, x.sum(axis=(1, 2), dtype=np.float64))
                np.add.at(totals[slide_id], genes, float(sample.totals.sum()))
    named = vocabulary.astype(str)
    usable = (named != "") & (named != PAD_NAME)
    found = []
    for slide_id, sums in counts.items():
        shown = np.flatnonzero(usable & (totals[slide_id] > 0))
        order = shown[np.argsort(named[shown])]
        shares = sums[order] / totals[slide_id][order]
        found.append(
            Profile(
                dataset=str(folder),
                slide_id=slide_id,
                splits=tuple(splits[slide_id]),
                names=named[order],
                shares=shares,
            )
        )
    return found


def near_pairs(own: Sequence[Profile], others: Sequence[Profile] = (), *, least: float = NEAR) -> Iterator[Near]:
    """Yield pairs that are near: of `own` where no split holds both, and of `own` and `others`.

    Parameters
    ----------
    own, others
        Of `profiles`.
    least
        The least correlation.
    """
    pairs = [(a, b) for i, a in enumerate(own) for b in own[i + 1 :] if set(a.splits) != set(b.splits)]
    pairs += [(a, b) for a in own for b in others]
    for first, second in pairs:
        correlation, genes = similarity(first, second)
        if correlation >= least:
            yield Near(first=first, second=second, correlation=correlation, genes=genes)


def similarity(first: Profile, second: Profile) -> tuple[float, int]:
    """Return the correlation of two profiles' square roots and the genes it is over; 0 where they are too few."""
    _, left, right = np.intersect1d(first.names, second.names, assume_unique=True, return_indices=True)
    a, b = np.sqrt(first.shares[left]), np.sqrt(second.shares[right])
    seen = (a > 0) | (b > 0)
    a, b = a[seen], b[seen]
    if len(a) < LEAST_GENES or a.std() == 0 or b.std() == 0:
        return 0.0, len(a)
    return float(np.corrcoef(a, b)[0, 1]), len(a)


def audit_near(
    dataset: Path, *, against: Sequence[Path] = (), digests: Mapping[str, str] | None = None, near: bool = False
) -> Audit:
    """Return `stpatch.dataset.audit.audit` of a dataset, with the pairs that are near where they are asked for."""
    found = audit(dataset, against=against, digests=digests)
    if not near:
        return found
    others = [profile for other in against for profile in profiles(other)]
    return replace(found, near=tuple(near_pairs(profiles(dataset), others)))
