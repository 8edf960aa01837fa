from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from bundles.paper_h5 import write_paper_h5
from bundles.visium import some_counts

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.formats import counts
from stpatch.slides.readers.registry import probe_source, reader_of
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource


def read(path: Path, options: IngestSection | None = None, **metadata: str) -> tuple[Probe, RawSlide]:
    source = SlideSource(slide_id="slide", path=path, metadata=metadata)
    options = options or IngestSection()
    reader = reader_of("paper_h5")
    probe = reader.probe(source, options)
    assert probe is not None
    return probe, reader.read(source, options, probe)


@pytest.mark.parametrize("ids", ["int", "text", "name"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_a_group_is_a_slide(tmp_path: Path, ids: str, dtype: type) -> None:
    probe, raw = read(write_paper_h5(tmp_path, ids=ids, dtype=dtype))
    assert (probe.n_spots, probe.n_genes) == raw.counts.shape == (30, 6)
    assert (raw.counts != some_counts(30, 6)).nnz == 0
    assert raw.counts.dtype == np.uint16
    assert raw.genes["name"].tolist() == [f"GENE{i}" for i in range(6)]
    assert raw.pitch == 7
    assert raw.xy[7].tolist() == [14, 7]


def test_gene_names_need_no_vocabulary(tmp_path: Path) -> None:
    probe, raw = read(write_paper_h5(tmp_path, ids="name", vocabulary=False))
    assert probe.files == (tmp_path / "corpus.h5",)
    assert raw.genes["name"][1] == "GENE1"


def test_the_samplesheet_names_the_group(tmp_path: Path) -> None:
    path = write_paper_h5(tmp_path, groups=("a", "b/c"))
    _, raw = read(path, group="b/c")
    assert (raw.counts != some_counts(30, 6, seed=1)).nnz == 0
    with pytest.raises(InputError, match="holds several slides") as caught:
        read(path)
    assert "groups a, b/c" in str(caught.value)
    with pytest.raises(InputError, match="no such group"):
        read(path, group="d")


def test_the_samplesheet_names_the_vocabulary(tmp_path: Path) -> None:
    path = write_paper_h5(tmp_path)
    (tmp_path / "other.json").write_bytes((tmp_path / "vocab.json").read_bytes())
    with pytest.raises(InputError, match="several vocabularies"):
        read(path)
    assert read(path, vocabulary="other.json")[0].files[1] == tmp_path / "other.json"
    with pytest.raises(InputError, match="no such vocabulary"):
        read(path, vocabulary="missing.json")


def test_rows_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "BLOCK", 13)
    assert (read(write_paper_h5(tmp_path))[1].counts != some_counts(30, 6)).nnz == 0


def test_normalized_values_are_read_on_request_only(tmp_path: Path) -> None:
    path = write_paper_h5(tmp_path, logs=True)
    with pytest.raises(InputError, match="only normalized values") as caught:
        read(path)
    assert "ingest.values: normalized" in str(caught.value)
    raw = read(path, IngestSection(values="normalized"))[1]
    np.testing.assert_allclose(raw.counts.toarray(), np.log1p(some_counts(30, 6).toarray()), rtol=1e-6)


def test_it_is_recognized_as_nothing_else(tmp_path: Path) -> None:
    source = SlideSource(slide_id="slide", path=write_paper_h5(tmp_path))
    for platform in ("visium", "visium_hd", "h5ad"):
        assert reader_of(platform).probe(source, IngestSection()) is None
    assert probe_source(source, IngestSection(platform="paper_h5")).platform == "paper_h5"


def replaced(key: str, value: Any) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file["slide_a"][key]
            file["slide_a"][key] = value

    return apply


def without(key: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file["slide_a"][key]

    return apply


def set_value(key: str, value: float) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file["slide_a"][key][3, 1] = value

    return apply


def vocabulary(text: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        (path.parent / "vocab.json").write_text(text)

    return apply


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (set_value("coords_map", np.nan), "not a finite number"),
        (set_value("coords_map", np.inf), "not a finite number"),
        (set_value("expr_map", -1), "a count is negative"),
        (set_value("expr_map", 0.5), "only normalized values"),
        (set_value("expr_map", np.nan), "not a finite number"),
        (replaced("coords_map", np.zeros((3, 2))), "does not fit"),
        (replaced("expr_map", np.zeros(30)), "is not a matrix"),
        (replaced("vocab_index", np.arange(10, 13)), "differ in size"),
        (replaced("vocab_index", np.arange(90, 96)), "not in the vocabulary"),
        (without("coords_map"), "has no 'coords_map'"),
        (without("vocab_index"), "has no 'vocab_index'"),
        (vocabulary("{"), "need a vocabulary"),
        (vocabulary('{"<pad>": 0'), "is not JSON"),
        (vocabulary('["<pad>"]'), "is not a mapping"),
        (vocabulary('{"<pad>": 0, "A": 10, "B": 10}'), "two genes of the vocabulary"),
        (cut, "cannot be read|no HDF5"),
    ],
)
def test_problems_end_in_a_clear_error(tmp_path: Path, problem: Callable[[Path], None], message: str) -> None:
    path = write_paper_h5(tmp_path)
    problem(path)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(tmp_path) in str(caught.value)
