"""Where a dataset's slides come from: licences and publications, by the columns of the samplesheet.

license (licence)    SPDX name               doi, title, authors, year, url    the publication; authors by ";"
tissue, disease      words                   *_ontology_term_id                UBERON, MONDO, EFO, NCBITaxon
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stpatch.dataset.licences import near_licence, spdx_name, strictest

KEYS = ("doi", "title", "authors", "year", "url")
_NAMES = {"license": ("license", "licence"), "authors": ("authors", "author", "creators")}
ONTOLOGIES = {
    "tissue_ontology_term_id": re.compile(r"UBERON:\d{7}"),
    "assay_ontology_term_id": re.compile(r"EFO:\d{7}"),
    "organism_ontology_term_id": re.compile(r"NCBITaxon:\d+"),
    "disease_ontology_term_id": re.compile(r"(MONDO|PATO):\d{7}"),
}
"""Columns of ontology ids, named as CELLxGENE names them, and what an id looks like."""
_DOI = re.compile(r"10\.\d{4,9}/\S+")


def field_of(metadata: Mapping[str, Any], name: str) -> str:
    """Return a field of a slide's metadata, whatever the case of its column; "" if it has none."""
    wanted = _NAMES.get(name, (name,))
    found = next((value for key, value in metadata.items() if key.strip().lower() in wanted and value), "")
    return str(found).strip()


def dataset_license(told: str, slides: Sequence[Mapping[str, Any]]) -> str:
    """Return the licence of the whole: the one that is told, else the strictest of the slides' where all have one."""
    if told != "unknown":
        return spdx_name(told) or told
    return strictest(spdx_name(field_of(metadata, "license")) for metadata in slides) or told


def sources_of(slides: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the publications of slides' metadata, with their licences and numbers of slides, by first use."""
    found: dict[str, dict[str, Any]] = {}
    for metadata in slides:
        fields = {key: field_of(metadata, key) for key in KEYS}
        fields["doi"] = bare_doi(fields["doi"])
        license_ = spdx_name(field_of(metadata, "license")) or field_of(metadata, "license")
        mark = fields["doi"].lower() or fields["title"] or fields["url"]
        if not mark and not license_:
            continue
        source = found.setdefault(mark, {key: value for key, value in fields.items() if value})
        source["slides"] = source.get("slides", 0) + 1
        if license_ and license_ not in source.setdefault("licenses", []):
            source["licenses"].append(license_)
    return list(found.values())


def source_problems(slides: Mapping[str, Mapping[str, Any]], license_: str) -> list[str]:
    """Return what is missing or wrong in slides' metadata (by slide_id) for a public release."""
    problems = []
    for slide_id, metadata in slides.items():
        told = field_of(metadata, "license")
        if not told:
            problems.append(f"slide {slide_id} has no licence: give it in column license of the samplesheet")
        elif not spdx_name(told):
            near = near_licence(told)
            problems.append(
                f"slide {slide_id}: {told!r} is no SPDX name of a data licence" + (f"; {near}?" if near else "")
            )
        doi = field_of(metadata, "doi")
        if not doi and not field_of(metadata, "title") and not field_of(metadata, "url"):
            problems.append(f"slide {slide_id} has no source: give columns doi, title, authors, year or url")
        elif doi and not bare_doi(doi):
            problems.append(f"slide {slide_id}: {doi!r} is no DOI (10.…/…)")
        for column, pattern in ONTOLOGIES.items():
            term = field_of(metadata, column)
            if term and pattern.fullmatch(term) is None:
                problems.append(f"slide {slide_id}: {term!r} in {column} is no id such as {pattern.pattern}")
    given = {spdx_name(field_of(metadata, "license")) for metadata in slides.values()} - {""}
    if license_ == "unknown":
        problems.append("the dataset has no licence: set dataset.license, or one for each slide that allows for one")
    elif not spdx_name(license_):
        problems.append(f"dataset.license {license_!r} is no SPDX name of a data licence")
    elif given and strictest([*given, spdx_name(license_)]) != spdx_name(license_):
        problems.append(
            f"licence {license_} of the dataset asks for less than its slides' do: {', '.join(sorted(given))}"
        )
    return problems


def bare_doi(text: str) -> str:
    """Return a DOI without address or prefix, "" if `text` holds none."""
    match = _DOI.search(text)
    return match.group().rstrip(".,;") if match else ""


def bibtex(sources: Sequence[Mapping[str, Any]]) -> str:
    """Return the sources that have a title or a DOI as BibTeX."""
    entries = []
    for number, source in enumerate(sources, 1):
        fields = {key: source.get(key, "") for key in KEYS}
        fields["author"] = " and ".join(author.strip() for author in fields.pop("authors").split(";") if author.strip())
        lines = [f"  {key} = {{{_escaped(value)}}}," for key, value in fields.items() if value]
        if lines:
            entries.append("\n".join([f"@misc{{source{number},", *lines, "}"]))
    return "\n\n".join(entries) + ("\n" if entries else "")


def _escaped(text: str) -> str:
    return re.sub(r"([&%$#_])", r"\\\1", text.replace("{", "").replace("}", "").replace("\\", ""))
