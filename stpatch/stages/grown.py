"""Vocabulary and channels of a dataset that extends another: its ids and choices stay, new genes come after them.

Nothing is chosen anew: panel, candidates and corpus numbers are the parent's. So a gene's numbers in genes.parquet are
those of the version in which it entered, over the slides of that version, and go on to mean the same for those who
scale by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputError, MismatchError
from stpatch.slides.genes import read_vocabulary
from stpatch.stages.channels import Channels, channels_json
from stpatch.stages.corpus import Corpus, number_genes
from stpatch.stages.job import Job, Outcome
from stpatch.stages.measured import absent_is_zero
from stpatch.stages.parent import Parent
from stpatch.storage import atomic_file, canonical_json, write_bytes

if TYPE_CHECKING:
    from stpatch.expression.pool import PooledStatistics

NUMBERS = {
    "n_slides": "n_slides",
    "n_spots": "n_spots",
    "detected": "n_detected",
    "count_sum": "sum_counts",
    "count_squares": "sum_squared_counts",
    "mean": "mean_normalized",
    "variance": "var_normalized",
}
"""The arrays of ``moments.npz``, and the columns of genes.parquet that they become."""


def run(job: Job, parent: Parent) -> Outcome:
    """Append the new slides' genes to the parent's vocabulary; take over its channels."""
    from stpatch.expression.pool import pool_statistics

    genes = parent.genes
    slides = list(job.receipts("normalize"))
    _require_organism(job, parent, slides)
    corpus = Corpus(job, by_organism=genes.by_organism, zero=[name for name in slides if absent_is_zero(job, name)])
    corpus.see(slides, further=genes.names)
    whole = pool_statistics(slides, corpus.statistics) if slides else None
    least = job.config.ingest.qc.min_spots_per_gene
    known = set(genes.names)
    found = [] if whole is None else list(zip(whole.genes, whole.counts.detected.tolist(), strict=True))
    new = [name for name, n in found if name not in known and n >= least]
    rare = sum(name not in known for name, _ in found) - len(new)
    names, ids = _numbered(job, parent, new)
    channels = _taken_over(job, parent, corpus, slides, names, ids)
    write_bytes(job.channels_path, canonical_json(channels_json(channels)).encode())
    moments_path = job.work / "moments.npz"
    _write_moments(moments_path, parent, whole, names)
    notes = [f"{rare} new genes are left out: fewer than {least} spots have them (ingest.qc)"] if rare else []
    notes.append(f"{len(names) - len(known)} new genes have ids after the {len(known)} of {_version(parent)}")
    facts = {
        "genes": len(names),
        "channels": channels.n_channels,
        "by_organism": channels.by_organism,
        "fit_on": str(parent.manifest.channels.get("fit_on", "all")),
        "filtered": rare,
        "notes": notes,
    }
    return Outcome(outputs=[(job.channels_path, None), (moments_path, None)], facts=facts)


def _version(parent: Parent) -> str:
    dataset = parent.manifest.dataset
    return f"{dataset.get('name', 'the dataset')} {dataset.get('version', '')}".strip()


def _require_organism(job: Job, parent: Parent, slides: Sequence[str]) -> None:
    """Refuse a second organism where the parent's genes are named without one."""
    new = {
        organism
        for slide_id in slides
        for organism in job.receipt("ingest", slide_id).facts["organisms"]
        if organism and organism not in parent.organisms
    }
    if new and parent.organisms and not parent.genes.by_organism:
        raise InputError(
            "a dataset of one organism cannot be extended by another",
            where="key dataset.extends",
            found=", ".join(sorted(new)),
            expected=f"slides of {', '.join(sorted(parent.organisms))}: its genes are named without their organism",
            hint="build a dataset of both without dataset.extends",
        )


