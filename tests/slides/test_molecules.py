"""The binner against a plain dictionary, and molecule tables with their faults."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpatch.errors import InputError
from stpatch.slides.formats.molecules import table as table_module
from stpatch.slides.formats.molecules.binner import Bins, MoleculeBinner
from stpatch.slides.formats.molecules.table import GeneCodes, molecule_blocks, open_molecules

MOLECULE = st.tuples(
    st.integers(0, 6),
    st.floats(-1e4, 1e4, allow_nan=False) | st.integers(-50, 50).map(float),
    st.floats(-1e4, 1e4, allow_nan=False) | st.integers(-50, 50).map(float),
    st.integers(0, 5) | st.sampled_from([65_535, 65_536, 2**24]),
)


def binned(molecules, *, pitch, block, counted=True) -> Bins:
    binner = MoleculeBinner(pitch=pitch)
    for start in range(0, len(molecules), block):
        part = molecules[start : start + block]
        gene, x, y, count = (np.array(column) for column in zip(*part, strict=True))
        binner.add(gene.astype(np.int32), x, y, count.astype(np.int64) if counted else None)
    return binner.finish(n_genes=7)


@settings(max_examples=100, deadline=None)
@given(st.lists(MOLECULE, min_size=1, max_size=60), st.sampled_from([0.5, 1.0, 7.3, 1000.0]), st.integers(1, 20))
def test_binner_equals_a_dictionary(molecules, pitch, block) -> None:
    expected: Counter[tuple[int, int, int]] = Counter()
    for gene, x, y, count in molecules:
        if count:
            expected[int(np.floor(y / pitch)), int(np.floor(x / pitch)), gene] += count
    bins = binned(molecules, pitch=pitch, block=block)
    assert bins.n_molecules == sum(count for *_, count in molecules) == bins.counts.sum(dtype=np.int64)
    column, row = (np.rint(np.array(bins.origin) / pitch)).astype(int)
    found = {
        (int(bins.array[i, 0]) + row, int(bins.array[i, 1]) + column, int(bins.counts.indices[j])): bins.counts.data[j]
        for i in range(bins.counts.shape[0])
        for j in range(bins.counts.indptr[i], bins.counts.indptr[i + 1])
    }
    assert found == dict(expected)
    if found:
        assert bins.array.min(axis=0).tolist() == [0, 0]
        centres = (bins.array[:, ::-1] + 0.5) * pitch + bins.origin
        np.testing.assert_allclose(bins.xy, centres, rtol=1e-9, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(MOLECULE, min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 20))
def test_blocks_do_not_matter(molecules, first, second) -> None:
    one, two = (binned(molecules, pitch=3.0, block=block, counted=False) for block in (first, second))
    assert one.n_molecules == len(molecules) == one.counts.sum()
    assert (one.counts != two.counts).nnz == 0
    np.testing.assert_array_equal(one.array, two.array)


def test_counts_are_as_wide_as_they_need() -> None:
    assert binned([(0, 0.0, 0.0, 65_535)], pitch=1.0, block=1).counts.dtype == np.uint16
    wide = binned([(0, 0.0, 0.0, 65_535)] * 3, pitch=1.0, block=2)
    assert wide.counts.dtype == np.uint32
    assert wide.counts.data.tolist() == [196_605]
    assert wide.spot_ids.tolist() == ["r0_c0"]


@pytest.mark.parametrize(
    ("molecules", "pitch", "message"),
    [
        ([(0, 0.0, 0.0, 2**31)] * 2, 1.0, "pass 32 bits"),
        ([(0, 0.0, 0.0, 2**32)], 1.0, "too large"),
        ([(0, 0.0, 0.0, -1)], 1.0, "negative"),
        ([(0, 1e9, 0.0, 1)], 1.0, "lies too far out"),
        ([(0, 0.0, np.nan, 1)], 1.0, "not a number"),
        ([(0, 0.0, np.inf, 1)], 1.0, "not a number"),
        ([(2**21, 0.0, 0.0, 1)], 1.0, "too many genes"),
        ([(0, 0.0, 0.0, 1)], 0.0, "pitch"),
        ([(0, 0.0, 0.0, 1)], np.nan, "pitch"),
    ],
)
@pytest.mark.parametrize("block", [1, 5])
def test_binner_refuses(molecules, pitch, message, block) -> None:
    with pytest.raises(InputError, match=message):
        binned(molecules, pitch=pitch, block=block)


def test_no_molecules() -> None:
    bins = MoleculeBinner(pitch=1.0).finish(n_genes=3)
    assert bins.counts.shape == (0, 3)
    assert bins.xy.shape == (0, 2)


KINDS = {"gene": "text", "x": "float", "n": "integer"}
TEXT = "gene,x,n\nA,1.5,2\nB,2.5,3\n"


def rows_of(path: Path):
    codes = GeneCodes()
    rows = []
    for start, block in molecule_blocks(open_molecules(path), KINDS):
        assert start == len(rows)
        names = np.array(codes.encode(block["gene"], where=path))
        rows += [(codes.names[g], x, n) for g, x, n in zip(names, block["x"], block["n"], strict=True)]
    return rows


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        b"\xef\xbb\xbf#a=1\n#b\n" + TEXT.encode(),
        TEXT.replace(",", "\t").encode(),
        b'"gene","x","n"\n"A","1.5","2"\n"B","2.5","3"\n',
        b"n, x ,extra,gene\n2,1.5,0,A\n3,2.5,0,B",
        gzip.compress(TEXT.encode(), mtime=0),
        gzip.compress(TEXT[:12].encode(), mtime=0) + gzip.compress(TEXT[12:].encode(), mtime=0),
    ],
    ids=["plain", "crlf", "bom", "comments", "tab", "quoted", "order", "gzip", "two gzip members"],
)
def test_text_variants(tmp_path, data, monkeypatch) -> None:
    path = tmp_path / "molecules.csv"
    path.write_bytes(data)
    assert rows_of(path) == [("A", 1.5, 2), ("B", 2.5, 3)]
    monkeypatch.setattr(table_module, "CSV_BLOCK", 48)
    assert rows_of(path) == [("A", 1.5, 2), ("B", 2.5, 3)]


@pytest.mark.parametrize("gene", [["A", "B"], [b"A", b"B"], pa.array(["A", "B"]).dictionary_encode()])
@pytest.mark.parametrize("n", [np.array([2, 3], np.int32), np.array([2.0, 3.0])])
def test_parquet_variants(tmp_path, gene, n) -> None:
    path = tmp_path / "molecules.parquet"
    pq.write_table(pa.table({"gene": gene, "x": pa.array([1.5, 2.5], pa.float32()), "n": n}), path)
    assert rows_of(path) == [("A", 1.5, 2), ("B", 2.5, 3)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"gene,x\nA,1\n", "cannot be read"),
        (b"gene,x,n\nA,1.5\n", "cannot be read"),
        (b"gene,x,n\nA,one,2\n", "cannot be read"),
        (b"gene,x,n\nA,,2\n", "missing or no number"),
        (b"gene,x,n\nA,nan,2\n", "missing or no number"),
        (b"gene,x,n\nA,inf,2\n", "missing or no number"),
        (b"gene,x,n\nA,1,2.5\n", "cannot be read"),
        (b"gene,x,n\n,1,2\n", "no gene"),
        (b"gene,x,n\n\xff,1,2\n", "cannot be read"),
        (gzip.compress(TEXT.encode() * 100, mtime=0)[:-12], "cut short|cannot be read"),
        (b"PAR1 and nothing more", "cannot be read"),
    ],
)
def test_table_problems(tmp_path, data, message) -> None:
    path = tmp_path / "molecules.csv"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        rows_of(path)


def test_header_only(tmp_path) -> None:
    path = tmp_path / "molecules.csv"
    path.write_bytes(b"gene,x,n\n")
    assert rows_of(path) == []


def test_missing_column_is_named(tmp_path) -> None:
    path = tmp_path / "molecules.csv"
    path.write_text(TEXT)
    with pytest.raises(InputError, match="misses a column"):
        open_molecules(path).need("y", "Y")
    path.write_text(TEXT.replace("n", "x"))
    with pytest.raises(InputError, match="given twice"):
        open_molecules(path).need("x")


def test_parquet_with_nulls(tmp_path) -> None:
    path = tmp_path / "molecules.parquet"
    pq.write_table(pa.table({"gene": ["A", None], "x": [1.5, 2.5], "n": [2, 3]}), path)
    with pytest.raises(InputError, match="no gene"):
        rows_of(path)
