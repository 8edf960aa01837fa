"""Splits: which slide goes to train, val and test; who is a group, what is given, and which leaks are refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.config import SplitSection
from stpatch.errors import ConfigError
from stpatch.image.dealing import deal_by_hash, deal_folds, deal_fractions, deal_onward, split_shares
from stpatch.image.groups import AUTO, auto_groups, spanning_donors
from stpatch.seeds import key_of

SLIDE_COLUMN = "slide_id"
GIVEN_COLUMN = "split"
"""The samplesheet column that gives every slide's split without a word in the config."""
_LISTED = 8


def assign_splits(
    slides: pd.DataFrame, *, section: SplitSection, seed: int, known: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Give every slide its split.

    The first of these that applies: ``section.column`` names the samplesheet column that holds the split;
    ``section.folds`` deals groups to ``fold0``, ``fold1``, ...; ``section.blocks`` leaves it to
    `stpatch.image.blocks.assign_blocks` (every slide's split is ``""`` then); the samplesheet's own column ``split``;
    ``section.fractions`` deals groups.

    A group is the slides that share a value of column ``section.by`` (``auto``: `stpatch.image.groups.auto_groups`),
    and never spans splits. Dealing depends on
    the seed and the set of groups alone: neither on the slides' order nor on how many slides a group has, so
    fractions are shares of groups, rounded by largest remainders. With at least as many groups as splits of a
    fraction above 0, each of them gets one. With ``section.stratify``, every split gets its share within each value
    of that column, as nearly as whole groups allow, while the shares of the whole stay what they are; a group with
    several values is a stratum of its own kind.

    In a corpus that grows, a group with a slide of a known split stays in that split, and the others are dealt one by
    one, in the order of their hashes, each to the split that lacks most of its fraction of all groups.

    With ``section.method: hash`` a group's split depends on the seed and that group's name alone: a number in [0, 1)
    that a hash gives it, and the cumulative fractions. Shares are kept on average only, and no group ever moves,
    whatever other groups come or go.

    Parameters
    ----------
    slides
        Index: slide ids, unique. Columns: the samplesheet's metadata, and ``split`` where it has one.
    section, seed
        The rule, and the dataset's seed.
    known
        Splits that slides of an earlier version have: slide id -> split.

    Returns
    -------
    dict
        Slide id -> split name, in the order of `slides`.

    Raises
    ------
    ConfigError
        An unknown column, slides without a value, split names that are not lower-case words, a group that
        spans given splits, fewer groups than folds; a donor-like column whose values span splits and that
        ``section.allow_leak`` does not list.
    """
    split_of = _assigned(slides, section=section, seed=seed, known=known or {})
    _refuse_leaks(slides, split_of, section)
    return split_of


def _assigned(slides: pd.DataFrame, *, section: SplitSection, seed: int, known: Mapping[str, str]) -> dict[str, str]:
    slide_ids = [str(slide_id) for slide_id in slides.index]
    if len(set(slide_ids)) < len(slide_ids):
        twice = sorted({slide_id for slide_id in slide_ids if slide_ids.count(slide_id) > 1})
        raise ConfigError("slide ids are not unique", found=_listed(twice))
    group_of, by = _groups(slides, section)
    if section.column is not None:
        return _given(_with_known(slides, section.column, known), section.column, group_of, key="split.column", by=by)
    if section.blocks is not None:
        return dict.fromkeys(slide_ids, "")
    if section.folds is None and GIVEN_COLUMN in slides.columns and not _is_missing(slides[GIVEN_COLUMN]).all():
        return _given(_with_known(slides, GIVEN_COLUMN, known), GIVEN_COLUMN, group_of, key="slides.sheet", by=by)
    kept = _kept(group_of, known, by=by)
    strata = _strata(slides, group_of, section.stratify)
    # A group's place in the deal is a hash of its name: no other group, and no order, can move it.
    dealt = [sorted(groups, key=lambda group: key_of(seed, "split", group)) for groups in strata]
    if section.method == "hash":
        split_of_group = deal_by_hash([group for groups in dealt for group in groups], section, seed)
    elif kept:
        split_of_group = deal_onward(dealt, kept, split_shares(section))
    elif section.folds is not None:
        split_of_group = deal_folds(dealt, section)
    else:
        split_of_group = deal_fractions(dealt, section.fractions)
    return {slide_id: kept.get(group, split_of_group[group]) for slide_id, group in group_of.items()}


def _with_known(slides: pd.DataFrame, column: str, known: Mapping[str, str]) -> pd.DataFrame:
    """Return the table whose column of given splits has, for slides of an earlier version, the splits they have."""
    if not known:
        return slides
    given = slides[column] if column in slides.columns else [""] * len(slides)
    values = [known.get(str(slide_id), value) for slide_id, value in zip(slides.index, given, strict=True)]
    return slides.assign(**{column: values})


def _kept(group_of: Mapping[str, str], known: Mapping[str, str], *, by: str) -> dict[str, str]:
    """Return the splits of the groups that have slides of known splits."""
    splits: dict[str, dict[str, str]] = {}
    for slide_id, split in known.items():
        if slide_id in group_of:
            splits.setdefault(group_of[slide_id], {}).setdefault(split, slide_id)
    spanning = [
        f"{group!r} ({', '.join(f'{slide_id} in {split}' for split, slide_id in found.items())})"
        for group, found in splits.items()
        if len(found) > 1
    ]
    if spanning:
        raise ConfigError(
            "new slides join groups that an earlier version has in different splits",
            where="key split.by",
            found=_listed(spanning),
            expected=f"each group (one {by}, and who shares a donor-like column with it) in one split",
            hint="leave out the slides that tie them together, mend their donor-like columns, or build a dataset "
            "without dataset.extends",
        )
    return {group: next(iter(found)) for group, found in splits.items()}


def _groups(slides: pd.DataFrame, section: SplitSection) -> tuple[dict[str, str], str]:
    """Return each slide's group, and the word for what a group is."""
    if section.by != AUTO:
        return _values(slides, section.by, key="split.by"), section.by
    groups, columns = auto_groups(rows_of(slides), allow=section.allow_leak)
    return groups, columns[0] if columns else SLIDE_COLUMN


def rows_of(slides: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Return a table of slides as one mapping of texts per slide, missing cells as ""."""
    columns = {str(name): ["" if pd.isna(value) else value for value in slides[name]] for name in slides.columns}
    return {
        str(slide_id): {name: values[i] for name, values in columns.items()} for i, slide_id in enumerate(slides.index)
    }


def _refuse_leaks(slides: pd.DataFrame, split_of: Mapping[str, str], section: SplitSection) -> None:
    spanning = spanning_donors(rows_of(slides), split_of, allow=section.allow_leak)
    if not spanning:
        return
    columns = ", ".join(map(repr, spanning))
    found = [
        f"{column} {value!r} in {' and '.join(splits)}"
        for column, values in spanning.items()
        for value, splits in values.items()
    ]
    raise ConfigError(
        f"what the splits should keep apart spans them: column{'s' if len(spanning) > 1 else ''} {columns}",
        where="key split",
        found=_listed(found),
        expected="each donor in one split",
        hint=f"set split.by: auto (or {next(iter(spanning))}), or mend the given splits; where the column does not "
        f"name donors, or the leak is meant, list it: split.allow_leak: [{', '.join(spanning)}]",
    )


def _given(slides: pd.DataFrame, column: str, group_of: Mapping[str, str], *, key: str, by: str) -> dict[str, str]:
    split_of = _values(slides, column, key=key)
    wrong = sorted({name for name in split_of.values() if not _is_split_name(name)})
    if wrong:
        raise ConfigError(
            f"column {column!r} holds names that cannot be splits",
            where=key,
            found=_listed(wrong),
            expected="lower-case letters, digits and underscores, such as train, val, test",
        )
    splits_of_group: dict[str, set[str]] = {}
    for slide_id, group in group_of.items():
        splits_of_group.setdefault(group, set()).add(split_of[slide_id])
    spanning = [
        f"{group!r} ({', '.join(sorted(names))})" for group, names in sorted(splits_of_group.items()) if len(names) > 1
    ]
    if spanning:
        raise ConfigError(
            f"column {column!r} puts slides of one {by} in different splits",
            where=key,
            found=_listed(spanning),
            expected=f"one split for all slides of a {by} (split.by)",
            hint=f"mend column {column!r}, or set split.by to what may not span splits (where column {by!r} names no "
            "donors, or the leak is meant, list it in split.allow_leak)",
        )
    return split_of


def _is_split_name(name: str) -> bool:
    return name.isascii() and name.isidentifier() and name == name.lower()


def _strata(slides: pd.DataFrame, group_of: Mapping[str, str], stratify: str | None) -> list[list[str]]:
    """Return the groups of each stratum, strata in the order of their names."""
    if stratify is None:
        return [sorted(set(group_of.values()))]
    values_of_group: dict[str, set[str]] = {}
    for slide_id, value in _values(slides, stratify, key="split.stratify").items():
        values_of_group.setdefault(group_of[slide_id], set()).add(value)
    strata: dict[tuple[str, ...], list[str]] = {}
    for group, values in values_of_group.items():
        strata.setdefault(tuple(sorted(values)), []).append(group)
    return [strata[stratum] for stratum in sorted(strata)]


def _values(slides: pd.DataFrame, column: str, *, key: str) -> dict[str, str]:
    """Return slide id -> text of a column; every slide must have one."""
    slide_ids = [str(slide_id) for slide_id in slides.index]
    if column == SLIDE_COLUMN:
        return dict(zip(slide_ids, slide_ids, strict=True))
    if column not in slides.columns:
        known = list(dict.fromkeys([SLIDE_COLUMN, *map(str, slides.columns)]))
        near = difflib.get_close_matches(column, known, n=1, cutoff=0.5)
        raise ConfigError(
            f"there is no column {column!r}",
            where=key,
            expected=f"one of {', '.join(known)}",
            hint=f"did you mean {near[0]!r}?" if near else "name a column of the samplesheet",
        )
    missing = _is_missing(slides[column])
    if missing.any():
        lacking = [slide_id for slide_id, lacks in zip(slide_ids, missing, strict=True) if lacks]
        raise ConfigError(
            f"column {column!r} has no value for {len(lacking)} of {len(slide_ids)} slides",
            where=key,
            found=_listed(lacking),
            expected="a value for every slide",
            hint="fill the column in the samplesheet, or leave it empty for all slides and let the config deal"
            if column == GIVEN_COLUMN
            else "fill the column in the samplesheet",
        )
    return dict(zip(slide_ids, map(_text, slides[column]), strict=True))


def _is_missing(values: Iterable[Any]) -> NDArray[np.bool_]:
    return np.array([bool(pd.isna(value)) or not _text(value) for value in values], dtype=bool)


def _text(value: object) -> str:
    return str(value).strip()


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")
