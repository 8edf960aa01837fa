"""The order of an epoch: which samples make its batches, and which batches a rank takes.

The order depends on (seed, epoch) alone. Ranks and workers only say who reads which batch of the one global sequence,
so that a run may stop after any global batch and go on under another number of ranks.

::

    global batches   0  1  2  3  4  5 | 6  7  8  9 ...
    two ranks        r0 r1 r0 r1 r0 r1|                   stopped at position 6
    four ranks                        | r0 r1 r2 r3 ...   goes on there

The order of few samples is drawn as a whole. That of many would take every worker seconds and 80 MB per 10 million at
the start of each epoch, so there it is computed for the places that are read (`stpatch.seeds.permuted`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import ConfigError
from stpatch.seeds import ROUNDS, generator, permutation, permutation_keys, permuted

Last = Literal["pad", "drop"]
WHOLE = 1 << 16
"""Samples up to which an epoch's order is drawn as a whole."""
AT_ONCE = 64
"""Batches for which it is worth while to find the samples together."""


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Categories of the samples and how strongly the common ones prevail.

    A category of `count` samples gets a share of the epoch that is proportional to ``count ** temperature``: 1 leaves
    the data as they are, 0 gives all categories the same share. Shares are met exactly, to the rounding of whole
    samples: within a category every sample comes equally often, give or take one, and which come once more is drawn.

    Attributes
    ----------
    codes
        (samples,) integer category of each sample, from 0.
    temperature
        From 0 to 1.
    """

    codes: NDArray[np.integer[Any]]
    temperature: float

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 1:
            raise ConfigError("the temperature is out of range", found=self.temperature, expected="0 to 1")

    def quotas(self) -> NDArray[np.int64]:
        """Return how many samples of an epoch each category gives, (categories,) int64; they sum to all samples."""
        counts = self.counts
        present = counts > 0
        weights = np.where(present, np.power(counts, self.temperature, dtype=np.float64), 0.0)
        exact = len(self.codes) * weights / max(weights.sum(), 1.0)
        quotas: NDArray[np.int64] = np.floor(exact).astype(np.int64)
        # the largest remainders get the samples that rounding left; the first category among equals
        rest = np.argsort(-np.where(present, exact - quotas, -1.0), kind="stable")
        quotas[rest[: len(self.codes) - int(quotas.sum())]] += 1
        return quotas

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(categories,) samples of each category."""
        return np.bincount(self.codes).astype(np.int64)

    @cached_property
    def by_category(self) -> NDArray[np.integer[Any]]:
        """(samples,) the samples' numbers, category by category."""
        return np.argsort(self.codes, kind="stable").astype(np.uint32 if len(self.codes) < 1 << 32 else np.int64)

    def draw(self, source: np.random.Generator) -> NDArray[np.int64]:
        """Return (samples,) sample numbers, category by category: each as often as its category's quota says."""
        starts = np.cumsum(self.counts) - self.counts
        parts = [np.empty(0, np.int64)]
        for start, count, quota in zip(starts, self.counts, self.quotas(), strict=True):
            if count:
                members = self.by_category[start : start + count][permutation(source, int(count))]
                parts.append(np.resize(members.astype(np.int64), quota))
        return np.concatenate(parts)

    def drawn(self, source: np.random.Generator) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
        """Return what gives the numbers at some places of such a sequence as `draw` returns, and computes no others."""
        counts, quotas = self.counts, self.quotas()
        starts, stops = np.cumsum(counts) - counts, np.cumsum(quotas)
        keys = permutation_keys(source, len(counts))

        def at(places: NDArray[np.int64]) -> NDArray[np.int64]:
            category = np.searchsorted(stops, places, "right")
            turn = (places - (stops - quotas)[category]) % counts[category]
            member = permuted(turn, counts[category], keys[:, category])
            numbers: NDArray[np.int64] = self.by_category[starts[category] + member].astype(np.int64)
            return numbers

        return at


