from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpatch.errors import DatasetError
from stpatch.pipeline.encoder import encoded_ahead
from stpatch.pipeline.spool import Spool
from stpatch.shards.layout import Layout
from stpatch.shards.sample import Sample
from stpatch.shards.shard import encode_sample

LAYOUT = Layout(
    format="tar", encoding="blosc", dtype="uint16", shape=(3, 2, 2), patches=64, labels=(), genes=False, variable=False
)


def make_sample(number: int, channels: int = 3) -> Sample:
    x = np.random.default_rng(number).integers(0, 9, (channels, 2, 2)).astype(np.uint16)
    return Sample(key=f"a-{number}", x=x, totals=np.ones((2, 2), np.float32), meta={"slide_id": "a"})


@given(st.permutations(range(12)), st.integers(0, 200))
def test_a_spool_gives_back_all_samples_in_order(tmp_path_factory, order, in_memory):
    folder = tmp_path_factory.mktemp("spool") / "new"
    samples = {place: {"x": bytes([place]) * (place * 3), "y": b""} for place in order}
    with Spool(folder, in_memory=in_memory) as spool:
        for place in order:
            spool.put(place, f"k{place}", dict(samples[place]))
        assert list(spool.in_order()) == [(f"k{place}", samples[place]) for place in range(12)]
    assert not folder.exists() or not list(folder.iterdir())


def test_what_fits_into_memory_makes_no_file(tmp_path):
    with Spool(tmp_path / "spool") as spool:
        spool.put(0, "k", {"x": b"abc"})
        assert list(spool.in_order()) == [("k", {"x": b"abc"})]
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_samples_are_encoded_in_order_with_and_without_a_thread(thread, count):
    samples = [(7 * i % 23, make_sample(i)) for i in range(count)]
    expected = [(place, sample.key, encode_sample(sample, LAYOUT)) for place, sample in samples]
    assert list(encoded_ahead(iter(samples), LAYOUT, thread=thread)) == expected


@pytest.mark.parametrize("thread", [False, True])
def test_a_fault_of_one_sample_is_raised(thread):
    samples = [(0, make_sample(0)), (1, make_sample(1, channels=2)), (2, make_sample(2))]
    with pytest.raises(DatasetError, match="x does not fit the dataset"):
        list(encoded_ahead(samples, LAYOUT, thread=thread))
