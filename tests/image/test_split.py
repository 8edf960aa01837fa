from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpatch.config import BlocksSection, CropSection, SplitSection
from stpatch.errors import ConfigError
from stpatch.image.blocks import assign_blocks
from stpatch.image.crop import cut_patches
from stpatch.image.split import assign_splits

names = st.text("abcdefgh", min_size=1, max_size=4)
fractions = st.sampled_from(
    [
        {"train": 0.8, "val": 0.1, "test": 0.1},
        {"train": 1.0},
        {"test": 0.0, "train": 0.7, "val": 0.3},
        {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25},
        {"train": 0.9, "val": 0.1, "none": 0.0},
    ]
)


def sheet(n: int, **columns) -> pd.DataFrame:
    return pd.DataFrame(columns, index=pd.Index([f"s{i:02}" for i in range(n)], name="slide_id"))


def split(slides: pd.DataFrame, *, seed=0, **options) -> dict[str, str]:
    return assign_splits(slides, section=SplitSection(**options), seed=seed)


# ---- fractions -------------------------------------------------------------------------------------------------------


@given(st.lists(names, min_size=1, max_size=40), fractions, st.integers(0, 5))
def test_groups_never_span_and_shares_are_kept(donors, shares, seed):
    slides = sheet(len(donors), donor=donors)
    splits = split(slides, by="donor", fractions=shares, seed=seed)
    assert list(splits) == list(slides.index)
    split_of_donor = dict(zip(donors, splits.values(), strict=True))
    assert list(splits.values()) == [split_of_donor[donor] for donor in donors]
    counts, groups = Counter(split_of_donor.values()), len(split_of_donor)
    wanted = [name for name, share in shares.items() if share > 0]
    assert set(counts) <= set(wanted)
    if groups >= len(wanted):
        assert set(counts) == set(wanted)
    assert all(abs(counts[name] - share * groups) < len(wanted) for name, share in shares.items())


@given(st.lists(names, min_size=1, max_size=30), st.randoms(use_true_random=False), st.integers(0, 5))
def test_order_and_number_of_slides_do_not_matter(donors, random, seed):
    shuffled = donors * 2
    random.shuffle(shuffled)
    one = split(sheet(len(donors), donor=donors), by="donor", seed=seed)
    other = split(sheet(len(shuffled), donor=shuffled), by="donor", seed=seed)
    assert dict(zip(donors, one.values(), strict=True)) == dict(zip(shuffled, other.values(), strict=True))


def test_shares_are_exact_where_they_can_be_and_move_with_the_seed():
    slides = sheet(100)
    splits = split(slides)
    assert Counter(splits.values()) == {"train": 80, "val": 10, "test": 10}
    assert split(slides, seed=1) != splits
    assert split(slides, seed=0) == splits


@pytest.mark.parametrize(
    ("n", "expected"), [(1, [1, 0, 0]), (2, [2, 0, 0]), (3, [1, 1, 1]), (4, [2, 1, 1]), (10, [8, 1, 1])]
)
def test_few_slides(n, expected):
    counts = Counter(split(sheet(n)).values())
    assert [counts[name] for name in ("train", "val", "test")] == expected


# ---- growth and hashes -----------------------------------------------------------------------------------------------


@given(st.lists(names, min_size=1, max_size=30), st.lists(names, max_size=15), fractions, st.integers(0, 5))
def test_known_splits_stay_and_the_rest_closes_the_gap(old, new, shares, seed):
    before = split(sheet(len(old), donor=old), by="donor", fractions=shares, seed=seed)
    slides = sheet(len(old) + len(new), donor=[*old, *new])
    after = assign_splits(slides, section=SplitSection(by="donor", fractions=shares), seed=seed, known=before)
    assert {slide_id: after[slide_id] for slide_id in before} == before
    split_of = dict(zip([*old, *new], after.values(), strict=True))
    assert list(after.values()) == [split_of[donor] for donor in [*old, *new]]
    wanted = [name for name, share in shares.items() if share > 0]
    known = Counter(dict(zip(old, before.values(), strict=True)).values())
    counts = Counter(split_of.values())
    dealt = counts - known
    for name in dealt:  # a split that got a group was not ahead of its share before it got its last one
        behind = max(shares[other] * len(split_of) - counts[other] for other in wanted)
        assert counts[name] - 1 <= shares[name] * len(split_of) + 1e-9 or behind < 1


