"""A section is known again by its sums, whatever the order, the names or the bins; others are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bundles.built import poisson_counts

from stpatch.slides.digests import not_allowed, same_sections, section_digests

COUNTS = poisson_counts(90, 60, seed=3)
NAMES = [f"G{i}" for i in range(60)]


def of(counts: Any, names: list[str] | None = None) -> dict[str, str]:
    return section_digests(
        names=names or [f"G{i}" for i in range(counts.shape[1])],
        gene_sums=counts.sum(axis=0).astype(float),
        spot_sums=counts.sum(axis=1).astype(float),
    ).as_json()


def _order() -> Any:
    rng = np.random.default_rng(0)
    return COUNTS[rng.permutation(90)]


def _merged() -> Any:
    counts = COUNTS.copy()
    counts[:, 1] += counts[:, 2]
    counts[:, 2] = 0
    return counts


@pytest.mark.parametrize(
    ("other", "names", "why"),
    [
        (COUNTS, NAMES, "genes and counts"),
        (_order(), NAMES, "genes and counts"),
        (COUNTS[:, ::-1], NAMES[::-1], "genes and counts"),
        (np.hstack([COUNTS, np.zeros((90, 5), int)]), [*NAMES, *"VWXYZ"], "genes and counts"),
        (COUNTS, [f"ENSG{i}" for i in range(60)], "the counts of genes and of spots"),
        (_merged(), NAMES, "the counts of spots"),
        (COUNTS.reshape(45, 2, 60).sum(axis=1), NAMES, "the counts of genes"),
    ],
    ids=["same", "spots in another order", "genes in another order", "empty genes", "names", "merged genes", "bins"],
)
def test_the_same_section(other: Any, names: list[str], why: str) -> None:
    assert same_sections({"a": of(COUNTS), "b": of(other, names)}) == [(("a", "b"), why)]


@pytest.mark.parametrize(
    "other",
    [poisson_counts(90, 60, seed=4), COUNTS[:80], COUNTS + np.eye(90, 60, dtype=int), COUNTS[:, :50]],
    ids=["another", "fewer spots", "a count more", "fewer genes"],
)
def test_another_section(other: Any) -> None:
    assert same_sections({"a": of(COUNTS), "b": of(other)}) == []


def test_few_sums_are_no_evidence() -> None:
    one, two = np.array([[5]]), np.array([[2, 3], [1, 1]])
    assert of(one)["matrix"] == ""
    assert same_sections({"a": of(one), "b": of(one), "c": of(two), "d": of(two)}) == []
    small = poisson_counts(20, 8)
    assert of(small)["genes"] == of(small)["spots"] == ""
    assert same_sections({"a": of(small), "b": of(small)}) == [(("a", "b"), "genes and counts")]
    assert same_sections({"a": of(small), "b": of(small, [f"X{i}" for i in range(8)])}) == []


def test_normalized_values_are_equal_to_six_digits() -> None:
    values = COUNTS / 3
    assert of(values) == of(values * (1 + 1e-12))
    assert of(values)["spots"] != of(values * 1.01)["spots"]


def test_all_but_one_may_be_allowed() -> None:
    assert not_allowed(("a", "b", "c"), ["b"])
    assert not not_allowed(("a", "b", "c"), ["b", "c"])
    assert not not_allowed(("a",), [])
