"""The masked autoencoder's training and its probe: what is hidden, what counts, and that a run goes on as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles.built import build, poisson_counts, square, write_counts
from bundles.dataset import write_dataset

import stpatch
from stpatch.errors import ConfigError

torch = pytest.importorskip("torch", reason="torch is not installed")
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _scripts_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
        monkeypatch.delitem(sys.modules, name)


def tiny_model(genes):
    from scripts.mae.model import ModelConfig

    return ModelConfig(genes=genes, width=8, heads=2, depth=1)


def batch_of(folder, size=4):
    from stpatch.torch import PatchDataset

    dataset = stpatch.open(folder, split="train", values="normalized")
    return dataset, next(iter(PatchDataset(dataset, batch_size=size, shuffle=False)))


def mask_of(batch, spots=0.5, channels=0.5):
    from scripts.mae.masks import draw_mask

    return draw_mask(batch.occupied, batch.measured, spots=spots, channels=channels, seed=1, epoch=0, position=2)


def test_the_mask_hides_shares_of_spots_and_measured_channels(tmp_path):
    write_dataset(tmp_path)
    _, batch = batch_of(tmp_path)
    mask = mask_of(batch)
    occupied = batch.occupied.flatten(1)
    seen = torch.zeros_like(occupied).scatter(1, mask.seen, mask.real)
    assert (seen ^ mask.hidden == occupied).all()
    assert (mask.hidden.sum(1) == occupied.sum(1) // 2).all()
    assert not (mask.shown & ~batch.measured).any()
    measured = batch.measured.sum(1)
    assert (mask.shown.sum(1) == torch.where(measured > 0, (measured - measured // 2).clamp(min=1), 0)).all()
    whole = mask_of(batch, spots=1.0, channels=0)
    assert (whole.real.sum(1) == 1).all()
    assert (whole.shown == batch.measured).all()


def test_what_is_hidden_or_not_measured_is_neither_read_nor_scored(tmp_path):
    from scripts.mae.model import MaskedAutoencoder, masked_error

    write_dataset(tmp_path)
    dataset, batch = batch_of(tmp_path)
    mask, network = mask_of(batch), MaskedAutoencoder(tiny_model(len(dataset.vocabulary)))
    predicted = network(batch.x, batch.genes, batch.measured, mask)
    assert predicted.shape == batch.x.shape
    read = torch.zeros_like(batch.occupied.flatten(1)).scatter(1, mask.seen, mask.real).view_as(batch.occupied)
    unread = ~(read[:, None] & (mask.shown & batch.measured)[:, :, None, None])
    other = torch.where(unread, batch.x + 7, batch.x)
    torch.testing.assert_close(network(other, batch.genes, batch.measured, mask), predicted)
    assert not torch.equal(
        network(torch.where(unread, batch.x, batch.x + 7), batch.genes, batch.measured, mask), predicted
    )

    def error(x, valid=batch.valid):
        return masked_error(predicted, x, mask=mask, measured=batch.measured, valid=valid)

    assert error(torch.where(batch.measured[:, :, None, None], batch.x, batch.x + 7)) == error(batch.x)
    assert error(torch.where(read[:, None] & mask.shown[:, :, None, None], batch.x + 7, batch.x)) == error(batch.x)
    assert error(torch.where(unread & batch.measured[:, :, None, None], batch.x + 7, batch.x)) > error(batch.x)
    first = torch.arange(len(batch.x)) == 0
    x = torch.where(first[:, None, None, None], batch.x, batch.x + 7)
    assert error(x, valid=first) == error(batch.x, valid=first)


def test_the_order_of_channels_means_nothing(tmp_path):
    from dataclasses import replace

    from scripts.mae.model import MaskedAutoencoder

    write_dataset(tmp_path)
    dataset, batch = batch_of(tmp_path)
    network, mask, order = MaskedAutoencoder(tiny_model(len(dataset.vocabulary))), mask_of(batch), [2, 0, 3, 1]
    turned = network(
        batch.x[:, order], batch.genes[:, order], batch.measured[:, order], replace(mask, shown=mask.shown[:, order])
    )
    torch.testing.assert_close(turned, network(batch.x, batch.genes, batch.measured, mask)[:, order])


def run(folder, out, *, workers=0, **options):
    from scripts.mae.training import Ranks, Settings, train

    dataset = stpatch.open(folder, split="train", values="normalized")
    ranks = Ranks(rank=0, ranks=1, device=torch.device("cpu"))
    settings = Settings(steps=options.pop("steps", 7), batch_size=2, warmup=2)
    model = tiny_model(len(dataset.vocabulary))
    return train(dataset, out, settings, model=model, ranks=ranks, workers=workers, say=str, **options)


@pytest.mark.parametrize("stop", [1, 4])
def test_a_run_that_was_stopped_in_an_epoch_ends_as_one_that_was_not(tmp_path, stop):
    write_dataset(tmp_path / "data", counts={"train": 7})  # four batches per epoch
    whole = run(tmp_path / "data", tmp_path / "whole", checkpoint_every=3)
    run(tmp_path / "data", tmp_path / "parts", stop_after=stop)
    run(tmp_path / "data", tmp_path / "parts", stop_after=1)
    parts = run(tmp_path / "data", tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    lines = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [stop, stop + 1, 7]


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    write_dataset(tmp_path / "data")
    run(tmp_path / "data", tmp_path / "out", stop_after=1)
    with pytest.raises(ConfigError, match="another settings"):
        run(tmp_path / "data", tmp_path / "out", steps=9)


@pytest.mark.slow
def test_two_gloo_ranks_train_and_one_goes_on(tmp_path):
    write_dataset(tmp_path / "data", counts={"train": 9})
    common = [str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--steps", "3", "--batch-size", "2"]
    common += ["--width", "8", "--heads", "2", "--depth", "1", "--workers", "0", "--device", "cpu"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "scripts.train_mae"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for start, more, reader in (
        (torchrun, ["--stop-after", "2"], (0, 4)),  # two steps of two ranks: four batches of the five
        (["-m", "scripts.train_mae"], [], (1, 0)),
    ):
        done = subprocess.run(
            [sys.executable, *start, *common, *more],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        saved = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
        assert (saved["reader"]["epoch"], saved["reader"]["position"]) == reader
    assert saved["step"] == 3
    assert all(torch.isfinite(value).all() for value in saved["network"].values())


def test_a_linear_probe_tells_what_can_be_told():
    from scripts.mae.linear import probe, scores

    source = np.random.default_rng(0)
    labels = torch.from_numpy(source.integers(0, 3, 200)) * 2 + 1
    features = (
        torch.nn.functional.one_hot(labels, 6).float() + 0.1 * torch.from_numpy(source.normal(size=(200, 6))).float()
    )
    assert probe((features[:100], labels[:100]), (features[100:], labels[100:])).macro_f1 == 1
    found = scores(torch.tensor([0, 0, 1, 1, 1, 1]), torch.tensor([0, 0, 0, 1, 1, 2]))
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found.macro_f1 == pytest.approx((4 / 5 + 4 / 6 + 0) / 3)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Return a dataset of two slides, one in train and one in val, whose left and right half differ."""
    folder = tmp_path_factory.mktemp("labelled")
    array = square(12, 8)
    right = array[:, 1] >= 4
    both = poisson_counts(2 * len(array), 12)
    for name, counts in (("a", both[: len(array)]), ("b", both[len(array) :])):
        counts[right, 1] += 100
        obs = {"domain": np.where(right, "right", "left").tolist()}
        write_counts(folder / f"{name}.h5ad", counts, array=array, obs=obs)
    rows = [{"slide_id": "a", "part": "train"}, {"slide_id": "b", "part": "val"}]
    build(
        folder,
        rows,
        ingest={"labels": ["domain"]},
        split={"column": "part"},
        channels={"scope": "panel", "method": "mean", "n": 12},
    )
    return folder / "out"


