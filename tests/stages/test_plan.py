"""The plan: every sample once, shards full, and nothing that depends on an order."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles.built import build, poisson_counts, square, write_counts
from hypothesis import given
from hypothesis import strategies as st

import stpatch
from stpatch.config import MOST_PATCHES, WORKERS_FED, ShardsSection
from stpatch.stages.plan import Plan, make_plan, sample_key, task_digest

SPLITS = ["train", "val"]


@st.composite
def dealt_patches(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Draw slides with patches in splits or in none."""
    names = draw(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=8, unique=True))
    choice = st.lists(st.sampled_from([*SPLITS, ""]), max_size=12)
    return {name: np.array(draw(choice), dtype=object) for name in names}


settings = st.fixed_dictionaries(
    {
        "draws": st.integers(1, 3),
        "patches": st.integers(1, 7),
        "mix": st.integers(1, 4),
        "seed": st.integers(0, 2**63 - 1),
    }
)


def rows_of(plan: Plan) -> list[tuple[Any, ...]]:
    names = [plan.slides[i] for i in plan.slide]
    splits = [plan.splits[i] for i in plan.split]
    columns = [splits, plan.shard.tolist(), plan.index.tolist(), names, plan.patch.tolist(), plan.draw.tolist()]
    return list(zip(*columns, strict=True))


@given(dealt=dealt_patches(), options=settings)
def test_every_sample_is_in_one_place(dealt: dict[str, np.ndarray], options: dict[str, int]) -> None:
    plan = make_plan(dealt, splits=SPLITS, **options)
    rows = rows_of(plan)
    expected = {
        (split, slide, patch, draw)
        for slide, splits in dealt.items()
        for patch, split in enumerate(splits)
        for draw in range(options["draws"])
        if split
    }
    assert {(split, slide, patch, draw) for split, _, _, slide, patch, draw in rows} == expected
    assert len(rows) == len(expected)
    assert len({row[:3] for row in rows}) == len(rows)


@given(dealt=dealt_patches(), options=settings)
def test_shards_are_full_but_a_splits_last(dealt: dict[str, np.ndarray], options: dict[str, int]) -> None:
    plan = make_plan(dealt, splits=SPLITS, **options)
    tasks = plan.tasks()
    stops = [samples.stop for samples in tasks.values()]
    assert [samples.start for samples in tasks.values()] == [0, *stops[:-1]][: len(stops)]
    assert (stops[-1] if stops else 0) == len(plan.split)
    for number, split in enumerate(SPLITS):
        own = [(name, samples) for name, samples in tasks.items() if name.startswith(split)]
        sizes = [samples.stop - samples.start for _, samples in own]
        assert sizes[:-1] == [options["patches"]] * (len(sizes) - 1)
        assert all(0 < size <= options["patches"] for size in sizes)
        assert [name for name, _ in own] == [f"{split}-{shard:06d}" for shard in range(len(own))]
        for _, samples in own:
            assert (plan.split[samples] == number).all()
            assert plan.index[samples].tolist() == list(range(samples.stop - samples.start))


@given(dealt=dealt_patches(), options=settings, data=st.data())
def test_the_order_of_the_slides_does_not_matter(
    dealt: dict[str, np.ndarray], options: dict[str, int], data: st.DataObject
) -> None:
    names = data.draw(st.permutations(list(dealt)))
    plan = make_plan(dealt, splits=SPLITS, **options)
    assert rows_of(make_plan({name: dealt[name] for name in names}, splits=SPLITS, **options)) == rows_of(plan)


@given(dealt=dealt_patches(), options=settings)
def test_groups_of_slides_follow_one_another(dealt: dict[str, np.ndarray], options: dict[str, int]) -> None:
    plan = make_plan(dealt, splits=SPLITS, **options)
    for number, split in enumerate(SPLITS):
        slides = plan.slide[plan.split == number].tolist()
        members = {name for name, splits in dealt.items() if (splits == split).any()}
        groups: list[set[int]] = [set()]
        for slide in slides:
            if slide not in groups[-1] and len(groups[-1]) == options["mix"]:
                groups.append(set())
            groups[-1].add(slide)
        assert sum(map(len, groups)) == len(members)
        assert all(not one & other for one, other in pairwise(groups))


