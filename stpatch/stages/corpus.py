"""The corpus as select sees it: slides and statistics under their vocabulary names, and the ids of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.slides.genes import PAD
from stpatch.slides.store import read_genes, read_slide
from stpatch.stages.channels import vocabulary_names
from stpatch.stages.job import Job
from stpatch.stages.measured import slide_with_zeros, with_zeros, zero_genes
from stpatch.stages.receipts import Receipt

if TYPE_CHECKING:  # `request` of select is asked in an up-to-date build: what only `run` needs is imported there
    from stpatch.expression.statistics import SlideStatistics
    from stpatch.slides.slide import Slide


class Corpus:
    """Slides and statistics under their vocabulary names, one at a time."""

    def __init__(self, job: Job, *, by_organism: bool, zero: Sequence[str] = ()) -> None:
        self.job = job
        self.by_organism = by_organism
        self.zero = frozenset(zero)
        self.names: tuple[str, ...] = ()

    def see(self, slides: Sequence[str], *, further: Sequence[str] = ()) -> None:
        """Collect the names of all genes, `further` ones too, if there is a slide whose absent genes are zeros."""
        if self.zero:
            listed = {name for slide_id in slides for name in self.listed(slide_id).genes}
            self.names = tuple(sorted(listed.union(further)))

    def zeros(self, slide_id: str, listed: Sequence[str]) -> list[str]:
        """Return the corpus' genes that a slide, which lists some, has as zeros."""
        if slide_id not in self.zero:
            return []
        organisms = self.job.receipt("ingest", slide_id).facts["organisms"]
        return zero_genes(self.names, listed, organisms=organisms, by_organism=self.by_organism)

    def statistics(self, slide_id: str) -> SlideStatistics:
        """Return a slide's statistics, with the genes that it has as zeros."""
        statistics = self.listed(slide_id)
        return with_zeros(statistics, self.zeros(slide_id, statistics.genes))

    def listed(self, slide_id: str) -> SlideStatistics:
        """Return a slide's statistics of the genes that its file lists."""
        from stpatch.expression.statistics import SlideStatistics

        (written,) = self.job.receipt("normalize", slide_id).outputs
        statistics = SlideStatistics.load(self.job.statistics_path(slide_id), sha256=written.sha256)
        if not self.by_organism:
            return statistics
        genes = read_genes(self.job.slide_path(slide_id), columns=["organism"])
        return replace(statistics, genes=tuple(vocabulary_names(genes, by_organism=True)))

    def ids(self, slide_id: str, ids: Mapping[str, int]) -> NDArray[np.int32]:
        """Return the ids of the genes that a slide's file lists, those without one left out."""
        names = vocabulary_names(
            read_genes(self.job.slide_path(slide_id), columns=["organism"]), by_organism=self.by_organism
        )
        return np.array([ids[name] for name in names if name in ids], np.int32)

    def slide(self, slide_id: str) -> Slide:
        """Return a slide, with the genes that it has as zeros."""
        slide = read_slide(self.job.slide_path(slide_id))
        names = vocabulary_names(slide.genes, by_organism=self.by_organism)
        return slide_with_zeros(replace(slide, genes=slide.genes.set_axis(names, axis=0)), self.zeros(slide_id, names))


def is_mixed(receipts: Sequence[Receipt]) -> bool:
    """Whether the slides' genes belong to more than one organism (genes that the user mapped belong to none)."""
    return len({organism for receipt in receipts for organism in receipt.facts["organisms"] if organism}) > 1


def number_genes(
    names: Sequence[str], vocabulary: Mapping[str, int] | None, *, by_organism: bool = False
) -> tuple[dict[str, int], int]:
    """Give the measured genes their ids.

    Parameters
    ----------
    names
        Sorted vocabulary names of all measured genes.
    vocabulary
        An external vocabulary; genes that it lacks get no id. None: ids from 1 in order of name.
    by_organism
        Names are ``organism:gene``; a vocabulary may have them with or without the organism.

    Returns
    -------
    ids, pad_id
        Name -> id, and the id of no gene: the vocabulary's ``<pad>``, else 0 (or the first free id where 0 is a gene).

    Raises
    ------
    InputError
        The vocabulary has none of the genes, or has one name for the genes of two organisms.
    """
    if vocabulary is None:
        return {name: number for number, name in enumerate(names, 1)}, 0
    known = {name: name if name in vocabulary or not by_organism else name.partition(":")[2] for name in names}
    ids = {name: vocabulary[word] for name, word in known.items() if word in vocabulary and word != PAD}
    if not ids:
        raise InputError(
            "no measured gene is in the vocabulary",
            where="key ingest.genes.vocabulary",
            found=f"genes such as {', '.join(names[:5])}",
            expected=f"names such as {', '.join(list(vocabulary)[:5])}",
            hint="see ingest.genes: identity (symbol or ensembl) and map",
        )
    if len(set(ids.values())) < len(ids):
        shared = Counter(ids.values())
        twice = [name for name in names if shared[ids.get(name, -1)] > 1]
        raise InputError(
            "the vocabulary has one name for genes of several organisms",
            where="key ingest.genes.vocabulary",
            found=", ".join(twice[:8]),
            expected="one gene per id",
            hint="map one of them to the other's name, or to nothing (ingest.genes.map), or list them as organism:gene",
        )
    taken = set(vocabulary.values())
    return ids, vocabulary.get(PAD, 0 if 0 not in taken else max(taken) + 1)
