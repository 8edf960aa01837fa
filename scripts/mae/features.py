"""What a spot's features are: the network's tokens, or what needs no network, of the same spots and channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

import stpatch
from scripts.mae.masks import see_all
from scripts.mae.model import MaskedAutoencoder
from stpatch.dataset.tensors import TensorBatch
from stpatch.errors import ConfigError
from stpatch.seeds import generator, raw_draws
from stpatch.torch import PatchDataset


@dataclass(frozen=True, kw_only=True)
class Spots:
    """Some labelled spots of a split, row by row the same in all arrays.

    Attributes
    ----------
    labels
        (N,) int64 categories.
    values
        (N, G) standardized values by gene id; 0, which is the gene's mean, where the patch does not hold the gene.
    around
        (N, G) the mean of the same over the up to eight neighbouring spots of the patch.
    tokens
        By the networks' names: (N, D) what they make of the whole patch.
    """

    labels: torch.Tensor
    values: torch.Tensor
    around: torch.Tensor
    tokens: dict[str, torch.Tensor]


def read_spots(
    dataset: stpatch.Dataset,
    networks: dict[str, MaskedAutoencoder],
    *,
    label: str,
    most: int,
    seed: int,
    batch_size: int = 32,
) -> Spots:
    """Return labelled spots of a split and their features; all networks standardize alike.

    Parameters
    ----------
    dataset
        Opened with ``values="normalized"``.
    networks
        By name, frozen.
    label
        A label map of the dataset.
    most
        Spots to take, drawn at random from all patches where there are more. A spot in several patches may be drawn
        with each of them.
    seed
        Of that draw.

    Raises
    ------
    ConfigError
        There is no such label map, or it marks no spot.
    """
    if label not in dataset.labels:
        raise ConfigError(
            "no such label map", where=dataset.folder, found=label, expected=" or ".join(dataset.labels) or "labels",
            hint="name the spot tables' columns in ingest.labels and build the dataset again",
        )  # fmt: skip
    batches = list(PatchDataset(dataset, batch_size=batch_size, shuffle=False, rank=0, ranks=1))
    labelled = [(batch.labels[label] >= 0) & batch.occupied & batch.valid[:, None, None] for batch in batches]
    chosen = _choose(torch.cat([spots.flatten() for spots in labelled]), most, seed)
    if not chosen.any():
        raise ConfigError("no spot of the split has a label", where=f"{dataset.folder}, {dataset.split}", found=label)
    parts = []
    for batch, mine in zip(batches, chosen.split([spots.numel() for spots in labelled]), strict=True):
        parts.append(_batch_spots(batch, mine.view_as(batch.occupied), networks, label=label))
    return Spots(
        labels=torch.cat([part.labels for part in parts]),
        values=torch.cat([part.values for part in parts]),
        around=torch.cat([part.around for part in parts]),
        tokens={name: torch.cat([part.tokens[name] for part in parts]) for name in networks},
    )


def principal_components(values: torch.Tensor, most: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what turns (N, G) values into (N, most) numbers: the directions in which `values` vary most."""
    mean = values.mean(0)
    centred = values - mean
    _, vectors = torch.linalg.eigh(centred.T @ centred)  # ascending
    directions = vectors[:, -most:]
    return lambda other: (other - mean) @ directions


def _choose(labelled: torch.Tensor, most: int, seed: int) -> torch.Tensor:
    """Return (N,) bool: `most` of those that are True."""
    at = labelled.nonzero().flatten()
    draws = raw_draws(generator(seed, "probe"), len(at))
    chosen = torch.zeros_like(labelled)
    chosen[at[torch.from_numpy(draws.argsort(kind="stable")[:most])]] = True
    return chosen


@torch.no_grad()
def _batch_spots(
    batch: TensorBatch, chosen: torch.Tensor, networks: dict[str, MaskedAutoencoder], *, label: str
) -> Spots:
    first = next(iter(networks.values()))
    x = first.standardized(batch.x, batch.genes)
    known = batch.measured[:, :, None, None] & batch.occupied[:, None]
    values = torch.where(known, x, 0)
    spots, rows, columns = chosen.nonzero(as_tuple=True)
    everywhere = see_all(batch.occupied, batch.measured)
    pixel = rows * batch.x.shape[3] + columns
    # all spots are seen: pixel p's token stands behind those of the occupied pixels before it
    order = batch.occupied.flatten(1).long().cumsum(1) - 1
    tokens = {
        name: network.encode(x, batch.genes, batch.measured, everywhere)[spots, order[spots, pixel]]
        for name, network in networks.items()
    }
    genes, length = batch.genes[spots].long(), first.config.genes
    return Spots(
        labels=batch.labels[label][chosen].long(),
        values=_by_gene(values[spots, :, rows, columns], genes, length),
        around=_by_gene(_neighbours(values, batch.occupied)[spots, :, rows, columns], genes, length),
        tokens=tokens,
    )


def _by_gene(values: torch.Tensor, genes: torch.Tensor, length: int) -> torch.Tensor:
    """Lay (N, C) values of channels out by gene id."""
    return torch.zeros(len(values), length).scatter_add_(1, genes, values)


def _neighbours(values: torch.Tensor, occupied: torch.Tensor) -> torch.Tensor:
    """Return (B, C, H, W) the mean over the up to eight occupied pixels around; 0 where there are none."""

    def summed(images: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(images, 3, stride=1, padding=1, divisor_override=1) - images

    return summed(values) / summed(occupied[:, None].float()).clamp(min=1)