def test_samples_are_shuffled_within_their_group_and_by_seed() -> None:
    dealt = {name: np.full(50, "train", dtype=object) for name in "abcd"}
    options = {"splits": ["train"], "draws": 1, "patches": 40, "mix": 4}
    plan = make_plan(dealt, seed=1, **options)
    for samples in plan.tasks().values():
        assert len(set(plan.slide[samples])) == 4
    assert plan.patch.tolist() != sorted(plan.patch.tolist())
    again, other = make_plan(dealt, seed=1, **options), make_plan(dealt, seed=2, **options)
    assert rows_of(again) == rows_of(plan)
    assert rows_of(other) != rows_of(plan)


def test_no_sample_no_task() -> None:
    plan = make_plan({"a": np.array(["", ""], dtype=object)}, splits=[], draws=1, patches=4, mix=2, seed=0)
    assert plan.tasks() == {}


def test_a_task_digest_knows_samples_and_their_order() -> None:
    dealt = {"a": np.full(6, "train", dtype=object)}
    plan = make_plan(dealt, splits=["train"], draws=1, patches=3, mix=1, seed=0)
    digests = {task_digest(plan, samples) for samples in (slice(0, 3), slice(3, 6), slice(0, 2))}
    assert len(digests) == 3
    renamed = make_plan({"b": dealt["a"]}, splits=["train"], draws=1, patches=3, mix=1, seed=0)
    assert task_digest(renamed, slice(0, 3)) not in digests


@pytest.mark.parametrize(
    ("slide_id", "number", "draw", "draws", "key"),
    [("A1", 7, 0, 1, "a1-000007"), ("S.v2+x", 0, 1, 2, "s-v2-x-000000-1"), ("a", 1234567, 0, 1, "a-1234567")],
)
def test_sample_keys(slide_id: str, number: int, draw: int, draws: int, key: str) -> None:
    assert sample_key(slide_id, number, draw, draws=draws) == key


def test_the_order_of_a_plan_is_fixed() -> None:
    """The bytes of every dataset depend on it: slides are shuffled into groups, and go by name within their group."""
    dealt = {name: np.full(2, "train", dtype=object) for name in "abcde"}
    plan = make_plan(dealt, splits=["train"], draws=2, patches=6, mix=3, seed=3)
    order = [f"{slide}{patch}{draw}" for _, _, _, slide, patch, draw in rows_of(plan)]
    assert " ".join(order[:12]) == "e01 e00 b00 c00 c10 b10 b01 e11 e10 b11 c11 c01"
    assert " ".join(order[12:]) == "a00 d10 a11 a01 a10 d00 d01 d11"
    assert plan.shard.tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 2


@given(samples=st.lists(st.integers(0, 20_000), max_size=3))
def test_auto_makes_a_shard_for_each_of_eight_workers(samples: list[int]) -> None:
    per_shard = ShardsSection(patches="auto").patches_for(iter(samples))
    largest = max(samples, default=0)
    assert 1 <= per_shard <= MOST_PATCHES
    assert -(-largest // per_shard) >= min(largest, WORKERS_FED)
    assert per_shard == MOST_PATCHES or largest // (per_shard + 1) < WORKERS_FED  # and no more shards than that takes
    assert ShardsSection(patches=50).patches_for(samples) == 50


def test_a_small_dataset_is_built_of_eight_shards(tmp_path: Path) -> None:
    array = square(16, 20)
    write_counts(tmp_path / "a.h5ad", poisson_counts(len(array), 8), array=array)
    job = build(tmp_path, [{"slide_id": "a"}], shards={"patches": "auto"})
    dataset = stpatch.open(job.output, split="train")
    assert [shard.patches for shard in dataset.manifest.splits["train"].shards] == [2] * 10
    assert dataset.manifest.layout.patches == 2
    assert len({sample.key for sample in dataset}) == 20
