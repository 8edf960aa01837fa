"""What a command says before any work is done: estimates, and requests that would fail only in a late stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundles.corpus import write_config, write_corpus
from commands import built, stpatch

import stpatch as package


def estimate(folder: Path, **sections: dict[str, object]) -> dict[str, object]:
    config = write_config(folder, **sections)
    value: dict[str, object] = json.loads(built("plan", config, "--estimate", "--json", "-q").out)
    return value


def test_an_estimate_does_not_count_what_the_headers_do_not_tell(tmp_path: Path) -> None:
    text = built("plan", write_corpus(tmp_path), "--estimate").out
    value = estimate(tmp_path)
    by_slide = value["samples_by_slide"]
    assert isinstance(by_slide, dict)
    unknown = [slide_id for slide_id, count in by_slide.items() if count is None]
    assert unknown
    assert "unknown" in text
    assert f"not counting {len(unknown)} slide" in text


def test_an_estimate_counts_the_tiles_at_the_edge(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    by_slide = estimate(tmp_path, crop={"size": [4, 4]})["samples_by_slide"]
    assert isinstance(by_slide, dict)
    assert by_slide["V1"] == 4, "42 spots are a square of 6.5 pixels, and so 2 x 2 tiles"
    dropped = estimate(tmp_path, crop={"size": [4, 4], "edge": "drop"})["samples_by_slide"]
    assert isinstance(dropped, dict)
    assert dropped["V1"] == 1


def test_an_estimate_of_whole_slides_and_of_folds(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    value = estimate(tmp_path, crop={"unit": "slide"}, split={"folds": 2})
    by_slide, by_split, shape = value["samples_by_slide"], value["samples_by_split"], value["shape"]
    assert isinstance(by_slide, dict)
    assert isinstance(shape, list)
    assert set(by_slide.values()) == {1}
    assert by_split == {"fold0": 2, "fold1": 2}
    assert shape[1] > 4, "as large as the largest slide, not as crop.size"


def test_a_build_refuses_at_once_what_its_late_stages_would(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    done = stpatch("build", write_config(tmp_path, split={"by": "patient"}), "-q")
    assert done.code == 2
    assert "split.by" in done.err
    assert "slide_id, slide_id" not in done.err
    assert not (tmp_path / "out.work").exists()


def test_a_missing_slide_is_found_before_the_others_are_read(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    (tmp_path / "h1.h5ad").unlink()
    done = stpatch("build", config, "-q")
    assert done.code == 2
    assert "h1.h5ad" in done.err
    assert not (tmp_path / "out.work").exists()
    done = stpatch("build", write_config(tmp_path, run={"workers": 1, "on_error": "skip"}), "-q")
    assert done.code == 1, "with skip the others are built"


def test_an_empty_plan_tells_its_numbers(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    done = stpatch("build", write_config(tmp_path, crop={"size": [50, 50], "min_coverage": 0.5}), "-q")
    assert done.code == 2
    assert "patches of 50 x 50 pixels with at least 50% of pixels with a spot" in done.err
    assert "7 x 6 pixels with 42 spots" in done.err


def test_the_finished_line(tmp_path: Path) -> None:
    out = built("build", write_corpus(tmp_path, shards={"patches": 1000}), "-q").out
    assert out.index("train ") < out.index("val ")
    assert "kB in 2 shards" in out


def test_version_and_debug_are_told() -> None:
    assert package.__version__ in built("--version").out
    assert "--debug" in built("--help").out


@pytest.mark.parametrize("command", ["init", "inspect", "demo", "config"])
def test_optional_arguments_have_one_pair_of_brackets(command: str) -> None:
    assert "[[" not in built(command, "--help").out


def test_a_summary_of_a_command_is_not_cut() -> None:
    assert "..." not in built("--help").out.replace("[ARGS]...", "")


def test_validate_of_no_folder_is_a_wrong_request(tmp_path: Path) -> None:
    assert stpatch("validate", tmp_path / "none").code == 2
