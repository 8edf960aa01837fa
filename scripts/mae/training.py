"""The training loop: one process or several ranks, checkpoints from which a run goes on as if it had not stopped."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pyarrow import parquet
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import stpatch
from scripts.mae.masks import draw_mask
from scripts.mae.model import MaskedAutoencoder, ModelConfig, masked_error
from stpatch.errors import ConfigError
from stpatch.torch import PatchDataset, PatchLoader

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run does; a run goes on under the same settings only.

    Attributes
    ----------
    steps
        Optimizer steps of the whole run: the learning rate's curve ends there.
    batch_size
        Samples per rank and step.
    hide_spots, hide_channels
        Shares of the spots and of the channels that are hidden.
    learning_rate, warmup, weight_decay
        AdamW's; the rate rises over `warmup` steps and falls as a cosine after them.
    seed
        Of weights, order and masks.
    balance, temperature, symmetry
        As in `PatchDataset`.
    bf16
        Whether the network computes in bfloat16 where that is safe (autocast).
    """

    steps: int
    batch_size: int = 32
    hide_spots: float = 0.5
    hide_channels: float = 0.5
    learning_rate: float = 1e-3
    warmup: int = 20
    weight_decay: float = 0.05
    seed: int = 0
    balance: str | None = None
    temperature: float | None = None
    symmetry: str = "none"
    bf16: bool = False


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Which of the run's processes it is, and on which device."""

    rank: int
    ranks: int
    device: torch.device

    @property
    def writes(self) -> bool:
        """Whether this process writes checkpoints and the log."""
        return self.rank == 0