@dataclass(frozen=True, kw_only=True)
class Order:
    """How epochs are made.

    Attributes
    ----------
    samples
        Number of samples of the dataset; an epoch has as many.
    batch_size
        Samples per batch. Every batch is full.
    seed
        Of all epochs.
    shuffle
        Otherwise samples come in the order of the dataset.
    last
        What happens to the remainder, since all ranks must get equally many full batches. ``pad``: every sample comes,
        and the last batches are filled with the epoch's first samples again, marked as not valid; without balance,
        each sample is valid exactly once. ``drop``: the last incomplete batch is left out, and the last batches that
        do not go round all ranks; what is left out differs from epoch to epoch where the order is shuffled.
    balance
        Draws the samples by category, some several times and some not at all; None takes each once.
    pools
        (samples,) the slide of each sample, and a number of slides: a shuffled epoch without balance takes so many
        slides at a time and shuffles their samples, so that a reader that keeps them open opens each slide once.
    """

    samples: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    last: Last = "pad"
    balance: Balance | None = None
    pools: tuple[NDArray[np.int64], int] | None = None

    def __post_init__(self) -> None:
        if self.samples < 0 or self.batch_size < 1:
            raise ConfigError(
                "an epoch needs samples and batches",
                found=f"{self.samples} samples, batches of {self.batch_size}",
                expected="at least 0 samples, batches of at least 1",
            )
        if self.last not in get_args(Last):
            raise ConfigError("unknown treatment of the last batches", found=self.last, expected="pad or drop")
        if self.balance is not None and len(self.balance.codes) != self.samples:
            raise ConfigError(
                "the categories are not those of the samples", found=len(self.balance.codes), expected=self.samples
            )
        if self.balance is not None and not self.shuffle:
            raise ConfigError(
                "a balanced epoch is drawn, so it has no order of the dataset", hint="leave out shuffle or balance"
            )

    @property
    def batches(self) -> int:
        """Number of global batches of an epoch that hold samples of their own."""
        full, rest = divmod(self.samples, self.batch_size)
        return full + (self.last == "pad" and rest > 0)

    def epoch(self, epoch: int) -> Epoch:
        """Return an epoch's batches; takes 8 bytes per sample up to `WHOLE` samples, and nothing beyond."""
        return Epoch(order=self, epoch=epoch, samples=self._samples_of(epoch))

    def _samples_of(self, epoch: int) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
        if not self.shuffle:
            return lambda places: places
        source, balance, size = generator(self.seed, "order", epoch), self.balance, self.samples
        if balance is None and self.pools is not None:
            return pooled(source, *self.pools).__getitem__
        if not self.by_place:
            drawn = None if balance is None else balance.draw(source)
            order = permutation(source, size)
            return (order if drawn is None else drawn[order]).__getitem__
        keys = permutation_keys(source)
        if balance is None:
            return lambda places: permuted(places, size, keys)
        at = balance.drawn(source)
        return lambda places: at(permuted(places, size, keys))

    @property
    def by_place(self) -> bool:
        """Whether the order is computed for the places that are read."""
        whole = self.balance is None and self.pools is not None
        return self.shuffle and self.samples > WHOLE and not whole

    def share(self, *, position: int = 0, rank: int = 0, ranks: int = 1) -> range:
        """Return the numbers of the global batches that a rank reads from `position` on.

        The t-th is ``position + t * ranks + rank``. All ranks get equally many; with ``pad``, numbers of `batches` and
        above are batches that consist of repeated samples alone.

        Raises
        ------
        ConfigError
            There is no such rank or position.
        """
        if not 0 <= rank < ranks:
            raise ConfigError("there is no such rank", found=f"rank {rank} of {ranks}", expected=f"0 to {ranks - 1}")
        if position < 0:
            raise ConfigError("there is no such position in an epoch", found=position, expected="0 or more")
        left = max(self.batches - position, 0)
        rounds = left // ranks if self.last == "drop" else -(-left // ranks)
        return range(position + rank, position + rank + rounds * ranks, ranks)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch's samples in order.

    Attributes
    ----------
    order
        What made it.
    epoch
        Its number.
    samples
        Takes (n,) int64 places in the epoch, 0 to below the number of samples, and returns the samples there. Many
        places at once cost little more than one.
    """

    order: Order
    epoch: int
    samples: Callable[[NDArray[np.int64]], NDArray[np.int64]]

    @property
    def sequence(self) -> NDArray[np.int64]:
        """(samples,) int64 all sample numbers in order."""
        return self.samples(np.arange(self.order.samples, dtype=np.int64))

    def batches(self, numbers: Sequence[int]) -> list[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
        """Return global batches: (batch_size,) int64 sample numbers, and whether each is valid (not a repetition)."""
        size, samples = self.order.batch_size, self.order.samples
        places = np.array(numbers, np.int64)[:, None] * size + np.arange(size)
        chosen = self.samples((places % samples).reshape(-1)).reshape(places.shape)
        return list(zip(chosen, places < samples, strict=True))

    def batch(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return one global batch; see `batches`."""
        return self.batches([number])[0]


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run stands: everything before `position` of `epoch` has been read by some rank.

    Attributes
    ----------
    epoch
        Number of the epoch.
    position
        Number of the next global batch.
    """

    epoch: int = 0
    position: int = 0

    def as_json(self, order: Order) -> dict[str, Any]:
        """Return JSON values, with what must be the same when the state is loaded."""
        return {"version": 1, "epoch": self.epoch, "position": self.position, "order": _identity(order)}

    @classmethod
    def of(cls, value: Mapping[str, Any], order: Order) -> State:
        """Return the state of JSON values.

        Raises
        ------
        ConfigError
            It is not a state, or that of another order, in which its position means nothing.
        """
        if value.get("version") != 1 or not isinstance(value.get("order"), Mapping):
            raise ConfigError("this is not the state of a reader", found=sorted(map(str, value)))
        for key, expected in _identity(order).items():
            found = value["order"].get(key)
            if found != expected:
                raise ConfigError(
                    "the state was saved under another order of samples",
                    where=f"key order.{key}",
                    found=found,
                    expected=expected,
                    hint="open the same split with the same seed, batch size and balance; ranks and workers may change",
                )
        epoch, position = value.get("epoch"), value.get("position")
        if type(epoch) is not int or type(position) is not int or min(epoch, position) < 0:
            raise ConfigError("the state is damaged", found=f"epoch {epoch}, position {position}", expected="0 or more")
        return cls(epoch=epoch, position=position)


def pooled(source: np.random.Generator, slides: NDArray[np.int64], mix: int) -> NDArray[np.int64]:
    """Return a permutation of the samples in which those of `mix` slides at a time come together, shuffled."""
    different, codes = np.unique(slides, return_inverse=True)
    place = np.empty(len(different), np.int64)
    place[permutation(source, len(different))] = np.arange(len(different))
    shuffled = permutation(source, len(slides))
    return shuffled[np.argsort(place[codes[shuffled]] // mix, kind="stable")]


def _identity(order: Order) -> dict[str, Any]:
    computed = {"permutation": f"feistel {ROUNDS}"} if order.by_place else {}
    return computed | {
        "samples": order.samples,
        "batch_size": order.batch_size,
        "seed": order.seed,
        "shuffle": order.shuffle,
        "last": order.last,
        "temperature": None if order.balance is None else order.balance.temperature,
        **({} if order.pools is None else {"pool": order.pools[1]}),
        "quotas": None if order.balance is None else order.balance.quotas().tolist(),
    }
