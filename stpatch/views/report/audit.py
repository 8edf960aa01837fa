"""The leak audit: what a dataset's own tables tell of donors and sections that stand in several splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from stpatch.image.groups import donor_columns, is_missing


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that stands in more than one split.

    Attributes
    ----------
    kind
        The column, or what the sections share.
    value
        Its value, or the slides.
    splits
        Where it stands.
    """

    kind: str
    value: str
    splits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was compared, and what was found."""

    columns: tuple[str, ...]
    digests: tuple[str, ...]
    findings: tuple[Finding, ...]


_DIGESTS = {
    "digest_matrix": "the same genes and counts",
    "digest_genes": "the same sums per gene",
    "digest_spots": "the same sums per spot",
}


def audit_splits(
    slides: pd.DataFrame, metadata: Sequence[Mapping[str, object]], splits_of: Mapping[str, Sequence[str]]
) -> Audit:
    """Look for slides, donors and equal sections in several splits.

    Parameters
    ----------
    slides
        Rows of slides.parquet, with its digests where the dataset has them.
    metadata
        The samplesheet's columns of each slide.
    splits_of
        The splits that hold patches of a slide.
    """
    names = [str(name) for name in slides["slide_id"]]
    columns = donor_columns(list(dict.fromkeys(key for row in metadata for key in row)))
    findings = [
        Finding(kind="slide", value=name, splits=tuple(splits_of.get(name, ())))
        for name in names
        if len(splits_of.get(name, ())) > 1
    ]
    for column in columns:
        where: dict[str, dict[str, None]] = {}
        for name, row in zip(names, metadata, strict=True):
            value = str(row.get(column, "")).strip()
            if not is_missing(value):
                where.setdefault(value, {}).update(dict.fromkeys(splits_of.get(name, ())))
        findings += [
            Finding(kind=column, value=value, splits=tuple(found)) for value, found in where.items() if len(found) > 1
        ]
    digests = tuple(name for name in _DIGESTS if name in slides and slides[name].notna().any())
    seen: set[tuple[str, ...]] = set()
    for column in digests:
        for _, group in slides[slides[column].notna()].groupby(column, sort=False):
            same = tuple(str(name) for name in group["slide_id"])
            found = tuple(dict.fromkeys(split for name in same for split in splits_of.get(name, ())))
            if len(same) > 1 and same not in seen:
                seen.add(same)
                findings.append(Finding(kind=_DIGESTS[column], value=", ".join(same), splits=found))
    return Audit(columns=tuple(columns), digests=digests, findings=tuple(findings))
