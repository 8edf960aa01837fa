"""The report: its numbers are the tables', its pictures the slides', and it loads nothing."""

from __future__ import annotations

import base64
import builtins
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bundles.built import build, poisson_counts, square, write_counts
from bundles.dataset import write_dataset
from commands import built, stpatch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from views.reading import Page

from stpatch.config import CropSection
from stpatch.dataset.manifest import read_manifest
from stpatch.engine.work_maps import work_dir_of, work_maps
from stpatch.errors import DatasetError, MismatchError, MissingExtraError
from stpatch.image.crop import cut_patches
from stpatch.stages.job import Job
from stpatch.views.report import charts
from stpatch.views.report.audit import audit_splits
from stpatch.views.report.facts import SlideFacts
from stpatch.views.report.maps import Wanted, maps_from_patches
from stpatch.views.report.page import Options, notes_of, report
from stpatch.views.report.pixels import bar_length, scale_colours, scale_image, shrunk
from stpatch.views.report.samples import spread_rows
from stpatch.views.report.text import large
from stpatch.views.report.windows import COVERAGE, EMPTY, KEPT, SPOTS, UNTOLD, explain_windows
from stpatch.views.whole import Whole

KINDS: list[dict[str, Any]] = [
    {},
    {"format": "zarr"},
    {"genes": False},
    {"variable": True},
    {"shape": (4, 1, 1)},
    {"dtype": "float32", "values": "normalized"},
]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Three slides of a round tissue; one lost spots to QC, two share a donor."""
    folder = tmp_path_factory.mktemp("report")
    places = square(14, 12)
    inside = ((places - [7, 6]) ** 2).sum(axis=1) < 36
    rows = []
    for number, name in enumerate(("a", "b", "c")):
        counts = poisson_counts(int(inside.sum()), 12, seed=number)
        if name == "b":
            counts[:20] = 0
            counts[:20, 0] = 1
        region = np.where(places[inside][:, 0] < 7, "upper", "lower")
        write_counts(folder / f"{name}.h5ad", counts, array=places[inside], obs={"region": region.tolist()})
        donor = {"a": "d1", "b": "d1", "c": "d2"}[name]
        rows.append({"slide_id": name, "donor": donor, "tissue": "<b>skin</b> & bone", "organism": "human"})
    return build(
        folder,
        rows,
        ingest={"qc": {"min_counts": 5}, "labels": ["region"]},
        crop={"size": [4, 4], "min_coverage": 0.5, "min_spots": 9},
        split={"fractions": {"train": 0.5, "val": 0.5}},
    )


@pytest.fixture(scope="module")
def page(job: Job) -> str:
    return report(job.output, maps_of=work_maps(job.output, job.work))


@pytest.mark.parametrize("kind", KINDS, ids=["tar", "zarr", "panel", "slides", "spots", "normalized"])
def test_every_kind_of_dataset_has_a_report(kind: dict[str, Any], tmp_path: Path) -> None:
    write_dataset(tmp_path / "tiny", **kind)
    text = report(tmp_path / "tiny")
    read = Page(text)
    assert read.number("", "total.patches") == 7
    assert read.number("s1", "patches") == 4
    assert not read.loads
    assert text == report(tmp_path / "tiny"), "the same dataset gives the same page"


def test_numbers_are_the_tables(job: Job, page: str) -> None:
    read, whole = Page(page), Whole(job.output)
    for row in whole.slides.to_dict("records"):
        qc, name = json.loads(row["qc"]), row["slide_id"]
        own = whole.patches[whole.patches["slide_id"] == name]
        for field in ("spots", "genes", "patches"):
            assert read.number(name, field) == row[field]
        for field in ("spots_in", "counts_in", "counts_kept"):
            assert read.number(name, field) == qc[field]
        assert read.number(name, "coverage") == pytest.approx(own["coverage"].median())
        assert read.number(name, "notes") == len(qc["notes"])
        lost = sum(numbers.get("counts", 0) for numbers in qc["dropped"].values())
        fall = {field: float(value) for (owner, field), value in read.values.items() if owner == name and value}
        assert fall["fall.counts.in"] - lost == fall["fall.counts.kept"] == qc["counts_kept"]
        assert fall["windows.kept"] == len(own)
    assert read.number("b", "fall.spots.min_counts") >= 20
    manifest = read_manifest(job.output)
    for split, entry in manifest.splits.items():
        assert read.number(split, "split.patches") == entry.patches
        assert read.number(split, "split.bytes") == entry.bytes
        assert read.number(split, "split.spots") == entry.spots
    assert read.number("", "total.bytes") == manifest.bytes
    assert read.number("", "total.spots") == whole.slides["spots"].sum()


def test_windows_are_those_of_the_crop(job: Job, page: str) -> None:
    """What is not kept is named with the filter that took it."""
    read = Page(page)
    whole = Whole(job.output)
    maps = work_maps(job.output, job.work)
    for name in ("a", "b", "c"):
        patches = whole.patches[whole.patches["slide_id"] == name]
        found = maps(name, patches, Wanted(gene_id=1, label="region"))
        assert found is not None
        tally = found.windows.tally()
        assert tally[KEPT] == len(patches)
        rows, columns = found.totals.shape
        assert sum(tally.values()) == -(-rows // 4) * -(-columns // 4)
        assert set(tally) <= {KEPT, COVERAGE, SPOTS, EMPTY}
        assert read.number(name, "windows.kept") == tally[KEPT]


@given(
    seed=st.integers(0, 99),
    method=st.sampled_from(["tiles", "random", "centered"]),
    edge=st.sampled_from(["pad", "shift", "drop"]),
)
def test_reasons_agree_with_the_crop(seed: int, method: str, edge: str) -> None:
    spots = (np.random.default_rng(seed).random((13, 17)) < 0.3).astype(np.int32)
    section = CropSection(size=(4, 5), method=method, edge=edge, min_coverage=0.25, min_spots=6)  # type: ignore[arg-type]
    kept = cut_patches(spots, section=section, seed=seed, slide_id="s")
    patches = pd.DataFrame({"row": kept.row, "col": kept.col, "split": "train"})
    windows = explain_windows(
        patches, crop=section.model_dump(mode="json"), shape=spots.shape, seed=seed, slide_id="s", size=(4, 5),
        spots_per_pixel=spots,
    )  # fmt: skip
    assert set(windows.why) <= {KEPT, EMPTY, COVERAGE, SPOTS}, "every reason is found by itself"
    assert windows.why.count(KEPT) == len(kept)
    assert len({tuple(box) for box in windows.boxes.tolist()}) == len(windows.boxes)
    padded = np.pad(spots, 8)
    for (row, col, height, width), why in zip(windows.boxes.tolist(), windows.why, strict=True):
        n = int(padded[row + 8 : row + 8 + height, col + 8 : col + 8 + width].sum())
        expected = EMPTY if n == 0 else COVERAGE if n < 0.25 * 20 else SPOTS if n < 6 else KEPT
        assert why == expected
    blind = explain_windows(
        patches, crop=section.model_dump(mode="json"), shape=spots.shape, seed=seed, slide_id="s", size=(4, 5)
    )
    assert set(blind.why) <= {KEPT, UNTOLD}


def test_maps_from_patches_are_part_of_those_from_the_work_dir(job: Job) -> None:
    whole = Whole(job.output)
    patches = whole.patches[whole.patches["slide_id"] == "a"]
    wanted = Wanted(gene_id=whole.gene_id("G001"), label="region")
    ours, theirs = maps_from_patches(whole, "a", patches, wanted), work_maps(job.output, job.work)("a", patches, wanted)
    assert theirs is not None
    assert theirs.gene is not None
    assert theirs.label is not None
    assert ours.label is not None
    seen = ours.totals > 0
    assert 0.5 < seen.sum() / (theirs.totals > 0).sum() <= 1
    np.testing.assert_array_equal(ours.totals[seen], theirs.totals[seen])
    np.testing.assert_array_equal(ours.label[seen], theirs.label[seen])
    if ours.gene is not None:
        told = np.isfinite(ours.gene)
        np.testing.assert_array_equal(ours.gene[told], theirs.gene[told])
    assert theirs.gene_sums is not None
    assert theirs.gene_sums.sum() == theirs.totals.sum()


def test_names_are_texts_and_never_markup(page: str) -> None:
    assert "<b>skin</b>" not in page
    assert "&lt;b&gt;skin&lt;/b&gt; &amp; bone" in page


def test_it_loads_nothing_and_every_anchor_is_there(page: str) -> None:
    read = Page(page)
    assert not read.loads
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttp|https?://", re.sub(r'xmlns(:\w+)?="[^"]*"', "", page))
    assert "default-src 'none'" in page
    assert len(set(read.ids)) == len(read.ids), "ids of the charts and of the page differ"
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(read.ids)


def test_images_hold_the_map_pixel_by_pixel() -> None:
    values = np.array([[0.0, 10.0, np.nan], [5.0, 2.5, 7.5]])
    made = scale_image(values, cmap="viridis", floor=0)
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(made.uri.partition(",")[2]))).convert("RGBA"))
    colours = scale_colours("viridis")
    assert drawn.shape == (2, 3, 4)
    assert drawn[0, 2, 3] == 0, "NaN is transparent"
    assert tuple(drawn[0, 0, :3]) == colours[0]
    assert tuple(drawn[0, 1, :3]) == colours[-1]
    assert len(made.uri) < 600


def test_large_maps_are_means_of_blocks() -> None:
    values = np.arange(36.0).reshape(6, 6)
    values[0, 0] = np.nan
    small = shrunk(values, 3)
    assert small.shape == (3, 3)
    assert small[0, 0] == pytest.approx(np.mean([1, 6, 7]))
    assert small[2, 2] == pytest.approx(np.mean([28, 29, 34, 35]))
    assert np.isnan(shrunk(np.full((4, 4), np.nan), 2)).all()


@given(st.floats(1, 1e6))
def test_the_scale_bar_is_a_round_part_of_the_width(width: float) -> None:
    length = bar_length(width)
    assert 0.17 * width <= length <= 0.45 * width
    assert re.fullmatch(r"[125]0*(\.0)?|0?\.0*[125]", f"{length:.10g}")


def test_saturation_is_the_expected_number_of_genes() -> None:
    shares, seen = charts.saturation(np.array([1.0, 10.0, 0.0]))
    np.testing.assert_allclose(seen, 2 - (1 - shares) - (1 - shares) ** 10, atol=1e-9)


def test_charts_take_the_colours_of_the_page() -> None:
    svg = charts.histogram({"train": np.array([1, 2, 2]), "val": np.array([3])}, label="spots", what="patches")
    assert svg is not None
    assert "var(--ink)" in svg
    assert "<text" in svg, "words stay words"
    assert "DejaVu" not in svg
    assert len(svg) < 20_000
    assert charts.histogram({"train": np.array([])}, label="spots", what="patches") is None


def test_the_audit_names_donors_and_equal_sections() -> None:
    slides = pd.DataFrame({"slide_id": ["a", "b", "c"], "digest_matrix": ["x", None, "x"]})
    metadata = [{"Patient ID": "p1"}, {"Patient ID": "p1"}, {"Patient ID": "NA"}]
    found = audit_splits(slides, metadata, {"a": ("train",), "b": ("val",), "c": ("test",)})
    assert found.columns == ("Patient ID",)
    kinds = {(item.kind, item.value): item.splits for item in found.findings}
    assert kinds == {("Patient ID", "p1"): ("train", "val"), ("the same genes and counts", "a, c"): ("train", "test")}
    assert not audit_splits(slides.iloc[:1], metadata[:1], {"a": ("train",)}).findings
    assert audit_splits(slides.iloc[:1], [{}], {"a": ("train", "val")}).findings[0].kind == "slide"


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8), most=st.integers(1, 40))
def test_patches_are_taken_from_all_slides(sizes: list[int], most: int) -> None:
    rows = pd.DataFrame([{"slide_id": f"s{i}", "key": f"s{i}-{k}"} for i, n in enumerate(sizes) for k in range(n)])
    chosen = spread_rows(rows, most)
    assert len(chosen) == min(most, len(rows))
    assert chosen["slide_id"].nunique() == min(len(sizes), len(chosen))


def test_many_slides_make_a_bounded_page(job: Job) -> None:
    few = report(job.output, options=Options(slides=1, patches=1))
    assert Page(few).tags.count("details") < Page(report(job.output)).tags.count("details")
    assert {owner for owner, _ in Page(few).values} >= {"a", "b", "c"}, "the table has all"


def test_notes_that_differ_by_numbers_are_one() -> None:
    facts = [
        SlideFacts(slide_id=name, platform="st", organism="human", tissue="skin", splits=(), rows=1, cols=1,
                   pitch_um=None, spots=1, genes=1, patches=0, coverage=None, record={"notes": notes})
        for name, notes in (("a", ["2 rows of a.tsv", "same"]), ("b", ["13 rows of b.tsv", "same"]), ("c", ["alone"]))
    ]  # fmt: skip
    assert notes_of({}, facts) == ["slides a, b: such as: 2 rows of a.tsv", "slides a, b: same", "slide c: alone"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\u2013"), (9_999_999, "9,999,999"), (51_587_415, "51.6 million"), (4.69e9, "4.69 billion")],
)
def test_large_numbers_fit_their_tile(value: float | None, text: str) -> None:
    assert large(value) == text


def test_an_unknown_gene_or_label_is_named(job: Job) -> None:
    with pytest.raises(DatasetError, match="did you mean 'G0"):
        report(job.output, options=Options(gene="G0011"))
    with pytest.raises(DatasetError, match="expected: region"):
        report(job.output, options=Options(label="regoin"))


def test_the_command_writes_the_file_and_names_its_work_dir(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert "from the work dir" in built("report", job.output, "-o", out).out
    assert Page(out.read_text(encoding="utf-8")).number("", "total.slides") == 3
    done = stpatch("report", job.output, "--work-dir", tmp_path, "-o", out)
    assert done.code == 2
    assert "not that of this dataset" in done.err
    assert work_dir_of(job.output, None) == job.work.absolute()
    with pytest.raises(MismatchError):
        work_dir_of(job.output, tmp_path)


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_the_message_names_the_extra(missing: str, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == missing:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"stpatch\[report\]"):
        report(job.output)
