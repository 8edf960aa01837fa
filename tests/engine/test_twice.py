"""A job done twice: by two processes, or under two configs one after the other."""

from __future__ import annotations

from pathlib import Path

from bundles.corpus import digests, write_config, write_corpus
from commands import built

from stpatch.cli.options import job_of
from stpatch.engine.graph import STAGES


def test_a_unit_done_meanwhile_is_left_alone(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    built("build", config, "-q")
    job, before = job_of(config, None), digests(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for stage in STAGES.values():
        for unit in stage.units(job):
            assert stage.run(job, unit) == job.book.receipt(stage.name, unit)
    assert digests(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_a_folder_rebuilt_under_other_configs_keeps_no_trace_of_them(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    built("build", config, "-q")
    dataset = tmp_path / "out"
    before = sorted(dataset.rglob("*"))
    built("build", write_config(tmp_path, shards={"format": "zarr"}), "-q", "--replace")
    built("build", write_config(tmp_path, split={"folds": 2}), "-q", "--replace")
    built("build", write_config(tmp_path), "-q", "--replace")
    assert sorted(dataset.rglob("*")) == before, "no folder is left either"


def test_a_receipt_that_a_kill_left_under_a_temporary_name_removes_nothing(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    built("build", config, "-q")
    before = digests(tmp_path / "out")
    receipts = tmp_path / "out.work" / "receipts" / "shard"
    for path in sorted(receipts.glob("*.json")):
        path.with_name(f".tmp-0123-{path.name}").write_bytes(path.read_bytes())
    (tmp_path / "out.work" / "receipts" / "finalize" / "corpus.json").unlink()
    built("build", config, "-q")
    assert digests(tmp_path / "out") == before
    assert not list(receipts.glob(".*"))
