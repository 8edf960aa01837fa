"""A finished dataset is replaced only when it is asked for, and readers find the old one or the new one."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles.corpus import digests, write_config, write_corpus
from bundles.h5ad import write_h5ad
from commands import built, stpatch

from stpatch.cli.options import job_of
from stpatch.dataset.validate import verify
from stpatch.engine import replace
from stpatch.engine.owner import MARKER
from stpatch.stages import finalize
from stpatch.storage import read_json, write_sealed


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built corpus, and ``other``: what it gives with another encoding; never change it."""
    folder = tmp_path_factory.mktemp("replace") / "corpus"
    built("build", write_corpus(folder), "-q")
    other = write_config(folder, name="other.yaml", shards={"encoding": "npy"}, dataset={"output": "other"})
    built("build", other, "-q")
    return folder


@pytest.fixture
def corpus(finished: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    shutil.copytree(finished, folder, copy_function=shutil.copy2)
    write_config(folder, slides={"sheet": str(finished / "slides.csv")})
    return folder


def other_config(folder: Path, finished: Path, **sections: Any) -> Path:
    return write_config(folder, slides={"sheet": str(finished / "slides.csv")}, shards={"encoding": "npy"}, **sections)


def nothing_is_left(folder: Path) -> None:
    assert not (folder / "out.next").exists()
    assert not (folder / "out.work" / "replacing.json").exists()
    assert not list(folder.rglob(MARKER))
    assert not list(folder.rglob(".tmp-*"))


def test_other_settings_are_refused_before_anything_runs(corpus: Path, finished: Path) -> None:
    before = digests(corpus / "out")
    receipts = digests(corpus / "out.work" / "receipts")
    done = stpatch("build", other_config(corpus, finished, crop={"min_coverage": 0.5}), "-q")
    assert done.code == 2
    for text in ("crop.min_coverage: 0.0 -> 0.5", "shards.encoding: blosc -> npy", "--replace", "version '1.0.0'"):
        assert text.replace("'1.0.0'", "1.0.0") in done.err
    assert digests(corpus / "out") == before
    assert digests(corpus / "out.work" / "receipts") == receipts


def test_a_finished_dataset_stands_until_the_new_one_is_whole(
    corpus: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(corpus / "out")
    run, seen = finalize.run, []

    def looked(job: Any, unit: str) -> Any:
        assert digests(job.place) == before
        problems = [problem.block() for problem in verify(job.place, deep=True)]
        assert not [text for text in problems if "mine.txt" not in text]  # what else lies there is told, and stays
        seen.append(job.output)
        return run(job, unit)

    monkeypatch.setattr(finalize, "run", looked)
    (corpus / "out" / "notes").mkdir()
    (corpus / "out" / "notes" / "mine.txt").write_text("kept")
    before = digests(corpus / "out")
    done = built("build", other_config(corpus, finished), "-q", "--replace")
    assert seen == [corpus / "out.next"]
    assert "shards.encoding: blosc -> npy" in done.err
    assert "to be done again: shard (" in done.err
    assert (corpus / "out" / "notes" / "mine.txt").read_text() == "kept"
    shutil.rmtree(corpus / "out" / "notes")
    assert digests(corpus / "out") == digests(finished / "other")
    nothing_is_left(corpus)
    assert "up to date" in built("build", corpus / "config.yaml", "-q").out


def test_shards_that_stay_are_linked_and_not_made_again(corpus: Path, finished: Path) -> None:
    shard = corpus / "out" / "train" / "train-000000.tar"
    inode = shard.stat().st_ino
    config = write_config(corpus, slides={"sheet": str(finished / "slides.csv")}, dataset={"license": "CC0-1.0"})
    done = built("build", config, "-q", "--replace")
    assert "to be done again: finalize (1)" in done.err
    assert shard.stat().st_ino == inode
    nothing_is_left(corpus)


def test_a_new_version_replaces_without_a_word_asked(corpus: Path, finished: Path) -> None:
    done = built("build", other_config(corpus, finished, dataset={"version": "2.0.0"}), "-q")
    assert "dataset.version: 1.0.0 -> 2.0.0" in done.err
    assert read_json(corpus / "out" / "manifest.json")["dataset"]["version"] == "2.0.0"
    nothing_is_left(corpus)


def no_exchange(_one: Path, _other: Path) -> None:
    raise OSError(errno.EINVAL, "not here")


def test_where_folders_cannot_change_places_files_do(
    corpus: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replace, "exchange_folders", no_exchange)
    (corpus / "out" / "mine.txt").write_text("kept")
    built("build", other_config(corpus, finished), "-q", "--replace")
    (corpus / "out" / "mine.txt").unlink()
    assert digests(corpus / "out") == digests(finished / "other")
    nothing_is_left(corpus)


def stop(*_arguments: Any) -> None:
    raise KeyboardInterrupt


KILLS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "before the first shard": lambda patch: patch.setattr("stpatch.stages.shard.run", stop),
    "before they change places": lambda patch: patch.setattr(replace, "exchange_folders", stop),
    "after they changed places": lambda patch: patch.setattr(replace, "_finish", stop),
    "before it is written down": lambda patch: patch.setattr("stpatch.engine.run.record_finished", stop),
}


@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("back", [False, True], ids=["on", "back"])
def test_a_kill_while_a_dataset_is_replaced(
    corpus: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, kill: str, back: bool
) -> None:
    config = other_config(corpus, finished)
    with monkeypatch.context() as patch:
        KILLS[kill](patch)
        assert stpatch("build", config, "-q", "--replace").code == 130
    assert not list(verify(corpus / "out", deep=True)), "the old one or the new one"
    if back:
        config = write_config(corpus, slides={"sheet": str(finished / "slides.csv")})
    built("build", config, "-q", "--replace")
    assert digests(corpus / "out") == digests(finished / ("out" if back else "other"))
    nothing_is_left(corpus)


def test_a_kill_while_files_change_places(corpus: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = other_config(corpus, finished)
    monkeypatch.setattr(replace, "exchange_folders", no_exchange)
    with monkeypatch.context() as patch:
        patch.setattr(replace, "remove_empty_folders", stop)
        assert stpatch("build", config, "-q", "--replace").code == 130
    (corpus / "out" / "manifest.json").replace(corpus / "out.next" / "manifest.json")  # as if it were the last to go
    built("build", config, "-q")
    assert digests(corpus / "out") == digests(finished / "other")
    nothing_is_left(corpus)


def test_changed_and_missing_inputs_are_named(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(finished, folder, copy_function=shutil.copy2)
    config = folder / "config.yaml"
    built("build", config, "-q")  # receipts know their inputs by place
    before = digests(folder / "out")
    write_h5ad(folder / "h1.h5ad", rows=5, columns=7, n_genes=9, seed=9)
    sheet = (folder / "slides.csv").read_text()
    (folder / "slides.csv").write_text(sheet.replace("d1", "d9") + "H2,h1.h5ad,h5ad,d5\n")
    done = stpatch("build", config, "-q", "--set", "run.on_error=skip")
    assert done.code == 2
    for text in (f"file {folder / 'h1.h5ad'} changed", "column donor: d1 -> d9", "slide H2 is new"):
        assert text in done.err
    (folder / "h1.h5ad").unlink()
    done = stpatch("build", config, "-q", "--set", "run.on_error=skip")
    assert f"file {folder / 'h1.h5ad'} is gone" in done.err, "a slide that is gone does not shrink a finished dataset"
    assert digests(folder / "out") == before


def test_a_dataset_whose_settings_nobody_wrote_down(corpus: Path, finished: Path) -> None:
    (corpus / "out.work" / "finished.json").unlink()
    assert "up to date" in built("build", corpus / "config.yaml", "-q").out
    (corpus / "out.work" / "finished.json").unlink()
    done = stpatch("build", other_config(corpus, finished), "-q")
    assert done.code == 2
    assert "not written down" in done.err


def test_another_release_asks_too(corpus: Path) -> None:
    path = corpus / "out.work" / "finished.json"
    value = json.loads(path.read_text())
    del value["seal"]
    write_sealed(path, {**value, "package": "0.0.1"})
    done = stpatch("build", corpus / "config.yaml", "-q")
    assert done.code == 2
    assert "stpatch 0.0.1 -> " in done.err


def test_two_work_dirs_and_one_output(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    job = job_of(config, None)
    built("plan", config, "-q")
    from stpatch.engine.owner import claim_output

    claim_output(job)
    other = write_config(tmp_path, name="other.yaml", dataset={"work_dir": "elsewhere"}, crop={"size": [4, 4]})
    done = stpatch("build", other, "-q")
    assert done.code == 2
    assert "another build makes its dataset" in done.err
    assert str(job.work) in done.err
    built("build", config, "-q")
    nothing_is_left(tmp_path)
