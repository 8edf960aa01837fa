"""The registry of readers: what it lists, what it takes from other packages, and that nothing is by half."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import yaml
from bundles.every import all_bundles

from stpatch import extensions
from stpatch.config import PLATFORMS, Config, IngestSection
from stpatch.config_file import load_config
from stpatch.errors import ConfigError, InputError
from stpatch.registry import READERS
from stpatch.slides.readers.registry import probe_source, read_source, reader_of
from stpatch.slides.sheet import read_sources
from stpatch.slides.source import SlideSource

ROOT = Path(__file__).parents[2]
PLUGINS = ROOT / "tests" / "plugins"


@pytest.mark.parametrize("platform", READERS.own())
def test_every_reader_has_a_bundle_in_tests_bundles_every(platform: str) -> None:
    assert any(bundle.platform == platform for bundle in all_bundles()), f"{platform} has no bundle"


@pytest.mark.parametrize("platform", READERS.own())
def test_every_reader_is_named_for_its_module(platform: str) -> None:
    assert reader_of(platform).platform == platform


def test_readme_has_a_row_for_every_platform() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("## What it reads")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == list(READERS.own())


def test_the_configs_choices_are_the_registrys() -> None:
    assert PLATFORMS.names() == ("auto", *READERS.names())
    schema: Any = Config.model_json_schema()
    assert schema["$defs"]["IngestSection"]["properties"]["platform"]["enum"] == ["auto", *READERS.names()]


def test_listing_names_imports_no_reader() -> None:
    code = (
        "import sys; from stpatch.registry import READERS; names = READERS.names(); assert len(names) > 9; "
        "print([n for n in names if 'stpatch.slides.readers.' + n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def write_example(folder: Path) -> Path:
    path = folder / "a.example"
    path.write_text("#example\n0 0 A 3\n0 10 B 4\n10 0 A 5\n")
    return path


def test_a_reader_from_another_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_example(tmp_path)
    source = SlideSource(slide_id="s", path=path)
    with pytest.raises(InputError, match="no platform recognizes"):
        probe_source(source, IngestSection())
    monkeypatch.syspath_prepend(PLUGINS)
    assert READERS.names() == (*READERS.own(), "example")
    probe, raw = read_source(source, IngestSection())
    assert (probe.platform, int(raw.counts.sum()), list(raw.genes["name"])) == ("example", 12, ["A", "B"])
    (tmp_path / "slides.csv").write_text("slide_id,path,platform\ns,a.example,example\n")
    text = {"dataset": {"output": "out"}, "slides": {"sheet": "slides.csv"}, "ingest": {"platform": "example"}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(text))
    config = load_config(tmp_path / "c.yaml")
    assert config.ingest.platform == "example"
    assert read_sources(config.slides)[0].platform == "example"
    assert "example" in Config.model_json_schema()["$defs"]["IngestSection"]["properties"]["platform"]["enum"]


def test_a_platform_that_no_package_brings_is_refused(tmp_path: Path) -> None:
    text = {"dataset": {"output": "out"}, "slides": [str(tmp_path)], "ingest": {"platform": "example"}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(ConfigError, match=r"found:\s+'example'\s+expected:\s+one of auto, cosmx") as caught:
        load_config(tmp_path / "c.yaml")
    assert "ingest.platform" in str(caught.value)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([("visium", "other:Reader")], r"two packages register one name[\s\S]*visium[\s\S]*stpatch itself"),
        (
            [("a", "one:Reader"), ("a", "two:Reader")],
            r"two packages register one name[\s\S]*two:Reader[\s\S]*one:Reader",
        ),
        ([("A b", "one:Reader")], r"a name that is not valid[\s\S]*'A b'"),
        ([("gone", "no_such_module_here:Reader")], r"cannot be imported[\s\S]*no_such_module_here"),
        ([("other", "collections:OrderedDict")], r"registered that is not one[\s\S]*OrderedDict"),
    ],
)
def test_what_a_package_registers_wrongly_is_named(
    points: list[tuple[str, str]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tuple(EntryPoint(name=name, value=value, group="stpatch.readers") for name, value in points)
    monkeypatch.setattr(extensions, "_points", lambda _group, _path: found)
    with pytest.raises(ConfigError, match=message):  # noqa: PT012 - a name may be refused when it is listed, or when used
        READERS.names()
        reader_of(points[0][0])
