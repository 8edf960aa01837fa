from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpatch.dataset.order import WHOLE, Balance, Order, State
from stpatch.errors import ConfigError

ORDERS = st.builds(
    Order,
    samples=st.integers(0, 90),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 5),
    shuffle=st.booleans(),
    last=st.sampled_from(["pad", "drop"]),
)


def read(order, *, epoch=0, position=0, ranks=1, workers=1, rounds=None):
    """Return the global batches that ranks and workers read, by number, and the position after `rounds`."""
    shares = [order.share(position=position, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1, "ranks differ in their number of batches"
    made = order.epoch(epoch)
    rounds = len(shares[0]) if rounds is None else min(rounds, len(shares[0]))
    found = {}
    for share in shares:
        parts = [share[worker::workers] for worker in range(workers)]
        for turn in range(rounds):
            number = parts[turn % workers][turn // workers]
            assert number not in found, "two ranks read one batch"
            found[number] = made.batch(number)
    return found, position + rounds * ranks


def valid_samples(batches):
    return [int(n) for number in sorted(batches) for n, valid in zip(*batches[number], strict=True) if valid]


@given(ORDERS, st.integers(0, 3), st.integers(1, 7), st.integers(1, 5))
def test_ranks_and_workers_share_one_sequence(order, epoch, ranks, workers):
    alone, _ = read(order, epoch=epoch)
    shared, _ = read(order, epoch=epoch, ranks=ranks, workers=workers)
    for number in set(alone) & set(shared):
        np.testing.assert_array_equal(alone[number][0], shared[number][0])
    assert all(len(numbers) == order.batch_size for numbers, _ in shared.values())
    assert sorted(shared) == list(range(len(shared)))
    if order.last == "pad":
        assert sorted(valid_samples(shared)) == list(range(order.samples))
        assert valid_samples(shared) == valid_samples(alone)
        assert len(shared) - len(alone) < ranks
    else:
        assert all(valid.all() for _, valid in shared.values())
        assert valid_samples(shared) == valid_samples(alone)[: len(shared) * order.batch_size]
        assert order.samples - len(shared) * order.batch_size < ranks * order.batch_size


@given(ORDERS, st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), max_size=4), st.integers(1, 4))
def test_resumed_under_other_ranks_it_is_the_undisturbed_epoch(order, parts, workers):
    found, position = {}, 0
    for ranks, rounds in [*parts, (1, None)]:
        batches, position = read(order, position=position, ranks=ranks, workers=workers, rounds=rounds)
        assert not set(found) & set(batches)
        found |= batches
        state = json.loads(json.dumps(State(epoch=0, position=position).as_json(order)))
        position = State.of(state, order).position
    undisturbed, _ = read(order)
    assert valid_samples(found) == valid_samples(undisturbed)


def test_one_to_four_to_two_ranks():
    order = Order(samples=1000, batch_size=7, seed=3)
    first, position = read(order, ranks=1, rounds=5)
    second, position = read(order, ranks=4, position=position, rounds=11)
    assert position == 5 + 44
    third, _ = read(order, ranks=2, position=position)
    assert sorted(valid_samples(first | second | third)) == list(range(1000))
    assert valid_samples(first | second | third) == order.epoch(0).sequence.tolist()


def test_epochs_and_seeds_differ_and_are_fixed():
    order = Order(samples=50, batch_size=5, seed=1)
    first = order.epoch(0).sequence
    np.testing.assert_array_equal(first, order.epoch(0).sequence)
    assert first[:8].tolist() == FIRST
    assert (first != order.epoch(1).sequence).any()
    assert (first != Order(samples=50, batch_size=5, seed=2).epoch(0).sequence).any()
    assert Order(samples=4, batch_size=5, shuffle=False).epoch(9).sequence.tolist() == [0, 1, 2, 3]


FIRST = [42, 16, 27, 19, 21, 20, 5, 32]
"""Must not change: a run that goes on under a later version would read some samples twice."""


def test_orders_of_many_samples_are_fixed_too():
    many = Order(samples=WHOLE + 1, batch_size=5, seed=1)
    sequence = many.epoch(0).sequence
    assert sequence[:8].tolist() == FIRST_OF_MANY
    np.testing.assert_array_equal(np.sort(sequence), np.arange(WHOLE + 1))
    assert (sequence != many.epoch(1).sequence).mean() > 0.99
    for number in (0, 3, many.batches - 1):
        numbers, valid = many.epoch(0).batch(number)
        places = np.arange(number * 5, number * 5 + 5)
        np.testing.assert_array_equal(numbers, sequence[places % len(sequence)])
        np.testing.assert_array_equal(valid, places < len(sequence))


FIRST_OF_MANY = [41893, 2054, 21429, 29339, 52165, 61058, 61782, 40945]
"""Must not change, as `FIRST`."""


def test_a_state_of_an_order_that_was_drawn_otherwise_is_refused():
    many = Order(samples=WHOLE + 1, batch_size=5, seed=1)
    state = State(epoch=1, position=2).as_json(many)
    assert State.of(state, many).position == 2
    del state["order"]["permutation"]
    with pytest.raises(ConfigError, match=r"another order(.|\n)*order.permutation"):
        State.of(state, many)


@given(ORDERS, st.integers(0, 3), st.lists(st.integers(0, 30), max_size=9))
def test_computed_by_place_it_is_one_order_too(order, epoch, numbers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stpatch.dataset.order.WHOLE", 0)
        sequence = order.epoch(epoch).sequence
        np.testing.assert_array_equal(np.sort(sequence), np.arange(order.samples))
        if order.samples:
            for number, (found, _) in zip(numbers, order.epoch(epoch).batches(numbers), strict=True):
                places = np.arange(number * order.batch_size, (number + 1) * order.batch_size)
                np.testing.assert_array_equal(found, sequence[places % order.samples])


@pytest.mark.parametrize("whole", [0, WHOLE], ids=["by place", "whole"])
@given(codes=st.lists(st.integers(0, 5), min_size=1, max_size=200), temperature=st.floats(0, 1))
def test_balance_gives_each_category_its_share(whole, codes, temperature):
    codes = np.array(codes)
    order = Order(samples=len(codes), batch_size=4, balance=Balance(codes=codes, temperature=temperature))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stpatch.dataset.order.WHOLE", whole)
        sequence = order.epoch(2).sequence
    assert len(sequence) == len(codes)
    counts = np.bincount(codes)
    weights = np.where(counts > 0, counts.astype(float) ** temperature, 0)
    share = len(codes) * weights / weights.sum()
    drawn = np.bincount(codes[sequence], minlength=len(counts))
    assert (np.abs(drawn - share) < 1 + 1e-9).all()
    for category in range(len(counts)):
        times = np.bincount(sequence, minlength=len(codes))[codes == category]
        assert times.size == 0 or times.max() - times.min() <= 1


def test_temperature_one_leaves_the_data_as_they_are():
    codes = np.array([0] * 90 + [1] * 10)
    even = Order(samples=100, batch_size=4, balance=Balance(codes=codes, temperature=0.0)).epoch(0).sequence
    assert np.bincount(codes[even]).tolist() == [50, 50]
    root = Order(samples=100, batch_size=4, balance=Balance(codes=codes, temperature=0.5)).epoch(0).sequence
    assert np.bincount(codes[root]).tolist() == [75, 25]
    same = Order(samples=100, batch_size=4, balance=Balance(codes=codes, temperature=1.0)).epoch(0).sequence
    assert sorted(same) == list(range(100))
    assert (np.diff(codes[even]) != 0).sum() > 20  # mixed, not category by category


def test_refusals():
    order = Order(samples=10, batch_size=3, seed=1)
    state = State(epoch=1, position=2).as_json(order)
    with pytest.raises(ConfigError, match=r"another order(.|\n)*order.seed"):
        State.of(state, Order(samples=10, batch_size=3, seed=2))
    with pytest.raises(ConfigError, match="damaged"):
        State.of(state | {"position": -1}, order)
    with pytest.raises(ConfigError, match="not the state"):
        State.of({"position": 3}, order)
    with pytest.raises(ConfigError, match="no such rank"):
        order.share(rank=2, ranks=2)
    with pytest.raises(ConfigError, match="temperature"):
        Balance(codes=np.zeros(3, int), temperature=2.0)
    with pytest.raises(ConfigError, match="not those of the samples"):
        Order(samples=2, batch_size=1, balance=Balance(codes=np.zeros(3, int), temperature=1.0))
    with pytest.raises(ConfigError, match="at least 1"):
        Order(samples=2, batch_size=0)
    with pytest.raises(ConfigError, match="pad or drop"):
        Order(samples=2, batch_size=1, last="short")
