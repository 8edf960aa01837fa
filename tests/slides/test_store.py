"""The stored slide: what goes in comes out, scanpy opens it, its arrays are mapped."""

from __future__ import annotations

import mmap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stpatch.errors import InputError
from stpatch.slides.slide import Slide, gene_number_dtype
from stpatch.slides.store import (
    open_counts,
    read_genes,
    read_labels,
    read_places,
    read_slide,
    write_slide,
)


def a_slide(*, n_spots: int = 6, dtype: Any = np.uint16, with_array: bool = True, labels: bool = True) -> Slide:
    generator = np.random.default_rng(0)
    counts = sparse.csr_matrix(generator.poisson(0.8, (n_spots, 5)).astype(dtype))
    genes = pd.DataFrame(
        {
            "name": ["é", "b", "b", "", "x y"],
            "ensembl_id": ["ENSG00000000001", "", "", "", ""],
            "organism": ["human", "human", "", "human", "human"],
        },
        index=pd.Index(["G/0", "G1", "G2", "G3", "Ünï"], name="gene", dtype=object),
    )
    table = {"layer": pd.Categorical(["a", "b", None, "a", "b", "a"][:n_spots], categories=["a", "b", "c"])}
    return Slide(
        slide_id="A1",
        platform="visium",
        organism="human",
        counts=counts,
        genes=genes,
        spot_ids=np.array([f"s-{i}" for i in range(n_spots)], dtype=object),
        xy=generator.random((n_spots, 2)),
        array=np.arange(2 * n_spots, dtype=np.int32).reshape(-1, 2) if with_array else None,
        geometry="hex" if with_array else "irregular",
        um_per_unit=0.5 if with_array else None,
        pitch=200.0 if with_array else None,
        labels=pd.DataFrame(table) if labels else pd.DataFrame(),
        metadata={"donor": "p1", "note": "ä, b"},
        record={"dropped": {"control": {"genes": 2}}, "notes": ["x"]},
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": np.uint32},
        {"dtype": np.float32},
        {"with_array": False},
        {"labels": False},
        {"n_spots": 1},
        {"n_spots": 1, "with_array": False, "labels": False},
    ],
    ids=str,
)
def test_round_trip(tmp_path: Path, options: dict[str, Any]) -> None:
    slide, path = a_slide(**options), tmp_path / "A1.h5ad"
    write_slide(path, slide)
    back = read_slide(path)
    for name in ("slide_id", "platform", "organism", "geometry", "um_per_unit", "pitch"):
        assert getattr(back, name) == getattr(slide, name)
    assert dict(back.metadata) == dict(slide.metadata)
    assert dict(back.record) == dict(slide.record)
    assert back.counts.dtype == slide.counts.dtype
    np.testing.assert_array_equal(back.counts.toarray(), slide.counts.toarray())
    np.testing.assert_array_equal(back.xy, slide.xy)
    assert (back.array is None) == (slide.array is None)
    if slide.array is not None and back.array is not None:
        np.testing.assert_array_equal(back.array, slide.array)
        assert back.array.dtype == np.int32
    assert back.spot_ids.tolist() == slide.spot_ids.tolist()
    pd.testing.assert_frame_equal(back.genes, slide.genes)
    assert list(back.labels) == list(slide.labels)
    for name in slide.labels:
        assert (
            back.labels[name].astype(object).fillna("").tolist()
            == slide.labels[name].astype(object).fillna("").tolist()
        )


def test_a_part_can_be_read_alone(tmp_path: Path) -> None:
    slide, path = a_slide(), tmp_path / "A1.h5ad"
    write_slide(path, slide)
    places = read_places(path)
    np.testing.assert_array_equal(places.xy, slide.xy)
    assert (places.geometry, places.um_per_unit, places.pitch) == ("hex", 0.5, 200.0)
    pd.testing.assert_frame_equal(read_genes(path), slide.genes)
    assert read_labels(path)["layer"].cat.codes.tolist() == [0, 1, -1, 0, 1, 0]