@given(st.lists(names, min_size=1, max_size=30), st.lists(names, max_size=15), fractions, st.integers(0, 5))
def test_a_hashed_split_depends_on_its_group_alone(donors, others, shares, seed):
    few = split(sheet(len(donors), donor=donors), by="donor", fractions=shares, seed=seed, method="hash")
    many = split(
        sheet(len(donors) + len(others), donor=[*donors, *others]),
        by="donor", fractions=shares, seed=seed, method="hash",
    )  # fmt: skip
    assert {slide_id: many[slide_id] for slide_id in few} == few
    assert all(shares[name] > 0 for name in many.values())


def test_hashed_splits_keep_their_shares_on_average():
    splits = Counter(split(sheet(4000), method="hash", seed=1).values())
    assert abs(splits["train"] / 4000 - 0.8) < 4 * np.sqrt(0.16 / 4000)
    assert abs(splits["val"] / 4000 - 0.1) < 4 * np.sqrt(0.09 / 4000)
    folds = Counter(split(sheet(4000), method="hash", folds=4, seed=1).values())
    assert set(folds) == {"fold0", "fold1", "fold2", "fold3"}
    assert all(abs(count / 4000 - 0.25) < 4 * np.sqrt(0.19 / 4000) for count in folds.values())


def test_new_groups_go_on_within_their_stratum():
    slides = sheet(8, tissue=["skin"] * 4 + ["lung"] * 4)
    known = {"s00": "train", "s01": "train", "s04": "train"}
    shares = {"train": 0.5, "val": 0.5}
    found = assign_splits(slides, section=SplitSection(stratify="tissue", fractions=shares), seed=0, known=known)
    assert Counter(found[name] for name in slides.index[:4]) == {"train": 2, "val": 2}
    assert Counter(found[name] for name in slides.index[4:]) == {"train": 2, "val": 2}


def test_new_folds_fill_up_the_short_ones():
    known = {"s00": "fold0", "s01": "fold0", "s02": "fold1", "s03": "fold2"}
    found = assign_splits(sheet(6), section=SplitSection(folds=3), seed=0, known=known)
    assert {found["s04"], found["s05"]} == {"fold1", "fold2"}


def test_given_splits_of_new_slides_go_with_the_known_ones():
    slides = sheet(4, split=["", "", "val", "train"], donor=["a", "b", "c", "a"])
    known = {"s00": "train", "s01": "test"}
    assert assign_splits(slides, section=SplitSection(), seed=0, known=known) == {
        "s00": "train", "s01": "test", "s02": "val", "s03": "train",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="different splits"):
        assign_splits(slides.assign(donor=["a", "b", "c", "b"]), section=SplitSection(), seed=0, known=known)


# ---- stratify --------------------------------------------------------------------------------------------------------


def test_strata_have_their_shares_and_so_has_the_whole():
    tissue = ["liver"] * 50 + ["lung"] * 30 + ["skin"] * 20
    splits = split(sheet(100, tissue=tissue), stratify="tissue")
    counts = Counter(zip(tissue, splits.values(), strict=True))
    assert [counts["liver", name] for name in ("train", "val", "test")] == [40, 5, 5]
    assert [counts["lung", name] for name in ("train", "val", "test")] == [24, 3, 3]
    assert [counts["skin", name] for name in ("train", "val", "test")] == [16, 2, 2]


@given(st.lists(st.sampled_from("abcdef"), min_size=3, max_size=60), fractions, st.integers(0, 3))
def test_stratified_shares(tissue, shares, seed):
    splits = split(sheet(len(tissue), tissue=tissue), stratify="tissue", fractions=shares, seed=seed)
    counts = Counter(zip(tissue, splits.values(), strict=True))
    for name, share in shares.items():
        total = sum(counts[value, name] for value in set(tissue))
        assert abs(total - share * len(tissue)) < len(shares)
        for value, size in Counter(tissue).items():
            assert counts[value, name] >= int(share * size) - len(shares)
    assert {name for name, share in shares.items() if share > 0} <= set(splits.values()) or len(tissue) < len(shares)


def test_many_tiny_strata_do_not_all_go_to_train():
    splits = split(sheet(100, tissue=[f"t{i}" for i in range(100)]), stratify="tissue")
    assert Counter(splits.values()) == {"train": 80, "val": 10, "test": 10}


