"""The commands on a config: what they print, and what they refuse."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from bundles.corpus import digests, write_config, write_corpus
from commands import built, stpatch

from stpatch.presets import preset_names


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built corpus; never change it."""
    folder = tmp_path_factory.mktemp("finished")
    built("build", write_corpus(folder), "-q")
    return folder


def test_init_writes_every_preset(tmp_path: Path) -> None:
    assert built("init", "--list").out.split() == preset_names()
    for name in preset_names():
        path = tmp_path / f"{name}.yaml"
        built("init", path, "--preset", name)
        assert "#" in path.read_text()
        resolved = yaml.safe_load(built("config", path).out)
        assert resolved["dataset"]["name"] == name


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "stpatch.yaml"
    path.write_text("mine")
    done = stpatch("init", path)
    assert (done.code, path.read_text()) == (2, "mine")
    assert str(path) in done.err


def test_init_names_the_nearest_preset(tmp_path: Path) -> None:
    done = stpatch("init", tmp_path / "a.yaml", "--preset", "visum")
    assert done.code == 2
    assert "did you mean 'visium'?" in done.err
    assert not (tmp_path / "a.yaml").exists()


def test_config_prints_the_resolved_config(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    value = yaml.safe_load(built("config", config, "--set", "crop.stride=8").out)
    assert value["crop"]["stride"] == 8
    assert value["crop"]["edge"] == "pad"
    assert value["dataset"]["output"] == str(tmp_path / "out")


def test_config_prints_the_schema() -> None:
    schema = json.loads(built("config", "--schema").out)
    assert "crop" in schema["properties"]
    assert stpatch("config").code == 2


def test_check_reads_no_matrix_and_writes_nothing(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    before = digests(tmp_path)
    done = built("check", config, "-q")
    assert "4 slides, no problem found" in done.out
    assert all(slide_id in done.out for slide_id in ("V1", "V2", "A1", "H1"))
    value = json.loads(built("check", config, "--json", "-q").out)
    assert [row["platform"] for row in value["slides"]] == ["visium", "visium", "st", "h5ad"]
    assert value["problems"] == []
    assert digests(tmp_path) == before


def test_check_lists_every_problem_at_once(tmp_path: Path) -> None:
    config = write_corpus(
        tmp_path,
        split={"by": "donnor"},
        ingest={"genes": {"map": "no.csv", "vocabulary": "no.json"}},
        channels={"scope": "panel", "method": "list", "genes": "no.txt"},
    )
    (tmp_path / "h1.h5ad").unlink()
    shutil.rmtree(tmp_path / "visium" / "V1" / "spatial")
    done = stpatch("check", config, "-q")
    assert done.code == 2
    assert "6 problems found" in done.err
    words = ["split.by", "donnor", "no.csv", "no.json", "no.txt", "h1.h5ad", "V1"]
    assert all(word in done.err for word in words), done.err
    asked = stpatch("check", config, "--json", "-q")
    assert asked.code == 2
    assert len(json.loads(asked.out)["problems"]) == 6


def test_plan_says_what_is_to_come(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    estimate = json.loads(built("plan", config, "--estimate", "--json", "-q").out)
    assert estimate["exact"] is False
    assert not (tmp_path / "out.work").exists()
    value = json.loads(built("plan", config, "--json", "-q").out)
    assert value["exact"] is True
    assert sum(value["samples_by_slide"].values()) == sum(value["samples_by_split"].values())
    assert value["array"] == f"0-{value['tasks'] - 1}"
    assert not (tmp_path / "out").exists()
    text = built("plan", config, "-q").out
    assert f"array range {value['array']}" in text
    built("build", config, "-q")
    tars = list((tmp_path / "out").rglob("*.tar"))
    assert len(tars) == value["tasks"]


def test_status_before_and_after(tmp_path: Path, finished: Path) -> None:
    config = write_corpus(tmp_path)
    rows = json.loads(built("status", config, "--json").out)
    assert rows[0].items() >= {"stage": "ingest", "units": 4, "done": 0, "left": 4, "failed": {}}.items()
    assert not (tmp_path / "out.work").exists()
    assert "finalize" in built("status", config).out
    rows = json.loads(built("status", finished / "config.yaml", "--json").out)
    assert all(row["left"] == 0 and row["done"] == row["units"] for row in rows)


def test_progress_goes_to_stderr(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    done = built("build", config)
    assert done.out.count("\n") == 1
    assert "finished" in done.out
    assert "ingest" in done.err


def test_validate_finds_damage(tmp_path: Path, finished: Path) -> None:
    dataset = tmp_path / "out"
    shutil.copytree(finished / "out", dataset)
    assert "whole" in built("validate", dataset, "--deep").out
    path = dataset / "train" / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(bytes(data))
    done = stpatch("validate", dataset, "--json")
    assert done.code == 1
    assert "train-000000.tar" in json.loads(done.out)["problems"][0]


@pytest.mark.parametrize("words", [["validate"], ["inspect"]])
def test_a_folder_that_is_no_dataset(tmp_path: Path, words: list[str]) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        done = stpatch(*words, folder)
        assert done.code in (1, 2)
        assert str(folder) in done.err + done.out


def test_inspect_shows_dataset_and_patch(finished: Path) -> None:
    assert "tiny" in built("inspect", finished / "out").out
    key = json.loads((finished / "out" / "index" / "train.json").read_text())
    assert key
    done = stpatch("inspect", finished / "out", "no-such-key")
    assert done.code == 2
    assert "no-such-key" in done.err


@pytest.mark.parametrize("stage", ["ingest", "crop", "shard", "finalize"])
def test_a_rank_beyond_the_units_has_nothing_to_do(finished: Path, stage: str) -> None:
    done = built("run", stage, finished / "config.yaml", "-q", "--rank", 99, "--world-size", 100)
    assert "0 done, 0 were done already" in done.err


def test_an_unknown_stage_is_named(finished: Path) -> None:
    done = stpatch("run", "chop", finished / "config.yaml")
    assert done.code == 2
    assert "chop" in done.err
    assert "crop" in done.err


def with_output(folder: Path, finished: Path, **sections: dict[str, Any]) -> Path:
    return write_config(folder, slides={"sheet": str(finished / "slides.csv")}, **sections)


def test_another_dataset_is_not_overwritten(tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished / "out", tmp_path / "out")
    before = digests(tmp_path)
    done = stpatch("build", with_output(tmp_path, finished), "-q")
    assert done.code == 2
    assert "holds another dataset" in done.err
    assert str(tmp_path / "out") in done.err
    assert "'tiny'" in done.err
    (tmp_path / "config.yaml").unlink()
    assert digests(tmp_path) == before


@pytest.mark.parametrize("name", ["notes.txt", "train/old.tar", "manifest.json"])
def test_foreign_files_are_not_touched(tmp_path: Path, finished: Path, name: str) -> None:
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    done = stpatch("build", with_output(tmp_path, finished), "-q")
    assert done.code == 2
    assert str(tmp_path / "out") in done.err
    assert digests(tmp_path / "out").keys() == {name}
    assert path.read_text() == "mine"


def test_an_output_that_is_a_file(tmp_path: Path, finished: Path) -> None:
    (tmp_path / "out").write_text("mine")
    done = stpatch("build", with_output(tmp_path, finished), "-q")
    assert done.code == 2
    assert str(tmp_path / "out") in done.err
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("where", ["dataset.work_dir=out", "dataset.work_dir=out/work", "dataset.output=."])
def test_folders_that_lie_in_one_another(tmp_path: Path, where: str) -> None:
    config = write_corpus(tmp_path)
    done = stpatch("build", config, "-q", "--set", where)
    assert done.code == 2
    assert not list(tmp_path.rglob("manifest.json"))


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stpatch", "build", str(tmp_path / "none.yaml")]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    assert plain.returncode == 2
    assert "Traceback" not in plain.stderr
    assert plain.stderr.startswith("error: there is no such config\n  where:")
    debug = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert debug.returncode == 2
    assert "Traceback" in debug.stderr


ENDS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_stops_and_the_same_command_goes_on(
    tmp_path: Path, finished: Path, workers: int, end: signal.Signals
) -> None:
    config = with_output(tmp_path, finished)
    command = [sys.executable, "-m", "stpatch", "build", str(config), "-q", "--workers", str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    while process.poll() is None and len(list((tmp_path / "out.work").rglob("[!.]*.json"))) < 3:
        time.sleep(0.005)
    os.killpg(process.pid, end)
    _, err = process.communicate()
    assert (process.returncode, err.decode()) == (130, "stopped; the same command goes on from here\n")
    built("build", config, "-q")
    assert digests(tmp_path / "out") == digests(finished / "out")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("seconds", [0.8, 1.2, 1.6])
def test_a_signal_while_workers_start_leaves_no_traceback(
    tmp_path: Path, finished: Path, seconds: float, end: signal.Signals
) -> None:
    config = with_output(tmp_path, finished)
    command = [sys.executable, "-m", "stpatch", "build", str(config), "-q", "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    time.sleep(seconds)
    os.killpg(process.pid, end)
    _, err = process.communicate()  # to the end of the last process that could write to it
    assert "Traceback" not in err.decode(), err.decode()
    assert "leaked" not in err.decode()
