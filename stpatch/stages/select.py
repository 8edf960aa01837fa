"""Stage select, once per corpus: all gene statistics -> the vocabulary and the channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.expression.rules.base import RuleSpec
from stpatch.slides.genes import PAD, read_vocabulary
from stpatch.slides.store import read_genes, read_slide
from stpatch.stages.channels import Channels, channels_json, vocabulary_names
from stpatch.stages.deal import fit_slides, require_no_duplicates
from stpatch.stages.job import Job, Outcome, file_digest
from stpatch.stages.measured import absent_is_zero, slide_with_zeros, with_zeros, zero_genes
from stpatch.stages.normalize import gene_list, panel_rules
from stpatch.stages.receipts import Receipt
from stpatch.storage import atomic_file, canonical_json, write_bytes

if TYPE_CHECKING:  # `request` is asked in an up-to-date build: what only `run` needs is imported there
    from stpatch.expression.pool import PooledStatistics
    from stpatch.expression.statistics import SlideStatistics
    from stpatch.slides.slide import Slide


def request(job: Job, _unit: str) -> dict[str, Any]:
    """Return what vocabulary and channels depend on."""
    channels = job.config.section("channels")["channels"]
    channels["genes"] = list(gene_list(job.config.channels.genes, key="channels.genes"))
    if job.config.channels.candidates is not None:
        channels["candidates"]["genes"] = list(
            gene_list(job.config.channels.candidates.genes, key="channels.candidates.genes")
        )
    return {
        "normalize": {slide_id: receipt.fingerprint for slide_id, receipt in job.receipts("normalize").items()},
        "channels": channels,
        "fit": sorted(fit_slides(job)[0]),
        "min_spots_per_gene": job.config.ingest.qc.min_spots_per_gene,
        "vocabulary": file_digest(job.config.ingest.genes.vocabulary),
    }


def run(job: Job, _unit: str) -> Outcome:
    """Pool the statistics, number the genes, choose the channels."""
    from stpatch.expression.pool import pool_statistics

    require_no_duplicates(job)
    slides = list(job.receipts("normalize"))
    ingested = job.receipts("ingest")
    by_organism = is_mixed([ingested[slide_id] for slide_id in slides])
    fit, fit_on = fit_slides(job)
    fit = [slide_id for slide_id in fit if slide_id in set(slides)]
    if not fit:
        raise _nothing_to_fit(fit_on)
    corpus = _Corpus(job, by_organism=by_organism, zero=[name for name in slides if absent_is_zero(job, name)])
    corpus.see(slides)
    whole = pool_statistics(slides, corpus.statistics)
    pooled = whole if len(fit) == len(slides) else pool_statistics(fit, corpus.statistics)
    external = job.config.ingest.genes.vocabulary
    vocabulary = None if external is None else read_vocabulary(external)
    least = job.config.ingest.qc.min_spots_per_gene
    frequent = [name for name, n in zip(whole.genes, whole.counts.detected.tolist(), strict=True) if n >= least]
    if not frequent:
        raise _all_rare(least, len(whole.genes))
    ids, pad_id = number_genes(frequent, vocabulary, by_organism=by_organism)
    channels = _choose(job, corpus, slides, fit, whole, pooled, ids, pad_id)
    write_bytes(job.channels_path, canonical_json(channels_json(channels)).encode())
    moments_path = job.work / "moments.npz"
    _write_moments(moments_path, whole, pooled, ids)
    rare = len(whole.genes) - len(frequent)
    notes = [f"{rare} genes are left out: fewer than {least} spots of the corpus have them (ingest.qc)"] if rare else []
    if fit_on != "all":
        notes.append(f"genes, channels and moments are chosen on {len(fit)} of {len(slides)} slides: {fit_on}")
    facts = {
        "genes": len(ids),
        "channels": channels.n_channels,
        "by_organism": by_organism,
        "fit_on": fit_on,
        "filtered": rare,
        "notes": notes,
    }
    return Outcome(outputs=[(job.channels_path, None), (moments_path, None)], facts=facts)


def _nothing_to_fit(fit_on: str) -> InputError:
    return InputError(
        "no slide is left to choose genes and channels on",
        where="key channels.fit_on",
        found=f"every slide of {fit_on} has failed",
        hint="mend the slides that stpatch status lists, or set channels.fit_on: all",
    )


def _all_rare(least: int, n_genes: int) -> InputError:
    return InputError(
        "no gene is left after QC",
        where="key ingest.qc.min_spots_per_gene",
        found=f"{n_genes} genes, each in fewer than {least} spots of the corpus",
        hint="see ingest.qc: min_spots_per_gene",
    )


class _Corpus:
    """Slides and statistics under their vocabulary names, one at a time."""

    def __init__(self, job: Job, *, by_organism: bool, zero: Sequence[str] = ()) -> None:
        self.job = job
        self.by_organism = by_organism
        self.zero = frozenset(zero)
        self.names: tuple[str, ...] = ()

    def see(self, slides: Sequence[str]) -> None:
        """Collect the names of all genes, if there is a slide whose absent genes are zeros."""
        if self.zero:
            self.names = tuple(sorted({name for slide_id in slides for name in self.listed(slide_id).genes}))

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
        names = vocabulary_names(
            read_genes(self.job.slide_path(slide_id), columns=["organism"]), by_organism=self.by_organism
        )
        return np.array([ids[name] for name in names if name in ids], np.int32)

    def slide(self, slide_id: str) -> Slide:
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


def _choose(
    job: Job,
    corpus: _Corpus,
    slides: Sequence[str],
    fit: Sequence[str],
    whole: PooledStatistics,
    pooled: PooledStatistics,
    ids: Mapping[str, int],
    pad_id: int,
) -> Channels:
    """Choose the channels: by the statistics of the slides `fit`; lists, and all genes, are those of all slides."""
    section = job.config.channels
    panel: NDArray[np.int32] | None = None
    slide_panels: dict[str, NDArray[np.int32]] | None = None
    candidates: NDArray[np.int32] | None = None
    rules = panel_rules(job)
    if rules and not rules[0].rule.scored:  # names are not chosen by counts
        fit, pooled = slides, whole
    if section.scope == "panel":
        panel = _ranked(rules[0], corpus, fit, ids, pooled=pooled, least=section.min_detected)
        n_channels = len(panel)
    elif section.scope == "slide":
        if rules[0].rule.needs_genes:  # the list is checked against the corpus; a slide need not measure all of it
            listed = _ranked(replace(rules[0], scope="panel"), corpus, slides, ids, pooled=whole)
            chosen = {slide_id: listed[np.isin(listed, corpus.ids(slide_id, ids))] for slide_id in slides}
        else:
            own = _Corpus(job, by_organism=corpus.by_organism)
            chosen = {
                slide_id: _ranked(rules[0], own, [slide_id], ids, least=section.min_detected) for slide_id in slides
            }
        n_channels = max(len(numbers) for numbers in chosen.values())
        slide_panels = {
            slide_id: np.pad(numbers, (0, n_channels - len(numbers)), constant_values=pad_id)
            for slide_id, numbers in chosen.items()
        }
    else:
        n_channels = section.n
        if rules:
            candidates = np.sort(_ranked(rules[0], corpus, fit, ids, pooled=pooled, least=section.min_detected))
    by_id = sorted(ids.items(), key=lambda item: item[1])
    return Channels(
        names=[name for name, _ in by_id],
        ids=np.array([number for _, number in by_id], np.int32),
        pad_id=pad_id,
        by_organism=corpus.by_organism,
        n_channels=n_channels,
        panel=panel,
        slide_panels=slide_panels,
        candidates=candidates,
    )


def _ranked(
    rule: RuleSpec,
    corpus: _Corpus,
    slides: Sequence[str],
    ids: Mapping[str, int],
    *,
    pooled: PooledStatistics | None = None,
    least: float = 0.0,
) -> NDArray[np.int32]:
    """Return the ids of the rule's genes in its order; genes outside the vocabulary are left out.

    So are genes that a smaller share of spots than `least` has, of the spots of the slides that measured them; the
    rule's trends and bins are those of all genes all the same.
    """
    from stpatch.expression.pool import pool_statistics
    from stpatch.expression.select import select_panel

    among = frozenset(ids)
    if least > 0 and rule.rule.scored:
        pooled = pool_statistics(slides, corpus.statistics) if pooled is None else pooled
        often = pooled.counts.detected >= least * np.maximum(pooled.counts.n, 1)
        among &= {name for name, kept in zip(pooled.genes, often.tolist(), strict=True) if kept}

    chosen = select_panel(
        rule,
        slide_ids=slides,
        load_statistics=corpus.statistics,
        load_slide=corpus.slide,
        pooled=pooled,
        among=among,
    )
    numbers = [ids[name] for name in chosen.genes if name in ids]
    if rule.rule.needs_genes and len(numbers) < len(chosen.genes):
        unknown = [name for name in chosen.genes if name not in ids]
        raise InputError(
            "genes of the list are not in the vocabulary",
            where="key channels.genes, key ingest.genes.vocabulary",
            found=", ".join(unknown[:8]),
            hint="take them off the list, or use another vocabulary",
        )
    if not numbers:
        slide = f", slide {slides[0]}" if rule.scope == "slide" else ""
        raise InputError(
            "the rule chose no gene of the vocabulary",
            where=f"key channels, method {rule.method}{slide}",
            found="no gene that the rule can rank",
            expected="a slide of several spots, and genes that differ between them" if slide else None,
            hint="take another rule, or leave the slide out" if slide else None,
        )
    return np.array(numbers, np.int32)


def _write_moments(path: Any, whole: PooledStatistics, pooled: PooledStatistics, ids: Mapping[str, int]) -> None:
    """Store the moments of the vocabulary's genes, by ascending id, for the gene table.

    Moments are those of the slides that choose; the number of slides that measured a gene is of all.
    """
    from stpatch.expression.pool import pool_on_axis

    position = {name: i for i, name in enumerate(whole.genes)}
    if pooled is not whole:
        pooled = pool_on_axis(pooled, np.array([position[name] for name in pooled.genes]), len(whole.genes))
    order = np.array(
        [position[name] for name in sorted((name for name in position if name in ids), key=ids.__getitem__)]
    )
    with atomic_file(path) as file:
        np.savez(
            file,
            n_slides=whole.n_slides[order],
            n_spots=pooled.counts.n[order],
            detected=pooled.counts.detected[order],
            count_sum=pooled.counts.total[order],
            count_squares=pooled.counts.squares[order],
            mean=pooled.values.mean[order],
            variance=pooled.values.variance[order],
        )
