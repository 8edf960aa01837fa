"""webdataset in several processes, its indexed reader, and a loop of NumPy arrays as JAX takes them."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import webdataset
from bundles.dataset import make_sample, write_dataset

import stpatch
from stpatch.dataset.order import Order
from stpatch.dataset.webdataset import stpatch_decoder

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # webdataset and wids leave shards to the garbage collector
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more workers than processors
]


@pytest.fixture(autouse=True)
def _no_shard_stays_open():
    yield
    gc.collect()


def stream(folder, manifest, **options):
    urls = [str(folder / shard.path) for shard in manifest.splits["train"].shards]
    return webdataset.WebDataset(urls, shardshuffle=False, **options).decode(stpatch_decoder(folder))


def test_as_many_workers_as_shards_read_everything_once(tmp_path):
    data = pytest.importorskip("torch.utils.data", reason="torch is not installed")
    manifest = write_dataset(tmp_path)
    loader = data.DataLoader(stream(tmp_path, manifest), batch_size=None, num_workers=2)
    assert sorted(sample["__key__"] for sample in loader) == sorted(
        make_sample(number, manifest.layout, slide_id=f"s{1 + number % 2}").key for number in range(6)
    )


def test_more_workers_than_shards_are_an_error_unless_shards_are_resampled(tmp_path):
    data = pytest.importorskip("torch.utils.data", reason="torch is not installed")
    manifest = write_dataset(tmp_path)
    assert len(manifest.splits["train"].shards) == 2
    assert "split train has 2" in (tmp_path / "README.md").read_text()
    with pytest.raises(ValueError, match="fewer shards than workers"):
        list(data.DataLoader(stream(tmp_path, manifest), batch_size=None, num_workers=3))
    again = stream(tmp_path, manifest, resampled=True).with_epoch(4)
    assert len(list(data.DataLoader(again, batch_size=None, num_workers=3))) == 12


def test_wids_reads_by_number(tmp_path):
    wids = pytest.importorskip("wids", reason="wids is not installed: webdataset brought it along before version 1.0")
    manifest = write_dataset(tmp_path, encoding="npy")
    samples = wids.ShardListDataset(str(tmp_path / "index" / "train.json"), transformations=[], localname=str)
    assert len(samples) == 6
    for number in (5, 0, 4):
        made = make_sample(number, manifest.layout, slide_id=f"s{1 + number % 2}")
        np.testing.assert_array_equal(np.load(samples[number][".x.npy"]), made.x)


def test_a_loop_of_numpy_arrays_is_shared_by_ranks(tmp_path):
    """What a JAX loop does: each process takes its share of one order, and hands plain arrays on."""
    write_dataset(tmp_path, counts={"train": 11})
    dataset = stpatch.open(tmp_path, split="train", values="normalized")
    order = Order(samples=len(dataset), batch_size=2, seed=3)
    epoch = order.epoch(0)
    seen = []
    for rank in range(3):
        for position in order.share(rank=rank, ranks=3):
            numbers, valid = epoch.batch(position)
            batch = dataset.batch(numbers)
            assert type(batch.x) is np.ndarray
            assert batch.x.flags.c_contiguous
            assert batch.x.dtype == np.float32
            seen += np.asarray(batch.keys)[valid].tolist()
    assert sorted(seen) == sorted(dataset.table["key"].to_pylist())