def test_the_probe_compares_features_on_slides_that_were_not_seen(labelled, tmp_path, capsys):
    from scripts.probe import main

    run(labelled, tmp_path, steps=2)
    command = [str(labelled), "--checkpoint", str(tmp_path / "checkpoint.pt"), "--components", "12"]
    assert main([*command, "--label", "domain", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["train"] == {"spots": 96, "slides": ["a"]}
    assert found["test"] == {"spots": 96, "slides": ["b"]}
    assert found["scores"]["components"]["accuracy"] > 0.9
    assert found["scores"]["commonest label"]["balanced_accuracy"] == 0.5
    assert len(found["scores"]) == 5
    assert main([*command, "--label", "domain"]) == 0
    assert "untrained network" in capsys.readouterr().out
    assert main([*command, "--label", "cell"]) == 2
    assert "no such label map" in capsys.readouterr().err


def test_spots_tokens_are_those_of_their_pixels(labelled):
    """A network that gives back each pixel's value and place must be read at the chosen spots' pixels."""
    from types import SimpleNamespace

    from scripts.mae.features import read_spots

    class Echo:
        config = SimpleNamespace(genes=13)

        def standardized(self, x, _genes):
            return x

        def encode(self, x, _genes, _measured, mask):
            pixels = x.flatten(2).gather(2, mask.seen.unsqueeze(1).expand(-1, x.shape[1], -1))
            return pixels.transpose(1, 2)

    dataset = stpatch.open(labelled, split="train", values="normalized")
    spots = read_spots(dataset, {"echo": Echo()}, label="domain", most=40, seed=0)
    assert len(spots.labels) == 40
    torch.testing.assert_close(spots.tokens["echo"].sum(1), spots.values.sum(1))
    assert (spots.values.max(1).values > 0).all()


def test_slides_in_both_splits_are_refused(tmp_path, capsys):
    from scripts.probe import main

    write_dataset(tmp_path / "data", counts={"train": 6, "val": 2})
    run(tmp_path / "data", tmp_path, stop_after=1)
    assert main([str(tmp_path / "data"), "--checkpoint", str(tmp_path / "checkpoint.pt"), "--label", "region"]) == 2
    assert "slides are in both splits" in capsys.readouterr().err
