from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stpatch.errors import InputError, InputMissingError
from stpatch.slides.formats.names import gene_frame
from stpatch.slides.formats.text import dense
from stpatch.slides.formats.text.delimited import numbers, read_table
from stpatch.slides.formats.text.dense import read_dense
from stpatch.slides.formats.text.lines import line_blocks, read_head


def write(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.integers(1, 6).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(0, 2**32 - 1) | st.just(0), min_size=n, max_size=n), min_size=1, max_size=8
        )
    ),
    delimiter=st.sampled_from([",", "\t", ";", " ", "|"]),
    end=st.sampled_from(["\n", "\r\n"]),
    packed=st.booleans(),
    last=st.booleans(),
    quoted=st.booleans(),
    block=st.integers(1, 60),
)
def test_dense_table_comes_back_whatever_its_form(
    tmp_path, counts, delimiter, end, packed, last, quoted, block
) -> None:
    matrix = np.array(counts)
    quote = '"' if quoted else ""
    lines = [delimiter.join([f"{quote}id{quote}", *(f"{quote}g{i}{quote}" for i in range(matrix.shape[1]))])]
    lines += [delimiter.join([f"{quote}00{i}{quote}", *map(str, row)]) for i, row in enumerate(matrix.tolist())]
    data = (end.join(lines) + (end if last else "")).encode()
    path = write(tmp_path, gzip.compress(data) if packed else data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "line_blocks", lambda path: line_blocks(path, size=block))
        table = read_dense(path, delimiter=delimiter)
    assert (table.counts.toarray() == matrix).all()
    assert table.row_ids.tolist() == [f"00{i}" for i in range(len(matrix))]
    assert table.names.tolist() == [f"g{i}" for i in range(matrix.shape[1])]
    assert table.counts.dtype == (np.uint16 if matrix.max() < 2**16 else np.uint32)
    assert (table.counts.data > 0).all()
    assert table.counts.has_sorted_indices


@pytest.mark.parametrize(
    ("cell", "value"),
    [("3.0", 3), ("1e+05", 100000), ("1.2e1", 12), ("+4", 4), (" 5", 5), ('"6"', 6), ("-0", 0), ("0.000", 0),
     ("4294967295", 2**32 - 1), ("0012", 12), ("1.000000000000000000e+00", 1), ("70e-1", 7), ("3.", 3),
     ("00000000000003", 3)],
)  # fmt: skip
def test_whole_numbers_in_any_spelling(tmp_path: Path, cell: str, value: int) -> None:
    table = read_dense(write(tmp_path, f"id,a,b\nc1,{cell},1\nc2,0,{cell}\n"))
    assert table.counts.toarray().tolist() == [[value, 1], [0, value]]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("id,a,b\nc1,1,x\n", ["not a number", "row 2", "column 3 (b)", "'x'"]),
        ("id,a,b\nc1,1,\n", ["missing", "row 2", "(b)"]),
        ("id,a,b\nc1,,1\n", ["missing", "row 2", "(a)"]),
        ("id,a,b\nc1,1,NaN\n", ["not a number", "'NaN'"]),
        ("id,a,b\nc1,1,1\n\nc2,1,-3\n", ["negative", "row 4", "(b)", "'-3'"]),
        ("id,a,b\nc1,1,0.5\n", ["fractional", "'0.5'", "ingest.values"]),
        ("id,a,b\nc1,1,1e-3\n", ["fractional"]),
        ("id,a,b\nc1,1,4294967296\n", ["too large"]),
        ("id,a,b\nc1,1,1e30\n", ["too large"]),
        ("id,a,b\nc1,1,99999999999999999999999\n", ["too large"]),
        ("id,a,b\nc1,1,inf\n", ["not a number"]),
        ("id,a,b\nc1,1,1e\n", ["not a number"]),
        ("id,a,b\nc1,1,0x10\n", ["not a number"]),
        ("id,a,b\nc1,1\n", ["number of cells", "row 2"]),
        ("id,a,b\nc1,1,2\nc2,1\n", ["number of cells", "row 3", "2 cells"]),
        ("id,a,b\nc1,1,2\nc2,1,2,3\n", ["number of cells", "row 3", "more than 3"]),
        ("id\tb\nc1\t1\nc2\t\n", ["missing", "row 3"]),
        ("id,a,b\n", ["no rows"]),
        ("", ["empty"]),
        ("\n\n", ["empty"]),
        ("id\nc1\n", ["no column of counts"]),
        ("c1,1,1,0\nc2,0,2,1\n", ["no header"]),
        (",,a\n0,c1,1\n", ["no name", "column 2"]),
        (b"id,a\n\x00\x01,1\n", ["not a text"]),
        (b"id,a\n\xff\xfe,1\n", ["not UTF-8"]),
        (b"id,a\nok,1\n\xff\xfe,1\n", ["not UTF-8"]),
        (gzip.compress(b"id,a\n" + b"c,1\n" * 2000, mtime=0)[:-12], ["cut short"]),
        (gzip.compress(b"id,a\n" + b"c,1\n" * 2000, mtime=0)[:20] + b"\xff" * 30, ["damaged"]),
    ],
)
def test_faults_of_dense_tables(tmp_path: Path, content: str | bytes, expected: list[str]) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputError) as error:
        read_dense(path)
    for words in [*expected, str(path)]:
        assert words in str(error.value)


