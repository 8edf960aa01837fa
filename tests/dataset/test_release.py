from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml
from bundles.built import build, poisson_counts, square, write_counts

from stpatch.dataset.licences import LICENCES, near_licence, spdx_name, strictest
from stpatch.dataset.manifest import read_manifest
from stpatch.dataset.release import make_release
from stpatch.dataset.sources import bare_doi, bibtex, source_problems, sources_of
from stpatch.dataset.validate import verify

PAPER = {
    "license": "cc by 4.0",
    "doi": "https://doi.org/10.1000/xyz.1",
    "title": "A section & its {genes}",
    "authors": "Doe, Jane; Roe, Rick",
    "year": "2021",
}


def make_dataset(folder, *, sheet, **sections):
    rows = []
    for number, more in enumerate(sheet):
        counts = poisson_counts(64, 12, seed=number)
        write_counts(folder / f"s{number}.h5ad", counts, array=square(8, 8))
        rows.append({"slide_id": f"s{number}", "donor": f"d{number}", **more})
    return build(folder, rows, split={"fractions": {"train": 0.5, "val": 0.5}}, **sections)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    sheet = [{**PAPER, "tissue_ontology_term_id": "UBERON:0000955"}, {**PAPER, "license": "CC-BY-NC-4.0"}]
    job = make_dataset(folder, sheet=sheet, dataset={"name": "tiny", "output": "out", "description": "Two slides."})
    built = (job.output / "README.md").read_text()
    made = make_release(
        job.output,
        authors=["Doe, Jane"],
        doi="10.1000/tiny",
        date="2026-01-31",
        config=job.config.model_dump(mode="json", exclude_defaults=True),
    )
    return job, made, built


def test_a_release_is_whole_and_nothing_is_missing(released):
    job, made, _ = released
    assert made.missing == ()
    assert [problem.block() for problem in verify(job.output, deep=True, work=job.work, digest=made.digest)] == []
    manifest = read_manifest(job.output)
    assert manifest.digest == made.digest
    assert {"CITATION.cff", "sources.bib", "croissant.json", "SHA256SUMS", "zenodo.json"} <= set(made.files)
    assert str(job.output.parent) not in "".join(path.read_text() for path in job.output.rglob("*.yaml"))


def test_licence_and_sources_are_known_to_the_build(released):
    job, made, built = released
    assert made.license == "CC-BY-NC-4.0"
    assert 'license: "cc-by-nc-4.0"' in built
    assert "https://doi.org/10.1000/xyz.1" in built
    assert (job.output / "README.md").read_text() == built
    (source,) = read_manifest(job.output).dataset["sources"]
    assert source["licenses"] == ["CC-BY-4.0", "CC-BY-NC-4.0"]
    assert source["slides"] == 2


def test_the_sums_are_those_of_all_files_but_the_manifest(released):
    job, _, _ = released
    lines = (job.output / "SHA256SUMS").read_text().splitlines()
    there = {path.relative_to(job.output).as_posix() for path in job.output.rglob("*") if path.is_file()}
    assert {line.split("  ")[1] for line in lines} == there - {"manifest.json", "SHA256SUMS"}
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=job.output, check=True)


def test_a_second_release_and_a_later_build_find_it_as_it_is(released):
    job, made, _ = released
    from stpatch.engine.check import require_output

    require_output(job)
    config = job.config.model_dump(mode="json", exclude_defaults=True)
    again = make_release(job.output, authors=["Doe, Jane"], doi="10.1000/tiny", date="2026-01-31", config=config)
    assert again == made


def test_the_citation_is_what_cff_asks_for(released):
    job, _, _ = released
    value = yaml.safe_load((job.output / "CITATION.cff").read_text())
    assert value["cff-version"] == "1.2.0"
    assert value["authors"] == [{"family-names": "Doe", "given-names": "Jane"}]
    assert value["license"] == "CC-BY-NC-4.0"
    assert value["references"][0]["doi"] == "10.1000/xyz.1"
    text = (job.output / "sources.bib").read_text()
    assert "author = {Doe, Jane and Roe, Rick}" in text
    assert r"title = {A section \& its genes}" in text


def test_what_is_missing_is_said(tmp_path):
    job = make_dataset(tmp_path, sheet=[{"license": "CC BY 4"}, {"doi": "abc", "tissue_ontology_term_id": "brain"}])
    made = make_release(job.output)
    text = "\n".join(made.missing)
    for words in (
        "'CC BY 4' is no SPDX name of a data licence; CC-BY-",
        "slide s1 has no licence",
        "slide s0 has no source",
        "'abc' is no DOI",
        "'brain' in tissue_ontology_term_id",
        "the dataset has no licence",
        "--author",
        "--doi or --url",
        "--date",
        "--config",
        "no description",
    ):
        assert words in text, words
    assert list(verify(job.output, deep=True)) == []


def test_croissant_is_valid_and_its_records_load(released):
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    job, _, _ = released
    script = (
        "import sys, mlcroissant as m; d = m.Dataset(jsonld=sys.argv[1]);"
        "assert not d.metadata.ctx.issues.errors, d.metadata.ctx.issues.report();"
        "assert not d.metadata.ctx.issues.warnings, d.metadata.ctx.issues.report();"
        "print([len(list(d.records(record_set=n))) for n in ('patches', 'slides', 'genes')])"
    )
    del mlcroissant
    done = subprocess.run(
        [sys.executable, "-c", script, str(job.output / "croissant.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(job.output)
    assert json.loads(done.stdout) == [manifest.patches, 2, 12]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["CC0-1.0", "CC-BY-4.0"], "CC-BY-4.0"),
        (["CC-BY-4.0", "CC-BY-NC-4.0", "MIT"], "CC-BY-NC-4.0"),
        (["CC-BY-SA-4.0", "CC-BY-4.0"], "CC-BY-SA-4.0"),
        (["CC-BY-SA-4.0", "CC-BY-NC-4.0"], ""),
        (["CC-BY-SA-4.0", "ODbL-1.0"], ""),
        (["CC-BY-NC-SA-4.0", "CC-BY-NC-4.0"], "CC-BY-NC-SA-4.0"),
        (["CC-BY-ND-4.0", "CC-BY-NC-4.0"], ""),
        (["CC-BY-4.0", "word"], ""),
        ([], ""),
    ],
)
def test_the_strictest_licence(names, expected):
    assert strictest(names) == expected
    assert strictest(reversed(names)) == expected


def test_names_of_licences():
    for name in LICENCES:
        assert spdx_name(name.lower().replace("-", " ")) == name
    assert spdx_name("free") == ""
    assert near_licence("CC-BY") in ("CC-BY-4.0", "CC-BY-3.0")


def test_sources_are_one_for_each_publication():
    other = {"DOI": "10.1000/xyz.2", "Licence": "odd"}
    (first, second) = sources_of([PAPER, {"doi": "10.1000/XYZ.1"}, other, {}])
    assert (first["doi"], first["slides"], first["licenses"]) == ("10.1000/xyz.1", 2, ["CC-BY-4.0"])
    assert second == {"doi": "10.1000/xyz.2", "slides": 1, "licenses": ["odd"]}
    assert bibtex([]) == ""
    assert bare_doi("doi:10.1000/a.") == "10.1000/a"


def test_a_dataset_does_not_ask_for_less_than_its_slides():
    problems = source_problems({"s1": {**PAPER, "license": "CC-BY-NC-4.0"}}, "CC-BY-4.0")
    assert problems == ["licence CC-BY-4.0 of the dataset asks for less than its slides' do: CC-BY-NC-4.0"]
