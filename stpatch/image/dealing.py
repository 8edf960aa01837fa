"""Dealing groups to splits: by fractions, by folds, onward from an earlier deal, or each by its own hash."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from stpatch.config import SplitSection
from stpatch.errors import ConfigError
from stpatch.image.groups import AUTO
from stpatch.seeds import key_of


def split_shares(section: SplitSection) -> dict[str, float]:
    """Return the splits and their shares of the groups."""
    if section.folds is None:
        return section.fractions
    return {f"fold{number}": 1 / section.folds for number in range(section.folds)}


def deal_by_hash(groups: Iterable[str], section: SplitSection, seed: int) -> dict[str, str]:
    """Deal each group by its own hash: the split in whose part of [0, 1) it falls."""
    shares = {name: share for name, share in split_shares(section).items() if share > 0}
    names, bounds = list(shares), np.cumsum(list(shares.values()))[:-1]
    return {
        group: names[int(np.searchsorted(bounds, key_of(seed, "split", group) / 2**128, side="right"))]
        for group in groups
    }


def deal_onward(
    strata: Sequence[Sequence[str]], kept: Mapping[str, str], shares: Mapping[str, float]
) -> dict[str, str]:
    """Deal the groups without a split, each to the split that is furthest behind in its stratum, then in the whole."""
    counts = Counter(kept.values())
    total = len(kept)
    dealt: dict[str, str] = {}
    for groups in strata:
        own = Counter(kept[group] for group in groups if group in kept)
        size = own.total()
        for group in groups:
            if group in kept:
                continue
            size, total = size + 1, total + 1
            behind = {
                name: (round(share * size - own[name], 9), round(share * total - counts[name], 9))
                for name, share in shares.items()
                if share > 0
            }
            split = max(behind, key=lambda name: behind[name])
            dealt[group] = split
            own[split] += 1
            counts[split] += 1
    return {**kept, **dealt}


def deal_folds(strata: Sequence[Sequence[str]], section: SplitSection) -> dict[str, str]:
    """Deal groups to ``section.folds`` folds, one after the other, stratum by stratum."""
    folds = section.folds or 1
    groups = [group for stratum in strata for group in stratum]
    if len(groups) < folds:
        raise ConfigError(
            f"{folds} folds need at least as many groups",
            where="split.folds",
            found=f"{len(groups)} groups" if section.by == AUTO else f"{len(groups)} values of {section.by}",
            hint=f"set split.folds to at most {len(groups)}, or split.by to a finer column",
        )
    return {group: f"fold{position % folds}" for position, group in enumerate(groups)}


def deal_fractions(strata: Sequence[Sequence[str]], fractions: Mapping[str, float]) -> dict[str, str]:
    """Deal the groups of each stratum by fractions, rounded by largest remainders over all strata."""
    names, shares = list(fractions), list(fractions.values())
    counts: list[list[int]] = []
    total = 0
    for groups in strata:
        total += len(groups)
        # Whole shares first; what is left goes to the splits that are furthest behind over all strata so far.
        row = [math.floor(share * len(groups) + 1e-9) for share in shares]
        counts.append(row)
        for _ in range(len(groups) - sum(row)):
            behind = [
                round(share * total - sum(column), 9) if share > 0 else -math.inf
                for share, column in zip(shares, zip(*counts, strict=True), strict=True)
            ]
            row[behind.index(max(behind))] += 1
    at_least_one(counts, shares)
    split_of: dict[str, str] = {}
    for groups, row in zip(strata, counts, strict=True):
        dealt = [name for name, count in zip(names, row, strict=True) for _ in range(count)]
        split_of.update(zip(groups, dealt, strict=True))
    return split_of


def at_least_one(counts: list[list[int]], shares: Sequence[float]) -> None:
    """Give each split of a share above 0 one group where there are enough; changes counts (strata x splits)."""
    wanted = [split for split, share in enumerate(shares) if share > 0]
    if sum(map(sum, counts)) < len(wanted):
        return
    for split in wanted:
        totals = [sum(column) for column in zip(*counts, strict=True)]
        if totals[split] == 0:
            richest = totals.index(max(totals))
            row = max(counts, key=lambda stratum: stratum[richest])
            row[richest] -= 1
            row[split] += 1
