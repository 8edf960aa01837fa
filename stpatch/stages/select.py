"""Stage select, once per corpus: all gene statistics -> the vocabulary and the channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.expression.rules.base import RuleSpec
from stpatch.slides.genes import read_vocabulary
from stpatch.stages.channels import Channels, channels_json
from stpatch.stages.corpus import Corpus, is_mixed, number_genes
from stpatch.stages.deal import fit_slides, require_no_duplicates
from stpatch.stages.job import Job, Outcome, file_digest
from stpatch.stages.measured import absent_is_zero
from stpatch.stages.normalize import gene_list, panel_rules
from stpatch.storage import atomic_file, canonical_json, write_bytes

if TYPE_CHECKING:  # `request` is asked in an up-to-date build: what only `run` needs is imported there
    from stpatch.expression.pool import PooledStatistics


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
        **({} if job.parent is None else {"parent": job.parent.digest}),
    }


def run(job: Job, _unit: str) -> Outcome:
    """Pool the statistics, number the genes, choose the channels."""
    from stpatch.expression.pool import pool_statistics

    require_no_duplicates(job)
    if job.parent is not None:
        from stpatch.stages import grown

        return grown.run(job, job.parent)
    slides = list(job.receipts("normalize"))
    ingested = job.receipts("ingest")
    by_organism = is_mixed([ingested[slide_id] for slide_id in slides])
    fit, fit_on = fit_slides(job)
    fit = [slide_id for slide_id in fit if slide_id in set(slides)]
    if not fit:
        raise _nothing_to_fit(fit_on)
    corpus = Corpus(job, by_organism=by_organism, zero=[name for name in slides if absent_is_zero(job, name)])
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


def _choose(
    job: Job,
    corpus: Corpus,
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
        panel = ranked_genes(rules[0], corpus, fit, ids, pooled=pooled, least=section.min_detected)
        n_channels = len(panel)
    elif section.scope == "slide":
        chosen = slide_channels(job, corpus, slides, ids, pooled=whole)
        n_channels = max(len(numbers) for numbers in chosen.values())
        slide_panels = {
            slide_id: np.pad(numbers, (0, n_channels - len(numbers)), constant_values=pad_id)
            for slide_id, numbers in chosen.items()
        }
    else:
        n_channels = section.n
        if rules:
            candidates = np.sort(ranked_genes(rules[0], corpus, fit, ids, pooled=pooled, least=section.min_detected))
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


def slide_channels(
    job: Job,
    corpus: Corpus,
    slides: Sequence[str],
    ids: Mapping[str, int],
    *,
    pooled: PooledStatistics | None = None,
) -> dict[str, NDArray[np.int32]]:
    """Return each slide's own channels (scope slide): gene ids in the rule's order, as many as it has."""
    (rule,) = panel_rules(job)
    if rule.rule.needs_genes:  # the list is checked against the corpus; a slide need not measure all of it
        listed = ranked_genes(replace(rule, scope="panel"), corpus, slides, ids, pooled=pooled)
        return {slide_id: listed[np.isin(listed, corpus.ids(slide_id, ids))] for slide_id in slides}
    own = Corpus(job, by_organism=corpus.by_organism)
    least = job.config.channels.min_detected
    return {slide_id: ranked_genes(rule, own, [slide_id], ids, least=least) for slide_id in slides}


def ranked_genes(
    rule: RuleSpec,
    corpus: Corpus,
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
