"""Whether datasets share anything: files, count matrices, sections, donors; between splits, versions and datasets.

A slide is known by *marks*, each a kind and a value, all of them in slides.parquet:

    file     SHA-256 of its largest input file (smaller ones, such as lists of barcodes, are the same for many slides)
    matrix   digest of the section's genes and counts, whatever file they come in    `stpatch.slides.digests`
    genes    digest of its sums per gene, whatever the genes are called
    spots    digest of its sums per spot
    donor    a value of a donor-like column of the samplesheet, as it is written

Equal marks are proof but for donors, whose names two studies may have in common by chance. What has no equal mark may
still be near: `near_pairs` compares the genes' shares of all counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stpatch.dataset.manifest import read_manifest
from stpatch.dataset.tables import DIGESTS, SLIDES, read_table
from stpatch.errors import DatasetError
from stpatch.image.groups import donor_columns, is_missing
from stpatch.slides.digests import KINDS

DIGEST_KINDS = ("file", *KINDS)
"""Kinds of marks that are digests, which may be published without saying whose they are."""
_LINE = re.compile(r"(?:(?P<kind>[a-z]+)[ \t:]+)?(?P<digest>[0-9a-f]{64})(?:\s.*)?")


@dataclass(frozen=True, kw_only=True)
class Marked:
    """A slide with its marks.

    Attributes
    ----------
    dataset, slide_id
        Whose it is.
    splits
        The splits that hold samples of it.
    marks
        (kind, value) of each.
    """

    dataset: str
    slide_id: str
    splits: tuple[str, ...]
    marks: frozenset[tuple[str, str]]

    @property
    def words(self) -> str:
        """The slide as a line of a report names it."""
        return f"{self.dataset}, slide {self.slide_id}" + (f" ({', '.join(self.splits)})" if self.splits else "")


@dataclass(frozen=True, kw_only=True)
class Shared:
    """One mark that several slides have, or that a published list has too."""

    between: str
    kind: str
    value: str
    slides: tuple[Marked, ...]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "between": self.between,
            "kind": self.kind,
            "value": self.value,
            "slides": [{"dataset": s.dataset, "slide_id": s.slide_id, "splits": list(s.splits)} for s in self.slides],
        }

    def text(self) -> str:
        """Return the line of a report."""
        value = self.value if self.kind == "donor" else self.value[:12]
        return f"shared between {self.between}: {self.kind} {value}: " + "; ".join(slide.words for slide in self.slides)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit looked at and found.

    Attributes
    ----------
    datasets
        Name and digest of the manifest (None in format 1) of each dataset by folder.
    slides, unmarked
        Slides looked at, and those whose counts have no digest: too few of them to tell sections apart, or built before
        there were any.
    shared
        Marks that are shared.
    near
        Pairs of slides whose genes' shares are nearly the same; filled by the caller, see `stpatch.dataset.near`.
    """

    datasets: Mapping[str, Mapping[str, Any]]
    slides: int
    unmarked: tuple[str, ...]
    shared: tuple[Shared, ...]
    near: tuple[Any, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "datasets": {folder: dict(facts) for folder, facts in self.datasets.items()},
            "slides": self.slides,
            "unmarked": list(self.unmarked),
            "shared": [item.as_json() for item in self.shared],
            "near": [pair.as_json() for pair in self.near],
            "disjoint": not self.shared and not self.near,
        }

    def text(self) -> str:
        """Return the report."""
        lines = [item.text() for item in (*self.shared, *self.near)]
        lines += [f"note: its counts have no digest: {words}" for words in self.unmarked]
        looked = f"{self.slides} slide{'s' if self.slides != 1 else ''} of {len(self.datasets)} dataset"
        looked += "s" if len(self.datasets) > 1 else ""
        result = (
            f"{len(self.shared)} shared, {len(self.near)} near" if self.shared or self.near else "nothing is shared"
        )
        return "\n".join([*lines, f"{looked}: {result}"])


def audit(dataset: Path, *, against: Sequence[Path] = (), digests: Mapping[str, str] | None = None) -> Audit:
    """Return what a dataset's splits share with each other, and the dataset with others.

    Parameters
    ----------
    dataset
        Its folder.
    against
        Folders of other datasets, or of other versions of this one.
    digests
        A published list: kind by digest, "" where the list does not say it; see `read_digests`.

    Raises
    ------
    DatasetError
        A dataset cannot be read.
    """
    own = marked_slides(dataset)
    names = {str(dataset): _facts(dataset)}
    shared = _between_splits(own)
    slides = list(own)
    for other in against:
        theirs = marked_slides(other)
        names[str(other)] = _facts(other)
        slides += theirs
        shared += _between(own, theirs, f"{dataset} and {other}")
    if digests is not None:
        shared += _in_list(own, digests)
    unmarked = tuple(s.words for s in slides if not any(kind in KINDS for kind, _ in s.marks))
    return Audit(datasets=names, slides=len(slides), unmarked=unmarked, shared=tuple(shared))


