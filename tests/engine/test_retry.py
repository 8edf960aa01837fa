"""What is left, as numbers, names and arrays; and tasks that run exactly that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bundles.corpus import digests
from bundles.many import spoil, write_many
from commands import built, stpatch
from hypothesis import given
from hypothesis import strategies as st

from stpatch.engine.ranks import Rank, task_number
from stpatch.engine.retry import compact, expand, windows
from stpatch.engine.shares import Named, Numbered, ShareOptions, find_share
from stpatch.errors import ConfigError, InputMissingError

UNITS = [f"u{i}" for i in range(13)]
HOLES = {"SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_COUNT": "5"}
"""Of ``--array=3,7-9,12``."""


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([0], "0"), ([3, 7, 8, 9, 12], "3,7-9,12"), ([1, 2], "1,2"), ([0, 1, 2, 4, 5], "0-2,4,5")],
)
def test_arrays_are_compact(numbers: list[int], text: str) -> None:
    assert compact(numbers) == text


@given(st.sets(st.integers(0, 300)), st.integers(1, 50))
def test_windows_and_texts_keep_every_number(numbers: set[int], size: int) -> None:
    rising = sorted(numbers)
    assert expand(compact(rising)) == rising
    found = windows(rising, size)
    assert [offset + task for offset, tasks in found for task in tasks] == rising
    assert all(tasks and max(tasks) < size for _, tasks in found)


@pytest.mark.parametrize(
    ("options", "environment", "units"),
    [
        ({"units": ("u7",)}, HOLES, ["u7"]),
        ({"units": ("u7", "u2")}, {}, ["u2", "u7"]),
        ({"offset": 0}, HOLES, ["u12"]),
        ({"offset": -5}, HOLES, ["u7"]),
        ({"offset": 1}, HOLES, []),  # beyond the units there is nothing to do
        ({"offset": 5}, {}, ["u5"]),
        ({"offset": 5, "rank": 2}, {}, ["u7"]),
        ({"offset": 0}, {"SGE_TASK_ID": "1"}, ["u0"]),  # which counts from 1
        ({"offset": 0}, {"LSB_JOBINDEX": "13"}, ["u12"]),
        ({"offset": 0}, {"PBS_ARRAY_INDEX": "4"}, ["u4"]),
        ({"offset": 1, "rank": 2, "world_size": 5}, {}, ["u3", "u8"]),
        ({"rank": 1, "world_size": 6}, {}, ["u1", "u7"]),
    ],
)
def test_which_units(options: dict[str, Any], environment: dict[str, str], units: list[str]) -> None:
    assert find_share(ShareOptions(**options), environment).share(UNITS) == units


def test_a_list_stands_for_the_units(tmp_path: Path) -> None:
    path = tmp_path / "left.txt"
    path.write_text("u4\n\nu9\nu2\n")
    whole = find_share(ShareOptions(from_list=path), {})
    assert whole == Named(("u4", "u9", "u2"), str(path))
    assert whole.share(UNITS) == ["u2", "u4", "u9"]
    shares = [find_share(ShareOptions(from_list=path, rank=i, world_size=2), {}).share(UNITS) for i in range(2)]
    assert shares == [["u2", "u4"], ["u9"]]
    assert find_share(ShareOptions(from_list=path, offset=1), {}).share(UNITS) == ["u9"]
    assert find_share(ShareOptions(from_list=path), {"SGE_TASK_ID": "2", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "3"}
                      ).share(UNITS) == ["u9"]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"units": ("u1",), "rank": 1}, "--unit names the units"),
        ({"offset": -1}, "no negative number"),
        ({"offset": 3, "rank": 2, "world_size": 5}, "not below"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        find_share(ShareOptions(**options), {})


def test_units_and_lists_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such unit") as caught:
        Named(("u99",), "--unit").share(UNITS)
    assert "did you mean 'u9'" in caught.value.block()
    with pytest.raises(InputMissingError, match="no such list"):
        find_share(ShareOptions(from_list=tmp_path / "none"), {})


def test_an_array_with_holes_is_told_to_give_an_offset() -> None:
    with pytest.raises(ConfigError, match="not below") as caught:
        find_share(ShareOptions(), HOLES)
    assert "--offset 0" in caught.value.block()


def test_the_number_of_a_task_is_its_own() -> None:
    assert task_number(HOLES) == (12, "Slurm array")
    assert task_number({}) == (0, "options")


def test_shares_say_what_they_are() -> None:
    shares = (Rank(1, 3), Numbered(4, "PBS"), Named(("a",), "--unit"), Named(("a", "b"), "list.txt"))
    assert [str(share) for share in shares] == [
        "rank 1 of 3 (options)", "unit number 4 (PBS)", "unit a", "2 units of list.txt",
    ]  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_many(tmp_path, 4, shards={"patches": 6, "mix": 4})


def test_what_is_left_is_run_unit_by_unit(corpus: Path) -> None:
    folder = corpus.parent
    first = stpatch("retry", corpus)
    assert (first.out, first.code) == ("0-3\n", 0)
    assert "stage ingest: 4 of 4 units left" in first.err
    built("run", "ingest", corpus, "-q", "--unit", "S01", "--unit", "S02")
    assert built("retry", corpus, "--slurm").out == "--array=0,3\n"
    assert "unit number 3" in built("run", "ingest", corpus, "-q", "--offset", "3").err
    assert built("retry", corpus, "--names").out == "S00\n"
    # A slide goes on as soon as its own stages are done, and no other must be.
    assert "1 done" in built("run", "normalize", corpus, "-q", "--unit", "S03").err
    refused = stpatch("run", "normalize", corpus, "-q", "--unit", "S00")
    assert refused.code == 2
    assert "no receipt of S00" in refused.err
    (folder / "left.txt").write_text(built("retry", corpus, "--names").out)
    built("run", "ingest", corpus, "-q", "--from-list", folder / "left.txt")
    assert built("retry", corpus).out == "0-2\n"
    for stage in ("normalize", "select", "crop", "plan"):
        built("run", stage, corpus, "-q")
    left = json.loads(built("retry", corpus, "--json").out)
    assert (left["stage"], left["total"], left["left"]) == ("shard", len(left["units"]), len(left["units"]))
    for number in expand(left["array"]):
        built("run", "shard", corpus, "-q", "--offset", number)
    built("run", "finalize", corpus, "-q")
    done = built("retry", corpus)
    assert (done.out, done.err) == ("", "nothing is left\n")
    assert json.loads(built("retry", corpus, "--json").out)["units"] == []
    built("build", corpus, "-q", "--set", f"dataset.output={folder / 'alone'}")
    assert digests(folder / "out") == digests(folder / "alone")


def test_a_failed_slide_keeps_its_number_and_no_other_waiting(corpus: Path) -> None:
    spoil(corpus.parent / "s01.h5ad")
    skip = ("--set", "run.on_error=skip", "-q")
    assert stpatch("run", "ingest", corpus, *skip).code == 1
    assert "1 of them failed" in built("retry", corpus, "--stage", "ingest").err
    assert built("retry", corpus, *skip[:2]).out == "0,2,3\n"  # of normalize: the slide is left out
    assert (
        "stage normalize, unit number 3 (options): 1 done"
        in built("run", "normalize", corpus, *skip, "--offset", "3").err
    )
    nothing = built("run", "normalize", corpus, *skip, "--offset", "1")
    assert ": 0 done, 0 were done already, 0 failed" in nothing.err
    stop = stpatch("run", "normalize", corpus, "-q", "--offset", "1")
    assert stop.code == 2
    assert "some slides have failed" in stop.err


def test_what_a_changed_config_has_made_stale_is_left(corpus: Path) -> None:
    built("run", "ingest", corpus, "-q")
    assert built("retry", corpus, "--stage", "ingest").out == ""
    assert built("retry", corpus, "--set", "ingest.qc.min_counts=2").out == "0-3\n"


def test_there_is_no_such_stage(corpus: Path) -> None:
    done = stpatch("retry", corpus, "--stage", "bake")
    assert done.code == 2
    assert "ingest, normalize" in done.err
