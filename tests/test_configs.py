"""The presets are valid, complete, and say the schema's own defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from stpatch.config import Config
from stpatch.config_file import load_config
from stpatch.presets import preset_text
from stpatch.registry import READERS

CONFIGS = Path(__file__).parents[1] / "configs"
PRESETS = sorted(CONFIGS.glob("*.yaml"))
ARMS = sorted((CONFIGS / "ablation").glob("*.yaml"))
LINE = re.compile(r"^(?P<indent> *)(?P<key>[a-z_]+):(?P<rest>.*)$")
DEFAULT = re.compile(r"default ([^\s;:(),]+|\[[^\]]*\])(?: \([^)]*\))?(?:$|:)")


def schema_default(path: list[str]) -> Any:
    """The default of a key in the schema, as YAML would write it."""
    model: Any = Config
    value: Any = None
    for key in path:
        field = model.model_fields[key]
        value = field.default
        model = field.annotation
    dumped = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return list(dumped) if isinstance(dumped, tuple) else dumped


def stated_defaults(path: Path) -> list[tuple[list[str], str]]:
    """All `default X` of a preset's comments with the keys they stand at."""
    stated, parents = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        found = LINE.match(line)
        if found:
            depth = len(found["indent"]) // 2
            parents = [*parents[:depth], found["key"]]
        elif not line.strip().startswith("#") or not line.startswith(" "):
            continue
        _, _, comment = line.partition("# ")
        if value := DEFAULT.search(comment):
            stated.append((list(parents), value[1]))
    return stated


@pytest.mark.parametrize("path", PRESETS + ARMS, ids=lambda path: path.stem)
def test_every_preset_is_valid(path: Path) -> None:
    config = load_config(path)
    sheet = config.slides.sheet
    assert sheet is not None
    assert sheet.name == "slides.csv"
    if path.stem != "demo":
        assert config.dataset.output.parts[-1] == path.stem
        assert "out" in config.dataset.output.parts
    assert config.dataset.name == path.stem


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_comments_state_the_defaults_of_the_schema(path: Path) -> None:
    stated = stated_defaults(path)
    assert stated
    for keys, text in stated:
        assert yaml.safe_load(text) == schema_default(keys), f"{path.name}: {'.'.join(keys)}"


@pytest.mark.parametrize("path", PRESETS + ARMS, ids=lambda path: path.stem)
def test_presets_are_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert max(map(len, text.splitlines())) <= 120
    assert len(text.splitlines()) <= 80


def test_every_platform_has_a_preset() -> None:
    assert {*READERS.own(), "demo", "paper", "spot", "slide"} == {path.stem for path in PRESETS}


@pytest.mark.parametrize("platform", READERS.own())
def test_a_platform_preset_names_its_platform(platform: str) -> None:
    assert load_config(CONFIGS / f"{platform}.yaml").ingest.platform == platform


def test_the_paper_preset_is_the_papers_recipe() -> None:
    config = load_config(CONFIGS / "paper.yaml")
    assert (config.grid.method, config.grid.size, config.grid.collisions) == ("fit", 140, "first")
    assert (config.crop.method, config.crop.size, config.crop.density) == ("random", (16, 16), 2.0)
    assert (config.crop.min_spots, config.crop.min_coverage) == (26, 0)
    channels = config.channels
    assert (channels.scope, channels.method, channels.n, channels.draws) == ("patch", "variance_sampled", 512, 1)
    assert channels.candidates is None
    assert (config.normalize.method, config.normalize.target_sum) == ("log1p_total", 10000)


def test_arms_share_all_but_unit_and_channels() -> None:
    arms = {path.stem: load_config(path) for path in ARMS}
    assert set(arms) == {
        *(f"{unit}_{rule}" for unit in ("spot", "patch", "slide") for rule in ("all", "panel", "sampled", "variance"))
    } - {"spot_sampled"}
    same = [config.section("slides", "ingest", "normalize", "grid", "split") for config in arms.values()]
    assert all(sections == same[0] for sections in same)
    assert len({config.dataset.seed for config in arms.values()}) == 1
    for name, config in arms.items():
        unit, rule = name.split("_")
        assert config.crop.unit == unit
        expected = {
            "all": ("panel", "all"),
            "panel": ("panel", "hvg_seurat"),
            "sampled": ("patch", "variance_sampled"),
            "variance": ("panel", "variance"),
        }
        assert config.channels.min_detected == (0.01 if rule in ("panel", "variance") else 0)
        assert (config.channels.scope, config.channels.method) == expected[rule]


@pytest.mark.parametrize("path", PRESETS + ARMS, ids=lambda path: path.stem)
def test_presets_name_their_schema_for_editors(path: Path) -> None:
    named = re.search(r"^# yaml-language-server: \$schema=(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert named is not None
    assert (path.parent / named[1]).resolve() == (CONFIGS / "config.schema.json").resolve()


def test_a_written_preset_names_the_installed_schema() -> None:
    uri = (CONFIGS / "config.schema.json").as_uri()
    assert f"$schema={uri}\n" in preset_text("visium")
