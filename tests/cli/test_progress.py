"""Progress of a build: what is said of units and stages, where it goes, and the account at the end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bundles.corpus import write_corpus
from commands import built

from stpatch.cli.progress import BuildProgress, tally_text
from stpatch.config_file import load_config
from stpatch.engine.finished import Finished
from stpatch.stages.job import Job
from stpatch.views.build_table import account_text


def test_a_log_has_every_unit_with_the_time(tmp_path: Path) -> None:
    config, log = write_corpus(tmp_path), tmp_path / "logs" / "build.log"
    done = built("build", config, "-q", "--log", log)
    lines = log.read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [a-z]+: ", line) for line in lines)
    for slide_id in ("V1", "V2", "A1", "H1"):
        assert sum(f"ingest: {slide_id}," in line for line in lines) == 1
    assert sum("4 units done" in line for line in lines) == 3, "ingest, normalize and crop"
    assert "ingest: V1" not in done.err, "only -v prints units"


def test_the_account_ends_a_build_that_did_something(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    first = built("build", config, "-q", "-v")
    assert re.search(r"slides +4\n", first.err)
    assert re.search(r"seconds +[\d.]+: ingest", first.err)
    assert re.search(r"next +stpatch report ", first.err)
    assert first.err.count("ingest: V1, ") == 1
    assert "seconds" not in built("build", config, "-q").err, "an up-to-date build has nothing to tell"


def test_finished_units_are_counted_once(tmp_path: Path) -> None:
    job = Job(load_config(write_corpus(tmp_path)))
    finished = Finished(job, "shard")
    assert finished.look() == []
    built("build", tmp_path / "config.yaml", "-q")
    found = finished.look()
    assert finished.tally.units == len(found) > 1
    assert finished.tally.patches > len(found)
    shards = sum(path.stat().st_size for path in (tmp_path / "out").glob("*/*.tar"))
    assert shards < finished.tally.bytes < 1.2 * shards, "and the tables of rows in the work dir"
    assert finished.look() == []
    assert "patches/s" in tally_text(finished, 2.0)
    assert not Finished(job, "shard").look(), "what was there before is not new"


def test_stages_are_timed(tmp_path: Path) -> None:
    progress = BuildProgress(Job(load_config(write_corpus(tmp_path))), quiet=True)
    with progress("ingest", 3, 1) as shown:
        shown.update(1)
    assert progress.seconds["ingest"] > 0
    with pytest.raises(ValueError, match="stop"), progress("crop", 3, 1):
        raise ValueError("stop")
    assert "crop" in progress.seconds


def test_losses_stand_in_the_account() -> None:
    text = account_text(rows=[("dropped: min_counts", "3 spots")], seconds={"ingest": 1.25}, following=["a", "b"])
    assert text.splitlines()[0].endswith("dropped: min_counts  3 spots")
    assert "1.2: ingest 1.2" in text or "1.3: ingest 1.3" in text