@contextmanager
def process_group(device: str = "auto") -> Iterator[Ranks]:
    """Join the other ranks where torchrun started this process, and leave them at the end.

    Parameters
    ----------
    device
        ``cpu``, ``cuda`` or ``auto``: a GPU where there is one.
    """
    name = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    own = torch.device(name, int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else torch.device(name)
    if ranks > 1:
        if name == "cuda":
            torch.cuda.set_device(own)
        distributed.init_process_group("nccl" if name == "cuda" else "gloo")
    try:
        yield Ranks(rank=rank, ranks=ranks, device=own)
    finally:
        if ranks > 1:
            distributed.destroy_process_group()


def train(
    dataset: stpatch.Dataset,
    folder: Path,
    settings: Settings,
    *,
    model: ModelConfig,
    ranks: Ranks,
    workers: int = 0,
    checkpoint_every: int = 50,
    stop_after: int | None = None,
    say: Callable[[str], None] = print,
) -> MaskedAutoencoder:
    """Train, from the folder's checkpoint where there is one, and return the network.

    Parameters
    ----------
    dataset
        Opened with ``values="normalized"``.
    folder
        Holds ``checkpoint.pt``, replaced in one go, and ``log.jsonl``.
    settings, model
        What to train and how.
    ranks
        From `process_group`.
    workers
        DataLoader processes.
    checkpoint_every
        Steps between checkpoints; there is always one at the end.
    stop_after
        Stop with a checkpoint after so many steps of this process, such as those that a job's time allows.
    say
        Takes the lines of progress.

    Raises
    ------
    ConfigError
        The checkpoint is that of other settings, another network or another dataset.
    """
    # forked, so that weights depend on the seed alone, and nobody else's random numbers on the weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = MaskedAutoencoder(model)
    network.standardize_by(*gene_moments(dataset))
    network.to(ranks.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    symmetry: Any = settings.symmetry
    data = PatchDataset(
        dataset,
        batch_size=settings.batch_size,
        seed=settings.seed,
        balance=settings.balance,
        temperature=settings.temperature,
        symmetry=symmetry,
        rank=ranks.rank,
        ranks=ranks.ranks,
    )
    loader = PatchLoader(data, num_workers=workers, pin_memory=ranks.device.type == "cuda")
    about = {"settings": asdict(settings), "model": asdict(model), "dataset": dataset.manifest.fingerprint}
    step = _resume(folder / CHECKPOINT, about, network, optimizer, loader, ranks)
    if step:
        say(f"goes on after step {step}")
    # ranks change gradients by their mean, and nothing else: all start from the same weights
    parallel = DistributedDataParallel(network) if ranks.ranks > 1 else network
    last = settings.steps if stop_after is None else min(settings.steps, step + stop_after)
    begun, first = time.perf_counter(), step
    while step < last:
        for batch in loader:
            mask = draw_mask(
                batch.occupied,
                batch.measured,
                spots=settings.hide_spots,
                channels=settings.hide_channels,
                seed=settings.seed,
                epoch=batch.epoch,
                position=batch.position,
            ).to(ranks.device)
            batch = batch.to(ranks.device)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, settings)
            x = network.standardized(batch.x, batch.genes)
            with torch.autocast(ranks.device.type, torch.bfloat16, enabled=settings.bf16):
                predicted = parallel(x, batch.genes, batch.measured, mask)
            loss = masked_error(predicted, x, mask=mask, measured=batch.measured, valid=batch.valid)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % checkpoint_every == 0 or step == last:
                _save(folder, about, network, optimizer, loader, step, ranks)
                per_second = (step - first) * settings.batch_size * ranks.ranks / (time.perf_counter() - begun)
                _log(folder, step, float(loss.detach()), per_second, ranks, say)
            if step == last:
                break
    return network


def gene_moments(dataset: stpatch.Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each gene's mean and variance in genes.parquet, by gene id; ids without a gene have 0 and 1.

    They are those of the slides that `channels.fit_on` names, so that held-out slides are not looked at.
    """
    path = dataset.folder / dataset.manifest.tables["genes"].path
    table = parquet.read_table(path, columns=["gene_id", "mean_normalized", "var_normalized"])
    ids = torch.tensor(table["gene_id"].to_pylist())
    mean, variance = torch.zeros(len(dataset.vocabulary)), torch.ones(len(dataset.vocabulary))
    mean[ids] = torch.tensor(table["mean_normalized"].to_pylist(), dtype=torch.float32)
    variance[ids] = torch.tensor(table["var_normalized"].to_pylist(), dtype=torch.float32)
    return mean.nan_to_num(0), variance.nan_to_num(1)


def learning_rate(step: int, settings: Settings) -> float:
    """Return the rate of a step, counted from 0: a rise, then half a cosine down to 0."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    part = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * part))


def load_network(path: Path) -> tuple[MaskedAutoencoder, Mapping[str, Any]]:
    """Return a checkpoint's network, on the CPU, and the checkpoint."""
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    network = MaskedAutoencoder(ModelConfig(**saved["about"]["model"]))
    network.load_state_dict(saved["network"])
    return network, saved


def _resume(
    path: Path,
    about: Mapping[str, Any],
    network: MaskedAutoencoder,
    optimizer: torch.optim.Optimizer,
    loader: PatchLoader,
    ranks: Ranks,
) -> int:
    """Take everything from the checkpoint, if there is one; return the number of steps done."""
    if not path.exists():
        return 0
    saved: dict[str, Any] = torch.load(path, map_location=ranks.device, weights_only=True)
    for name, expected in about.items():
        if saved["about"][name] != expected:
            raise ConfigError(
                f"the checkpoint is that of another {name}", where=path, found=saved["about"][name], expected=expected,
                hint="give the same options, or another folder",
            )  # fmt: skip
    network.load_state_dict(saved["network"])
    optimizer.load_state_dict(saved["optimizer"])
    loader.load_state_dict(saved["reader"])
    return int(saved["step"])


def _save(
    folder: Path,
    about: Mapping[str, Any],
    network: MaskedAutoencoder,
    optimizer: torch.optim.Optimizer,
    loader: PatchLoader,
    step: int,
    ranks: Ranks,
) -> None:
    """Write a checkpoint beside its place and rename it: the name never holds half of one.

    The reader's state is that of all ranks, since all have trained on the same number of batches.
    """
    if not ranks.writes:
        return
    folder.mkdir(parents=True, exist_ok=True)
    state = {"about": dict(about), "network": network.state_dict(), "optimizer": optimizer.state_dict()}
    partial = folder / f"{CHECKPOINT}.partial"
    torch.save({**state, "reader": loader.state_dict(), "step": step}, partial)
    partial.replace(folder / CHECKPOINT)


def _log(folder: Path, step: int, loss: float, per_second: float, ranks: Ranks, say: Callable[[str], None]) -> None:
    if ranks.writes:
        line = {"step": step, "loss": loss, "samples/s": round(per_second, 1)}
        with (folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        say(f"step {step}: loss {loss:.4f}, {per_second:,.0f} samples/s")
