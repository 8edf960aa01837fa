from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles.dataset import write_dataset

import stpatch
from stpatch.errors import ConfigError

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader  # noqa: E402

from stpatch.torch import PatchDataset, PatchLoader, PatchSamples, densify  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on machines of few cores

COUNT, SIZE = 23, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    write_dataset(folder, counts={"train": COUNT}, shape=(4, 3, 3))
    return folder


def data_of(folder, **changes):
    return PatchDataset(stpatch.open(folder, values="normalized"), **{"batch_size": SIZE, "seed": 1, **changes})


def told(batches):
    """Return what batches hold, for comparison."""
    return [(b.epoch, b.position, b.numbers.tolist(), b.valid.tolist(), b.x.sum().item()) for b in batches]


def valid(batches):
    return [int(number) for batch in batches for number in batch.numbers[batch.valid]]


def test_a_batch_is_what_the_dataset_holds(folder):
    dataset = stpatch.open(folder, values="normalized")
    batches = list(data_of(folder))
    assert sorted(valid(batches)) == list(range(COUNT))
    for batch in batches:
        assert batch.x.dtype == torch.float32
        for row, number in enumerate(batch.numbers.tolist()):
            sample = dataset[number]
            assert batch.keys[row] == sample.key
            np.testing.assert_array_equal(batch.x[row], sample.x)
            np.testing.assert_array_equal(batch.totals[row], sample.totals)
            np.testing.assert_array_equal(batch.occupied[row], sample.totals > 0)
            np.testing.assert_array_equal(batch.genes[row], sample.genes)
            np.testing.assert_array_equal(batch.measured[row], dataset.measured(number) & (sample.genes != 0))
            np.testing.assert_array_equal(batch.labels["region"][row], sample.labels["region"])
    assert not all(batch.measured.all() for batch in batches)
    moved = batches[0].to("meta")
    assert moved.x.is_meta
    assert moved.labels["region"].is_meta
    assert next(iter(PatchDataset(stpatch.open(folder), batch_size=2))).x.dtype == torch.int32  # counts


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_the_same_batches(folder, context):
    data = data_of(folder, symmetry="all", channels=3, balance="slide_id", temperature=0.5)
    expected = [told(data)]
    data.set_epoch(1)
    expected.append(told(data))
    assert expected[0] != expected[1]
    data.set_epoch(0)
    options = {"batch_size": None, "num_workers": 2, "multiprocessing_context": context, "persistent_workers": True}
    loader = DataLoader(data, **options)
    for epoch in (0, 1):  # workers that persist hear of the epoch
        data.set_epoch(epoch)
        assert told(loader) == expected[epoch]
    if context == "fork":
        data.set_epoch(0)
        assert told(DataLoader(data, batch_size=None, num_workers=3, multiprocessing_context=context)) == expected[0]


def test_more_workers_than_batches_do_not_hang(folder):
    data = data_of(folder, batch_size=20)
    assert sorted(valid(DataLoader(data, batch_size=None, num_workers=4))) == list(range(COUNT))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_stops_and_goes_on(folder, workers):
    loader = PatchLoader(data_of(folder), num_workers=0)
    undisturbed = [told(loader), told(loader)]
    assert [epoch[0][0] for epoch in undisturbed] == [0, 1]
    after = random.Random(workers).randrange(1, len(undisturbed[0]))
    for count in (after, len(undisturbed[0])):  # in the middle, and after the epoch's last batch
        loader = PatchLoader(data_of(folder), num_workers=workers)
        batches = iter(loader)
        first = told(next(batches) for _ in range(count))
        state = json.loads(json.dumps(loader.state_dict()))
        batches.close()
        loader = PatchLoader(data_of(folder), num_workers=2 - workers)
        loader.load_state_dict(state)
        loader.set_epoch(state["epoch"])  # as a training loop does
        assert first + told(loader) == undisturbed[0] + (undisturbed[1] if count > after else [])
        assert loader.epoch == (2 if count > after else 1)


def test_a_dataset_whose_workers_read_ahead_does_not_guess(folder):
    data = data_of(folder)
    batches = iter(DataLoader(data, batch_size=None, num_workers=2))
    first = [next(batches), next(batches), next(batches)]
    with pytest.raises(ConfigError, match="read ahead"):
        data.state_dict()
    state = data.state_dict(after=first[-1])
    del batches
    data = data_of(folder)
    expected = told(data)
    data.load_state_dict(state)
    assert len(data) == len(expected) - 3
    assert told(first) + told(data) == expected


