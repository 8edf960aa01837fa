"""Datasets put together, and told apart."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from bundles.built import build, poisson_counts, square, write_counts
from commands import built, stpatch

from stpatch.dataset.difference import difference
from stpatch.dataset.manifest import read_manifest
from stpatch.dataset.merge import MARK, merge
from stpatch.dataset.opening import open_dataset
from stpatch.dataset.validate import verify
from stpatch.errors import StpatchError

NAMES = tuple(f"G{number:02d}" for number in range(20))
OTHERS = ("A-other", *NAMES[5:], "Z-other")
FORMATS = ("tar", "zarr")
RULES: dict[str, dict[str, Any]] = {
    "patch": {"n": 5},
    "candidates": {"n": 5, "candidates": {"method": "list", "genes": list(NAMES[6:18])}},
    "panel": {"scope": "panel", "method": "list", "genes": [NAMES[9], NAMES[6], NAMES[14]]},
    "slide": {"scope": "slide", "method": "list", "genes": [NAMES[9], NAMES[6], NAMES[14]]},
}


def write_slide(folder: Path, number: int, genes: tuple[str, ...], **columns: str) -> dict[str, str]:
    array = square(8, 7 + number)
    counts = poisson_counts(len(array), len(genes), seed=number)
    region = [f"r{(number + row) % 4}" for row in array[:, 0]]
    write_counts(folder / f"s{number}.h5ad", counts, array=array, genes=genes, obs={"region": region})
    return {"slide_id": f"s{number}", "path": str(folder / f"s{number}.h5ad"), **columns}


def dataset(tmp_path: Path, name: str, rows: list[dict[str, str]], /, *, rule: str = "patch", **sections: Any) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    given = {
        "dataset": {"name": name, "version": "1"},
        "channels": RULES[rule],
        "ingest": {"labels": ["region"]},
        "split": {"fractions": {"train": 0.5, "test": 0.5}},
        **sections,
    }
    return build(folder, rows, **{**given, "shards": {"patches": 4, **sections.get("shards", {})}}).output


def contents(folder: Path) -> dict[str, dict[str, Any]]:
    """Return each sample by key, with names for numbers, so that datasets of other numbers compare."""
    manifest = read_manifest(folder)
    table = pq.read_table(folder / "genes.parquet")
    names = dict(zip(table["gene_id"].to_pylist(), table["name"].to_pylist(), strict=True))
    found = {}
    for split in manifest.splits:
        with open_dataset(folder, split, values=manifest.values) as samples:
            for sample in samples:
                genes = [names.get(int(number), "") for number in sample.genes]
                labels = {
                    label: [manifest.labels[label][number] if number >= 0 else "" for number in plane.ravel()]
                    for label, plane in sample.labels.items()
                }
                found[sample.key] = {
                    "split": split,
                    "x": dict(zip(genes, sample.x.tolist(), strict=True)),
                    "measured": dict(zip(genes, sample.measured.tolist(), strict=True)),
                    "totals": sample.totals.tolist(),
                    "labels": labels,
                    "meta": sample.meta,
                }
    return found


@pytest.mark.parametrize(
    ("format_", "rule"),
    [
        ("tar", "patch"),
        ("zarr", "patch"),
        ("tar", "candidates"),
        ("zarr", "panel"),
        ("tar", "panel"),
        ("zarr", "slide"),
    ],
)
def test_a_whole_has_every_sample_of_its_parts(tmp_path: Path, format_: str, rule: str) -> None:
    one = dataset(
        tmp_path, "one", [write_slide(tmp_path, i, NAMES) for i in (0, 1)], rule=rule, shards={"format": format_}
    )
    two = dataset(
        tmp_path, "two", [write_slide(tmp_path, i, OTHERS) for i in (2, 3, 4)], rule=rule, shards={"format": format_}
    )
    done = merge([one, two], tmp_path / "whole", name="whole")
    assert [problem.block() for problem in verify(tmp_path / "whole", deep=True)] == []
    assert contents(tmp_path / "whole") == {**contents(one), **contents(two)}
    shards = len(list((one).rglob("*.tar"))) + len(list((two).rglob("*.tar")))
    assert done.linked + done.written == (shards or done.linked + done.written)
    assert (done.written == 0) == (rule == "panel" and read_manifest(two).labels == read_manifest(one).labels)
    for shard in read_manifest(one).splits["train"].shards:
        assert (one / shard.path).samefile(tmp_path / "whole" / shard.path)
    assert not (tmp_path / "whole" / MARK).exists()
    merged = read_manifest(tmp_path / "whole").merged
    assert [part.manifest for part in merged] == [
        hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() for folder in (one, two)
    ]


def test_the_numbers_of_genes_are_those_of_all_spots(tmp_path: Path) -> None:
    slides = [write_slide(tmp_path, i, NAMES if i < 2 else OTHERS) for i in range(4)]
    parts = [dataset(tmp_path, "one", slides[:2]), dataset(tmp_path, "two", slides[2:])]
    merge(parts, tmp_path / "whole")
    at_once = dataset(tmp_path, "at-once", slides, channels={"n": 5, "fit_on": "all"})
    fits = [dataset(tmp_path, f"fit-{i}", slides[2 * i :][:2], channels={"n": 5, "fit_on": "all"}) for i in range(2)]
    merge(fits, tmp_path / "whole-fit")
    found = pq.read_table(tmp_path / "whole-fit" / "genes.parquet").to_pandas().set_index("name").sort_index()
    expected = pq.read_table(at_once / "genes.parquet").to_pandas().set_index("name").sort_index()
    for column in ("n_slides", "n_spots", "n_detected", "sum_counts", "sum_squared_counts"):
        assert found[column].tolist() == expected[column].tolist()
    for column in ("mean_normalized", "var_normalized"):
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-12)


def test_a_merge_that_is_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [
        dataset(tmp_path, "one", [write_slide(tmp_path, i, NAMES) for i in (0, 1)]),
        dataset(tmp_path, "two", [write_slide(tmp_path, i, OTHERS) for i in (2, 3)]),
    ]
    merge(parts, tmp_path / "undisturbed")
    from stpatch.dataset import merge as module

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_card", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            merge(parts, tmp_path / "whole")
    with pytest.raises(StpatchError, match="not empty"):
        merge(parts[::-1], tmp_path / "whole")
    merge(parts, tmp_path / "whole")
    digests = [
        {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.*")}
        for folder in (tmp_path / "whole", tmp_path / "undisturbed")
    ]
    assert digests[0] == digests[1]
    with pytest.raises(StpatchError, match="not empty"):
        merge(parts, tmp_path / "whole")


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    slides = [write_slide(tmp_path, i, NAMES, donor=f"d{i % 3}") for i in range(6)]
    one = dataset(tmp_path, "one", slides[:3])

    def refused(other: Path, **options: Any) -> str:
        with pytest.raises(StpatchError) as caught:
            merge([one, other], tmp_path / "whole", **options)
        assert not (tmp_path / "whole").exists()
        return caught.value.block()

    assert "a slide is in two" in refused(dataset(tmp_path, "same", slides[2:4]))
    kind = refused(dataset(tmp_path, "kind", slides[3:4], crop={"size": [5, 4]}))
    assert "different tensors" in kind
    assert "crop.size: [5, 4]" in kind
    assert "tensor.shape" in kind
    copy = dataset(tmp_path, "copy", [{**slides[0], "slide_id": "copy"}])
    assert "several slide ids" in refused(copy, allow_leak=["donor"])
    train = {split for split, n in read_manifest(one).splits.items() if n.patches}
    assert train == {"train", "test"}
    table = pq.read_table(one / "slides.parquet")
    split_of = dict(zip(table["slide_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    other = "test" if split_of["s0"] == "train" else "train"
    leak = dataset(tmp_path, "leak", slides[3:4], split={"fractions": {other: 1.0}})
    text = refused(leak)
    assert "column 'donor' spans splits" in text
    assert "--allow-leak donor" in text
    assert merge([one, leak], tmp_path / "whole", allow_leak=["donor"]).manifest.patches
    with pytest.raises(StpatchError, match="nothing to merge"):
        merge([one], tmp_path / "alone")


def test_two_versions_are_told_apart(tmp_path: Path) -> None:
    slides = [write_slide(tmp_path, i, NAMES) for i in range(4)]
    one = dataset(tmp_path, "one", slides[:3])
    same = difference(one, one)
    assert not any((same.slides, same.samples, same.genes, same.shards, same.contract, same.moved))
    two = dataset(
        tmp_path,
        "two",
        slides,
        dataset={"name": "one", "version": "2", "extends": str(one)},
        slides={"withdraw": ["s1"]},
    )
    found = difference(one, two)
    assert (found.slides.added, found.slides.removed, found.slides.same) == (("s3",), ("s1",), 2)
    keys = set(contents(one)), set(contents(two))
    assert set(found.samples.added) == keys[1] - keys[0]
    assert set(found.samples.removed) == keys[0] - keys[1]
    assert found.samples.changed == ()
    assert found.genes.same == len(NAMES)
    assert not found.genes
    assert found.shards.changed
    assert found.moved == {}
    other = dataset(tmp_path, "other", slides[:3], split={"fractions": {"test": 1.0}}, channels={"n": 4})
    moved = difference(one, other)
    assert moved.contract["tensor.shape"] == ([5, 4, 4], [4, 4, 4])
    assert moved.moved
    assert set(moved.samples.changed) == {key for key, sample in contents(one).items() if sample["split"] == "train"}
    text = built("diff", one, two).out
    assert "slides: 1 added, 1 removed, 0 changed, 2 the same" in text
    assert json.loads(built("diff", one, two, "--json").out)["slides"]["added"] == ["s3"]
    assert stpatch("diff", one, tmp_path).code == 2


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    parts = [dataset(tmp_path, f"p{i}", [write_slide(tmp_path, i, NAMES)], ingest={"labels": []}) for i in range(2)]
    out = built("merge", *parts, "--output", tmp_path / "whole", "--version", "3").out
    assert "0 written anew" in out
    assert read_manifest(tmp_path / "whole").dataset["version"] == "3"
    built("validate", tmp_path / "whole", "--deep")


@pytest.mark.parametrize("format_", FORMATS)
def test_datasets_of_format_1_are_merged(tmp_path: Path, format_: str) -> None:
    folder = tmp_path / "v1"
    with zipfile.ZipFile(Path(__file__).parents[1] / "earlier" / f"format-1-{format_}.zip") as archive:
        archive.extractall(folder)
    sections = {
        "channels": {"n": 6},
        "crop": {"size": [6, 5], "min_coverage": 0.1},
        "shards": {"format": format_, "patches": 4},
        "split": {"fractions": {"train": 1.0}},
    }
    other = dataset(tmp_path, "other", [write_slide(tmp_path, 7, NAMES)], **sections)
    merge([folder, other], tmp_path / "whole")
    assert [problem.block() for problem in verify(tmp_path / "whole", deep=True)] == []
    assert contents(tmp_path / "whole") == {**contents(folder), **contents(other)}
