"""The config: defaults, errors that name file and key, paths, short forms, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stpatch.config import Config
from stpatch.config_file import load_config, parse_config
from stpatch.errors import ConfigError, ProblemsError, StpatchError

LEAST: dict[str, Any] = {"dataset": {"output": "out"}, "slides": {"sheet": "slides.csv"}}


def with_key(key: str, value: Any) -> dict[str, Any]:
    """Return the least config with one key set, given as ``section.key``."""
    values: dict[str, Any] = {name: dict(section) for name, section in LEAST.items()}
    *parents, last = key.split(".")
    place = values
    for name in parents:
        place = place.setdefault(name, {})
    place[last] = value
    return values


def write(folder: Path, values: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return path


def problem(values: dict[str, Any]) -> StpatchError:
    with pytest.raises(ConfigError) as caught:
        parse_config(values, where="c.yaml")
    return caught.value


def test_output_and_slides_are_all_that_is_required(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, LEAST))
    assert config.crop.size == (16, 16)
    assert config.crop.strides == (16, 16)
    assert config.work_dir == tmp_path / "out.work"


@pytest.mark.parametrize(("section", "key"), [("dataset", "output"), ("", "slides"), ("", "dataset")])
def test_a_required_key_is_named(section: str, key: str) -> None:
    values = {name: dict(value) for name, value in LEAST.items()}
    del (values[section] if section else values)[key]
    error = problem(values)
    assert f"{section}.{key}".lstrip(".") in error.what
    assert "required" in error.what


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("chanels", "channels"),
        ("crop.strid", "stride"),
        ("ingest.genes.identiy", "identity"),
        ("ingest.qc.min_count", "min_counts"),
        ("ingest.table.genes_inn", "genes_in"),
        ("split.blocks.sise", "size"),
        ("channels.candidates.methd", "method"),
        ("dataset.outputs", "output"),
    ],
)
def test_a_misspelled_key_names_the_nearest(key: str, near: str) -> None:
    values = with_key(key, 1)
    if key.startswith("channels.candidates"):
        values["channels"]["candidates"]["method"] = "variance"
    error = problem(values)
    assert error.what == f"unknown key {key.rsplit('.', 1)[-1]!r}"
    assert error.where == f"c.yaml, key {key}"
    assert error.hint == f"did you mean {near!r}?"


@pytest.mark.parametrize("key", ["str", "a[0]", "constrained-int", "é"])
def test_an_odd_key_is_quoted(key: str) -> None:
    error = problem({**LEAST, key: 1})
    assert error.what == f"unknown key {key!r}"
    assert error.where == f"c.yaml, key {key}"


def test_a_key_like_no_other_is_to_be_removed() -> None:
    assert problem(with_key("crop.zzzzzz", 1)).hint == "remove it"


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("normalize.method", "log", "log1p_total"),
        ("normalize.target_sum", -1, "greater than 0"),
        ("ingest.platform", "visum", "visium_hd"),
        ("ingest.qc.max_mito", 1.5, "less than or equal to 1"),
        ("ingest.bin_um", "wide", "number"),
        ("channels.n", 0, "greater than 0"),
        ("channels.n", 2.5, "integer"),
        ("channels.method", "variance_smapled", "variance_sampled"),
        ("grid.size", 1, "greater than 1"),
        ("crop.size", [16], "is required"),
        ("crop.size", [16, 0], "greater than 0"),
        ("crop.size", 16, "a list"),
        ("crop.stride", 0, "a list; or: Input should be greater than 0"),
        ("crop.density", float("inf"), "finite"),
        ("crop.min_coverage", float("nan"), "finite"),
        ("channels.genes", 5, "a path; or: a list"),
        ("slides.glob", 5, "valid string; or: a list"),
        ("ingest.qc", 5, "a section"),
        ("crop.min_coverage", 2, "less than or equal to 1"),
        ("shards.format", "zip", "tar"),
        ("shards.patches", 0, "greater than 0"),
        ("run.workers", 0, "greater than 0"),
        ("run.on_error", "ignore", "skip"),
        ("dataset.seed", -1, "greater than or equal to 0"),
        ("dataset.name", "../x", "match"),
        ("split.fractions", {"train": 0.5}, "add up to 0.5"),
        ("split.fractions", {}, "add up to 0"),
        ("split.fractions", {"Train": 1}, "lower-case"),
        ("split.fractions", {"../x": 1}, "lower-case"),
        ("split.folds", 1, "greater than or equal to 2"),
    ],
)
def test_a_wrong_value_says_key_and_expectation(key: str, value: Any, word: str) -> None:
    with pytest.raises(StpatchError) as caught:
        parse_config(with_key(key, value), where="c.yaml")
    message = caught.value.block()
    assert f"c.yaml, key {key}" in message
    assert word in message
    assert "[lax" not in message
    assert "literal[" not in message


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"channels": {"scope": "panel", "method": "variance_sampled"}}, ["variance_sampled", "panel"]),
        ({"channels": {"scope": "patch", "method": "hvg_seurat"}}, ["hvg_seurat", "patch"]),
        ({"channels": {"scope": "panel", "method": "all", "draws": 2}}, ["draws"]),
        ({"channels": {"scope": "panel", "method": "all", "candidates": {"method": "mean"}}}, ["candidates"]),
        ({"channels": {"scope": "patch", "method": "mean", "draws": 3}}, ["draws"]),
        ({"channels": {"scope": "panel", "method": "list"}}, ["genes"]),
        ({"channels": {"candidates": {"method": "list"}}}, ["genes"]),
        ({"grid": {"method": "um"}}, ["pitch_um"]),
        ({"grid": {"method": "fit"}}, ["size"]),
        ({"grid": {"pitch_um": 100}}, ["pitch_um", "lattice"]),
        ({"grid": {"size": 140}}, ["size", "lattice"]),
        ({"split": {"folds": 3, "column": "split"}}, ["folds, column"]),
        ({"normalize": {"method": "pearson_residuals"}}, ["shards.values: normalized"]),
        ({"grid": {"collisions": "mean"}}, ["shards.values: normalized"]),
        ({"ingest": {"values": "normalized"}}, ["shards.values: normalized"]),
        ({"ingest": {"values": "normalized"}, "shards": {"values": "normalized"}}, ["normalize.method: none"]),
        ({"slides": {"sheet": "a.csv", "glob": "*.h5ad"}}, ["sheet, glob"]),
        ({"slides": {}}, ["none"]),
        ({"dataset": {"output": "a", "work_dir": "a/work"}}, ["dataset.work_dir", "lies in the dataset's folder"]),
        ({"dataset": {"output": "/"}}, ["dataset.output", "root folder"]),
        ({"dataset": {"output": "a", "work_dir": "b/../a"}}, ["dataset.work_dir"]),
    ],
)
def test_sections_must_agree(sections: dict[str, Any], words: list[str]) -> None:
    message = problem({**LEAST, **sections}).block()
    assert all(word in message for word in words), message


def test_all_problems_come_at_once() -> None:
    values = {**LEAST, "crop": {"strid": 1, "edge": "wrap"}, "normalise": {}}
    with pytest.raises(ProblemsError) as caught:
        parse_config(values, where="c.yaml")
    keys = {error.where for error in caught.value.problems}
    assert keys == {"c.yaml, key crop.strid", "c.yaml, key crop.edge", "c.yaml, key normalise"}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("dataset: {output: a}\nslides: [a]\ndataset: {output: b}\n", "'dataset' is given twice"),
        ("dataset: {output: a, output: b}\nslides: [a]\n", "'output' is given twice"),
        ("dataset: [\n", "not valid YAML"),
        ("- a\n- b\n", "not a mapping"),
        ("", "not a mapping"),
        ("just words", "not a mapping"),
        ("? [a, b]\n: 1\n", "is not text"),
        ("1: 2\n", "key 1 is not text"),
        ("dataset: {output: 'a'}\nslides: [a]\ncrop:\n\t- x\n", "not valid YAML"),
        ("dataset: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("x: &a [*a]\n", ""),
        ('dataset: {output: "a\\0b"}\nslides: [a]\n', "NUL"),
    ],
)
def test_yaml_that_is_no_config(tmp_path: Path, text: str, word: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(StpatchError) as caught:
        load_config(path)
    assert word in caught.value.block()
    assert str(path) in caught.value.block()


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00dataset")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError):
        load_config(tmp_path)


def test_an_empty_section_means_its_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "dataset: {output: out}\nslides: [a]\ncrop:\ningest:\n  genes:\n  qc: {min_counts: 3}\n")
    config = load_config(path)
    assert config.crop.size == (16, 16)
    assert config.ingest.qc.min_counts == 3


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, LEAST)
    config = load_config(path, ["crop.stride=8", "crop.size=[8, 8]", "ingest.genes.exclude=[RP*]", "dataset.name=ab"])
    assert config.crop.strides == (8, 8)
    assert config.ingest.genes.exclude == ["RP*"]
    assert config.dataset.name == "ab"
    assert load_config(path, ["slides.sheet=null", "slides.glob='a=b*.h5ad'"]).slides.glob == [
        str(tmp_path / "a=b*.h5ad")
    ]


@pytest.mark.parametrize(
    "text",
    ["crop.stride", "=8", "crop.strid=8", "crop.stride=[", "crop=8", "..=1", "crop.=1", "crop={size: 1, size: 2}"],
)
def test_overrides_that_are_wrong(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, LEAST), [text])
    assert "\n" in caught.value.block()


def test_relative_paths_start_at_the_config(tmp_path: Path) -> None:
    values = {
        "dataset": {"output": "out", "work_dir": "work"},
        "slides": {"sheet": "sheets/slides.csv"},
        "ingest": {"genes": {"map": "map.csv", "vocabulary": "vocab.json"}},
        "channels": {"scope": "panel", "method": "list", "genes": "genes.txt"},
    }
    config = load_config(write(tmp_path, values))
    assert config.dataset.output == tmp_path / "out"
    assert config.work_dir == tmp_path / "work"
    assert config.slides.sheet == tmp_path / "sheets/slides.csv"
    assert config.ingest.genes.map == tmp_path / "map.csv"
    assert config.ingest.genes.vocabulary == tmp_path / "vocab.json"
    assert config.channels.genes == tmp_path / "genes.txt"
    values["channels"] = {"candidates": {"method": "list", "genes": "genes.txt"}}
    candidates = load_config(write(tmp_path, values)).channels.candidates
    assert candidates is not None
    assert candidates.genes == tmp_path / "genes.txt"


def test_an_output_that_is_the_configs_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {**LEAST, "dataset": {"output": "."}})
    monkeypatch.chdir(tmp_path)
    assert load_config(Path(path.name)).work_dir == tmp_path.with_name(f"{tmp_path.name}.work")


def test_absolute_and_home_paths_stay(tmp_path: Path) -> None:
    values = {"dataset": {"output": str(tmp_path / "else" / "out")}, "slides": {"sheet": "~/slides.csv"}}
    config = load_config(write(tmp_path, values))
    assert config.dataset.output == tmp_path / "else" / "out"
    assert config.slides.sheet == Path("~/slides.csv").expanduser()


@pytest.mark.parametrize(
    ("slides", "paths"),
    [
        (["a.h5ad", "b"], ["a.h5ad", "b"]),
        ([{"path": "a", "slide_id": "s"}, "b"], ["a", "b"]),
        ({"entries": ["a"]}, ["a"]),
    ],
)
def test_short_forms_of_slides(tmp_path: Path, slides: Any, paths: list[str]) -> None:
    config = load_config(write(tmp_path, {**LEAST, "slides": slides}))
    assert config.slides.entries is not None
    assert [entry.path for entry in config.slides.entries] == [str(tmp_path / path) for path in paths]


def test_globs_start_at_the_config(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, {**LEAST, "slides": {"glob": ["a/*.h5ad", "/b/*"]}}))
    assert config.slides.glob == [str(tmp_path / "a/*.h5ad"), "/b/*"]


def test_an_entry_without_a_path() -> None:
    error = problem({**LEAST, "slides": [{"slide_id": "a"}]})
    assert "slides" in error.block()
    assert "path" in error.what


def test_the_json_schema_holds_every_section() -> None:
    schema = Config.model_json_schema()
    json.dumps(schema)
    assert set(schema["properties"]) == set(Config.model_fields)
    assert set(schema["required"]) == {"dataset", "slides"}


def test_a_config_survives_its_own_dump(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, {**LEAST, "crop": {"stride": 8}, "split": {"blocks": {"size": 8}}}))
    assert parse_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16GB", 16 * 10**9),
        ("16gb", 16 * 10**9),
        ("16 G", 16 * 10**9),
        ("4GiB", 4 * 1024**3),
        ("4gib", 4 * 1024**3),
        ("1.5MiB", 3 * 2**19),
        ("800MB", 8 * 10**8),
        ("512k", 512_000),
        ("1TB", 10**12),
        ("100B", 100),
        ("4096", 4096),
        (4096, 4096),
        (1e9, 10**9),
        (None, None),
    ],
)
def test_memory_sizes(text: object, size: int | None) -> None:
    assert parse_config(with_key("run.max_memory", text)).run.max_memory == size


@pytest.mark.parametrize(
    "text", ["", "GB", "16 apples", "-1GB", "16GBB", "1e9", 0, -5, True, [16], "0.5B", float("nan")]
)
def test_sizes_that_are_none(text: object) -> None:
    error = problem(with_key("run.max_memory", text))
    assert error.where == "c.yaml, key run.max_memory"
    assert error.found == repr(text)
    assert "16GB" in str(error.expected)
    assert "4GiB" in str(error.expected)


def test_the_schema_takes_memory_as_text_or_number() -> None:
    field = Config.model_json_schema()["$defs"]["RunSection"]["properties"]["max_memory"]
    assert {kind["type"] for kind in field["anyOf"]} == {"string", "integer", "null"}


def test_every_key_has_a_description() -> None:
    schema = Config.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        for name, value in section["properties"].items():
            assert value.get("description"), f"{section['title']}.{name} has no words (stpatch/config_words.py)"
            assert value["description"].endswith("."), name
