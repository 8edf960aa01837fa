"""Journals of processes, and what `status` makes of them and of the receipts."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from bundles.corpus import write_config, write_corpus
from commands import built, stpatch

from stpatch.cli import lines
from stpatch.cli.options import bar, job_of
from stpatch.engine.journal import SILENT, Journal, journal_of, read_journals
from stpatch.engine.status import duration, stage_statuses, status_text
from stpatch.errors import StpatchError
from stpatch.processes import Process, host_digest, this_process
from stpatch.stages import normalize


def test_a_units_lines_say_what_it_did(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    built("build", config, "-q")
    (log,) = read_journals(tmp_path / "out.work")
    ends = {(line["stage"], line["unit"]): line for line in log.lines if line["event"] == "end"}
    assert len(ends) == len([line for line in log.lines if line["event"] == "start"]) > 12
    ingest, shard = ends["ingest", "V1"], ends["shard", "train-000000"]
    assert ingest["rows"] == 36
    assert shard["rows"] == 3
    assert shard["bytes"] > 1000
    for line in ends.values():
        assert line["state"] == "done"
        assert line["attempt"] == 1
        assert line["pid"] == os.getpid()
        assert line["peak_memory"] > 10**7
        assert line["seconds"] >= 0
        assert line["versions"]["numpy"]
    assert log.command is None
    assert log.unit is None


def failing(_job: Any, unit: str) -> None:
    raise StpatchError("a fault for a test", where=unit)


def test_a_failure_leaves_its_traceback_and_counts_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_corpus(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(normalize, "run", failing)
        assert stpatch("build", config, "-q").code == 2
    (log,) = read_journals(tmp_path / "out.work")
    line = [line for line in log.lines if line["event"] == "end"][-1]
    assert line["state"] == "failed"
    assert "test_status.py" in line["traceback"]
    assert "a fault for a test" in line["error"]
    rows = {row["stage"]: row for row in json.loads(built("status", config, "--json").out)}
    assert rows["normalize"]["failed"] == {"V1": "a fault for a test\n  where:    V1"}
    assert rows["normalize"]["left"] == 3
    built("build", config, "-q")
    (log,) = read_journals(tmp_path / "out.work")
    assert [line["attempt"] for line in log.lines if line["event"] == "end" and line["unit"] == "V1"] == [1, 1, 2, 1]
    attempts = Journal(tmp_path / "out.work")._attempt("normalize", "V1")
    assert attempts == 3, "a new process counts what others began"


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("run", config="x")
    with journal.path.open("a") as file:
        file.write('{"event":"sta')
    (log,) = read_journals(tmp_path)
    assert [line["event"] for line in log.lines] == ["run"]


def beside(work: Path, process: Process, *lines: dict[str, Any], silent: float = 0.0) -> None:
    """Write another process' journal."""
    path = work / "log" / f"{process}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"time": time.time(), **line}) + "\n" for line in lines))
    os.utime(path, (time.time() - silent,) * 2)


def test_status_over_hosts(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    work = tmp_path / "out.work"
    built("run", "ingest", config, "-q", "--rank", 0, "--world-size", 2)
    start = {"event": "start", "stage": "ingest", "attempt": 2, "host": "other", "pid": 7}
    ended = {"event": "end", "stage": "ingest", "unit": "V1", "state": "done", "rows": 36, "began": time.time() - 10}
    beside(work, Process("00000001", 7, 1), ended, {**start, "unit": "V2"})
    beside(work, Process("00000002", 7, 1), {**start, "unit": "H1"}, silent=2 * SILENT)
    job = job_of(config, None)
    ingest, *others = stage_statuses(job)
    assert (ingest.units, ingest.done, ingest.left) == (4, 2, 2)
    assert [(one.unit, one.host, one.attempt) for one in ingest.running] == [("V2", "other", 2)]
    assert ingest.interrupted == ("H1",)
    assert ingest.units_per_second is not None
    assert 0.1 < ingest.units_per_second < 1
    assert ingest.rows_per_second is not None
    assert ingest.seconds_left == pytest.approx(2 / ingest.units_per_second)
    assert others[-1].units == 1
    text = status_text([ingest, *others], [])
    assert "running: ingest V2" in text
    assert "attempt 2" in text
    assert "interrupted: ingest H1" in text


def test_a_process_of_this_host_that_has_ended_does_not_run(tmp_path: Path) -> None:
    beside(tmp_path, Process(host_digest(), 2**22 + 1, 1), {"event": "run", "config": "x"})
    own = this_process()
    beside(tmp_path, Process(own.host, own.pid, own.started + 1), {"event": "run", "config": "x"})  # its number, reused
    beside(tmp_path, own, {"event": "run", "config": "x"}, silent=2 * SILENT)
    assert [log.process for log in read_journals(tmp_path) if log.command] == [own]
    assert [log.process for log in read_journals(tmp_path, of="living")] == [own]


def test_stale_units_and_what_changed(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    built("build", config, "-q")
    write_config(tmp_path, crop={"size": [4, 4]})
    rows = {row["stage"]: row for row in json.loads(built("status", config, "--json").out)}
    assert [rows[name]["stale"] for name in ("ingest", "normalize", "select", "crop", "plan")] == [0, 0, 0, 4, 1]
    assert rows["crop"]["reasons"] == {"settings": 4}
    assert rows["plan"]["reasons"] == {"4 slides": 1}
    assert rows["shard"]["stale"] == rows["shard"]["left"] == rows["shard"]["units"]
    assert rows["finalize"]["stale"] == 1
    text = built("status", config).out
    assert "stale: crop, 4 of 4 (settings)" in text
    assert "crop.size: [3,4] -> [4,4]" in text
    write_config(tmp_path)
    (tmp_path / "h1.h5ad").write_bytes(b"other")
    text = built("status", config).out
    assert f"stale: ingest, 1 of 4 ({tmp_path / 'h1.h5ad'} changed)" in text
    assert f"slide H1, file {tmp_path / 'h1.h5ad'} changed" in text


def test_watching_ends_when_all_is_done(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    built("build", config, "-q")
    assert built("status", config, "--watch").out.count("finalize") == 1
    assert json.loads(built("status", config, "--watch", "--json").out)[-1]["left"] == 0


def test_another_config_in_the_same_work_dir(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    beside(tmp_path / "out.work", Process("00000001", 7, 1), {"event": "run", "config": "x", "pid": 7, "host": "other"})
    done = stpatch("build", config, "-q")
    assert done.code == 2
    assert "another command works in this work dir with other settings" in done.err
    assert "process 7 on other" in done.err
    job = job_of(config, None)
    assert journal_of(job).path.read_text().count("refused") == 3
    beside(
        tmp_path / "out.work", Process("00000001", 7, 1), {"event": "run", "config": "x", "pid": 7}, silent=2 * SILENT
    )
    built("build", config, "-q")


def test_progress_where_nobody_looks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with bar("shard", 3, 1) as shown:
        shown.update(1)
        monkeypatch.setattr(lines, "INTERVAL", 0.0)
        shown.update(1)
    with bar("shard", 3, 3):
        pass
    printed = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 2)[2] for line in printed] == ["shard: 2 of 3 units to do", "shard: 3 of 3 units done"]
    assert time.strptime(printed[0][:19], "%Y-%m-%d %H:%M:%S")


def test_durations() -> None:
    assert [duration(seconds) for seconds in (4.4, 200, 7500)] == ["4s", "3m20s", "2h05m"]
