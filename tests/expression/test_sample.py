from __future__ import annotations

import itertools

import numpy as np
import pytest
from expression.plain import gene_name, plain_uniform
from hypothesis import given, settings
from hypothesis import strategies as st

from stpatch.errors import ConfigError
from stpatch.expression.sample import PatchSampler
from stpatch.image.moments import Moments
from stpatch.kernels import draw as kernels
from stpatch.kernels.normalization import log
from stpatch.registry import PATCH_RULES
from stpatch.seeds import name_keys


def moments(variance, mean=None):
    variance = np.asarray(variance, dtype=np.float64)
    return Moments(
        n_pixels=10,
        mean=variance if mean is None else np.asarray(mean, dtype=np.float64),
        variance=variance,
    )


def keys_of(ids):
    return name_keys(gene_name(int(i)) for i in ids)


def rule(method="variance_sampled", *, n, ids, candidates=None, seed=0):
    return PatchSampler(
        method=method, n=n, gene_ids=np.asarray(ids, dtype=np.int32), gene_keys=keys_of(ids), seed=seed,
        candidates=None if candidates is None else np.asarray(candidates, dtype=bool),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [  # known answers of Random123
        ([0] * 6, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 6, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers(words, expected):
    assert [int(word) for word in kernels.philox(*map(np.uint32, words))] == expected


@given(st.integers(0, 2**128 - 1), st.integers(0, 1), st.lists(st.integers(0, 2**31 - 1), max_size=40))
@settings(max_examples=50, deadline=None)
def test_uniforms_equal_the_plain_ones(key, purpose, ids):
    words = np.array([(key >> shift) & 0xFFFFFFFF for shift in (0, 32, 64, 96)], dtype=np.uint32)
    out = np.empty(len(ids))
    kernels.gene_uniforms(keys_of(ids), words, np.uint32(purpose), out)
    assert out.tolist() == [plain_uniform(gene_id, key, purpose) for gene_id in ids]
    assert np.all((out > 0) & (out < 1))


@given(st.integers(0, 2**32), st.sampled_from(PATCH_RULES.own()))
@settings(max_examples=100, deadline=None)
def test_a_choice_does_not_depend_on_gene_order(seed, method):
    rng = np.random.default_rng(seed)
    n_genes = int(rng.integers(1, 60))
    ids = rng.permutation(200)[:n_genes] + 1
    weights = rng.choice([0.0, 0.5, 1.0, 3.25], n_genes)
    candidates = rng.random(n_genes) < 0.7 if seed % 2 else None
    n = int(rng.integers(1, 70))
    order = np.argsort(ids)
    first = rule(method, n=n, ids=ids, candidates=candidates).choose(moments(weights), slide_id="a", number=3)
    second = rule(method, n=n, ids=ids[order], candidates=None if candidates is None else candidates[order]).choose(
        moments(weights[order]), slide_id="a", number=3
    )
    chosen = ids[first[first >= 0]]
    assert chosen.tolist() == ids[order][second[second >= 0]].tolist()
    assert np.all(np.diff(chosen) > 0)
    assert len(chosen) == min(n, n_genes)
    assert np.all(first[len(chosen) :] == -1)
    assert first.dtype == np.int32
    assert len(first) == n


def plain_choice(weights, ids, n, uniforms):
    keys = [(-np.log(u) / w, i) for u, w, i in zip(uniforms, weights, ids, strict=True) if w > 0]
    return sorted(i for _, i in sorted(keys)[:n])


def test_the_keys_are_exponentials_over_weights():
    rng = np.random.default_rng(0)
    ids = np.arange(1, 401)
    for number in range(20):
        weights = rng.gamma(0.3, 1, 400)
        chosen = rule(n=50, ids=ids, seed=9).choose(moments(weights), slide_id="s", number=number)
        from stpatch.seeds import key_of

        key = key_of(9, "s", "channels", number, 0)
        assert ids[chosen].tolist() == plain_choice(weights, ids, 50, [plain_uniform(int(i), key, 0) for i in ids])


def test_inclusion_follows_the_weights():
    weights = np.array([1.0, 2.0, 3.0, 6.0, 0.0])
    exact = np.zeros(5)
    for first, second in itertools.permutations(range(4), 2):  # successive draws without replacement
        p = weights[first] / 12 * weights[second] / (12 - weights[first])
        exact[[first, second]] += p
    one = rule(n=2, ids=range(1, 6))
    n = 20_000
    found = np.zeros(5)
    for number in range(n):
        found[one.choose(moments(weights), slide_id="x", number=number)] += 1
    assert found[4] == 0
    error = np.sqrt(exact * (1 - exact) / n)
    assert np.all(np.abs(found / n - exact) <= 4.5 * error + 1e-12)


def test_draws_slides_seeds_and_patches_differ_and_repeat():
    ids = np.arange(1, 101)
    weights = np.ones(100)

    def draw(*, seed=0, slide_id="a", number=0, draw=0):
        chosen = rule(n=10, ids=ids, seed=seed).choose(moments(weights), slide_id=slide_id, number=number, draw=draw)
        return tuple(chosen)

    assert draw() == draw()
    assert len({draw(), draw(seed=1), draw(slide_id="b"), draw(number=1), draw(draw=1)}) == 5


def test_a_gene_beside_others_keeps_its_number():
    """With a gene left out, the others' order stays: n - 1 of the n chosen before are chosen again."""
    weights = np.linspace(1, 2, 50)
    ids = np.arange(1, 51)
    before = ids[rule(n=10, ids=ids).choose(moments(weights), slide_id="a", number=0)]
    keep = ids != before[0]
    after = ids[keep][rule(n=10, ids=ids[keep]).choose(moments(weights[keep]), slide_id="a", number=0)]
    assert set(before[1:]) <= set(after)


def test_other_ids_change_no_draw():
    """A corpus that grows may number its genes otherwise; the same names are drawn."""
    weights = np.linspace(1, 2, 50)
    ids = np.arange(1, 51)
    other = PatchSampler(
        method="variance_sampled", n=10, gene_ids=(ids + 1000).astype(np.int32), gene_keys=keys_of(ids), seed=0
    )
    before = rule(n=10, ids=ids).choose(moments(weights), slide_id="a", number=0)
    assert other.choose(moments(weights), slide_id="a", number=0).tolist() == before.tolist()


@pytest.mark.parametrize(
    ("method", "n", "expected"), [("variance", 2, [2, 4]), ("mean", 2, [1, 3]), ("mean", 3, [1, 3, 5])]
)
def test_largest_first_and_ties_to_the_smaller_id(method, n, expected):
    chosen = rule(method, n=n, ids=[5, 4, 3, 2, 1]).choose(
        moments([1, 3, 1, 3, 0], mean=[2, 0.5, 7, 0, 7]), slide_id="a", number=0
    )
    assert [5 - p for p in chosen] == expected


@pytest.mark.parametrize("method", ["variance_sampled", "variance", "mean"])
def test_free_channels_are_filled_by_candidates_then_others_then_pads(method):
    ids = np.arange(1, 9)
    weights = [0, 0, 5.0, 1.0, 0, 0, 0, 9.0]
    candidates = [True, True, True, True, False, False, False, False]

    def choose(n, number=0):
        return rule(method, n=n, ids=ids, candidates=candidates).choose(moments(weights), slide_id="a", number=number)

    assert choose(1)[0] in (2, 3)
    assert choose(2).tolist() == [2, 3]
    filled = {tuple(choose(3, number)) for number in range(30)}
    assert filled == {(0, 2, 3), (1, 2, 3)}
    assert choose(4).tolist() == [0, 1, 2, 3]
    assert {p for number in range(60) for p in choose(5, number)[4:]} == {4, 5, 6, 7}
    assert choose(10).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, -1, -1]


def test_random_takes_every_gene_alike():
    one = rule("random", n=3, ids=range(1, 11))
    found = np.zeros(10)
    for number in range(5000):
        found[one.choose(moments(np.zeros(10)), slide_id="x", number=number)] += 1
    assert np.all(np.abs(found / 5000 - 0.3) < 4.5 * np.sqrt(0.21 / 5000))


def test_tiny_and_huge_variances_are_drawn_alike():
    ids = np.arange(1, 31)
    weights = np.random.default_rng(0).random(30) + 0.1
    chosen = [
        rule(n=7, ids=ids).choose(moments(weights * 2.0**power), slide_id="a", number=0).tolist()
        for power in (-900, 0, 900)
    ]
    assert chosen[0] == chosen[1] == chosen[2]


def test_no_genes_at_all_are_pads():
    assert rule(n=2, ids=[]).choose(moments([]), slide_id="a", number=0).tolist() == [-1, -1]


def test_wrong_rules_are_refused():
    with pytest.raises(ConfigError, match="unknown patch rule"):
        rule("best", n=1, ids=[1])
    with pytest.raises(ValueError, match="once each"):
        rule(n=1, ids=[1, 1])
    with pytest.raises(ValueError, match="gene_keys are"):
        PatchSampler(method="variance_sampled", n=1, gene_ids=np.array([1, 2], np.int32), gene_keys=keys_of([1]))
    with pytest.raises(ValueError, match="candidates are"):
        rule(n=1, ids=[1, 2], candidates=[True])


@given(st.integers(0, 2**32), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_a_draw_does_not_depend_on_the_patches_before(seed, n):
    rng = np.random.default_rng(seed)
    ids = np.arange(1, 61)
    used = rule(n=n, ids=ids)
    for number in range(4):
        weights = rng.exponential(size=60) ** 3 * rng.choice([0.0, 1e-6, 1.0, 1e3]) * (rng.random(60) < 0.8)
        found = used.choose(moments(weights), slide_id="A1", number=number)
        fresh = rule(n=n, ids=ids).choose(moments(weights), slide_id="A1", number=number)
        np.testing.assert_array_equal(found, fresh)


@given(st.integers(0, 2**32), st.floats(0, 3) | st.just(np.inf))
@settings(max_examples=100, deadline=None)
def test_keys_below_a_bound_are_the_plain_ones(seed, bound):
    rng = np.random.default_rng(seed)
    weights = rng.exponential(size=50) * (rng.random(50) < 0.7)
    uniforms = rng.random(50) ** rng.choice([0.01, 1, 20])
    keys, places = np.empty(51), np.empty(51, np.int64)
    found = kernels.keys_below(weights, uniforms, bound, keys, places)
    plain = {i: -log(u) / w for i, (u, w) in enumerate(zip(uniforms.tolist(), weights.tolist(), strict=True)) if w}
    assert dict(zip(places[:found].tolist(), keys[:found].tolist(), strict=True)) == {
        i: key for i, key in plain.items() if key <= bound
    }
