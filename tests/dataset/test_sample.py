from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from bundles.dataset import make_layout, make_sample, write_shard

from stpatch.dataset.codecs import decode
from stpatch.dataset.sample import check_key, field_names, label_name
from stpatch.errors import ConfigError, DatasetError
from stpatch.registry import ENCODINGS, FORMATS


@pytest.mark.parametrize("encoding", ENCODINGS.own())
def test_fields_are_in_order_and_decode(encoding):
    layout = make_layout(encoding=encoding, labels=("b", "a"))
    sample = make_sample(1, layout)
    fields = FORMATS.get("tar").encode(sample, layout)
    assert tuple(fields) == (f"x.{encoding}", "totals.npy", "genes.npy", "label_a.npy", "label_b.npy", "meta.json")
    assert tuple(fields) == layout.fields == field_names(encoding, genes=True, labels=("a", "b"))
    x = decode(fields[f"x.{encoding}"], encoding, dtype="uint16", shape=layout.shape)
    np.testing.assert_array_equal(x, sample.x)
    np.testing.assert_array_equal(decode(fields["totals.npy"], "npy"), sample.totals)
    np.testing.assert_array_equal(decode(fields["label_a.npy"], "npy"), sample.labels["a"])
    assert json.loads(fields["meta.json"]) == {"key": "s1-000001", **sample.meta}


def test_a_varying_shape_is_told():
    layout = make_layout(variable=True)
    sample = make_sample(2, layout)
    meta = json.loads(FORMATS.get("tar").encode(sample, layout)["meta.json"])
    assert tuple(meta["shape"]) == sample.x.shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((2, 2), "u2")}, "x does not fit"),
        ({"genes": None}, "other planes"),
        ({"further": {"cells": np.zeros((3, 5))}}, "other planes"),
        ({"totals": np.zeros((3, 5))}, "totals does not fit"),
        ({"genes": np.zeros(3, "i4")}, "genes does not fit"),
        ({"labels": {"region": np.zeros((3, 5), "i4")}}, "label_region does not fit"),
    ],
)
@pytest.mark.parametrize("format_", [name for name in FORMATS.own() if not FORMATS.get(name).whole_slides])
@pytest.mark.parametrize("variable", [False, True])
def test_contradicting_arrays_are_refused(change, message, format_, variable):
    layout = make_layout(variable=variable)
    with pytest.raises(DatasetError, match=message):
        FORMATS.get(format_).encode(replace(make_sample(0, layout), **change), layout)


def test_samples_that_do_not_fit_the_layout_are_refused(tmp_path):
    layout = make_layout()
    for other in ({"dtype": "uint32"}, {"genes": False}, {"labels": ()}, {"shape": (4, 3, 4)}):
        with pytest.raises(DatasetError):
            write_shard(tmp_path, [make_sample(0, make_layout(**other))], split="train", number=0, layout=layout)
    for samples in ([], [make_sample(number, layout) for number in range(5)]):
        with pytest.raises(DatasetError, match="no samples or too many"):
            write_shard(tmp_path, samples, split="train", number=0, layout=layout)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_keys_and_names():
    assert check_key("a-1_b") == "a-1_b"
    for key in ("", "A", "a.b", "_a", "a/b", "ä"):
        with pytest.raises(ConfigError):
            check_key(key)
    check_key("a" * 90)
    with pytest.raises(ConfigError, match="too long"):
        check_key("a" * 91)
    with pytest.raises(ConfigError, match="too long"):
        check_key("a" * 90, ["x.blosc", "label_a.npy"])
    assert label_name(" Cell type ") == "cell-type"
