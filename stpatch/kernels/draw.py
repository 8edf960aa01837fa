"""Loops of the draw of channels: one number a gene from a counter-based generator, and the keys made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.kernels.normalization import log
from stpatch.kernels.registry import kernel, mapped

NEARLY_ONE = 1.0 - 1e-9
"""Slack of the comparison without logarithms: rounding must not leave out a gene that the logarithm would take."""


@kernel(inline=True)
def philox(counter_0: Any, counter_1: Any, counter_2: Any, counter_3: Any, key_0: Any, key_1: Any) -> Any:
    """Return the four words of Philox4x32-10 (Salmon et al. 2011); all arguments are uint32.

    The generator has no state: the words depend on counter and key alone, so that a gene's number is the same whatever
    other genes a slide has, and in whatever order they come.
    """
    half = np.uint64(32)
    for _ in range(10):
        left = np.uint64(counter_0) * np.uint64(0xD2511F53)
        right = np.uint64(counter_2) * np.uint64(0xCD9E8D57)
        counter_0, counter_1 = np.uint32(right >> half) ^ counter_1 ^ key_0, np.uint32(right)
        counter_2, counter_3 = np.uint32(left >> half) ^ counter_3 ^ key_1, np.uint32(left)
        key_0 = np.uint32(key_0 + np.uint32(0x9E3779B9))
        key_1 = np.uint32(key_1 + np.uint32(0xBB67AE85))
    return counter_0, counter_1, counter_2, counter_3


def _uniforms_examples(_counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [(np.empty(0, np.uint64), mapped(np.uint32), np.uint32(0), np.empty(0))]


@kernel(stage="shard", examples=_uniforms_examples)
def gene_uniforms(
    gene_keys: NDArray[np.uint64], key_words: NDArray[np.uint32], purpose: np.uint32, out: NDArray[np.float64]
) -> None:
    """Fill `out` with one number in (0, 1) per gene: from its key, the (4,) words of a patch's key, and a purpose.

    A gene's key is a hash of its name (`stpatch.seeds.name_keys`) whose lowest bit is 0. The purpose, 0 or 1, takes
    that bit's place, so that the four counter words hold all that a number depends on beside the patch's key.
    """
    key_0, key_1, counter_2, counter_3 = key_words[0], key_words[1], key_words[2], key_words[3]
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for i in range(len(gene_keys)):
        counter_0 = np.uint32(gene_keys[i] & low) | purpose
        a, b, _, _ = philox(counter_0, np.uint32(gene_keys[i] >> half), counter_2, counter_3, key_0, key_1)
        bits = (np.uint64(a) << np.uint64(20)) | (np.uint64(b) & np.uint64(0xFFFFF))  # 52: half a step more is exact
        out[i] = (float(np.int64(bits)) + 0.5) * 2.0**-52  # the middle of its step: neither 0 nor 1


def _keys_examples(_counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    numbers = np.empty(0)
    return [(numbers, numbers, 1.0, numbers, np.empty(0, np.int64))]


@kernel(stage="shard", examples=_keys_examples)
def keys_below(
    weights: NDArray[np.float64],
    uniforms: NDArray[np.float64],
    bound: float,
    keys: NDArray[np.float64],
    places: NDArray[np.int64],
) -> int:
    """Write the keys Exp(1) / weight that are at most `bound`, and their places; return their number.

    The outputs have one to spare. As -log(u) >= 1 - u, most genes are done without their logarithm, in a pass without
    branches: every place is written, and the end moves on only behind one that stays. The last digits of the comparison
    are left to the logarithm. A gene without weight has no key.
    """
    nearly: Any = np.uintp(0)
    for i in range(len(weights)):
        places[nearly] = i
        nearly += np.uintp((1.0 - uniforms[i]) * NEARLY_ONE <= bound * weights[i])
    found: Any = np.uintp(0)
    for k in range(nearly):
        i = places[k]
        key = -log(uniforms[i]) / weights[i]
        keys[found], places[found] = key, i  # `found` is never past `k`, so no place is lost before it is read
        found += np.uintp(key <= bound)
    return found  # type: ignore[no-any-return]
