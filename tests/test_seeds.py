from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpatch.seeds import Keys, below, generator, integers, key_of, permutation, permutation_keys, permuted, raw_draws


def test_keys_tell_seeds_parts_types_and_order_apart():
    keys = {
        key_of(0), key_of(1), key_of(0, "a"), key_of(0, "a", "b"), key_of(0, "b", "a"), key_of(0, "ab"), key_of(0, 1),
        key_of(0, "1"), key_of(0, "é"),
    }  # fmt: skip
    assert len(keys) == 9
    assert all(0 <= key < 2**128 for key in keys)
    assert key_of(np.int64(3), np.int32(4)) == key_of(3, 4)


def test_streams_are_fixed_for_all_time():
    assert key_of(7, "slide", "crop", 3) == 0x943D14CF0EDEC052697DD837546F34AC
    assert raw_draws(generator(0, "a"), 2).tolist() == [3709918221644264525, 10382923037856475395]
    assert permutation(generator(0, "a"), 6).tolist() == [2, 3, 0, 4, 1, 5]


@given(st.integers(0, 2**63), st.text(max_size=5), st.lists(st.integers(0, 2**40), min_size=1, max_size=3))
def test_keys_that_begin_alike_are_those_of_their_purposes(seed, part, numbers):
    key = key_of(seed, part, "channels", *numbers)
    words = Keys(seed, part, "channels").words(*numbers)
    assert words.dtype == np.uint32
    assert words.tolist() == [key >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96)]


def test_a_longer_stream_begins_as_a_shorter_one():
    long, short = raw_draws(generator(1, "x"), 1001), raw_draws(generator(1, "x"), 7)
    assert long[:7].tolist() == short.tolist()


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**32))
def test_below_is_the_high_word_of_the_exact_product(draw, bound):
    assert below(np.array([draw], dtype=np.uint64), bound).tolist() == [draw * bound >> 64]


@pytest.mark.parametrize("bound", [0, -1, 2**32 + 1])
def test_below_refuses_other_bounds(bound):
    with pytest.raises(ValueError, match="bound must be"):
        below(np.zeros(1, dtype=np.uint64), bound)


def test_integers_are_even_and_reach_both_ends():
    counts = np.bincount(integers(generator(5, "even"), 7, 70_000), minlength=7)
    assert counts.shape == (7,)
    assert np.abs(counts - 10_000).max() < 500


def test_permutation_is_one_and_moves_with_the_key():
    one, other = permutation(generator(0, "p"), 100), permutation(generator(1, "p"), 100)
    assert sorted(one.tolist()) == list(range(100))
    assert one.tolist() != other.tolist()
    assert permutation(generator(0, "p"), 0).tolist() == []


@given(st.integers(1, 3000), st.integers(0, 9))
def test_permuted_is_a_permutation_and_each_place_stands_alone(size, seed):
    keys = permutation_keys(generator(seed, "permuted"))
    whole = permuted(np.arange(size), size, keys)
    assert sorted(whole.tolist()) == list(range(size))
    some = np.arange(0, size, 7)[::-1]
    assert permuted(some, size, keys).tolist() == whole[some].tolist()
    assert permuted(np.empty(0, np.int64), size, keys).tolist() == []


def test_permuted_takes_several_permutations_at_once():
    keys = permutation_keys(generator(0, "several"), 3)
    sizes = np.array([5, 70_000, 2**33])
    together = permuted(np.array([4, 9, 2**33 - 1]), sizes, keys)
    places = [4, 9, 2**33 - 1]
    alone = [int(permuted(np.array([places[n]]), int(sizes[n]), keys[:, [n]])[0]) for n in range(3)]
    assert together.tolist() == alone
    assert (together < sizes).all()


@pytest.mark.parametrize("size", [70_000, 131_072, 1_000_003])
def test_permuted_cannot_be_told_from_a_drawn_permutation(size):
    """Where places go, in which order neighbours come, and how many stay: as in a uniform permutation."""
    order = permuted(np.arange(size), size, permutation_keys(generator(3, "even", size)))
    table = np.histogram2d(np.arange(size), order, bins=32, range=[[0, size]] * 2)[0]
    expected = size / 1024
    chi = ((table - expected) ** 2 / expected).sum()
    assert abs(chi - 31 * 31) < 5 * np.sqrt(2 * 31 * 31)
    steps = np.histogram(np.diff(order) % size, bins=256, range=(0, size))[0]
    assert abs(((steps - size / 256) ** 2 / (size / 256)).sum() - 255) < 5 * np.sqrt(2 * 255)
    assert (order == np.arange(size)).sum() < 12
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 5 / np.sqrt(size)
    other = permuted(np.arange(size), size, permutation_keys(generator(4, "even", size)))
    assert (order == other).sum() < 12
