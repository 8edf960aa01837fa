"""Groups: the slides that no split may part, because one donor (or whatever the config names) stands behind them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

AUTO = "auto"
DONOR_WORDS = ("donor", "patient", "subject", "individual", "animal", "mouse", "case", "block")
"""Columns that name whom a slide was taken from, in order of preference; ``donor_id``, ``Patient ID`` count too."""
MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "<na>", "unknown", "?", "-", "."})
"""Cells that name nobody, in lower case."""


def _word(name: str) -> str | None:
    plain = re.sub(r"[^a-z0-9]", "", name.strip().lower())
    for word in DONOR_WORDS:
        if re.fullmatch(rf"{word}(s|id|ids|name|no|nr|number|code|uuid)?", plain):
            return word
    return None


def donor_columns(columns: Iterable[str]) -> list[str]:
    """Return the donor-like columns, most telling first."""
    known = [(DONOR_WORDS.index(word), i, name) for i, name in enumerate(columns) if (word := _word(name))]
    return [name for _, _, name in sorted(known)]


def is_missing(text: object) -> bool:
    """Whether a cell names nobody."""
    return str(text).strip().lower() in MISSING


def auto_groups(
    slides: Mapping[str, Mapping[str, object]], *, allow: Sequence[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """Return the group of each slide as ``split.by: auto`` sees it, and the columns it comes from.

    Slides that share a donor in any donor-like column are one group, so that none of the columns spans splits. A slide
    that names nobody is a group of its own. Without such a column every slide is its own group.

    Parameters
    ----------
    slides
        The samplesheet's columns by slide id.
    allow
        ``split.allow_leak``: columns that may span splits.

    Returns
    -------
    Slide id -> the group's name: the donor where one column tells, as ``split.by: COLUMN`` would have it.
    """
    columns = [name for name in donor_columns(_columns(slides)) if not is_allowed(name, allow)]
    if not columns:
        return {slide_id: slide_id for slide_id in slides}, []
    sets = _Sets()
    for slide_id, row in slides.items():
        for name in columns:
            if not is_missing(row.get(name, "")):
                sets.join(("", slide_id), (name, str(row[name]).strip()))
    names: dict[_Node, str] = {}
    for column in columns:  # a group bears the least donor of the first column that says anything of it
        told: dict[_Node, list[str]] = {}
        for node in sets.nodes():
            if node[0] == column:
                told.setdefault(sets.root(node), []).append(node[1])
        for top, values in told.items():
            names.setdefault(top, min(values) if column == columns[0] else f"{column}={min(values)}")
    return {slide_id: names.get(sets.root(("", slide_id)), f"slide_id={slide_id}") for slide_id in slides}, columns


_Node = tuple[str, str]


class _Sets:
    """Disjoint sets of nodes: (column, value), or ("", slide id)."""

    def __init__(self) -> None:
        self._parent: dict[_Node, _Node] = {}

    def nodes(self) -> list[_Node]:
        return list(self._parent)

    def root(self, node: _Node) -> _Node:
        while (parent := self._parent.setdefault(node, node)) != node:
            node = parent
        return node

    def join(self, one: _Node, two: _Node) -> None:
        self._parent[self.root(one)] = self.root(two)


def _columns(slides: Mapping[str, Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for row in slides.values() for name in row))


def is_allowed(name: str, allow: Sequence[str]) -> bool:
    """Whether ``split.allow_leak`` lists a column; case does not count, as donor-like names are found in any."""
    return name.strip().lower() in {other.strip().lower() for other in allow}


def spanning_donors(
    slides: Mapping[str, Mapping[str, object]], split_of: Mapping[str, str], *, allow: Sequence[str] = ()
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the donor-like columns whose values span splits: column -> value -> the splits it is in.

    Parameters
    ----------
    slides
        The samplesheet's columns by slide id.
    split_of
        The split of each slide; "" for none.
    allow
        Columns that may span splits.
    """
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for name in donor_columns(_columns(slides)):
        if is_allowed(name, allow):
            continue
        splits: dict[str, set[str]] = {}
        for slide_id, row in slides.items():
            value, split = str(row.get(name, "")).strip(), split_of.get(slide_id, "")
            if split and not is_missing(value):
                splits.setdefault(value, set()).add(split)
        spanning = {value: tuple(sorted(names)) for value, names in sorted(splits.items()) if len(names) > 1}
        if spanning:
            found[name] = spanning
    return found