def test_normalized_values_are_read_on_request(tmp_path: Path) -> None:
    table = read_dense(write(tmp_path, "id,a,b\nc1,0.25,0\nc2,1e-2,3\n"), normalized=True)
    assert table.counts.dtype == np.float32
    np.testing.assert_allclose(table.counts.toarray(), [[0.25, 0], [0.01, 3]])
    with pytest.raises(InputError, match="negative"):
        read_dense(write(tmp_path, "id,a,b\nc1,-0.25,0\n"), normalized=True)


def test_several_id_columns_and_skipped_ones(tmp_path: Path) -> None:
    path = write(tmp_path, "fov,cell,a,cell_ID,b\n1,c_1_1,5,0001,0\n1,c_1_2,0,0002,7\n")
    table = read_dense(path, id_columns=["cell_ID", "fov"], skip=["cell", "nowhere"])
    assert table.ids.to_dict("list") == {"cell_ID": ["0001", "0002"], "fov": ["1", "1"]}
    assert table.names.tolist() == ["a", "b"]
    assert table.counts.toarray().tolist() == [[5, 0], [0, 7]]
    with pytest.raises(InputError, match="no column 'FOV'"):
        read_dense(path, id_columns=["FOV"])
    with pytest.raises(InputError, match="several columns 'a'"):
        read_dense(write(tmp_path, "id,a,a\nc,1,2\n"), id_columns=["a"])


def test_repeated_gene_names_are_kept_for_the_policy_to_settle(tmp_path: Path) -> None:
    assert read_dense(write(tmp_path, "id,a,a\nc,1,2\n")).names.tolist() == ["a", "a"]


def test_runs_of_blanks_and_a_short_header(tmp_path: Path) -> None:
    table = read_dense(write(tmp_path, 'a   b\n  "g 1"  1 \t 2  \r\n g2 3   0\r\n'))
    assert table.ids.columns.tolist() == [""]
    assert table.row_ids.tolist() == ["g 1", "g2"]
    assert table.counts.toarray().tolist() == [[1, 2], [3, 0]]


def test_head(tmp_path: Path) -> None:
    head = read_head(write(tmp_path, b'\xef\xbb\xbf\r\n"a,1",b\r\nx,1,2\r\n'))
    assert head.delimiter == ","
    assert head.names == ("", "a,1", "b")
    assert head.short
    with pytest.raises(InputError, match="not a delimiter"):
        read_head(tmp_path / "t.csv", delimiter="ab")
    with pytest.raises(InputMissingError):
        read_head(tmp_path / "none.csv")


def test_lines_longer_than_a_block(tmp_path: Path) -> None:
    data = b"a" * 1000 + b"\n" + b"b" * 10
    assert b"".join(line_blocks(write(tmp_path, data), size=7)) == data + b"\n"
    path = write(tmp_path, gzip.compress(data) + gzip.compress(b"second") + b"\0\0")
    assert b"".join(line_blocks(path, size=7)) == data + b"second\n"


def test_endless_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="longer than"):
        list(line_blocks(write(tmp_path, b"a" * 1000), size=7, longest=100))


