from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bundles.dataset import make_sample, write_dataset

import stpatch
from stpatch.dataset.content import Facts, check_arrays, check_meta
from stpatch.dataset.manifest import MANIFEST, manifest_digest, read_manifest
from stpatch.dataset.sample import encode_meta
from stpatch.dataset.tables import GENES, SLIDES, patch_columns, read_table, write_table
from stpatch.dataset.validate import verify
from stpatch.errors import DatasetError
from stpatch.storage import write_json

KINDS = [
    {"format": format_, "encoding": encoding, **more}
    for format_ in ("tar", "zarr")
    for encoding in ("blosc", "npy", "sparse")
    for more in ({}, {"genes": False, "labels": ()}, {"variable": True})
]


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 2]) + data[at + 1 :]


def problems_of(folder, *, deep=True):
    return [problem.block() for problem in verify(folder, deep=deep)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_a_whole_dataset_has_no_problem(tmp_path, kind):
    write_dataset(tmp_path, **kind)
    seen = []
    assert list(verify(tmp_path, deep=True, progress=seen.append)) == []
    assert MANIFEST in seen
    assert "patches.parquet" in seen


@pytest.mark.parametrize("format_", ["tar", "zarr"])
@pytest.mark.parametrize("deep", [False, True])
def test_damage_of_any_file_is_told_and_never_raises(tmp_path, format_, deep):
    write_dataset(tmp_path, format=format_)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) >= 8
    for path in files:
        whole = path.read_bytes()
        name = path.relative_to(tmp_path).as_posix()
        flips = [flipped(whole, at) for at in (0, len(whole) // 3, len(whole) - 1)]
        for damaged in [whole[: len(whole) // 2], b"", None, *flips]:
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            problems = problems_of(tmp_path, deep=deep)
            assert problems, name
            assert any(name in problem for problem in problems) or path.name == MANIFEST
            path.write_bytes(whole)
    assert problems_of(tmp_path) == []


def test_every_flipped_byte_of_a_manifest_is_told(tmp_path):
    write_dataset(tmp_path)
    path = tmp_path / MANIFEST
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(flipped(whole, at))
        assert problems_of(tmp_path, deep=False), at


def test_a_stray_shard_is_told(tmp_path):
    write_dataset(tmp_path)
    (tmp_path / "train" / "train-000009.tar").write_bytes(b"")
    (problem,) = problems_of(tmp_path)
    assert "not in the manifest" in problem
    assert "train-000009" in problem


def change_table(folder, name, columns, change):
    """Rewrite a table and the manifest's record of it, so that only the rows are wrong."""
    values = read_table(folder / f"{name}.parquet", columns).to_pydict()
    change(values)
    record = write_table(folder, name, columns, values)
    manifest = read_manifest(folder)
    manifest.model_copy(update={"tables": {**manifest.tables, name: record}}).write(folder)


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("key", 1, "s1-000000", "a key is there twice"),
        ("slide_id", 0, "s9", "unknown slide"),
        ("index", 2, 5, "index is wrong"),
        ("offset", 1, 512, "offset, nbytes is wrong"),
        ("nbytes", 5, 10**12, "offset, nbytes is wrong"),
        ("shard", 0, "../x.tar", "shard is wrong"),
        ("coverage", 0, 1.5, "coverage is wrong"),
        ("coverage", 2, 0.2, "pixels have counts, the row tells of"),
        ("coverage", 5, 1.0, "occupied pixels, but of"),
        ("coverage", 2, 0.7, "not a whole number of the patch's 15 pixels"),
        ("n_spots", 3, 1, "spots"),
        ("row", 3, 77, "disagree on row: 3 and 77"),
        ("split", 0, "val", "split's patches"),
        ("split", 0, "nowhere", "not in the manifest"),
    ],
)
def test_rows_that_differ_from_the_shards_are_told(tmp_path, column, row, value, message):
    manifest = write_dataset(tmp_path)
    change_table(
        tmp_path, "patches", patch_columns(manifest.layout), lambda values: values[column].__setitem__(row, value)
    )
    problems = problems_of(tmp_path)
    assert any(message in problem for problem in problems), problems


def test_slides_that_differ_from_the_patches_are_told(tmp_path):
    write_dataset(tmp_path)
    change_table(tmp_path, "slides", SLIDES, lambda values: values["patches"].__setitem__(1, 9))
    (problem,) = problems_of(tmp_path)
    assert "disagree on a slide's patches" in problem
    assert "slide s2" in problem


def facts_and_row(manifest, sample):
    facts = Facts(
        manifest=manifest, gene_ids=np.arange(1, 10, dtype=np.int32), measured={"s1": b"\xff\xff", "s2": b"\x1e"}
    )
    return facts, {"key": sample.key, **sample.meta, "coverage": sample.meta["n_spots"] / sample.totals.size}


def test_contents_that_contradict_each_other_are_told(tmp_path):
    manifest = write_dataset(tmp_path)
    sample = make_sample(1, manifest.layout)
    facts, row = facts_and_row(manifest, sample)
    good = {"x": sample.x, "totals": sample.totals, "genes": sample.genes, "label_region": sample.labels["region"]}
    assert list(check_arrays(good, row, facts)) == []
    empty = np.zeros_like(sample.totals)
    cases = {
        "not numbers": {"totals": np.full_like(sample.totals, np.nan)},
        "x has values where": {"totals": empty},
        "sums to more": {"x": sample.x + np.uint16(5)},
        "pixels have counts": {"totals": sample.totals + 1},
        "does not have": {"genes": np.array([1, 2, 3, 10], np.int32)},
        "twice": {"genes": np.array([1, 2, 3, 3], np.int32)},
        "not sorted": {"genes": np.array([1, 2, 4, 3], np.int32)},
        "outside of its 2 categories": {"label_region": np.full((3, 5), 2, np.int16)},
    }
    row_with_holes = {**row, "n_spots": 1} if row["n_spots"] == sample.totals.size else row
    for message, change in cases.items():
        told = list(check_arrays({**good, **change}, row_with_holes, facts))
        assert any(message in what for what in told), (message, told)
    told = list(check_arrays({**good, "genes": np.array([5, 6, 7, 8], np.int32)}, {**row, "slide_id": "s2"}, facts))
    assert told == ["x has counts of a gene that its slide did not measure"]


def test_meta_that_differs_is_told(tmp_path):
    manifest = write_dataset(tmp_path)
    sample = make_sample(1, manifest.layout)
    facts, row = facts_and_row(manifest, sample)
    data = encode_meta(sample, manifest.layout)
    assert check_meta(data, row, facts) == []
    assert check_meta(data, {**row, "col": 9}, facts) == ["meta.json and the row disagree on col: 3 and 9"]
    assert check_meta(b"{", row, facts) == ["meta.json is not JSON"]
    assert check_meta(b"[]", row, facts) == ["meta.json is not a mapping"]


def test_a_spot_without_counts_is_no_problem(tmp_path):
    manifest = write_dataset(tmp_path)
    sample = make_sample(1, manifest.layout)
    facts, row = facts_and_row(manifest, sample)
    more = {**row, "n_spots": row["n_spots"] + 3, "coverage": 1.0}
    assert list(check_arrays({"x": sample.x, "totals": sample.totals}, more, facts)) == []


def test_no_dataset(tmp_path):
    (problem,) = verify(tmp_path)
    assert isinstance(problem, DatasetError)
    assert "not a dataset" in problem.what


EARLIER = Path(__file__).parents[1] / "earlier"


@pytest.mark.parametrize("name", ["format-1-tar", "format-1-zarr"])
def test_datasets_of_format_1_are_read_and_validated(tmp_path, name):
    with zipfile.ZipFile(EARLIER / f"{name}.zip") as archive:
        archive.extractall(tmp_path)
    (manifest,) = tmp_path.rglob(MANIFEST)
    assert problems_of(manifest.parent) == []
    with stpatch.open(manifest.parent, "train", values="normalized") as dataset:
        assert len(dataset[0].x) == 6


def reseal(folder, change):
    """Edit the manifest's values, and make its digest anew."""
    value = json.loads((folder / MANIFEST).read_text())
    change(value)
    value["digest"] = manifest_digest(value)
    write_json(folder / MANIFEST, value)


@pytest.mark.parametrize("place", ["notes.txt", "index/more.json", "train/x.tar", "val/sub/file"])
def test_files_that_the_manifest_does_not_name_are_told(tmp_path, place):
    write_dataset(tmp_path)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(b"x")
    (problem,) = problems_of(tmp_path)
    assert "not in the manifest" in problem
    assert place in problem
    (tmp_path / place).unlink()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_bytes(b"")
    assert problems_of(tmp_path) == []


def test_links_and_pipes_are_refused_and_not_followed(tmp_path):
    folder, outside = tmp_path / "dataset", tmp_path / "outside"
    write_dataset(folder)
    for name in (MANIFEST, "genes.parquet", "README.md", "train/train-000000.tar"):
        path = folder / name
        path.rename(outside)
        path.symlink_to(outside)
        assert any("a link is not part of a dataset" in problem for problem in problems_of(folder)), name
        path.unlink()
        os.mkfifo(path)
        assert problems_of(folder), name
        path.unlink()
        outside.rename(path)
    (folder / "train").rename(outside)
    (folder / "train").symlink_to(outside, target_is_directory=True)
    assert any("a link is not part" in problem for problem in problems_of(folder))


def test_the_digest_and_the_work_dir_tell_an_edit_that_nothing_else_does(tmp_path):
    folder, work = tmp_path / "dataset", tmp_path / "work"
    manifest = write_dataset(folder)
    manifest.write(work)
    assert list(verify(folder, work=work, digest=manifest.digest)) == []
    reseal(folder, lambda value: value["labels"]["region"].reverse())
    assert problems_of(folder) == []
    assert any("another dataset" in problem.what for problem in verify(folder, digest=manifest.digest))
    (problem,) = verify(folder, work=work)
    assert problem.found == "labels"


@pytest.mark.parametrize(
    "change",
    [
        b"",
        b"{}",
        b"null",
        lambda value: value.update(shape=[10**12, *value["shape"][1:]]),
        lambda value: value.update(fill_value=7),
        lambda value: value.update(data_type="float64"),
        lambda value: value.update(codecs=[]),
        lambda value: value["chunk_key_encoding"]["configuration"].update(separator="."),
        lambda value: value.update(attributes={"a": 1}),
    ],
)
def test_what_plain_zarr_would_read_otherwise_is_told(tmp_path, change):
    write_dataset(tmp_path, format="zarr")
    path = tmp_path / "train.zarr" / "x" / "zarr.json"
    if callable(change):
        value = json.loads(path.read_bytes())
        change(value)
        change = json.dumps(value).encode()
    path.write_bytes(change)
    reseal(tmp_path, lambda value: _record(value, "train.zarr/x/zarr.json", change))
    assert any("zarr" in problem for problem in problems_of(tmp_path))


def _record(value, path, data):
    (entry,) = (entry for entry in value["files"] if entry["path"] == path)
    entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("column", ["key", "row", "col", "slide_id"])
def test_swapped_rows_of_zarr_samples_are_told(tmp_path, column):
    manifest = write_dataset(tmp_path, format="zarr")

    def swap(values):
        cells = values[column]
        cells[0], cells[1] = cells[1], cells[0]

    change_table(tmp_path, "patches", patch_columns(manifest.layout), swap)
    assert problems_of(tmp_path) != []


@pytest.mark.parametrize(
    ("table", "column", "row", "value", "message"),
    [
        ("slides", "slide_id", 0, "../s1", "not fit for a file name"),
        ("slides", "split", 1, "val", "disagree on a slide's split"),
        ("slides", "spots", 0, 1, "more spots than its slide"),
        ("slides", "rows", 0, 1, "beside its slide's grid"),
        ("slides", "metadata", 0, "[", "metadata is not JSON"),
        ("slides", "inputs", 0, "{}", "inputs is not JSON"),
        ("slides", "target_sum", 0, -1.0, "target_sum is wrong"),
        ("slides", "measured", 0, b"\xff", "measured genes are wrong"),
        ("slides", "measured", 1, b"\xfe\x03", "disagree on a gene's n_slides"),
        ("genes", "gene_id", 8, 2**31 - 1, "gene ids are wrong"),
        ("genes", "name", 1, "G1", "gene names are wrong"),
        ("genes", "n_slides", 0, 1, "disagree on a gene's n_slides"),
        ("genes", "n_spots", 0, 1900, "disagree on a gene's n_spots"),
        ("genes", "sum_counts", 0, 1e9, "sum_squared_counts, sum_counts cannot be"),
        ("genes", "var_normalized", 0, -1.0, "var_normalized cannot be"),
        ("genes", "channel", 0, 1, "genes have channels"),
    ],
)
def test_tables_that_contradict_each_other_are_told(tmp_path, table, column, row, value, message):
    write_dataset(tmp_path)
    columns = {"slides": SLIDES, "genes": GENES}[table]
    change_table(tmp_path, table, columns, lambda values: values[column].__setitem__(row, value))
    problems = problems_of(tmp_path)
    assert any(message in problem for problem in problems), problems


def test_a_huge_shape_is_told_before_anything_is_allocated(tmp_path):
    for format_ in ("tar", "zarr"):
        for encoding in ("blosc", "npy", "sparse"):
            folder = tmp_path / f"{format_}-{encoding}"
            write_dataset(folder, format=format_, encoding=encoding)
            reseal(folder, lambda value: value["tensor"].update(shape=[4, 300_000, 300_000]))
            tracemalloc.start()
            assert problems_of(folder)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 1 << 28