def test_ranks_one_to_four_to_two(folder):
    undisturbed = valid(data_of(folder, batch_size=1))
    found, state = {}, None
    for ranks, rounds in ((1, 3), (4, 3), (2, None)):
        states = []
        for rank in range(ranks):
            data = data_of(folder, batch_size=1, rank=rank, ranks=ranks)
            if state is not None:
                data.load_state_dict(state)
            batches = iter(data)
            read = list(batches) if rounds is None else [next(batches) for _ in range(rounds)]
            found |= {batch.position: valid([batch]) for batch in read}
            states.append(data.state_dict())
            assert states[-1] == data.state_dict(after=read[-1])
        assert all(other == states[0] for other in states)
        state = states[0]
    assert [number for position in sorted(found) for number in found[position]] == undisturbed


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata 0.11 with torch 2.13
@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_data_loader(folder, workers):
    loaders = pytest.importorskip("torchdata.stateful_dataloader")

    def make():
        return loaders.StatefulDataLoader(data_of(folder), batch_size=None, num_workers=workers)

    undisturbed = told(data_of(folder))
    for count in (1, 4, 5):
        loader = make()
        batches = iter(loader)
        first = told(next(batches) for _ in range(count))
        state = loader.state_dict()
        del batches
        loader = make()
        loader.load_state_dict(state)
        assert first + told(loader) == undisturbed


def test_single_samples(folder):
    dataset = stpatch.open(folder)
    samples = PatchSamples(dataset, symmetry="all", pad_channels=6)
    assert len(samples) == COUNT
    batch = next(iter(DataLoader(samples, batch_size=4, shuffle=True, num_workers=1)))
    assert batch["x"].shape == (4, 6, 3, 3)
    assert [dataset[int(number)].key for number in batch["number"]] == batch["key"]
    whole = next(iter(PatchDataset(dataset, batch_size=COUNT, shuffle=False, symmetry="all", pad_channels=6)))
    np.testing.assert_array_equal(whole.x[7], samples[7]["x"])
    before = samples[7]["x"], samples[8]["x"], samples[9]["x"]
    samples.set_epoch(1)
    assert any((a != samples[7 + i]["x"]).any() for i, a in enumerate(before))


def test_refusals(folder):
    with pytest.raises(ConfigError, match="together"):
        data_of(folder, rank=1)
    with pytest.raises(ConfigError, match="together"):
        data_of(folder, balance="slide_id")
    with pytest.raises(ConfigError, match="no such rank"):
        data_of(folder, rank=2, ranks=2)
    with pytest.raises(ConfigError, match="another order"):
        data_of(folder).load_state_dict(data_of(folder, seed=2).state_dict())


RANK = """
import json, sys
import torch
import stpatch
from stpatch.torch import PatchDataset, PatchLoader

folder, port, rank, ranks, rounds, state = json.loads(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
loader = PatchLoader(PatchDataset(stpatch.open(folder), batch_size=2, seed=4), num_workers=1)
if state:
    loader.load_state_dict(state)
read = []
for batch in loader:
    step = torch.ones(1)
    torch.distributed.all_reduce(step)  # hangs where ranks have different numbers of batches
    assert step == ranks
    read.append([batch.position, batch.numbers[batch.valid].tolist()])
    if len(read) == rounds:
        break
print(json.dumps([read, loader.state_dict()]))
torch.distributed.destroy_process_group()
"""


def run_ranks(folder, ranks, *, rounds=None, state=None):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = str(Path(stpatch.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    jobs = []
    for rank in range(ranks):
        argument = json.dumps([str(folder), port, rank, ranks, rounds, state])
        command = [sys.executable, "-c", RANK, argument]
        jobs.append(subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    found = []
    try:
        for job in jobs:
            out, err = job.communicate(timeout=120)
            assert job.returncode == 0, err
            found.append(json.loads(out))
    finally:
        for job in jobs:
            job.kill()
            job.wait()
    assert all(state == found[0][1] for _, state in found)
    return {position: numbers for read, _ in found for position, numbers in read}, found[0][1]


def test_four_gloo_ranks_go_on_as_two(folder):
    first, state = run_ranks(folder, 4, rounds=1)
    assert state["position"] == 4
    second, state = run_ranks(folder, 2, state=state)
    assert (state["epoch"], state["position"]) == (1, 0)
    undisturbed = valid(PatchDataset(stpatch.open(folder), batch_size=2, seed=4))
    whole = first | second
    assert [number for position in sorted(whole) for number in whole[position]] == undisturbed


@pytest.mark.parametrize("encoding", ["blosc", "sparse"])
def test_sparse_batches_expand_to_what_the_reader_normalizes(tmp_path, encoding):
    write_dataset(tmp_path, encoding=encoding)
    batch = stpatch.open(tmp_path, "train", values="sparse").batch(range(6))
    counts, values = (stpatch.open(tmp_path, "train", values=one).batch(range(6)).x for one in ("counts", "normalized"))
    np.testing.assert_array_equal(densify(batch, values="counts").numpy(), counts)
    np.testing.assert_allclose(densify(batch).numpy(), values, rtol=3e-7)
    half = densify(batch, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    np.testing.assert_allclose(half.float().numpy(), values, rtol=5e-3)
    with pytest.raises(ConfigError, match="made of dense samples"):
        PatchDataset(stpatch.open(tmp_path, "train", values="sparse"), batch_size=2)