@pytest.mark.parametrize(("n_genes", "dtype"), [(1, "uint16"), (2**16, "uint16"), (2**16 + 1, "int32")])
def test_gene_numbers_are_as_narrow_as_they_can_be(n_genes: int, dtype: str) -> None:
    assert gene_number_dtype(n_genes) == dtype
    assert np.iinfo(gene_number_dtype(n_genes)).max >= n_genes - 1


def test_counts_are_mapped_and_read_only(tmp_path: Path) -> None:
    slide, path = a_slide(), tmp_path / "A1.h5ad"
    write_slide(path, slide)
    view = open_counts(path)
    assert (view.data.dtype, view.indices.dtype, view.indptr.dtype) == (np.uint16, np.uint16, np.int64)
    np.testing.assert_array_equal(view.data, slide.counts.data)
    np.testing.assert_array_equal(view.indices, slide.counts.indices)
    np.testing.assert_array_equal(view.indptr, slide.counts.indptr)
    for array in (view.data, view.indices, view.indptr):
        assert isinstance(array.base, memoryview)
        assert isinstance(array.base.obj, mmap.mmap)
        assert not array.flags.writeable


def test_a_slide_without_counts_has_no_place_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "A1.h5ad"
    slide = a_slide(n_spots=1, labels=False)
    slide.counts.data[:] = 0
    slide.counts.eliminate_zeros()
    write_slide(path, slide)
    assert read_slide(path).counts.nnz == 0


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_anndata_and_scanpy_open_it(tmp_path: Path, dtype: Any) -> None:
    import anndata
    import scanpy

    slide, path = a_slide(dtype=dtype), tmp_path / "A1.h5ad"
    write_slide(path, slide)
    for adata in (anndata.read_h5ad(path), scanpy.read_h5ad(path)):
        np.testing.assert_array_equal(adata.X.toarray(), slide.counts.toarray())
        np.testing.assert_array_equal(adata.obsm["spatial"], slide.xy)
        assert adata.var_names.tolist() == slide.genes.index.tolist()
        assert adata.obs_names.tolist() == slide.spot_ids.tolist()
        np.testing.assert_array_equal(adata.obs[["array_row", "array_col"]].to_numpy(), slide.array)
        assert adata.obs["label_layer"].cat.categories.tolist()[:2] == ["a", "b"]
    assert anndata.read_h5ad(path, backed="r").shape == (6, 5)


def test_one_slide_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_slide(tmp_path / name / "A1.h5ad", a_slide())
    assert (tmp_path / "a/A1.h5ad").read_bytes() == (tmp_path / "b/A1.h5ad").read_bytes()


def test_a_damaged_store_says_so(tmp_path: Path) -> None:
    path = tmp_path / "A1.h5ad"
    path.write_bytes(b"no hdf5")
    with pytest.raises(InputError, match="cannot be opened") as caught:
        read_slide(path)
    assert str(path) in caught.value.block()


@pytest.mark.parametrize(("largest", "dtype"), [(60_000, np.float32), (2**24, np.float64)])
def test_scanpy_opens_counts_that_do_not_wrap(tmp_path: Path, largest: int, dtype: Any) -> None:
    import anndata

    slide = a_slide(dtype=np.uint32 if largest > 2**16 else np.uint16)
    slide.counts.data[:] = largest
    write_slide(tmp_path / "s.h5ad", slide)
    opened = anndata.read_h5ad(tmp_path / "s.h5ad")
    assert opened.X.dtype == dtype
    assert (slide.counts != opened.X).nnz == 0
    squares = opened.X.multiply(opened.X).sum()
    assert squares == pytest.approx(float(largest) ** 2 * slide.counts.nnz, rel=1e-6)
    moved = (tmp_path / "s.h5ad").rename(tmp_path / "other.h5ad")
    assert (slide.counts != anndata.read_h5ad(moved).X).nnz == 0
    assert open_counts(moved).data.dtype == slide.counts.dtype


def test_one_slide_is_stored_as_the_same_bytes_at_any_time(tmp_path: Path) -> None:
    write_slide(tmp_path / "one.h5ad", a_slide())
    time.sleep(1.1)  # HDF5 can keep the second in which an object was made
    write_slide(tmp_path / "two.h5ad", a_slide())
    assert (tmp_path / "one.h5ad").read_bytes() == (tmp_path / "two.h5ad").read_bytes()
