"""Random numbers that are the same in every build: counter-based streams, keyed by what they are for.

A stream belongs to a purpose (a seed and parts such as a slide id and a word), never to a process or an order of
calls. Only raw 64-bit draws are used: NumPy promises those, whereas `Generator.integers` or `permutation` may
change between versions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_KEY_BYTES = 16


def key_of(seed: int, *parts: str | int) -> int:
    """Return the 128-bit key of a purpose.

    The key is the first 16 bytes (big-endian) of the SHA-256 of the JSON list of seed and parts, so that
    ``("a", "bc")`` and ``("ab", "c")``, or ``1`` and ``"1"``, are different purposes.
    """
    return int.from_bytes(hashlib.sha256(_text(seed, parts).encode("ascii")).digest()[:_KEY_BYTES], "big")


def name_keys(names: Iterable[str]) -> NDArray[np.uint64]:
    """Return (names,) uint64: the first 8 bytes (little-endian) of the SHA-256 of each name, the lowest bit 0.

    A key belongs to the name alone, whatever other names there are: random numbers that are made of it stay when a
    vocabulary grows. Of 100,000 names, two share a key with a probability below 1e-9.
    """
    data = b"".join(hashlib.sha256(name.encode("utf-8")).digest()[:8] for name in names)
    return np.frombuffer(data, "<u8") & np.uint64(2**64 - 2)


class Keys:
    """The keys of purposes that begin alike and end in numbers: much faster than `key_of` each."""

    def __init__(self, seed: int, *parts: str | int) -> None:
        self._begun = hashlib.sha256(_text(seed, parts)[:-1].encode("ascii"))

    def words(self, *numbers: int) -> NDArray[np.uint32]:
        """Return ``key_of(seed, *parts, *numbers)`` as its (4,) uint32 words, the lowest first."""
        whole = self._begun.copy()
        whole.update((", %d" * len(numbers) % numbers + "]").encode("ascii"))
        return np.frombuffer(whole.digest()[_KEY_BYTES - 1 :: -1], "<u4")


def _text(seed: int, parts: tuple[str | int, ...]) -> str:
    return json.dumps([int(seed), *(part if isinstance(part, str) else int(part) for part in parts)])


def generator(seed: int, *parts: str | int) -> np.random.Generator:
    """Return a generator of the purpose's own Philox stream."""
    return np.random.Generator(np.random.Philox(key=key_of(seed, *parts)))


def raw_draws(source: np.random.Generator, n: int) -> NDArray[np.uint64]:
    """Return the next `n` raw 64-bit draws; a longer call begins with the numbers of a shorter one."""
    return np.asarray(source.bit_generator.random_raw(n), dtype=np.uint64)


def below(draws: NDArray[np.uint64], bound: int) -> NDArray[np.int64]:
    """Map raw draws to integers in ``[0, bound)``, one a draw.

    The integer is the high word of draw x bound: exact, without rejection, and even to within bound / 2**64.

    Raises
    ------
    ValueError
        When `bound` is not in ``[1, 2**32]``.
    """
    if not 1 <= bound <= 2**32:
        raise ValueError(f"bound must be in [1, 2**32], not {bound}")
    half, mask, n = np.uint64(32), np.uint64(2**32 - 1), np.uint64(bound)
    return (((draws >> half) * n + (((draws & mask) * n) >> half)) >> half).astype(np.int64)


def integers(source: np.random.Generator, bound: int, n: int) -> NDArray[np.int64]:
    """Return `n` uniform integers in ``[0, bound)``."""
    return below(raw_draws(source, n), bound)


def permutation(source: np.random.Generator, n: int) -> NDArray[np.int64]:
    """Return a uniform permutation of ``range(n)``."""
    return np.argsort(raw_draws(source, n), kind="stable").astype(np.int64)


ROUNDS = 8
"""Rounds of `permuted`. Four make a permutation that cannot be told from a drawn one if the hash cannot be told from a
drawn function (Luby and Rackoff); as many again, for halves of few bits."""


def permutation_keys(source: np.random.Generator, n: int = 1) -> NDArray[np.uint64]:
    """Return the keys of the next `n` permutations for `permuted`, (ROUNDS, n)."""
    return np.ascontiguousarray(raw_draws(source, n * ROUNDS).reshape(n, ROUNDS).T)


def permuted(places: NDArray[np.int64], size: int | NDArray[np.int64], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return where keyed permutations of ``range(size)`` take some places; no other place is looked at.

    A Feistel network permutes the numbers below the next power of two: in turn, each half of a number's bits is changed
    by a keyed hash of the other half, which can be undone, so that no two numbers meet. A number that comes out at
    `size` or above goes through once more until it is below (cycle walking), at most two times on average.

    A call costs about half a millisecond however few the places are, and then 0.3 microseconds a place. Of few numbers
    (some thousands), not all permutations come equally often; `permutation` draws those.

    Parameters
    ----------
    places
        (n,) from 0 to below `size`.
    size
        One for all, or (n,) one for each place, which then may be of permutations of its own.
    keys
        (ROUNDS, 1) or (ROUNDS, n), from `permutation_keys`.

    Returns
    -------
    (n,) int64
    """
    sizes = np.broadcast_to(np.asarray(size, np.uint64), places.shape)
    keys = np.broadcast_to(keys, (ROUNDS, len(places)))
    out = places.astype(np.uint64)
    left = np.arange(len(out))  # places that have not come out below their size yet
    x, limit = out, sizes
    while len(left):
        x = _feistel(x, limit, keys)
        out[left] = x
        outside = np.flatnonzero(x >= limit)
        left, x, limit, keys = left[outside], x[outside], limit[outside], keys[:, outside]
    return out.astype(np.int64)


def _feistel(x: NDArray[np.uint64], sizes: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # frexp's exponent of size - 1 is its number of bits, exactly below 2**53
    bits = np.frexp((sizes - np.uint64(1)).astype(np.float64))[1].astype(np.uint64)
    low = (bits + np.uint64(1)) // np.uint64(2)
    masks = ((np.uint64(1) << low) - np.uint64(1), (np.uint64(1) << (bits - low)) - np.uint64(1))
    halves = [x & masks[0], x >> low]
    half = np.uint64(32)
    for number in range(ROUNDS):
        changed = number % 2
        mixed = (halves[1 - changed] ^ keys[number]) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> half)) * np.uint64(0xD6E8FEB86659FD93)
        halves[changed] = halves[changed] ^ ((mixed >> half) & masks[changed])
    joined: NDArray[np.uint64] = (halves[1] << low) | halves[0]
    return joined
