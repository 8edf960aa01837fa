"""The ablation's arms: the same slides and splits, one table."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from bundles.built import poisson_counts, square, write_counts, write_sheet

import stpatch
from stpatch.errors import ConfigError

ARMS = Path(__file__).parents[1] / "configs" / "ablation"
N_GENES, N_PANEL = 40, 12


@pytest.fixture(scope="module")
def ablation() -> ModuleType:
    path = Path(__file__).parents[1] / "scripts" / "ablation.py"
    spec = importlib.util.spec_from_file_location("ablation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablation"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    for seed, name in enumerate("abcd"):
        write_counts(folder / f"{name}.h5ad", poisson_counts(120, N_GENES, seed=seed), array=square(10, 12))
    return write_sheet(folder, [{"slide_id": name, "donor": name} for name in "abcd"])


def test_the_arms_share_everything_but_channels_and_crops(
    ablation: ModuleType, sheet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(path.stem for path in ARMS.glob("*.yaml"))
    assert {name.split("_")[0] for name in names} == {"spot", "patch", "slide"}
    assert {name.split("_")[1] for name in names} == {"all", "panel", "sampled", "variance"}
    output = sheet.parent / "out"
    overrides = ["--set", f"channels.n={N_PANEL}", "--set", "split.fractions={train: 0.5, val: 0.25, test: 0.25}"]
    arguments = ["--sheet", str(sheet), "--output", str(output), "--workers", "1", *overrides]
    assert ablation.main([*arguments, "--json"]) == 0
    rows = {row["arm"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == names
    first = rows[names[0]]["splits"]
    assert set(first) == set("abcd")
    assert sorted(first.values()) == ["test", "train", "train", "val"]
    for name, row in rows.items():
        unit, rule = name.split("_")
        assert row["splits"] == first
        samples = [(split, s) for split in set(first.values()) for s in stpatch.open(output / name, split)]
        assert all(first[sample.meta["slide_id"]] == split for split, sample in samples)
        assert row["samples"] == len(samples)
        assert row["samples"] == {"spot": 480, "patch": 4, "slide": 4}[unit]
        assert row["shape"].split(" x ")[0] == str({"all": N_GENES}.get(rule, N_PANEL))
        occupied = np.concatenate([sample.totals.ravel() > 0 for _, sample in samples])
        assert row["occupied"] == pytest.approx(occupied.mean())
        covered = {int(gene) for _, sample in samples for gene in sample.genes}
        assert row["genes"] == len(covered)
        assert {"all": N_GENES, "panel": N_PANEL}.get(rule, row["genes"]) == row["genes"]
        assert row["dtype"] == "uint16"
        assert row["bytes_a_sample"] == round(row["bytes"] / row["samples"])
    assert ablation.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["arm", *names]
    assert "bytes/sample" in lines[0]


def test_faults_are_told_without_a_traceback(
    ablation: ModuleType, sheet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablation.main(["--sheet", str(sheet), "--arms", "patch_some"]) == 2
    assert "patch_panel" in capsys.readouterr().err
    assert ablation.main(["--sheet", str(sheet.parent / "none.csv"), "--output", str(sheet.parent / "x")]) == 2
    assert "no such samplesheet" in capsys.readouterr().err


def test_arms_of_different_splits_are_refused(
    ablation: ModuleType, sheet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"arm": "x", "samples": 1, "shape": "", "dtype": "", "bytes": 1, "bytes_a_sample": 1, "genes": 1}
    splits = iter([{"a": "train"}, {"a": "test"}])
    monkeypatch.setattr(
        ablation, "build_arm", lambda *_, **__: ablation.Arm(**values, occupied=1.0, seconds=1.0, splits=next(splits))
    )
    with pytest.raises(ConfigError, match="different splits"):
        ablation.build_arms(sheet, sheet.parent, arms=sorted(ARMS.glob("patch_*.yaml"))[:2])
