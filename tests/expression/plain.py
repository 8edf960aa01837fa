"""Philox in Python's integers, for references of draws."""

from __future__ import annotations

import hashlib


def gene_name(gene_id: int) -> str:
    """Name the gene of an id."""
    return f"G{gene_id}"


def plain_uniform(gene_id: int, key: int, purpose: int) -> float:
    """Philox4x32-10 in Python's integers, its counter from the hash of the gene's name."""
    word = int.from_bytes(hashlib.sha256(gene_name(gene_id).encode()).digest()[:8], "little") & ~1 | purpose
    counter = [word & 0xFFFFFFFF, word >> 32, (key >> 64) & 0xFFFFFFFF, (key >> 96) & 0xFFFFFFFF]
    k0, k1 = key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF
    for _ in range(10):
        left, right = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        counter = [
            (right >> 32) ^ counter[1] ^ k0, right & 0xFFFFFFFF,
            (left >> 32) ^ counter[3] ^ k1, left & 0xFFFFFFFF,
        ]  # fmt: skip
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return (((counter[0] << 20) | (counter[1] & 0xFFFFF)) + 0.5) * 2.0**-52
