"""How the channels of a croppable dataset's samples are chosen: as it was built, or as it was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.genes import gene_ids
from stpatch.dataset.manifest import Manifest
from stpatch.errors import ConfigError
from stpatch.expression.sample import PatchSampler
from stpatch.registry import PATCH_RULES
from stpatch.seeds import name_keys

KEYS = ("method", "n", "draws", "genes", "candidates")


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelRule:
    """What decides on the channels of a sample.

    Attributes
    ----------
    n
        Channels.
    draws
        Samples of each window.
    panel
        (n,) int32 gene ids, the same for all samples; None where they differ.
    by_slide
        Whether each slide has its own list, as it was built.
    method
        A patch rule, where there is neither panel nor list.
    candidates
        (genes,) int32 ids that the patch rule may choose; None: as stored where `as_stored`, else all.
    as_stored
        Whether the rule is the one that the dataset was built with.
    seed
        Of the draws.
    pad_id
        The gene id that stands for no gene.
    gene_keys
        uint64 `stpatch.seeds.name_keys` of the vocabulary's names, by gene id.
    """

    n: int
    draws: int = 1
    panel: NDArray[np.int32] | None = None
    by_slide: bool = False
    method: str | None = None
    candidates: NDArray[np.int32] | None = None
    as_stored: bool = False
    seed: int = 0
    pad_id: int = 0
    gene_keys: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    @property
    def random(self) -> bool:
        """Whether draws of one window differ."""
        return self.method is not None and PATCH_RULES.get(self.method).draws

    def sampler(self, genes: NDArray[np.int32], candidates: NDArray[np.int32] | None) -> PatchSampler:
        """Return the patch rule for a slide that measured some `genes`, which may choose `candidates`."""
        if self.method is None:
            raise ValueError("the channels are fixed")
        return PatchSampler(
            method=self.method,
            n=self.n,
            gene_ids=genes,
            gene_keys=self.gene_keys[genes],
            candidates=None if candidates is None else np.isin(genes, candidates),
            seed=self.seed,
        )


def resolve_rule(
    manifest: Manifest,
    asked: Mapping[str, Any] | None,
    *,
    panel: NDArray[np.int32] | None,
    vocabulary: NDArray[np.object_],
    where: object,
) -> ChannelRule:
    """Return the rule that was asked for, with the dataset's own for what was left out.

    Parameters
    ----------
    manifest
        The dataset's.
    asked
        ``genes``: a list of names or ids, the same for all samples. Or a patch rule: ``method``, ``n``, ``draws`` and
        ``candidates`` (names or ids). None: as built.
    panel
        The dataset's panel, scope panel.
    vocabulary
        Gene names by id.
    where
        The dataset's folder, for messages.

    Raises
    ------
    ConfigError
        A key is unknown, or keys contradict each other.
    DatasetError
        A gene is not in the vocabulary.
    """
    asked = {} if asked is None else dict(asked)
    unknown = sorted(set(asked) - set(KEYS))
    if unknown:
        raise _refused("an unknown key", unknown[0], ", ".join(KEYS))
    seed, channels = int(manifest.dataset.get("seed", 0)), manifest.channels
    common: dict[str, Any] = {"seed": seed, "pad_id": manifest.pad_id, "gene_keys": name_keys(vocabulary.tolist())}
    if "genes" in asked:
        if len(asked) > 1:
            raise _refused("genes beside a rule", sorted(asked), "genes alone")
        ids = np.array(gene_ids(asked["genes"], vocabulary, where=where), np.int32)
        if not len(ids):
            raise _refused("no genes", [], "at least one")
        return ChannelRule(n=len(ids), panel=ids, **common)
    built_patch = manifest.scope == "patch"
    if not asked and not built_patch:
        n = manifest.layout.shape[0]
        return ChannelRule(n=n, panel=panel, by_slide=panel is None, as_stored=True, **common)
    method = asked.get("method", channels.get("method") if built_patch else "variance_sampled")
    if method not in PATCH_RULES.names():
        raise _refused("no patch rule", method, ", ".join(PATCH_RULES.names()))
    n, draws = asked.get("n", manifest.layout.shape[0]), asked.get("draws", manifest.draws)
    for key, value in (("n", n), ("draws", draws)):
        if type(value) is not int or value < 1:
            raise _refused(f"a wrong {key}", value, "a whole number of at least 1")
    if draws > 1 and not PATCH_RULES.get(method).draws:
        raise _refused("several draws of a rule that is not random", draws, "1")
    candidates = asked.get("candidates")
    allowed = None if candidates is None else np.array(gene_ids(candidates, vocabulary, where=where), np.int32)
    same_candidates = built_patch and "candidates" not in asked
    return ChannelRule(n=n, draws=draws, method=method, candidates=allowed, as_stored=same_candidates, **common)


def named(genes: Sequence[str | int] | None, asked: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return what was asked for of the channels, `genes` being short for them.

    Raises
    ------
    ConfigError
        Both are given.
    """
    if genes is None:
        return asked
    if asked is not None:
        raise _refused("genes beside channels", sorted(asked), "one of them")
    return {"genes": list(genes)}


def _refused(what: str, found: object, expected: object) -> ConfigError:
    return ConfigError(f"channels: {what}", where="stpatch.open, channels", found=found, expected=expected)