def marked_slides(folder: Path) -> list[Marked]:
    """Return a dataset's slides with their marks, in the order of slides.parquet."""
    import pyarrow.compute as pc

    manifest = read_manifest(folder)
    table = read_table(folder / manifest.tables["slides"].path, SLIDES | DIGESTS, without=DIGESTS)
    patches = read_table(folder / manifest.tables["patches"].path, {"slide_id": "string", "split": "string"})
    pairs = patches.group_by(["slide_id", "split"]).aggregate([]).sort_by("split").to_pylist()
    splits: dict[str, list[str]] = {}
    for pair in pairs:
        splits.setdefault(pair["slide_id"], []).append(pair["split"])
    rows = table.drop_columns(["measured"]).filter(pc.is_valid(table["slide_id"])).to_pylist()
    return [
        Marked(
            dataset=str(folder),
            slide_id=row["slide_id"],
            splits=tuple(splits.get(row["slide_id"], ())),
            marks=frozenset(_marks(row, where=folder)),
        )
        for row in rows
    ]


def read_digests(path: Path) -> dict[str, str]:
    """Read a published list of digests: a line each, the kind before it where it is known; ``#`` begins a comment.

    Raises
    ------
    DatasetError
        The file cannot be read, or a line is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError("the list of digests cannot be read", where=path, found=error) from error
    digests = {}
    for number, line in enumerate(lines, 1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if match is None or match["kind"] not in (None, *DIGEST_KINDS):
            raise DatasetError(
                "a line is not a digest",
                where=f"{path}, line {number}",
                found=text[:80],
                expected=f"{', '.join(DIGEST_KINDS)} or nothing, and 64 hexadecimal digits",
            )
        digests[match["digest"]] = match["kind"] or ""
    return digests


def digest_lines(dataset: Path) -> list[str]:
    """Return a dataset's digests as a benchmark may publish them: no names, in an order that tells nothing."""
    lines = {f"{kind} {value}" for s in marked_slides(dataset) for kind, value in s.marks if kind in DIGEST_KINDS}
    return sorted(lines)


def _facts(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    name, version = (manifest.dataset.get(key) for key in ("name", "version"))
    return {"name": name, "version": version, "digest": manifest.digest}


def _marks(row: Mapping[str, Any], *, where: Path) -> Iterable[tuple[str, str]]:
    try:
        inputs, metadata = json.loads(row["inputs"]), json.loads(row["metadata"])
        if inputs:
            yield "file", str(max(inputs, key=lambda item: item["bytes"])["sha256"])
        for column in donor_columns(metadata):
            if not is_missing(metadata[column]):
                yield "donor", str(metadata[column]).strip()
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(
            "a slide's inputs or metadata cannot be read", where=f"{where}, slide {row['slide_id']}", found=error
        ) from error
    for kind in KINDS:
        if row.get(f"digest_{kind}"):
            yield kind, row[f"digest_{kind}"]


def _by_mark(slides: Iterable[Marked]) -> dict[tuple[str, str], list[Marked]]:
    found: dict[tuple[str, str], list[Marked]] = {}
    for slide in slides:
        for mark in slide.marks:
            found.setdefault(mark, []).append(slide)
    return dict(sorted(found.items()))


def _between_splits(slides: Sequence[Marked]) -> list[Shared]:
    """Return slides that are in several splits, and marks whose slides are."""
    shared = [
        Shared(between=f"splits {' and '.join(s.splits)}", kind="slide", value=s.slide_id, slides=(s,))
        for s in slides
        if len(s.splits) > 1
    ]
    for (kind, value), having in _by_mark(slides).items():
        splits = sorted({split for slide in having for split in slide.splits})
        if len(having) > 1 and len(splits) > 1:
            between = f"splits {' and '.join(splits)}"
            shared.append(Shared(between=between, kind=kind, value=value, slides=tuple(having)))
    return shared


def _between(own: Sequence[Marked], theirs: Sequence[Marked], between: str) -> list[Shared]:
    other = _by_mark(theirs)
    return [
        Shared(between=between, kind=kind, value=value, slides=(*having, *other[kind, value]))
        for (kind, value), having in _by_mark(own).items()
        if (kind, value) in other
    ]


def _in_list(own: Sequence[Marked], digests: Mapping[str, str]) -> list[Shared]:
    return [
        Shared(between="the dataset and the list of digests", kind=kind, value=value, slides=tuple(having))
        for (kind, value), having in _by_mark(own).items()
        if kind in DIGEST_KINDS and digests.get(value) in ("", kind)
    ]
