"""A dataset that extends another: everything that a reader of the earlier version relies on stays."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from bundles.built import build, build_job, make_job, poisson_counts, square, write_counts, write_sheet
from commands import built

import stpatch
from stpatch.dataset.manifest import read_manifest
from stpatch.dataset.validate import verify
from stpatch.engine.check import check_settings
from stpatch.engine.graph import STAGES
from stpatch.engine.ranks import Rank
from stpatch.engine.run import run_stages
from stpatch.errors import StpatchError
from stpatch.stages import taken_over

GENES = tuple(f"G{number:03d}" for number in range(30))
FORMATS = ("tar", "zarr")
SPLIT = {"fractions": {"train": 0.5, "val": 0.25, "test": 0.25}}
SECTIONS: dict[str, dict[str, Any]] = {"split": SPLIT, "shards": {"patches": 5}, "ingest": {"labels": ["region"]}}


def write_slide(folder: Path, number: int, *, genes: tuple[str, ...] = GENES, large: int = 0) -> dict[str, str]:
    array = square(9, 8 + number)
    counts = poisson_counts(len(array), len(genes), seed=number)
    counts[0, 0] += large
    regions = [f"rim{number % 3}" if row < 4 else "core" for row in array[:, 0]]
    write_counts(folder / f"s{number}.h5ad", counts, array=array, genes=genes, obs={"region": regions})
    return {"slide_id": f"s{number}", "path": str(folder / f"s{number}.h5ad"), "donor": f"d{number // 2}"}


def extended(folder: Path, parent: Path, rows: list[dict[str, str]], *, version: str = "2.0", **sections: Any) -> Any:
    """Return the job of a version that extends `parent`."""
    folder.mkdir(exist_ok=True)
    dataset = {"version": version, "extends": str(parent), **sections.pop("dataset", {})}
    return make_job(folder, rows, dataset=dataset, **{**SECTIONS, **sections})


def contents(dataset: Path) -> dict[str, dict[str, Any]]:
    """Return what is stored of each sample, by key: its split, gene names and the bytes of its arrays."""
    names = dict(pq.read_table(dataset / "genes.parquet", columns=["gene_id", "name"]).to_pandas().values)
    found = {}
    for split in read_manifest(dataset).splits:
        with stpatch.open(dataset, split) as samples:
            for sample in samples:
                found[sample.key] = {
                    "split": split,
                    "genes": [names.get(int(number), "") for number in sample.genes],
                    "x": sample.x.tobytes(),
                    "totals": sample.totals.tobytes(),
                    "labels": {name: plane.tobytes() for name, plane in sample.labels.items()},
                    "measured": sample.measured.tolist(),
                    "meta": sample.meta,
                }
    return found


def files(dataset: Path) -> dict[str, str]:
    return {
        path.relative_to(dataset).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(dataset.rglob("*"))
        if path.is_file()
    }


def shard_files(dataset: Path) -> dict[str, str]:
    shards = (shard for split in read_manifest(dataset).splits.values() for shard in split.shards)
    return {file.path: file.sha256 for shard in shards for file in shard.files()}


def splits_of(dataset: Path) -> dict[str, str]:
    table = pq.read_table(dataset / "slides.parquet", columns=["slide_id", "split"])
    return dict(zip(table["slide_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def whole(dataset: Path) -> bool:
    problems = [problem.block() for problem in verify(dataset, deep=True)]
    assert problems == []
    return True


@pytest.mark.parametrize(
    ("format_", "scope"),
    [
        ("tar", "patch"),
        ("zarr", "patch"),
        ("zarr", "candidates"),
        ("tar", "panel"),
        ("zarr", "panel"),
        ("tar", "slide"),
    ],
)
def test_what_was_there_stays(tmp_path: Path, format_: str, scope: str) -> None:
    channels = {
        "patch": {"scope": "patch", "n": 5, "draws": 2},
        "candidates": {"scope": "patch", "n": 5, "candidates": {"method": "variance", "n": 12}},
        "panel": {"scope": "panel", "method": "variance", "n": 7},
        "slide": {"scope": "slide", "method": "variance", "n": 7},
    }[scope]
    sections = {**SECTIONS, "shards": {"patches": 5, "format": format_}, "channels": channels}
    rows = [write_slide(tmp_path, number) for number in range(6)]
    first = build(tmp_path, rows, dataset={"version": "1.0", "output": "v1"}, **sections).output
    rows.append(write_slide(tmp_path, 6, genes=("A-new", *GENES[:20], "Z-new")))
    rows.append(write_slide(tmp_path, 5 + 2))
    second = build_job(extended(tmp_path / "two", first, rows, **sections)).output

    assert whole(second)
    before, after = contents(first), contents(second)
    assert {key: after[key] for key in before} == before
    assert {key.split("-")[0] for key in after.keys() - before.keys()} == {"s6", "s7"}
    old_shards = shard_files(first)
    assert old_shards.items() <= shard_files(second).items()
    for path in old_shards:
        assert (second / path).samefile(first / path)
    old, new = (pq.read_table(dataset / "genes.parquet").to_pydict() for dataset in (first, second))
    n_old = len(old["name"])
    for column in set(old) - {"n_slides"}:
        assert new[column][:n_old] == old[column]
    assert new["name"][n_old:] == ["A-new", "Z-new"]
    assert new["gene_id"][n_old:] == [n_old + 1, n_old + 2]
    assert dict(zip(new["name"], new["n_slides"], strict=True))[GENES[25]] == 7
    manifest = read_manifest(second)
    assert manifest.extends is not None
    assert manifest.extends.added == ("s6", "s7")
    assert manifest.extends.manifest == hashlib.sha256((first / "manifest.json").read_bytes()).hexdigest()
    splits = splits_of(second)
    assert splits["s6"] == splits["s7"]  # one donor


def test_a_rebuilt_dataset_draws_the_same_genes(tmp_path: Path) -> None:
    """Draws are keyed by names: more slides, and so other ids, change no draw of a slide that measured the same."""
    rows = [write_slide(tmp_path, number) for number in range(3)]
    few = contents(build(tmp_path, rows, name="few").output)
    rows.append(write_slide(tmp_path, 3, genes=tuple(f"A{number}" for number in range(9)) + GENES[:5]))
    many = contents(build(tmp_path, rows, name="many").output)
    for key, sample in few.items():
        drawn = dict(zip(sample["genes"], range(5), strict=True))
        assert sorted(many[key]["genes"]) == sorted(drawn)


@pytest.mark.parametrize("format_", FORMATS)
def test_withdrawn_slides_are_gone_and_nothing_else(tmp_path: Path, format_: str) -> None:
    sections = {**SECTIONS, "shards": {"patches": 5, "mix": 2, "format": format_}}
    rows = [write_slide(tmp_path, number) for number in range(6)]
    first = build(tmp_path, rows, dataset={"output": "v1", "version": "1"}, **sections).output
    second = build_job(extended(tmp_path / "two", first, rows, slides={"withdraw": ["s2"]}, **sections)).output
    assert whole(second)
    before, after = contents(first), contents(second)
    gone = {key for key in before if key.startswith("s2-")}
    assert gone
    assert after == {key: sample for key, sample in before.items() if key not in gone}
    extends = read_manifest(second).extends
    assert extends is not None
    assert dict(extends.withdrawn) == {"s2": tuple(sorted(gone))}
    held = {row["shard"] for row in pq.read_table(first / "patches.parquet").to_pylist() if row["slide_id"] == "s2"}
    for split in read_manifest(first).splits.values():
        for shard in split.shards:
            for file in shard.files():
                there = (second / file.path).exists()
                assert (there and (second / file.path).samefile(first / file.path)) == (shard.path not in held)
    for path in second.rglob("*"):  # its name is in the record of what went, and nowhere else
        if path.is_file() and path.name != "manifest.json":
            assert b"s2-0000" not in path.read_bytes()
            assert b's2"' not in path.read_bytes()
    assert "s2" not in pq.read_table(second / "slides.parquet")["slide_id"].to_pylist()


@pytest.mark.parametrize("format_", FORMATS)
def test_a_third_version_goes_on_from_holes(tmp_path: Path, format_: str) -> None:
    """Shards that were cut short or went leave their numbers; the next version's shards come after all of them."""
    sections = {
        **SECTIONS,
        "split": {"fractions": {"train": 1.0}},
        "shards": {"patches": 6, "mix": 1, "format": format_},
    }
    rows = [write_slide(tmp_path, number) for number in range(4)]
    first = build(tmp_path, rows, dataset={"output": "v1", "version": "1"}, **sections).output
    second = build_job(extended(tmp_path / "two", first, rows, slides={"withdraw": ["s1", "s3"]}, **sections)).output
    rows.append(write_slide(tmp_path, 4))
    third = build_job(extended(tmp_path / "three", second, rows, version="3", **sections))
    assert whole(third.output)
    kept = {key: sample for key, sample in contents(first).items() if key[:2] in ("s0", "s2")}
    found = contents(third.output)
    assert {key: sample for key, sample in found.items() if key[:2] != "s4"} == kept
    assert any(key.startswith("s4-") for key in found)
    card = (third.output / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=third.output, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[0] == next(iter(found))
    numbers = [shard.path for shard in read_manifest(third.output).splits["train"].shards]
    assert len(numbers) == len(set(numbers))


def test_workers_and_ranks_give_the_same_bytes(tmp_path: Path) -> None:
    rows = [write_slide(tmp_path, number) for number in range(5)]
    first = build(tmp_path, rows[:4], dataset={"output": "v1", "version": "1"}, **SECTIONS).output
    one = build_job(extended(tmp_path / "a", first, rows, slides={"withdraw": ["s0"]}))
    two = build_job(extended(tmp_path / "b", first, rows, slides={"withdraw": ["s0"]}), workers=2)
    ranks = extended(tmp_path / "c", first, rows, slides={"withdraw": ["s0"]})
    for stage in STAGES:
        for rank in range(3):
            run_stages(ranks, [stage], progress=silent, rank=Rank(rank=rank, world_size=3), workers=1)
    assert files(one.output) == files(two.output) == files(ranks.output)


def silent(*_: object) -> Any:
    from contextlib import nullcontext
    from types import SimpleNamespace

    return nullcontext(SimpleNamespace(update=lambda _n: None))


def test_a_build_that_is_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [write_slide(tmp_path, number) for number in range(5)]
    first = build(tmp_path, rows[:4], dataset={"output": "v1", "version": "1"}, **SECTIONS).output
    undisturbed = files(build_job(extended(tmp_path / "a", first, rows)).output)
    job = extended(tmp_path / "b", first, rows)
    calls = iter(range(100))

    def stop(real: Any, *arguments: Any, **keywords: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(taken_over, "_link", partial(stop, taken_over._link))
        with pytest.raises(KeyboardInterrupt):
            build_job(job)
    assert files(build_job(extended(tmp_path / "b", first, rows)).output) == undisturbed


def test_without_hard_links_shards_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [write_slide(tmp_path, number) for number in range(3)]
    first = build(tmp_path, rows[:2], dataset={"output": "v1", "version": "1"}, **SECTIONS).output

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    second = build_job(extended(tmp_path / "two", first, rows)).output
    assert whole(second)
    for path, sha256 in shard_files(first).items():
        assert not (second / path).samefile(first / path)
        assert hashlib.sha256((second / path).read_bytes()).hexdigest() == sha256


def test_new_categories_come_after_the_known_ones(tmp_path: Path) -> None:
    rows = [write_slide(tmp_path, number) for number in (1, 2)]
    first = build(tmp_path, rows, dataset={"output": "v1", "version": "1"}, **SECTIONS).output
    assert read_manifest(first).labels["region"] == ["core", "rim1", "rim2"]
    second = build_job(extended(tmp_path / "two", first, [*rows, write_slide(tmp_path, 3)])).output
    assert read_manifest(second).labels["region"] == ["core", "rim1", "rim2", "rim0"]
    assert whole(second)


def test_columns_may_be_those_of_the_earlier_slides(tmp_path: Path) -> None:
    """A version that only withdraws lists no new slide, so that the parent alone has the columns."""
    split = {**SPLIT, "by": "donor", "allow_leak": ["donor"]}
    rows = [write_slide(tmp_path, number) for number in range(4)]
    first = build(tmp_path, rows, dataset={"output": "v1", "version": "1"}, **{**SECTIONS, "split": split}).output
    job = extended(tmp_path / "two", first, rows, split=split, slides={"withdraw": ["s1"]})
    assert check_settings(job) == []
    assert whole(build_job(job).output)


def test_a_corpus_median_stays(tmp_path: Path) -> None:
    sections = {**SECTIONS, "normalize": {"target_sum": "corpus_median"}}
    rows = [write_slide(tmp_path, number) for number in range(2)]
    first = build(tmp_path, rows, dataset={"output": "v1", "version": "1"}, **sections).output
    rows.append(write_slide(tmp_path, 2, large=10_000))
    second = build_job(extended(tmp_path / "two", first, rows, **sections)).output
    assert len(set(pq.read_table(second / "slides.parquet")["target_sum"].to_pylist())) == 1


@pytest.fixture
def parent(tmp_path: Path) -> tuple[Path, list[dict[str, str]]]:
    rows = [write_slide(tmp_path, number) for number in range(3)]
    return build(tmp_path, rows, dataset={"output": "v1", "version": "1.0"}, **SECTIONS).output, rows


def refusal(job: Any) -> str:
    problems = check_settings(job)
    assert problems
    return "\n".join(problem.block() for problem in problems)


@pytest.mark.parametrize(
    ("sections", "keys"),
    [
        ({"channels": {"n": 6}}, ["channels.n: 6", "channels.n: 5"]),
        ({"channels": {"n": 5, "draws": 2}}, ["channels.draws: 2"]),
        ({"channels": {"n": 5, "scope": "panel", "method": "variance"}}, ["channels.scope: panel", "channels.method"]),
        ({"crop": {"size": [4, 5]}}, ["crop.size: [4, 5]"]),
        ({"grid": {"method": "fit", "size": 9}}, ["grid.method: fit", "grid.size: 9"]),
        ({"normalize": {"target_sum": 1000.0}}, ["normalize.target_sum: 1000.0"]),
        ({"normalize": {"method": "none"}}, ["normalize.method: none"]),
        ({"shards": {"patches": 6}}, ["shards.patches: 6"]),
        ({"shards": {"patches": 5, "format": "zarr"}}, ["shards.format: zarr"]),
        ({"shards": {"patches": 5, "encoding": "npy"}}, ["shards.encoding: npy"]),
        ({"shards": {"patches": 5, "values": "normalized"}}, ["shards.values: normalized", "shards.dtype: float32"]),
        ({"ingest": {"labels": []}}, ["ingest.labels: []"]),
        ({"ingest": {"labels": ["region"], "genes": {"identity": "ensembl"}}}, ["ingest.genes.identity: ensembl"]),
        ({"dataset": {"seed": 7}}, ["dataset.seed: 7"]),
    ],
)
def test_what_contradicts_the_tensors_is_named(
    tmp_path: Path, parent: tuple[Path, list[dict[str, str]]], sections: dict[str, Any], keys: list[str]
) -> None:
    folder, rows = parent
    text = refusal(extended(tmp_path / "two", folder, [*rows, write_slide(tmp_path, 3)], **sections))
    assert "contradicts" in text
    for key in keys:
        assert key in text
    assert "hint:" in text


def test_what_cannot_be_extended_is_refused(tmp_path: Path, parent: tuple[Path, list[dict[str, str]]]) -> None:
    folder, rows = parent
    new = write_slide(tmp_path, 3)
    two = partial(extended, tmp_path / "two", folder)
    assert "nothing new" in refusal(two(rows))
    assert "another version's name" in refusal(two([*rows, new], version="1.0"))
    assert "no such slide" in refusal(two([*rows, new], slides={"withdraw": ["s11"]}))
    assert "did you mean 's1'" in refusal(two([*rows, new], slides={"withdraw": ["s11"]}))
    assert "written over" in refusal(two([*rows, new], dataset={"output": str(folder)}))
    assert "one sample key" in refusal(two([{**new, "slide_id": "S1"}]))
    assert "not a dataset" in refusal_of_parent(extended(tmp_path / "two", tmp_path / "none", [new]))
    (tmp_path / "s1.h5ad").write_bytes((tmp_path / "s1.h5ad").read_bytes() + b"\0")
    assert "other files now" in refusal(two([*rows, new]))


def refusal_of_parent(job: Any) -> str:
    with pytest.raises(StpatchError) as caught:
        _ = job.parent
    return caught.value.block()


def test_one_section_under_a_new_name_is_refused(tmp_path: Path, parent: tuple[Path, list[dict[str, str]]]) -> None:
    folder, rows = parent
    copy = {**rows[0], "slide_id": "copy"}
    job = extended(tmp_path / "two", folder, [*rows, copy])
    with pytest.raises(StpatchError, match="several slide ids"):
        build_job(job)
    allowed = extended(tmp_path / "three", folder, [*rows, copy], dataset={"allow_duplicates": ["copy"]})
    assert whole(build_job(allowed).output)


def test_counts_that_do_not_fit_are_refused(tmp_path: Path, parent: tuple[Path, list[dict[str, str]]]) -> None:
    folder, rows = parent
    with pytest.raises(StpatchError, match="larger than the dataset that is extended can hold"):
        build_job(extended(tmp_path / "two", folder, [*rows, write_slide(tmp_path, 3, large=70_000)]))


def test_a_damaged_parent_is_told(tmp_path: Path, parent: tuple[Path, list[dict[str, str]]]) -> None:
    folder, rows = parent
    shard = next(iter(shard_files(folder)))
    (folder / shard).write_bytes((folder / shard).read_bytes()[:-1])
    with pytest.raises(StpatchError, match="cut short or damaged"):
        build_job(extended(tmp_path / "two", folder, [*rows, write_slide(tmp_path, 3)]))


def test_a_slide_that_ties_two_splits_together_is_refused(tmp_path: Path) -> None:
    rows = [{**write_slide(tmp_path, number), "donor": f"d{number}", "block": f"b{number}"} for number in range(4)]
    first = build(tmp_path, rows, dataset={"output": "v1", "version": "1"}, **SECTIONS).output
    splits = splits_of(first)
    one = next(slide_id for slide_id, split in splits.items() if split == "train")
    other = next(slide_id for slide_id, split in splits.items() if split == "test")
    tie = {**write_slide(tmp_path, 4), "donor": f"d{one[1:]}", "block": f"b{other[1:]}"}
    with pytest.raises(StpatchError, match="join groups that an earlier version has in different splits"):
        build_job(extended(tmp_path / "two", first, [*rows, tie]))


@pytest.mark.parametrize("format_", FORMATS)
def test_a_dataset_of_format_1_can_be_extended(tmp_path: Path, format_: str) -> None:
    folder = tmp_path / "v1"
    with zipfile.ZipFile(Path(__file__).parents[1] / "earlier" / f"format-1-{format_}.zip") as archive:
        archive.extractall(folder)
    assert whole(folder)
    before = contents(folder)
    assert len(before) == 22
    sections = {
        "dataset": {"seed": 3, "name": "earlier"},
        "channels": {"scope": "patch", "method": "variance_sampled", "n": 6},
        "crop": {"size": [6, 5], "min_coverage": 0.1},
        "split": {"by": "donor", **SPLIT},
        "shards": {"format": format_, "patches": 4},
    }
    second = build_job(extended(tmp_path / "two", folder, [write_slide(tmp_path, 9)], **sections)).output
    assert whole(second)
    after = contents(second)
    assert {key: after[key] for key in before} == before
    assert any(key.startswith("s9-") for key in after)


def test_commands_say_what_is_new_and_what_stays(tmp_path: Path, parent: tuple[Path, list[dict[str, str]]]) -> None:
    folder, rows = parent
    sheet = write_sheet(tmp_path, [*rows, write_slide(tmp_path, 3)])
    value = {
        "dataset": {"name": "tiny", "version": "2", "output": "v2", "extends": folder.name},
        "slides": {"sheet": sheet.name, "withdraw": ["s0"]},
        "channels": {"n": 5},
        "crop": {"size": [4, 4], "min_coverage": 0},
        "run": {"workers": 1},
        **SECTIONS,
    }
    config = tmp_path / "v2.yaml"
    config.write_text(yaml.safe_dump(value))
    for words in (("check", config), ("plan", config, "--estimate"), ("plan", config, "-q")):
        said = built(*words).out
        assert "extends tiny 1.0" in said
        assert "2 slides and" in said
        assert "withdrawn: s0; " in said
        assert "new: 1 slides (splits: " in said
    done = built("build", config, "-q")
    assert "note: withdrawn: s0" in done.err
    samples = {name: split.patches for name, split in read_manifest(tmp_path / "v2").splits.items()}
    assert all(f"{name} {count}" in done.out for name, count in samples.items())
    assert "up to date" in built("build", config, "-q").out
    assert built("status", config).out
    assert built("inspect", tmp_path / "v2").out
