from __future__ import annotations

import gc
import json
import re
import subprocess
import sys

import pytest
import yaml
from bundles.dataset import make_sample, write_dataset
from bundles.hub import keep_to_itself

from stpatch.dataset.card import card, size_category
from stpatch.dataset.index import KIND

KINDS = [
    {"format": format_, "encoding": encoding, **more}
    for format_ in ("tar", "zarr")
    for encoding in ("blosc", "npy", "sparse")
    for more in ({}, {"variable": True})
]


def name_of(kind):
    return "-".join(map(str, kind.values()))


def snippets(text):
    """Return the card's Python by the heading above it; of one heading the last is named for its first line too."""
    found = {}
    for part in text.split("\n### ")[1:]:
        title = part.split("\n", 1)[0]
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", part, flags=re.DOTALL)):
            found[title if number == 0 else f"{title}, {number}"] = code
    return found


def imported(code):
    return re.findall(r"^(?:import|from) (\w+)", code, flags=re.MULTILINE)


LIBRARIES = {
    "tar": ["webdataset", "Hugging Face datasets", "wids"],
    "zarr": ["zarr", "Hugging Face datasets", "xarray", "tensorstore"],
}
SNIPPETS = [
    (title, kind)
    for kind in KINDS
    for title in ("stpatch", "stpatch, 1", *LIBRARIES[kind["format"]])
    if not (kind["encoding"] == "sparse" and title in ("xarray", "tensorstore"))
    if title != "stpatch, 1" or kind in (KINDS[0], KINDS[6])  # the training loop takes its time
]


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning"
)  # webdataset and wids leave their shards to the garbage collector
@pytest.mark.filterwarnings("ignore::DeprecationWarning:multiprocessing")
@pytest.mark.parametrize(
    ("title", "kind"), SNIPPETS, ids=lambda value: value if isinstance(value, str) else name_of(value)
)
def test_the_snippets_run_in_the_folder_and_print_the_first_sample(title, kind, tmp_path, monkeypatch, capsys):
    manifest = write_dataset(tmp_path, **kind)
    code = snippets((tmp_path / "README.md").read_text())[title]
    for module in imported(code):
        pytest.importorskip(module, reason=f"the snippet for {title} needs the package {module}")
    if "datasets" in imported(code):
        keep_to_itself(tmp_path / "cache", monkeypatch)
    sample = make_sample(0, manifest.layout)
    monkeypatch.chdir(tmp_path)
    exec(code, {"__name__": "snippet"})
    gc.collect()
    arrays = f"{sample.key} {sample.x.shape} {sample.totals.sum()}\n"
    other = {
        "stpatch": f"{sample.key} {sample.x.shape} float32 6\n",
        "stpatch, 1": None,
        "Hugging Face datasets": arrays if kind["format"] == "tar" else f"{sample.key} s1 {sample.meta['n_spots']}\n",
    }
    expected, printed = other.get(title, arrays), capsys.readouterr().out
    assert printed == expected if expected else re.fullmatch(r"loss \d+\.\d{3}\n", printed)


def test_every_snippet_is_run(tmp_path):
    for kind in KINDS:
        folder = tmp_path / name_of(kind)
        write_dataset(folder, **kind)
        run = {title for title, of in SNIPPETS if of == kind} | {"stpatch, 1"}
        assert set(snippets((folder / "README.md").read_text())) - run == set()


@pytest.mark.parametrize("format_", ["tar", "zarr"])
def test_the_plain_snippet_does_without_stpatch(tmp_path, format_):
    write_dataset(tmp_path, format=format_)
    code = snippets((tmp_path / "README.md").read_text())[LIBRARIES[format_][0]]
    code = f"import sys; sys.modules['stpatch'] = None\n{code}"
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
    assert len(front["configs"]) == 1  # a hub reads all configs by one builder
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
