"""Which matrix of an AnnData file holds the counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bundles.h5ad import make_anndata, write_anndata
from bundles.visium import some_counts
from scipy import sparse

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.formats.hdf5.layers import says_counts
from stpatch.slides.readers.registry import probe_source, read_source
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import SlideSource

COUNTS = some_counts(20, 8)
NAMES = ["count", "raw_counts", "raw", "counts_RNA", "raw_count", "umi_counts", "UMI", "rawcounts", "Counts", "umis"]
OTHERS = ["spliced", "logcounts", "scaled", "normalized", "lognorm_counts", "counts_per_million", "countsnorm"]


def read(path: Path, **options: Any) -> RawSlide:
    return read_source(SlideSource(slide_id="s", path=path), IngestSection(**options))[1]


def logs() -> Any:
    return sparse.csr_matrix(COUNTS, dtype=np.float32).log1p()


@pytest.mark.parametrize("name", NAMES)
def test_names_that_say_counts(name: str) -> None:
    assert says_counts(name)


@pytest.mark.parametrize("name", OTHERS)
def test_names_that_do_not(name: str) -> None:
    assert not says_counts(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize("zarr_format", [None, 2])
def test_a_layer_whose_name_says_counts_is_taken_and_noted(
    tmp_path: Path, name: str, dtype: Any, zarr_format: int | None
) -> None:
    slide = make_anndata()
    slide.X = logs()
    slide.layers[name] = COUNTS.astype(dtype)
    slide.layers["scaled"] = slide.X * 2
    raw = read(write_anndata(tmp_path / ("a.h5ad" if zarr_format is None else "a"), slide, zarr_format=zarr_format))
    assert (raw.counts != COUNTS).nnz == 0
    assert raw.notes[0] == f"counts are from layers/{name}, by its name; ingest.layer names another"


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("mine", 2),
        ("layers/mine", 2),
        ("X", 1),
        ("raw", 3),
        ("raw.X", 3),
        ("raw/X", 3),
        ("obsm/table", 4),
        ("table", 4),
    ],
)
def test_ingest_layer_names_a_matrix(tmp_path: Path, layer: str, expected: int) -> None:
    slide = make_anndata()
    slide.layers["mine"] = COUNTS * 2
    slide.raw = slide.copy()
    slide.raw = type(slide)(X=COUNTS * 3, obs=slide.obs, var=slide.var)
    slide.obsm["table"] = pd.DataFrame((COUNTS * 4).toarray(), index=slide.obs.index, columns=list("abcdefgh"))
    path = write_anndata(tmp_path / "a.h5ad", slide)
    raw = read(path, layer=layer)
    assert (raw.counts != COUNTS * expected).nnz == 0
    assert raw.genes["name"].tolist()[0] == ("a" if expected == 4 else "GENE0")


def test_what_there_is_is_listed_with_its_kind(tmp_path: Path) -> None:
    slide = make_anndata()
    slide.X = logs()
    slide.layers["spliced"] = COUNTS
    slide.layers["scaled"] = slide.X * 2
    path = write_anndata(tmp_path / "a.h5ad", slide)
    for look in (lambda: probe_source(SlideSource(slide_id="s", path=path), IngestSection()), lambda: read(path)):
        with pytest.raises(InputError, match=r"no raw counts where they are looked for") as caught:
            look()
        text = str(caught.value)
        assert "layers/scaled: fractions such as" in text
        assert "layers/spliced: whole numbers" in text
        assert "X: fractions" in text
        assert "ingest.layer" in text
    assert (read(path, layer="spliced").counts != COUNTS).nnz == 0
    with pytest.raises(InputError, match=r"no matrix 'splice'[\s\S]*layers/spliced: whole numbers"):
        read(path, layer="splice")
    with pytest.raises(InputError, match="does not hold raw counts"):
        read(path, layer="scaled")


@pytest.mark.parametrize("kind", ["dense", "csr", "frame"])
def test_counts_in_obsm(tmp_path: Path, kind: str) -> None:
    slide = make_anndata()
    slide.X = logs()
    dense = COUNTS.toarray()
    frame = pd.DataFrame(dense, index=slide.obs.index, columns=list(slide.var_names))
    slide.obsm["counts"] = {"dense": dense, "csr": COUNTS, "frame": frame}[kind]
    raw = read(write_anndata(tmp_path / "a.h5ad", slide))
    assert (raw.counts != COUNTS).nnz == 0
    assert raw.notes[0].startswith("counts are from obsm/counts: X holds fractions")


def test_a_layer_of_normalized_values(tmp_path: Path) -> None:
    slide = make_anndata()
    slide.layers["half"] = COUNTS * 0.5
    raw = read(write_anndata(tmp_path / "a.h5ad", slide), values="normalized", layer="half")
    assert raw.counts.sum() == COUNTS.sum() / 2


def test_scaled_proteins_do_not_stop_the_genes(tmp_path: Path) -> None:
    slide = make_anndata()
    dense = COUNTS.toarray().astype(np.float32)
    dense[:, 7] += 0.25
    slide.X = dense
    slide.var["feature_types"] = ["Gene Expression"] * 7 + ["Antibody Capture"]
    raw = read(write_anndata(tmp_path / "a.h5ad", slide))
    assert (raw.counts.toarray()[:, :7] == COUNTS.toarray()[:, :7]).all()
    assert "1 features of type Antibody Capture" in raw.notes[0]
