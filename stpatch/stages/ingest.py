"""Stage ingest, one slide: vendor files -> canonical slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stpatch.slides.reference import reference_files
from stpatch.stages.job import Job, Outcome, file_digest
from stpatch.stages.receipts import measured_meanwhile

if TYPE_CHECKING:
    from stpatch.slides.slide import Slide
    from stpatch.slides.source import Probe


def request(job: Job, slide_id: str) -> dict[str, Any]:
    """Return what the slide's ingest depends on, beside its files."""
    source = job.sources[slide_id]
    if "ingest" not in job.known:
        job.known["ingest"] = _settings(job)
    return {
        "ingest": job.known["ingest"],
        "platform": source.platform,
        "organism": source.organism,
        "metadata": dict(source.metadata),
        "labels": file_digest(source.labels),
        "coordinates": file_digest(source.coordinates),
        **{
            name: str(path)
            for name, path in (("matrix", source.matrix), ("transcripts", source.transcripts))
            if path is not None
        },
    }


def _settings(job: Job) -> dict[str, Any]:
    """Return the settings that all slides share, with the digests of the files that they name."""
    section = job.config.ingest.model_dump(mode="json")
    del section["qc"]["min_spots_per_gene"]  # of the corpus: stage select looks at it
    section["genes"]["map"] = file_digest(job.config.ingest.genes.map)
    section["genes"]["vocabulary"] = file_digest(job.config.ingest.genes.vocabulary)
    if (reference := job.config.ingest.genes.reference) is not None:
        section["genes"]["reference"] = [file_digest(path) for path in reference_files(reference)]
    return section


def run(job: Job, slide_id: str) -> Outcome:
    """Read, harmonize, filter and store one slide."""
    from stpatch.record import write_record
    from stpatch.slides.digests import section_digests
    from stpatch.slides.matrix import column_sums, row_facts
    from stpatch.slides.readers.registry import probe_source
    from stpatch.slides.store import write_slide

    probe = probe_source(job.sources[slide_id], job.config.ingest)
    with measured_meanwhile(probe.files) as measured:
        slide = read_canonical(job, slide_id, probe)
        path, totals_path = job.slide_path(slide_id), job.totals_path(slide_id)
        write_slide(path, slide)
        csr = (slide.counts.data, slide.counts.indices, slide.counts.indptr)
        totals, largest = row_facts(csr)
        digests = section_digests(
            names=slide.genes.index.tolist(), gene_sums=column_sums(csr, slide.n_genes)[0], spot_sums=totals
        )
        write_record(totals_path, {"totals": totals, "largest": largest})
        inputs = measured()
    facts = {
        "platform": slide.platform,
        "organism": slide.organism,
        "organisms": sorted(set(slide.genes["organism"])),
        "spots": slide.n_spots,
        "genes": slide.n_genes,
        "geometry": slide.geometry,
        "um_per_unit": slide.um_per_unit,
        "largest_count": float(largest.max()),
        "digests": digests.as_json(),
        "absent": slide.record["absent"],
        "metadata": dict(slide.metadata),
        "record": dict(slide.record),
        "labels": {name: [str(text) for text in slide.labels[name].cat.categories] for name in slide.labels},
    }
    return Outcome(outputs=[(path, None), (totals_path, None)], facts=facts, inputs=inputs)


def read_canonical(job: Job, slide_id: str, probe: Probe) -> Slide:
    """Read one slide and make it canonical; the raw one is given up on the way."""
    from stpatch.slides.canonical import canonical_slide
    from stpatch.slides.genes import read_gene_map, read_vocabulary
    from stpatch.slides.labels import attach_labels
    from stpatch.slides.overrides import slide_options
    from stpatch.slides.readers.registry import read_probed
    from stpatch.slides.reference import read_reference

    source = job.sources[slide_id]
    section = slide_options(source, job.config.ingest)
    gene_map = None if section.genes.map is None else read_gene_map(section.genes.map)
    vocabulary = None if section.genes.vocabulary is None else read_vocabulary(section.genes.vocabulary)
    reference = None if section.genes.reference is None else read_reference(section.genes.reference)
    raw = read_probed(source, section, probe)
    return canonical_slide(
        raw,
        source=source,
        probe=probe,
        section=section,
        labels=attach_labels(raw, source, section.labels, source.labels),
        gene_map=gene_map,
        vocabulary=vocabulary,
        reference=reference,
        consume=True,
    )
