"""Receipts: written last, read back, and void where something changed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from stpatch.stages.provenance import Software
from stpatch.stages.receipts import Failure, InputFile, Receipt, ReceiptBook, measure, outputs_present


def a_receipt(folder: Path) -> Receipt:
    (folder / "in.csv").write_text("1")
    (folder / "out.bin").write_bytes(b"22")
    return Receipt(
        stage="ingest",
        unit="A1",
        request="r",
        location="here",
        software=Software(package="0.1.0", code="c", libraries={"numpy": "2.0"}),
        inputs=(InputFile.of(folder / "in.csv"),),
        outputs=(measure(folder / "out.bin", root="work", base=folder),),
        facts={"spots": 3},
    )


def test_round_trip(tmp_path: Path) -> None:
    book, receipt = ReceiptBook(tmp_path / "receipts"), a_receipt(tmp_path)
    assert book.receipt("ingest", "A1") is None
    book.write(receipt)
    assert book.receipt("ingest", "A1") == receipt
    assert receipt.outputs[0].path == "work/out.bin"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"stage": "ingest"}', "null", "\x00"])
def test_an_unreadable_receipt_counts_as_none(tmp_path: Path, text: str) -> None:
    book = ReceiptBook(tmp_path)
    book.write(a_receipt(tmp_path))
    (tmp_path / "ingest" / "A1.json").write_text(text)
    assert book.receipt("ingest", "A1") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"stage": 1}', "null"])
def test_an_unreadable_failure_counts_as_none(tmp_path: Path, text: str) -> None:
    book = ReceiptBook(tmp_path)
    (tmp_path / "ingest").mkdir()
    (tmp_path / "ingest" / "A1.failed.json").write_text(text)
    assert book.failure("ingest", "A1") is None


def test_a_unit_is_done_or_failed_never_both(tmp_path: Path) -> None:
    book, receipt = ReceiptBook(tmp_path), a_receipt(tmp_path)
    failure = Failure(stage="ingest", unit="A1", request="r", message="wrong\n  where: x", kind="InputError")
    book.write(receipt)
    book.write_failure(failure)
    assert book.receipt("ingest", "A1") is None
    assert book.failure("ingest", "A1") == failure
    book.write(receipt)
    assert book.failure("ingest", "A1") is None


def test_an_input_is_unchanged_by_time_else_by_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("12")
    item = InputFile.of(path)
    assert item.unchanged()
    os.utime(path, ns=(0, 0))
    assert item.unchanged()
    path.write_text("13")
    assert not item.unchanged()
    path.write_text("123")
    assert not item.unchanged()
    path.unlink()
    assert not item.unchanged()


def test_outputs_must_be_there_whole(tmp_path: Path) -> None:
    receipt = a_receipt(tmp_path)
    roots = {"work": tmp_path}
    assert outputs_present(receipt.outputs, roots)
    (tmp_path / "out.bin").write_bytes(b"2")
    assert not outputs_present(receipt.outputs, roots)
    (tmp_path / "out.bin").unlink()
    assert not outputs_present(receipt.outputs, roots)


def test_the_fingerprint_knows_contents_not_places(tmp_path: Path) -> None:
    receipt = a_receipt(tmp_path)
    item = receipt.inputs[0]
    moved = replace(receipt, location="there", inputs=(replace(item, path="/else/in.csv", mtime_ns=1),))
    assert moved.fingerprint == receipt.fingerprint
    for other in (
        replace(receipt, request="q"),
        replace(receipt, unit="A2"),
        replace(receipt, inputs=(replace(item, sha256="0"),)),
        replace(receipt, inputs=()),
        replace(receipt, revision="x"),
    ):
        assert other.fingerprint != receipt.fingerprint