def test_a_group_of_several_strata_still_never_spans():
    donors = [f"d{i // 2}" for i in range(40)]
    splits = split(sheet(40, donor=donors, tissue=["liver", "lung"] * 20), by="donor", stratify="tissue")
    seen = defaultdict(set)
    for donor, name in zip(donors, splits.values(), strict=True):
        seen[donor].add(name)
    assert {len(values) for values in seen.values()} == {1}
    assert Counter(splits.values()) == {"train": 32, "val": 4, "test": 4}


# ---- folds -----------------------------------------------------------------------------------------------------------


@given(st.lists(names, min_size=8, max_size=40, unique=True), st.integers(2, 8))
def test_folds_are_even_and_named(donors, folds):
    counts = Counter(split(sheet(len(donors), donor=donors), by="donor", folds=folds).values())
    assert set(counts) == {f"fold{k}" for k in range(folds)}
    assert max(counts.values()) - min(counts.values()) <= 1


def test_folds_of_strata_are_even_within_each():
    tissue = ["a"] * 9 + ["b"] * 6
    splits = split(sheet(15, tissue=tissue), folds=3, stratify="tissue")
    assert set(Counter(zip(tissue, splits.values(), strict=True)).values()) == {3, 2}


def test_more_folds_than_groups_is_refused():
    with pytest.raises(ConfigError, match=r"3 folds(?s:.*)2 values of donor"):
        split(sheet(4, donor=list("aabb")), by="donor", folds=3)


# ---- given -----------------------------------------------------------------------------------------------------------


def test_a_named_column_gives_the_split():
    slides = sheet(3, set=["train", " test", "train"], split=["a", "b", "c"])
    assert split(slides, column="set") == {"s00": "train", "s01": "test", "s02": "train"}


def test_the_sheets_own_split_is_honoured_unless_the_config_has_a_rule():
    slides = sheet(3, split=["train", "test", "extra"])
    assert list(split(slides).values()) == ["train", "test", "extra"]
    assert set(split(slides, folds=2).values()) == {"fold0", "fold1"}
    assert set(split(slides, blocks=BlocksSection()).values()) == {""}


@pytest.mark.parametrize("empty", ["", None, np.nan, "  ", pd.NA])
def test_a_split_for_some_slides_is_refused_and_for_none_is_dealt(empty):
    slides = sheet(4, split=["train", empty, "test", empty])
    with pytest.raises(ConfigError, match=r"'split' has no value for 2 of 4 slides(?s:.*)s01, s03"):
        split(slides)
    assert set(split(sheet(4, split=[empty] * 4)).values()) == {"train", "val", "test"}


def test_a_group_that_spans_given_splits_is_refused():
    slides = sheet(4, donor=list("aabb"), split=["train", "train", "train", "test"])
    with pytest.raises(ConfigError, match=r"one donor in different splits(?s:.*)'b' \(test, train\)"):
        split(slides, by="donor")


@pytest.mark.parametrize("name", ["Train", "a b", "../x", "1", "é"])
def test_names_that_cannot_be_splits_are_refused(name):
    with pytest.raises(ConfigError, match="names that cannot be splits"):
        split(sheet(2, split=["train", name]))


@pytest.mark.parametrize(
    ("options", "key"),
    [({"by": "doner"}, "split.by"), ({"stratify": "doner"}, "split.stratify"), ({"column": "doner"}, "split.column")],
)
def test_an_unknown_column_names_the_nearest(options, key):
    with pytest.raises(ConfigError) as caught:
        split(sheet(2, donor=["a", "b"], tissue=["x", "y"]), **options)
    assert "did you mean 'donor'?" in str(caught.value)
    assert key in str(caught.value)


@pytest.mark.parametrize("options", [{"by": "donor"}, {"stratify": "donor"}, {"column": "donor"}])
def test_slides_without_a_value_are_listed(options):
    with pytest.raises(ConfigError, match=r"has no value for 10 of 12 slides(?s:.*)s00, (?s:.*)and 2 more"):
        split(sheet(12, donor=[None] * 10 + ["a", "b"]), **options)


def test_slide_ids_given_twice_are_refused():
    with pytest.raises(ConfigError, match="not unique"):
        split(pd.DataFrame(index=["a", "a"]))


# ---- blocks ----------------------------------------------------------------------------------------------------------


def blocks(spots, *, crop, size, seed=0, slide_id="s", known=True, shares=None):
    patches = cut_patches(spots, section=crop, seed=seed, slide_id=slide_id)
    options = {} if shares is None else {"fractions": shares}
    section = SplitSection(blocks=BlocksSection(size=size), **options)
    splits = assign_blocks(
        patches,
        grid_shape=spots.shape,
        section=section,
        seed=seed,
        slide_id=slide_id,
        spots_per_pixel=spots if known else None,
    )
    return patches, splits


