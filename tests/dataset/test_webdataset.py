from __future__ import annotations

import gc

import numpy as np
import pytest
import webdataset as wds
from bundles.dataset import make_sample, write_dataset

from stpatch.dataset.webdataset import stpatch_decoder
from stpatch.errors import ConfigError
from stpatch.registry import ENCODINGS


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its shards to the garbage collector
@pytest.mark.parametrize("encoding", ENCODINGS.own())
def test_webdataset_gives_arrays(tmp_path, encoding):
    manifest = write_dataset(tmp_path, encoding=encoding)
    urls = [str(tmp_path / shard.path) for shard in manifest.splits["train"].shards]
    samples = list(wds.WebDataset(urls, shardshuffle=False).decode(stpatch_decoder(tmp_path)))
    gc.collect()
    assert len(samples) == 6
    for number, sample in enumerate(samples):
        made = make_sample(number, manifest.layout, slide_id=f"s{1 + number % 2}")
        assert sample["__key__"] == made.key
        np.testing.assert_array_equal(sample[f"x.{encoding}"], made.x)
        np.testing.assert_array_equal(sample["genes.npy"], made.genes)
        assert sample["meta.json"]["n_spots"] == made.meta["n_spots"]


def test_samples_of_varying_shape_are_refused(tmp_path):
    write_dataset(tmp_path, variable=True)
    with pytest.raises(ConfigError, match=r"stpatch.open"):
        stpatch_decoder(tmp_path)
