"""Inputs that lead to other files, never end, or are no files: refused, with words."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from bundles.h5ad import write_h5ad

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.formats.hdf5.files import hdf5_file
from stpatch.slides.formats.text import lines
from stpatch.slides.formats.text.lines import read_head, read_lines
from stpatch.slides.readers.registry import probe_source, read_source
from stpatch.slides.source import SlideSource


def external_link(file: h5py.File, other: Path) -> None:
    file["uns/more"] = h5py.ExternalLink(str(other), "/x")


def external_storage(file: h5py.File, other: Path) -> None:
    file.create_dataset("uns/more", shape=(4,), dtype="i4", external=[(str(other), 0, 16)])


def virtual_dataset(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((4,), dtype="i8")
    layout[:] = h5py.VirtualSource(str(other), "x", (4,))
    file.create_virtual_dataset("uns/more", layout)


@pytest.mark.parametrize("lead", [external_link, external_storage, virtual_dataset])
def test_hdf5_that_takes_data_from_another_file(tmp_path: Path, lead: Callable[[h5py.File, Path], None]) -> None:
    path, other = tmp_path / "a.h5ad", tmp_path / "other.h5"
    write_h5ad(path, rows=4, columns=4, n_genes=5)
    with h5py.File(other, "w") as file:
        file["x"] = np.arange(4)
    with h5py.File(path, "r+") as file:
        lead(file, other)
    with pytest.raises(InputError, match="takes data from another file") as caught:
        read_source(SlideSource(slide_id="A", path=path), IngestSection())
    words = lead.__name__.replace("_", " ")
    for text in (str(path), "key /uns/more", words, str(other), "repack"):
        assert text in caught.value.block()


def test_hdf5_that_leads_to_itself_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(4)
        file["group/soft"] = h5py.SoftLink("/x")
        file["group/nothing"] = h5py.SoftLink("/nothing")
        file["group/loop"] = file["group"]
        layout = h5py.VirtualLayout((4,), dtype="i8")
        layout[:] = h5py.VirtualSource(".", "x", (4,))
        file.create_virtual_dataset("wide", layout)
    with hdf5_file(path) as file:
        assert file["wide"][:].tolist() == file["group/soft"][:].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("column", ["path", "matrix", "transcripts", "coordinates", "labels"])
def test_a_pipe_is_not_opened(tmp_path: Path, column: str) -> None:
    write_h5ad(tmp_path / "a.h5ad", rows=4, columns=4, n_genes=5)
    os.mkfifo(tmp_path / "pipe")
    paths = {"path": tmp_path / "a.h5ad", column: tmp_path / "pipe"}
    with pytest.raises(InputError, match="neither a file nor a folder") as caught:
        probe_source(SlideSource(slide_id="A", **paths), IngestSection())
    assert f"column {column}" in caught.value.block()
    assert "pipe" in caught.value.block()


def test_a_pipe_among_a_slides_files_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "barcodes.tsv")
    with pytest.raises(InputError, match="this is not a file"):
        read_lines(tmp_path / "barcodes.tsv")


@pytest.mark.parametrize("text", [b"\n", b"  \n", b"# x\n", b"name\tvalue\n"[:0] + b"\r\n"])
def test_a_small_file_of_endless_nothing(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "counts.tsv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(24):
            file.write(text * ((1 << 20) // len(text)))
    with pytest.raises(InputError, match="no table in sight"):
        read_head(path)


def test_a_table_after_some_empty_lines_and_a_long_header(tmp_path: Path) -> None:
    path = tmp_path / "counts.tsv"
    header = "\t".join(f"s{i}" for i in range(300_000))
    path.write_text("\n" * 1000 + f"gene\t{header}\nG1" + "\t1" * 300_000 + "\n")
    assert len(read_head(path).header) == 300_001


def test_a_list_of_names_far_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "SMALL", 1000)
    path = tmp_path / "names.txt"
    path.write_text("x\n" * 500)
    assert len(read_lines(path)) == 500
    path.write_text("x\n" * 501)
    with pytest.raises(InputError, match="far too long"):
        read_lines(path)