@pytest.mark.parametrize("delimiter", [",", "\t", " "])
@pytest.mark.parametrize("packed", [False, True])
def test_spot_table_keeps_ids_digit_for_digit(tmp_path: Path, delimiter: str, packed: bool) -> None:
    lines = ["id,x,note", "007,1.10,NA", "2317032900000100001,-2e1,b"]
    data = ("\ufeff" + "\r\n".join(line.replace(",", delimiter) for line in lines) + "\r\n").encode()
    frame = read_table(
        write(tmp_path, gzip.compress(data) if packed else data), numeric=["x", "nowhere"], required=["id"]
    )
    assert frame["id"].tolist() == ["007", "2317032900000100001"]
    assert frame["x"].tolist() == [1.1, -20.0]
    assert frame["note"].tolist() == ["NA", "b"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("id,x\nc,1\nd\n", ["read"]),
        ("id x\nc 1\nd\n", ["number of cells", "row 3"]),
        ("id x\nc 1\nd 1 2\n", ["read"]),
        ("id,x,x\nc,1,1\n", ["given twice", "x"]),
        ("id,y\nc,1\n", ["no column 'x'", "id, y"]),
        ("id,x\nc,1\nd,one\n", ["not a finite number", "row 3", "column x", "'one'"]),
        ("id,x\nc,1\nd,inf\n", ["not a finite number", "row 3"]),
        ("id,x\nc,1\nd,nan\n", ["not a finite number", "row 3"]),
        ("id,x\nc,1\nd,\n", ["not a finite number", "row 3"]),
        (gzip.compress(b"id,x\n" + b"c,1\n" * 2000, mtime=0)[:-9], ["cut short"]),
        (b"id,x\nc,1\n\xff,2\n", ["read"]),
    ],
)
def test_faults_of_spot_tables(tmp_path: Path, content: str | bytes, expected: list[str]) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputError) as error:
        read_table(path, required=["x"], numeric=["x"])
    for words in [*expected, str(path)]:
        assert words in str(error.value)


def test_table_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path, "1,2\n3,4\n")
    assert read_table(path, header=["x", "y"], numeric=["x"])["x"].tolist() == [1.0, 3.0]
    assert read_table(path, header=False)[1].tolist() == ["2", "4"]
    with pytest.raises(InputError, match="another number of columns"):
        read_table(path, header=["x"])


def test_header_alone_is_an_empty_table(tmp_path: Path) -> None:
    assert len(read_table(write(tmp_path, "id,x\n"))) == 0
    assert len(read_table(write(tmp_path, "id x\n"))) == 0


def test_numbers_are_exact_and_may_be_missing() -> None:
    values = pd.Series(["0.1", " 1e-3", "NA", ""], dtype=object)
    np.testing.assert_array_equal(numbers(values, where="t", missing=True), [0.1, 1e-3, np.nan, np.nan])
    for cell in ("1e-99999999999", "1_000", "0x1"):
        with pytest.raises(InputError, match="not a finite number"):
            numbers(pd.Series([cell, "x"], dtype=object), where="t")
    with pytest.raises(InputError, match="'NA' \\(2 such cells\\)"):
        numbers(values, where="t")


def test_ensembl_ids_are_told_from_names() -> None:
    frame = gene_frame(["ACTB", "ENSMUSG00000064339.1", "ENSG00000002586.18_PAR_Y", "ENSA"])
    assert frame["name"].tolist() == ["ACTB", "", "", "ENSA"]
    assert frame["ensembl_id"].tolist() == ["", "ENSMUSG00000064339.1", "ENSG00000002586.18_PAR_Y", ""]


@pytest.mark.parametrize(
    "name",
    [
        "merscope_vpt_smallset/cell_by_gene.csv",
        "slideseq_mini/MappedDGEForR.csv",
        "osmfish_cortex/osmFISH_prep_expression.txt",
    ],
)
def test_real_tables_equal_pandas(data_dir: Path, name: str) -> None:
    table = read_dense(data_dir / name)
    frame = pd.read_csv(data_dir / name, sep="\t" if name.endswith("txt") else ",", index_col=0)
    assert (table.counts.toarray() == frame.to_numpy()).all()
    assert table.names.tolist() == frame.columns.tolist()
    assert table.row_ids.tolist() == frame.index.astype(str).tolist()
