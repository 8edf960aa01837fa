"""From raw to canonical: conservation of counts, order of place, dtypes, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.canonical import canonical_slide, place_order
from stpatch.slides.slide import RawSlide, Slide
from stpatch.slides.source import Probe, SlideSource

SOURCE = SlideSource(slide_id="A", path=Path("a"), organism="human", metadata={"donor": "p1"})
PROBE = Probe(platform="table", reason="a test", files=(), version="1")


def raw_slide(counts: Any, **fields: Any) -> RawSlide:
    """Make a raw slide of (spots, genes) counts; genes g0, g1, ...; spots on a row."""
    matrix = counts if sparse.issparse(counts) else sparse.csr_matrix(np.asarray(counts))
    n_spots, n_genes = matrix.shape
    values: dict[str, Any] = {
        "counts": matrix,
        "spot_ids": np.array([f"s{i:03d}" for i in range(n_spots)], dtype=object),
        "genes": pd.DataFrame({"name": [f"g{i}" for i in range(n_genes)], "ensembl_id": "", "feature_type": ""}),
        "xy": np.column_stack([np.arange(n_spots), np.zeros(n_spots)]).astype(np.float64),
    }
    return RawSlide(**{**values, **fields})


def canonical(raw: RawSlide, *, vocabulary: dict[str, int] | None = None, **section: Any) -> Slide:
    return canonical_slide(
        raw,
        source=SOURCE,
        probe=PROBE,
        section=IngestSection.model_validate(section),
        labels=pd.DataFrame(index=range(raw.counts.shape[0])),
        vocabulary=vocabulary,
    )


@st.composite
def raws(draw: st.DrawFn) -> RawSlide:
    """Draw raw slides with controls, duplicates, out-of-tissue spots, entries given twice and explicit zeros."""
    n_spots, n_genes = draw(st.integers(1, 7)), draw(st.integers(1, 6))
    entry = st.tuples(st.integers(0, n_genes - 1), st.sampled_from([0, 1, 2, 3, 40_000, 65_535]))
    rows = draw(st.lists(st.lists(entry, max_size=8), min_size=n_spots, max_size=n_spots))
    indices = np.array([column for row in rows for column, _ in row], np.int32)
    data = np.array([value for row in rows for _, value in row], draw(st.sampled_from([np.uint16, np.int32, np.int64])))
    matrix = sparse.csr_matrix((data, indices, np.cumsum([0, *map(len, rows)])), shape=(n_spots, n_genes))
    names = draw(st.lists(st.sampled_from(["A", "B", "MT-C", "D", ""]), min_size=n_genes, max_size=n_genes))
    types = draw(st.lists(st.sampled_from(["Gene Expression", "Control"]), min_size=n_genes, max_size=n_genes))
    genes = pd.DataFrame({"name": names, "ensembl_id": "", "feature_type": types}, dtype=object)
    places = draw(st.permutations([(row, column) for row in range(3) for column in range(3)]))[:n_spots]
    spots = pd.DataFrame(
        {
            "in_tissue": draw(st.lists(st.booleans(), min_size=n_spots, max_size=n_spots)),
            "area": draw(st.lists(st.sampled_from([1.0, 5.0, np.nan]), min_size=n_spots, max_size=n_spots)),
        }
    )
    array = np.array(places, np.int32).reshape(n_spots, 2)
    fields: dict[str, Any] = {"genes": genes, "spots": spots, "xy": array[:, ::-1].astype(np.float64)}
    if draw(st.booleans()):
        fields["array"] = array
    if draw(st.booleans()):
        fields["dropped"] = {"background": {"spots": 2, "counts": 812}}
    return raw_slide(matrix, **fields)


qc_sections = st.fixed_dictionaries(
    {
        "in_tissue": st.booleans(),
        "min_counts": st.sampled_from([0, 1, 3]),
        "max_counts": st.sampled_from([None, 5, 100_000]),
        "min_genes": st.sampled_from([0, 2]),
        "max_mito": st.sampled_from([None, 0.0, 0.5]),
        "min_area": st.sampled_from([None, 2.0]),
        "max_area": st.sampled_from([None, 2.0]),
    }
)
gene_sections = st.fixed_dictionaries(
    {
        "duplicates": st.sampled_from(["sum", "first"]),
        "exclude": st.sampled_from([[], ["B"]]),
        "keep_controls": st.booleans(),
    }
)


@given(raw=raws(), qc=qc_sections, genes=gene_sections)
def test_counts_in_are_counts_kept_and_dropped_by_reason(raw: RawSlide, qc: Any, genes: Any) -> None:
    try:
        slide = canonical(raw, qc=qc, genes=genes)
    except InputError as error:
        assert error.what in ("no gene is left", "no spot is left after QC")  # noqa: PT017 - both outcomes are right
        return
    record = slide.record
    dropped = record["dropped"]
    total = int(raw.counts.data.sum(dtype=np.int64))
    assert record["counts_in"] == total + sum(item["counts"] for item in raw.dropped.values())
    assert record["counts_kept"] == int(slide.counts.data.sum(dtype=np.int64))
    assert record["counts_in"] == record["counts_kept"] + sum(item.get("counts", 0) for item in dropped.values())
    spots_dropped = sum(item.get("spots", 0) for name, item in dropped.items() if name not in raw.dropped)
    assert record["spots_in"] == slide.n_spots + spots_dropped
    genes_dropped = sum(item.get("genes", 0) for item in dropped.values())
    merged = record["genes_merged"] if genes["duplicates"] == "sum" else 0
    assert record["genes_in"] == slide.n_genes + genes_dropped + merged
    _check_form(slide)


def _check_form(slide: Slide) -> None:
    counts = slide.counts
    assert counts.dtype == (np.uint16 if counts.nnz == 0 or counts.data.max() < 2**16 else np.uint32)
    assert counts.indices.dtype == np.uint16
    assert counts.indptr.dtype == np.int64
    assert (counts.data > 0).all()
    rebuilt = sparse.csr_matrix((counts.data, counts.indices, counts.indptr), shape=counts.shape)
    assert rebuilt.has_canonical_format
    assert slide.genes.index.is_unique
    assert list(slide.genes.columns) == ["name", "ensembl_id", "organism"]
    assert len(slide.spot_ids) == slide.n_spots == len(slide.xy)


@given(raw=raws(), data=st.data())
def test_the_order_of_the_files_does_not_matter(raw: RawSlide, data: st.DataObject) -> None:
    order = np.array(data.draw(st.permutations(range(raw.counts.shape[0]))))
    shuffled = replace(
        raw,
        counts=raw.counts[order],
        spot_ids=raw.spot_ids[order],
        xy=raw.xy[order],
        array=None if raw.array is None else raw.array[order],
        spots=raw.spots.iloc[order].reset_index(drop=True),
    )
    keep = {"in_tissue": False, "min_counts": 0}
    try:
        first = canonical(raw, qc=keep)
    except InputError:
        return
    second = canonical(shuffled, qc=keep)
    assert first.spot_ids.tolist() == second.spot_ids.tolist()
    np.testing.assert_array_equal(first.counts.toarray(), second.counts.toarray())
    np.testing.assert_array_equal(first.xy, second.xy)
    assert first.record == second.record


def test_entries_given_twice_are_summed_without_overflow() -> None:
    twice = sparse.csr_matrix((np.array([40_000, 40_000], np.uint16), np.array([0, 0]), np.array([0, 2])), shape=(1, 1))
    slide = canonical(raw_slide(twice))
    assert slide.counts.dtype == np.uint32
    assert slide.counts.toarray().tolist() == [[80_000]]


def test_merged_genes_are_summed_without_overflow() -> None:
    genes = pd.DataFrame({"name": ["A", "A"], "ensembl_id": "", "feature_type": ""}, dtype=object)
    slide = canonical(raw_slide(np.array([[40_000, 40_000]], np.uint16), genes=genes))
    assert slide.counts.toarray().tolist() == [[80_000]]


def test_counts_beyond_32_bits_are_refused_with_the_slide() -> None:
    with pytest.raises(InputError, match="larger than 32 bits") as caught:
        canonical(raw_slide(np.array([[2**33]], np.int64)))
    assert "slide A" in caught.value.block()


def test_normalized_values_stay_float32() -> None:
    slide = canonical(raw_slide(np.array([[0.25, 0.0], [0.0, 1.5]], np.float32)), qc={"min_counts": 0})
    assert slide.counts.dtype == np.float32
    assert slide.counts.toarray().tolist() == [[0.25, 0.0], [0.0, 1.5]]
    assert slide.record["counts_kept"] == 1.75


def test_spots_are_ordered_by_array_else_by_bands_of_pitch() -> None:
    array = np.array([[1, 0], [0, 5], [0, 1]], np.int32)
    assert place_order(raw_slide(np.ones((3, 1), int), array=array)).tolist() == [2, 1, 0]
    xy = np.array([[5.0, 0.4], [1.0, 0.0], [0.0, 1.2], [3.0, 0.9]])
    assert place_order(raw_slide(np.ones((4, 1), int), xy=xy, pitch=1.0)).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize(
    "xy", [np.zeros((3, 2)), np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0]]), np.full((3, 2), 1e300)]
)
def test_places_without_an_area_are_ordered_too(xy: np.ndarray) -> None:
    assert sorted(place_order(raw_slide(np.ones((3, 1), int), xy=xy))) == [0, 1, 2]


def test_facts_are_taken_over() -> None:
    raw = raw_slide(np.ones((2, 2), int), um_per_unit=0.5, pitch=200.0, version="2", notes=("mended",))
    slide = canonical(raw, qc={"max_mito": 0.5}, vocabulary={"g0": 1})
    assert (slide.um_per_unit, slide.pitch, slide.organism, dict(slide.metadata)) == (
        0.5,
        200.0,
        "human",
        {"donor": "p1"},
    )
    assert slide.record["version"] == "2"
    assert slide.record["notes"][0] == "mended"
    assert "max_mito" in slide.record["notes"][1]
    assert slide.record["vocabulary"] == {"matched": 1, "unmatched": 1, "unmatched_genes": ["g1"]}
    assert canonical(raw, um_per_unit=2).um_per_unit == 2


def test_labels_follow_their_spots() -> None:
    raw = raw_slide(np.array([[1], [0], [1]]), array=np.array([[2, 0], [1, 0], [0, 0]], np.int32))
    labels = pd.DataFrame({"layer": pd.Categorical(["a", "b", None])})
    slide = canonical_slide(raw, source=SOURCE, probe=PROBE, section=IngestSection(), labels=labels)
    assert slide.spot_ids.tolist() == ["s002", "s000"]
    assert slide.labels["layer"].isna().tolist() == [True, False]
    assert slide.labels["layer"][1] == "a"


@pytest.mark.parametrize(
    ("raw", "section", "words"),
    [
        (raw_slide(np.zeros((0, 2), int)), {}, ["the matrix is empty", "0 spots x 2 genes"]),
        (raw_slide(np.zeros((2, 0), int)), {}, ["the matrix is empty"]),
        (raw_slide(np.zeros((2, 2), int)), {}, ["no spot is left", "2 of 2 spots: min_counts"]),
        (
            raw_slide(np.ones((2, 2), int), spots=pd.DataFrame({"in_tissue": [False, False]})),
            {},
            ["no spot is left", "2 of 2 spots: out of tissue"],
        ),
        (
            raw_slide(np.ones((2, 1), int), xy=np.array([[0.0, 0.0], [np.nan, 1.0]])),
            {},
            ["not a finite number", "spot s001", "1 such spot"],
        ),
        (raw_slide(np.ones((1, 1), int), xy=np.array([[np.inf, 0.0]])), {}, ["not a finite number"]),
        (raw_slide(np.ones((1, 1), int), xy=np.array([[0.0, -1e300]])), {}, ["larger than any slide", "-1e+300"]),
        (
            raw_slide(np.ones((2, 1), int), spot_ids=np.array(["a", "a"], dtype=object)),
            {},
            ["given twice", "found:    a"],
        ),
        (raw_slide(np.array([[1, -1]])), {}, ["a count is negative"]),
        (raw_slide(np.ones((2, 2), int)), {"genes": {"exclude": ["*"]}}, ["no gene is left"]),
    ],
)
def test_what_is_refused(raw: RawSlide, section: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        canonical(raw, **section)
    message = caught.value.block()
    assert all(word in message for word in ["slide A", *words]), message


def test_no_gene_in_the_vocabulary() -> None:
    with pytest.raises(InputError, match="no gene of the slide is in the vocabulary"):
        canonical(raw_slide(np.ones((1, 2), int)), vocabulary={"<pad>": 0, "other": 1})