def _numbered(job: Job, parent: Parent, new: Sequence[str]) -> tuple[list[str], NDArray[np.int32]]:
    """Return all genes and their ids, by ascending id: new ones after the parent's, or as a vocabulary says."""
    genes = parent.genes
    external = job.config.ingest.genes.vocabulary
    if external is None:
        start = max([int(genes.ids.max(initial=0)), parent.manifest.pad_id]) + 1
        ids = np.concatenate([genes.ids, np.arange(start, start + len(new), dtype=np.int32)])
        return [*genes.names, *new], ids
    numbers, _ = number_genes(sorted({*genes.names, *new}), read_vocabulary(external), by_organism=genes.by_organism)
    moved = [name for name, number in zip(genes.names, genes.ids.tolist(), strict=True) if numbers.get(name) != number]
    if moved:
        raise MismatchError(
            "the vocabulary has other ids than the dataset that is extended",
            where="key ingest.genes.vocabulary",
            found=", ".join(moved[:6]),
            hint="give the vocabulary that it was built with",
        )
    by_id = sorted(numbers.items(), key=lambda item: item[1])
    return [name for name, _ in by_id], np.array([number for _, number in by_id], np.int32)


def _taken_over(
    job: Job, parent: Parent, corpus: Corpus, slides: Sequence[str], names: Sequence[str], ids: NDArray[np.int32]
) -> Channels:
    scope, n, genes = parent.manifest.scope, parent.manifest.channels["n"], parent.genes
    panel: NDArray[np.int32] | None = None
    slide_panels: dict[str, NDArray[np.int32]] | None = None
    candidates: NDArray[np.int32] | None = None
    if scope == "panel":
        chosen = np.flatnonzero(genes.channel >= 0)
        panel = genes.ids[chosen[np.argsort(genes.channel[chosen])]]
    elif scope == "slide":
        slide_panels = _slide_panels(job, parent, corpus, slides, dict(zip(names, ids.tolist(), strict=True)))
    elif genes.candidate is not None:
        candidates = genes.ids[genes.candidate]
    return Channels(
        names=names,
        ids=ids,
        pad_id=parent.manifest.pad_id,
        by_organism=genes.by_organism,
        n_channels=n,
        panel=panel,
        slide_panels=slide_panels,
        candidates=candidates,
    )


def _slide_panels(
    job: Job, parent: Parent, corpus: Corpus, slides: Sequence[str], ids: dict[str, int]
) -> dict[str, NDArray[np.int32]]:
    """Choose each new slide's own channels, which must not be more than the parent's samples have."""
    from stpatch.stages.select import slide_channels

    n = parent.manifest.channels["n"]
    chosen = slide_channels(job, corpus, slides, ids)
    long = [slide_id for slide_id, numbers in chosen.items() if len(numbers) > n]
    if long:
        raise InputError(
            "a slide has more channels than the dataset that is extended",
            where=f"slide {long[0]}, key channels",
            found=len(chosen[long[0]]),
            expected=f"at most {n}",
            hint="shorten the list, or build a dataset without dataset.extends",
        )
    pad = parent.manifest.pad_id
    return {
        slide_id: np.pad(numbers, (0, n - len(numbers)), constant_values=pad) for slide_id, numbers in chosen.items()
    }


def _write_moments(path: Any, parent: Parent, whole: PooledStatistics | None, names: Sequence[str]) -> None:
    """Store the numbers of all genes by ascending id: the parent's as they are, the new ones' of the new slides."""
    place = {name: i for i, name in enumerate(names)}
    old = np.array([place[name] for name in parent.genes.names], np.int64)
    arrays = {name: np.zeros(len(names), parent.genes.numbers[column].dtype) for name, column in NUMBERS.items()}
    for name, column in NUMBERS.items():
        arrays[name][old] = parent.genes.numbers[column]
    if whole is not None:
        known = set(parent.genes.names)
        pairs = [(i, place[name]) for i, name in enumerate(whole.genes) if name in place and name not in known]
        source, target = np.array(pairs, np.int64).reshape(-1, 2).T
        pooled = {
            "n_slides": whole.n_slides,
            "n_spots": whole.counts.n,
            "detected": whole.counts.detected,
            "count_sum": whole.counts.total,
            "count_squares": whole.counts.squares,
            "mean": whole.values.mean,
            "variance": whole.values.variance,
        }
        for name, values in pooled.items():
            arrays[name][target] = values[source]
    with atomic_file(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its keywords are arrays but for one