@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(0, 20),
    st.sampled_from(["tiles", "random", "centered"]),
    st.sampled_from(["pad", "shift"]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_no_pixel_of_one_split_is_in_another(shape, size, extra, method, edge, known, seed):
    spots = (np.random.default_rng(seed).random(shape) < 0.3).astype(np.int32)
    crop = CropSection(size=size, stride=max(size[0] // 2, 1), method=method, edge=edge, min_coverage=0)
    patches, splits = blocks(spots, crop=crop, size=max(size) + extra, seed=seed, known=known)
    assert splits.shape == (len(patches),)
    owner = np.full(shape, "", dtype=object)
    for row, col, height, width, name in zip(
        patches.row, patches.col, patches.height, patches.width, splits, strict=True
    ):
        if name:
            window = owner[max(row, 0) : row + height, max(col, 0) : col + width]
            assert set(window.ravel()) <= {"", name}
            window[...] = name
    # With one spot a pixel, pixels of two splits that differ are spots that differ.
    assert set(splits) <= {"", "train", "val", "test"}


def test_patches_inside_a_block_all_find_a_split():
    spots = np.ones((96, 64), dtype=np.int32)
    patches, splits = blocks(spots, crop=CropSection(), size=32)
    assert "" not in set(splits)
    assert set(splits) == {"train", "val", "test"}
    block = (patches.row // 32 * 10 + patches.col // 32).tolist()
    assert len(set(zip(block, splits, strict=True))) == 6


def test_the_margin_is_the_patches_across_a_border():
    spots = np.ones((40, 80), dtype=np.int32)
    patches, splits = blocks(spots, crop=CropSection(size=(8, 8), stride=1), size=40, shares={"a": 0.5, "b": 0.5})
    across = (patches.col < 40) & (patches.col + 8 > 40)
    assert ((splits == "") == across).all()
    assert across.sum() == 7 * 33


def test_blocks_do_not_depend_on_the_patches():
    spots = np.ones((90, 90), dtype=np.int32)
    spot_patches, spot_splits = blocks(spots, crop=CropSection(unit="spot"), size=30)
    patches, splits = blocks(spots, crop=CropSection(size=(8, 8)), size=30)
    of_spot = {(row, col): name for row, col, name in zip(spot_patches.row, spot_patches.col, spot_splits, strict=True)}
    for row, col, name in zip(patches.row, patches.col, splits, strict=True):
        inside = {of_spot[r, c] for r in range(row, min(row + 8, 90)) for c in range(col, min(col + 8, 90))}
        assert name == (inside.pop() if len(inside) == 1 else "")


def test_blocks_without_spots_are_not_dealt():
    spots = np.zeros((120, 120), dtype=np.int32)
    spots[:40, :] = 1
    for seed in range(20):
        _, splits = blocks(spots, crop=CropSection(size=(8, 8)), size=40, seed=seed)
        assert set(splits) - {""} == {"train", "val", "test"}


def test_shares_of_blocks_are_even_over_slides():
    """Also where every slide has a single block, and no rounding of one slide could do it."""
    spots = np.ones((16, 16), dtype=np.int32)
    counts = Counter(blocks(spots, crop=CropSection(), size=16, slide_id=f"s{i}")[1][0] for i in range(1000))
    assert counts["train"] == pytest.approx(800, abs=40)
    assert counts["val"] == pytest.approx(100, abs=30)


def test_shares_of_many_blocks_are_kept():
    spots = np.ones((200, 200), dtype=np.int32)
    _, splits = blocks(spots, crop=CropSection(size=(10, 10)), size=20, shares={"zero": 0, "a": 0.6, "b": 0.4, "no": 0})
    assert Counter(splits) == {"a": 240, "b": 160}


@pytest.mark.parametrize("crop", [CropSection(), CropSection(unit="slide")])
def test_a_patch_larger_than_a_block_is_refused(crop):
    with pytest.raises(ConfigError, match="larger than a block"):
        blocks(np.ones((40, 40), dtype=np.int32), crop=crop, size=15)


def test_a_slide_without_patches_has_no_splits():
    _, splits = blocks(np.zeros((40, 40), dtype=np.int32), crop=CropSection(), size=20)
    assert splits.shape == (0,)
