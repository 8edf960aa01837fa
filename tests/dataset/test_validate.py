from __future__ import annotations

import numpy as np
import pytest
from bundles.dataset import make_sample, write_dataset

from stpatch.dataset.card import CARD
from stpatch.dataset.content import Facts, check_arrays, check_meta
from stpatch.dataset.manifest import MANIFEST, read_manifest
from stpatch.dataset.sample import encode_meta
from stpatch.dataset.tables import SLIDES, patch_columns, read_table, write_table
from stpatch.dataset.validate import verify
from stpatch.errors import DatasetError

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
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.name != CARD)
    assert len(files) >= 8
    for path in files:
        whole = path.read_bytes()
        name = path.relative_to(tmp_path).as_posix()
        told_damage = [whole[: len(whole) // 2], b"", None]
        if path.name != MANIFEST:  # a text inside the manifest may change and still be a manifest
            told_damage += [flipped(whole, at) for at in (0, len(whole) // 3, len(whole) - 1)]
        for damaged in told_damage:
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            problems = problems_of(tmp_path, deep=deep)
            assert problems, name
            assert any(name in problem for problem in problems) or path.name == MANIFEST
            path.write_bytes(whole)
    assert problems_of(tmp_path) == []


def test_flipped_bytes_of_a_manifest_never_raise_anything_else(tmp_path):
    write_dataset(tmp_path)
    path = tmp_path / MANIFEST
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(flipped(whole, at))
        problems_of(tmp_path, deep=False)


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
