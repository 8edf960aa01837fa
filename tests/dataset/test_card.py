from __future__ import annotations

import gc
import json
import re
import subprocess
import sys

import pytest
import yaml
from bundles.dataset import make_sample, write_dataset

from stpatch.dataset.card import card, size_category
from stpatch.dataset.index import KIND

KINDS = [
    {"format": format_, "encoding": encoding, **more}
    for format_ in ("tar", "zarr")
    for encoding in ("blosc", "npy", "sparse")
    for more in ({}, {"variable": True})
]


def snippets(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its shards to the garbage collector
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_the_snippets_run_in_the_folder_and_print_the_first_sample(tmp_path, kind, monkeypatch, capsys):
    manifest = write_dataset(tmp_path, **kind)
    plain, own = snippets((tmp_path / "README.md").read_text())
    sample = make_sample(0, manifest.layout)
    monkeypatch.chdir(tmp_path)
    exec(plain, {})
    gc.collect()
    assert capsys.readouterr().out == f"{sample.key} {sample.x.shape} {sample.totals.sum()}\n"
    exec(own, {})
    assert capsys.readouterr().out == f"{sample.key} {sample.x.shape} float32 6\n"


def test_the_plain_snippet_does_without_stpatch(tmp_path):
    write_dataset(tmp_path)
    plain, _ = snippets((tmp_path / "README.md").read_text())
    code = f"import sys; sys.modules['stpatch'] = None\n{plain}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "s1-000000 (4, 3, 5)" in done.stdout


def test_front_matter(tmp_path):
    manifest = write_dataset(tmp_path, counts={"train": 6, "val": 1, "test": 0})
    text = (tmp_path / "README.md").read_text()
    assert text == card(manifest)
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "cc-by-4.0"
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"][0]["data_files"] == [
        {"split": "train", "path": "train/*.tar"},
        {"split": "val", "path": "val/*.tar"},
    ]
    assert front["configs"][1]["data_files"] == [{"split": "patches", "path": "patches.parquet"}]
    assert "| train | 6 |" in text
    assert "cancer, stroma" in text


def test_size_categories():
    assert [size_category(n) for n in (0, 999, 1000, 10**6, 10**9)] == [
        "n<1K",
        "n<1K",
        "1K<n<10K",
        "1M<n<10M",
        "n>1B",
    ]


def test_index_of_a_split(tmp_path):
    write_dataset(tmp_path)
    index = json.loads((tmp_path / "index" / "train.json").read_text())
    assert index["__kind__"] == KIND
    assert index["wids_version"] == 1
    assert [shard["nsamples"] for shard in index["shardlist"]] == [4, 2]
    for shard in index["shardlist"]:
        path = tmp_path / "index" / shard["url"]
        assert path.stat().st_size == shard["filesize"]
