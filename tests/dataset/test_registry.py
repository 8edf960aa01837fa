"""The registries of shard formats and encodings, and what a package from outside brings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles.dataset import make_layout, make_sample, write_dataset

import stpatch
from stpatch.config import Config, ShardsSection
from stpatch.config_file import parse_config
from stpatch.dataset.codecs import decode, encode
from stpatch.dataset.planes import Plane
from stpatch.dataset.validate import verify
from stpatch.errors import ConfigError, DatasetError
from stpatch.registry import ENCODINGS, FORMATS, Registry

PLUGIN = Path(__file__).parents[1] / "plugins" / "stpatch_example"
ROOT = Path(stpatch.__file__).parent


@pytest.fixture
def plugin(monkeypatch):
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.delitem(sys.modules, "stpatch_example_storage", raising=False)
    for registry in (FORMATS, ENCODINGS):
        monkeypatch.setattr(registry, "_items", {})  # what this test loads is forgotten with it
        for name in registry.own():
            monkeypatch.delitem(sys.modules, f"{registry.package}.{name}", raising=False)


def config_of(**shards):
    return parse_config({"dataset": {"output": "o"}, "slides": ["a"], "shards": shards})


def test_own_items():
    assert FORMATS.names() == ("slides", "tar", "zarr")
    assert ENCODINGS.names() == ("blosc", "npy", "sparse")
    for registry in (FORMATS, ENCODINGS):
        for name in registry.names():
            assert registry.get(name).name == name
            assert registry.get(name) is registry.get(name)


def test_the_config_takes_its_choices_from_the_registries(plugin):
    properties = Config.model_json_schema()["$defs"]["ShardsSection"]["properties"]
    assert properties["format"]["enum"] == ["slides", "tar", "zarr", "folder"]
    assert properties["encoding"]["enum"] == ["blosc", "npy", "sparse", "raw"]
    assert config_of(format="folder", encoding="raw").shards == ShardsSection(format="folder", encoding="raw")


@pytest.mark.parametrize(("key", "value", "near"), [("format", "zar", "zarr"), ("encoding", "npz", "npy")])
def test_an_unknown_name_is_told_with_the_nearest(key, value, near):
    with pytest.raises(ConfigError, match=rf"shards\.{key}(.|\n)*did you mean '{near}'\?"):
        config_of(**{key: value})


def test_names_are_listed_without_importing_what_they_name():
    code = (
        "import sys; from stpatch.config import Config; Config.model_json_schema(); "
        "print({'numpy', 'numcodecs', 'zarr', 'stpatch.dataset.formats.tar'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("kind", [{}, {"variable": True}, {"genes": False, "labels": ()}])
@pytest.mark.parametrize(("format_", "encoding"), [("folder", "blosc"), ("tar", "raw"), ("zarr", "raw")])
def test_a_dataset_in_a_format_or_encoding_from_outside(tmp_path, plugin, kind, format_, encoding):
    manifest = write_dataset(tmp_path, format=format_, encoding=encoding, **kind)
    assert list(verify(tmp_path, deep=True)) == []
    with stpatch.open(tmp_path, "train") as dataset:
        for number, sample in enumerate(dataset):
            made = make_sample(number, manifest.layout, slide_id=f"s{1 + number % 2}")
            np.testing.assert_array_equal(sample.x, made.x)
            np.testing.assert_array_equal(sample.totals, made.totals)
    assert "size_categories" in (tmp_path / "README.md").read_text()


def test_without_its_package_the_dataset_says_what_is_missing(tmp_path, plugin, monkeypatch):
    write_dataset(tmp_path, encoding="raw")
    monkeypatch.undo()
    with pytest.raises(DatasetError, match=r"key tensor\.encoding(.|\n)*raw(.|\n)*one of blosc, npy"):
        stpatch.open(tmp_path, "train")


def test_an_item_that_is_not_one_is_refused(plugin):
    formats = Registry("shard format", package=FORMATS.package, base=FORMATS.base, group="stpatch.encodings")
    with pytest.raises(ConfigError, match=r"registered that is not one(.|\n)*name raw"):
        formats.get("raw")


def test_a_further_plane_goes_through_writers_readers_and_checks(tmp_path):
    photo = Plane(name="photo", kind="image", dims=("rgb", "y", "x"), shape=(3, 6, 10), dtype="uint8", encoding="npy")
    for format_ in (name for name in FORMATS.own() if not FORMATS.get(name).whole_slides):
        folder = tmp_path / format_
        manifest = write_dataset(folder, format=format_, further=(photo,))
        assert list(verify(folder, deep=True)) == []
        dataset = stpatch.open(folder, "train")
        made = make_sample(1, manifest.layout, slide_id="s2").further["photo"]
        np.testing.assert_array_equal(dataset[1].further["photo"], made)
        np.testing.assert_array_equal(dataset.batch([1, 0]).further["photo"][0], made)
        assert "(rgb, y, x) uint8, image" in (folder / "README.md").read_text()
        bad = make_sample(0, make_layout(format=format_, further=()))
        with pytest.raises(DatasetError, match="other planes"):
            FORMATS.get(format_).encode(bad, manifest.layout)


def test_no_branch_on_the_name_of_a_format_or_encoding_outside_their_modules():
    names = "|".join([*FORMATS.own(), *ENCODINGS.own()])
    branch = re.compile(rf"""([=!]=|\bin\b|\bcase\b)\s*[(\[{{]?\s*["'](?:{names})["']""")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in ROOT.rglob("*.py")
        if path.parent.name not in ("formats", "codecs") or path.is_relative_to(ROOT / "slides")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if branch.search(line)
    ]
    assert found == []


def test_codecs_of_a_name():
    array = np.arange(6, dtype=np.uint16)
    np.testing.assert_array_equal(decode(encode(array, "npy"), "npy"), array)
