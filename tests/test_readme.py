"""The README's blocks, run in order as a reader would."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stpatch.config_file import load_config
from stpatch.dataset.training_loop import training_loop
from stpatch.demo import simulate
from stpatch.registry import READERS

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(600)
def test_blocks_run(tmp_path: Path) -> None:
    blocks = BLOCK.findall(README.read_text(encoding="utf-8"))
    assert "bash scripts/demo.sh" in blocks[0][1]  # the first screen: the two scripts
    simulate(tmp_path, size=0.35)
    run = 0
    for language, text in blocks[1:]:
        if "import torch" in text and importlib.util.find_spec("torch") is None:
            continue
        command = [sys.executable, "-W", "error", "-c", text] if language == "python" else ["bash", "-euc", text]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        run += 1
    assert run >= 5
    assert (tmp_path / "preview.png").stat().st_size > 10_000


def test_the_training_loop_is_the_cards() -> None:
    assert ("python", training_loop("dataset", "train")) in BLOCK.findall(README.read_text(encoding="utf-8"))


def test_links_and_picture_exist() -> None:
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (README.parent / target).is_file(), target


def test_contents_and_anchors_lead_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    heads = re.findall(r"^## (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in heads}
    named = re.findall(r"\]\(#([^)]+)\)", text)
    assert set(named) <= anchors
    assert anchors <= set(named), "every section is in the contents"


def test_the_table_of_platforms_says_what_the_presets_say() -> None:
    text = README.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (\d+) x (\d+) \| (\d+) \|", text, re.MULTILINE)
    assert {row[0] for row in rows} == set(READERS.own()) - {"paper_h5", "table"}
    for name, pixel, height, width, channels in rows:
        config = load_config(README.parent / "configs" / f"{name}.yaml")
        assert (config.crop.size, config.channels.n) == ((int(height), int(width)), int(channels)), name
        pitch = (
            config.grid.pitch_um or config.ingest.bin_um or (config.ingest.hd_bin_um if name == "visium_hd" else None)
        )
        assert pitch is None or f"{pitch:g} um" in pixel, name
