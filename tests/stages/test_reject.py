"""The reject list: what it names is left out, what it names wrongly is told, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from bundles.built import build, make_job, poisson_counts, square, write_counts

from stpatch.engine.check import check_settings
from stpatch.errors import ConfigError, InputError
from stpatch.stages.reject import crop_settings, rejected
from stpatch.storage import sha256_file

ROWS = [{"slide_id": "A-000001"}, {"slide_id": "b"}]


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    for number, row in enumerate(ROWS):
        write_counts(tmp_path / f"{row['slide_id']}.h5ad", poisson_counts(64, 8, seed=number), array=square(8, 8))
    return tmp_path


def keys_of(folder: Path) -> list[str]:
    return sorted(pd.read_parquet(folder / "patches.parquet")["key"])


def test_rejected_patches_are_left_out_and_others_keep_their_keys(slides: Path) -> None:
    whole = build(slides, ROWS, name="whole")
    keys = keys_of(whole.output)
    assert len(keys) == 8
    rejects = slides / "rejects.txt"
    rejects.write_text(f"# folded tissue\n{keys[1]}\n\n{keys[6]}  # out of focus\n")
    job = build(slides, ROWS, name="part", crop={"exclude": "rejects.txt"})
    assert keys_of(job.output) == [key for key in keys if key not in (keys[1], keys[6])]
    crop = json.loads((job.output / "manifest.json").read_text())["crop"]
    assert crop["exclude"] == {"keys": 2, "sha256": sha256_file(rejects)}, "and no folder of this machine"
    assert "exclude" not in json.loads((whole.output / "manifest.json").read_text())["crop"]


def test_a_slide_without_rejects_is_not_cut_again(slides: Path) -> None:
    (slides / "r.txt").write_text("b-000000\n")
    plain, listed = make_job(slides, ROWS), make_job(slides, ROWS, crop={"exclude": "r.txt"})
    assert crop_settings(plain, "A-000001") == crop_settings(listed, "A-000001")
    assert crop_settings(plain, "b") != crop_settings(listed, "b")


@pytest.mark.parametrize(("draws", "key"), [(1, "a-000001-000003"), (2, "a-000001-000003-1"), (2, "a-000001-000003")])
def test_keys_are_read_with_and_without_draws(slides: Path, draws: int, key: str) -> None:
    (slides / "r.txt").write_text(key)
    assert rejected(make_job(slides, ROWS, crop={"exclude": "r.txt"}, channels={"draws": draws})) == {"A-000001": (3,)}


def test_unknown_keys_are_named_before_any_work(slides: Path) -> None:
    (slides / "r.txt").write_text("b-000000\nc-000000\nb-000000-1\nnonsense\n")
    job = make_job(slides, ROWS, crop={"exclude": "r.txt"})
    with pytest.raises(ConfigError, match="found:    c-000000, b-000000-1, nonsense"):
        rejected(job)
    assert any("crop.exclude" in str(problem.where) for problem in check_settings(job))


def test_a_number_of_no_window_is_told_by_the_crop(slides: Path) -> None:
    (slides / "r.txt").write_text("b-000099\n")
    with pytest.raises(InputError, match="000099"):
        build(slides, ROWS, crop={"exclude": "r.txt"})


def test_a_window_that_the_filter_takes_may_be_listed(slides: Path) -> None:
    (slides / "r.txt").write_text("b-000001\n")
    crop = {"size": [5, 5], "min_coverage": 1.0}
    before = keys_of(build(slides, ROWS, crop=crop).output)
    assert "b-000001" not in before, "the second window hangs over the edge"
    assert keys_of(build(slides, ROWS, name="again", crop={**crop, "exclude": "r.txt"}).output) == before


def test_a_missing_list_is_told(slides: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        rejected(make_job(slides, ROWS, crop={"exclude": "none.txt"}))
