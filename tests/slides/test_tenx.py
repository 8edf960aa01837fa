from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from bundles.visium import barcode_names, gene_rows, some_counts, write_mex, write_tenx_h5
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from stpatch.errors import InputError
from stpatch.slides.formats import counts
from stpatch.slides.formats.tenx import mex
from stpatch.slides.formats.tenx.read import probe_tenx, read_tenx, tenx_files

COUNTS = some_counts(12, 7)
NAMES = {"barcodes": barcode_names(12), "genes": gene_rows(7)}


@pytest.mark.parametrize("layout", ["v3", "v2"])
@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.int64, np.float64])
def test_h5_layouts_and_types(tmp_path: Path, layout: str, dtype: type) -> None:
    path = write_tenx_h5(tmp_path / "m.h5", COUNTS, layout=layout, dtype=dtype, **NAMES)
    matrix = read_tenx(path)
    assert probe_tenx(path) == (12, 7, "spaceranger-2.0.1")
    assert (matrix.counts != COUNTS).nnz == 0
    assert matrix.counts.dtype == np.uint16
    assert matrix.counts.indices.dtype == np.int32
    assert matrix.barcodes.tolist() == NAMES["barcodes"]
    types = "Gene Expression" if layout == "v3" else ""
    assert matrix.genes.iloc[2].tolist() == ["GENE2", "ENSG00000000002", types]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("by_barcode", [True, False])
@pytest.mark.parametrize("prefix", ["", "GSM1_"])
def test_mex_layouts(tmp_path: Path, zipped: bool, legacy: bool, by_barcode: bool, prefix: str) -> None:
    folder = write_mex(tmp_path, COUNTS, zipped=zipped, legacy=legacy, by_barcode=by_barcode, prefix=prefix, **NAMES)
    matrix = read_tenx(folder)
    assert probe_tenx(folder) == (12, 7, "sr-3")
    assert (matrix.counts != COUNTS).nnz == 0
    assert matrix.barcodes.tolist() == NAMES["barcodes"]
    assert matrix.genes["feature_type"][0] == ("" if legacy else "Gene Expression")
    assert all(file.is_file() for file in tenx_files(folder))


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.integers(0, 2**33), min_size=6, max_size=6),
    block=st.integers(1, 7),
    by_barcode=st.booleans(),
)
def test_any_whole_numbers_survive(
    tmp_path_factory: pytest.TempPathFactory, values: list[int], block: int, by_barcode: bool
) -> None:
    folder = tmp_path_factory.mktemp("tenx")
    matrix = sparse.csr_matrix(np.array(values, np.int64).reshape(2, 3))
    names = {"barcodes": ["a", "b"], "genes": gene_rows(3)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "RUN", block)
        found = read_tenx(write_tenx_h5(folder / "m.h5", matrix, dtype=np.int64, **names)).counts
        assert (found != matrix).nnz == 0
        largest = max(values)
        assert found.dtype == (np.uint16 if largest < 2**16 else np.uint32 if largest < 2**32 else np.int64)
    found = read_tenx(write_mex(folder / "mex", matrix, by_barcode=by_barcode, **names)).counts
    assert (found != matrix).nnz == 0


@pytest.mark.parametrize("by_barcode", [True, False])
def test_mex_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_barcode: bool) -> None:
    monkeypatch.setattr(mex, "MEX_BLOCK", 160)
    assert (read_tenx(write_mex(tmp_path, COUNTS, by_barcode=by_barcode, **NAMES)).counts != COUNTS).nnz == 0


def test_mex_of_windows_and_of_real_numbers(tmp_path: Path) -> None:
    folder = write_mex(tmp_path, COUNTS, zipped=False, **NAMES)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n").replace(b"integer", b"real"))
    matrix = read_tenx(folder)
    assert (matrix.counts != COUNTS).nnz == 0
    assert matrix.barcodes.tolist() == NAMES["barcodes"]


def test_an_empty_matrix_is_read(tmp_path: Path) -> None:
    empty = sparse.csr_matrix((12, 7), dtype=np.int32)
    assert read_tenx(write_tenx_h5(tmp_path / "m.h5", empty, **NAMES)).counts.nnz == 0
    assert read_tenx(write_mex(tmp_path / "mex", empty, **NAMES)).counts.nnz == 0


def text(name: str, old: str, new: str, *, number: int = 1) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).decode().replace(old, new, number).encode()))

    return apply


