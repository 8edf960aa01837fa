"""Stage normalize, one slide: canonical slide -> per-gene statistics."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputMissingError
from stpatch.expression.rules.base import RuleSpec
from stpatch.stages.deal import fit_slides
from stpatch.stages.job import Job, Outcome
from stpatch.storage import digest, read_sealed, write_sealed

if TYPE_CHECKING:  # `request` is asked of every unit of an up-to-date build: what only `run` needs is imported there
    from stpatch.config import Config
    from stpatch.expression.normalize import Normalization
    from stpatch.slides.slide import Slide


def request(job: Job, slide_id: str) -> dict[str, Any]:
    """Return what the slide's statistics depend on."""
    value: dict[str, Any] = {
        "ingest": ingest_fingerprint(job, slide_id),
        "normalize": job.config.section("normalize"),
        "rules": [rule.score_key for rule in panel_rules(job)],
    }
    if job.parent is not None:
        value["parent"] = job.parent.target_sum
    elif job.config.normalize.target_sum == "corpus_median":
        value["corpus"] = [job.receipt("ingest", name).fingerprint for name in sorted(fit_slides(job)[0])]
    return value


def run(job: Job, slide_id: str) -> Outcome:
    """Compute and store one slide's statistics."""
    from stpatch.expression.statistics import slide_statistics
    from stpatch.slides.store import read_slide

    slide = read_slide(job.slide_path(slide_id), spot_ids=False)
    totals = job.totals(slide_id)["totals"]
    normalization = slide_normalization(job, slide, totals)
    path = job.statistics_path(slide_id)
    slide_statistics(slide, normalization=normalization, rules=panel_rules(job), totals=totals).save(path)
    return Outcome(outputs=[(path, None)], facts={"target_sum": normalization.target_sum})


def panel_rules(job: Job) -> list[RuleSpec]:
    """Return the config's panel rules: the channels' own, or the candidates' of a patch rule."""
    channels, theta = job.config.channels, job.config.normalize.theta
    if channels.scope != "patch":
        rule = RuleSpec(
            method=channels.method,
            n=channels.n,
            genes=gene_list(channels.genes, key="channels.genes"),
            across_slides=channels.across_slides,
            scope=channels.scope,
            theta=theta,
        )
        return [rule]
    if channels.candidates is None:
        return []
    rule = RuleSpec(
        method=channels.candidates.method,
        n=channels.candidates.n,
        genes=gene_list(channels.candidates.genes, key="channels.candidates.genes"),
        across_slides=channels.across_slides,
        theta=theta,
    )
    return [rule]


def gene_list(genes: Any, *, key: str) -> tuple[str, ...]:
    """Return the names of a list rule: given in the config, or a text file of one name per line."""
    if genes is None:
        return ()
    if isinstance(genes, list):
        return tuple(genes)
    if not genes.is_file():
        raise InputMissingError(
            "there is no such gene list",
            where=f"key {key}, {genes}",
            hint="give the path of a text file of one gene per line, from the config's folder",
        )
    lines = genes.read_text(encoding="utf-8-sig").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def slide_normalization(job: Job, slide: Slide, totals: NDArray[np.float64]) -> Normalization:
    """Return the normalization with the slide's own numbers; `totals` are those of its spots."""
    from stpatch.expression.normalize import resolve_normalization

    section = job.config.normalize
    return resolve_normalization(
        section.method,
        target_sum=section.target_sum,
        theta=section.theta,
        counts=slide.counts,
        totals=totals,
        corpus_target=_corpus_target(job) if section.target_sum == "corpus_median" else None,
    )


def _corpus_target(job: Job) -> float:
    """Return the corpus' median total, over the slides that choose (``channels.fit_on``); it is worked out once."""
    from stpatch.expression.normalize import corpus_median

    if job.parent is not None and job.parent.target_sum is not None:  # a corpus that grows keeps its numbers
        return job.parent.target_sum
    receipts = {slide_id: job.receipt("ingest", slide_id) for slide_id in fit_slides(job)[0]}
    key = digest([receipt.fingerprint for receipt in receipts.values()])
    path = job.work / "corpus_median.json"
    with suppress(OSError, ValueError, KeyError):  # none yet, of other slides, or damaged
        kept = read_sealed(path)
        if kept["corpus"] == key:
            return float(kept["target_sum"])

    def totals() -> Any:
        for slide_id in receipts:
            yield job.totals(slide_id)["totals"]

    target = corpus_median(totals())
    write_sealed(path, {"corpus": key, "target_sum": target})
    return target


def normalization_json(config: Config) -> dict[str, Any]:
    """Return what the manifest says of the normalization: the method, and the numbers that it has."""
    value: dict[str, Any] = config.section("normalize")["normalize"]
    if value["method"] != "pearson_residuals":
        del value["theta"]
    if value["method"] in ("none", "pearson_residuals"):
        del value["target_sum"]
    return value


def ingest_fingerprint(job: Job, slide_id: str) -> str:
    """Return the fingerprint of the slide's ingest; the stage must be done."""
    return job.receipt("ingest", slide_id).fingerprint