def cut(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return apply


def entry(line: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "matrix.mtx.gz"
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        lines[5] = line
        path.write_bytes(gzip.compress("\n".join(lines).encode()))

    return apply


def fewer(folder: Path) -> None:
    path = folder / "matrix.mtx.gz"
    path.write_bytes(gzip.compress(b"\n".join(gzip.decompress(path.read_bytes()).splitlines()[:20])))


def more(folder: Path) -> None:
    path = folder / "matrix.mtx.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"1 1 1\n"))


def gone(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).unlink()

    return apply


def second(folder: Path) -> None:
    (folder / "matrix.mtx").write_bytes(gzip.decompress((folder / "matrix.mtx.gz").read_bytes()))


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (entry("1 2 -1"), "a count is negative"),
        (entry("1 2 0.5"), "cannot be read"),
        (entry("1 2"), "cannot be read"),
        (entry("1 2 x"), "cannot be read"),
        (entry("99 2 1"), "a gene number is outside"),
        (entry("0 2 1"), "a gene number is outside"),
        (entry("1 99 1"), "a barcode number is outside"),
        (fewer, "fewer entries"),
        (more, "more entries"),
        (cut("matrix.mtx.gz"), "cut short|fewer entries"),
        (cut("features.tsv.gz"), "cut short"),
        (cut("barcodes.tsv.gz"), "cut short"),
        (gone("features.tsv.gz"), "incomplete"),
        (gone("barcodes.tsv.gz"), "incomplete"),
        (second, "several matrices"),
        (text("matrix.mtx.gz", "%%MatrixMarket matrix coordinate", "%%MatrixMarket matrix array"), "not a sparse"),
        (text("matrix.mtx.gz", "7 12 ", "7 twelve "), "no size line"),
        (text("matrix.mtx.gz", "7 12 ", "8 12 "), "differ in size"),
        (text("barcodes.tsv.gz", NAMES["barcodes"][1], NAMES["barcodes"][0]), "a barcode is given twice"),
    ],
)
def test_problems_of_mex_end_in_a_clear_error(tmp_path: Path, problem: Callable[[Path], None], message: str) -> None:
    write_mex(tmp_path, COUNTS, **NAMES)
    problem(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        read_tenx(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_real_counts_that_are_fractions_are_refused(tmp_path: Path) -> None:
    folder = write_mex(tmp_path, COUNTS, **NAMES)
    text("matrix.mtx.gz", "integer", "real")(folder)
    entry("1 2 0.5")(folder)
    with pytest.raises(InputError, match="a count is fractional"):
        read_tenx(folder)


def test_several_genomes_in_a_legacy_file_are_refused(tmp_path: Path) -> None:
    path = write_tenx_h5(tmp_path / "m.h5", COUNTS, layout="v2", **NAMES)
    with h5py.File(path, "r+") as file:
        file.copy("GRCh38", "mm10")
    with pytest.raises(InputError, match="several genomes"):
        read_tenx(path)


def test_real_matrices(data_dir: Path) -> None:
    path = data_dir / "xenium_breast_mini" / "cell_feature_matrix.h5"
    matrix = read_tenx(path)
    with h5py.File(path) as file:
        assert matrix.counts.sum() == file["matrix/data"][:].sum() == 21
    assert matrix.counts.shape == (6, 4)
    assert matrix.barcodes.tolist() == ["1", "2", "3", "4", "5", "6"]
    folder = data_dir / "visium_mouse_brain_mini" / "section1" / "outs" / "raw_feature_bc_matrix"
    lines = np.loadtxt(folder / "matrix.mtx", comments="%", skiprows=0)[1:]
    assert read_tenx(folder).counts.sum() == lines[:, 2].sum()


@pytest.mark.parametrize("kind", ["Protein Expression", "Antibody Capture", "Negative Control Probe"])
@pytest.mark.parametrize("layout", ["h5", "mex", "mex scattered"])
def test_scaled_values_of_other_modalities_do_not_stop_the_genes(tmp_path: Path, kind: str, layout: str) -> None:
    dense = some_counts(6, 4).toarray().astype(np.float64)
    dense[:, 3] = 0.5 + np.arange(6)
    counts = sparse.csr_matrix(dense)
    genes = [*gene_rows(3), ("P1", "P1", kind)]
    if layout == "h5":
        path = write_tenx_h5(tmp_path / "m.h5", counts, barcodes=barcode_names(6), genes=genes, dtype=np.float32)
    else:
        path = tmp_path / "m"
        write_mex(path, counts, barcodes=barcode_names(6), genes=genes, by_barcode=layout == "mex", zipped=False)
        mtx = path / "matrix.mtx"
        mtx.write_text(mtx.read_text().replace("integer", "real", 1))
    matrix = read_tenx(path)
    assert (matrix.counts.toarray()[:, :3] == counts.toarray()[:, :3]).all()
    assert not matrix.counts.toarray()[:, 3].any()
    assert matrix.notes == (f"1 features of type {kind} hold values that are not whole numbers: these are left out",)


@pytest.mark.parametrize("layout", ["h5", "mex"])
def test_scaled_values_of_genes_are_refused(tmp_path: Path, layout: str) -> None:
    dense = some_counts(6, 4).toarray().astype(np.float64)
    dense[2, 1] = 0.5
    counts = sparse.csr_matrix(dense)
    genes = [*gene_rows(3), ("P1", "P1", "Protein Expression")]
    path = tmp_path / "m.h5"
    if layout == "h5":
        write_tenx_h5(path, counts, barcodes=barcode_names(6), genes=genes, dtype=np.float32)
    else:
        path = write_mex(tmp_path / "m", counts, barcodes=barcode_names(6), genes=genes, zipped=False)
        (path / "matrix.mtx").write_text((path / "matrix.mtx").read_text().replace("integer", "real", 1))
    with pytest.raises(InputError, match="a count is fractional"):
        read_tenx(path)
