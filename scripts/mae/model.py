"""A masked autoencoder whose tokens are spots and whose channels are known by their genes.

    x (B, C, P) --sum over shown channels of value x gene embedding--> tokens of seen spots (B, K, D) --> encoder
    --hidden tokens are put in--> decoder (B, P, D) --product with the genes' output embeddings--> values (B, C, P)

P pixels are the patch's rows one after the other. A channel has no weights of its own: it is the gene that it holds. So
patches with different channels, in any number and order, go through the same network, and a gene that a slide did not
measure adds nothing. Values are standardized by their gene's moments first, so that a few abundant genes do not make
up all of the sum and of the error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from scripts.mae.masks import Mask

_SMALL = 0.02
_LEAST_VARIANCE = 0.1
"""Added to a gene's variance: one that is hardly ever there would be a few huge values otherwise."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network's sizes.

    Attributes
    ----------
    genes
        Gene ids go from 0 to this number less one: the length of `Dataset.vocabulary`.
    width, heads
        Numbers per token (a multiple of 4), and attention heads (which divide it).
    depth, decoder_depth
        Transformer blocks of the encoder and of the decoder.
    """

    genes: int
    width: int = 128
    heads: int = 4
    depth: int = 4
    decoder_depth: int = 1


class MaskedAutoencoder(nn.Module):
    """Predicts the values of hidden spots, and those of hidden channels, from the others."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.gene_in, self.gene_out = nn.Embedding(config.genes, width), nn.Embedding(config.genes, width)
        self.gene_mean: torch.Tensor
        self.gene_scale: torch.Tensor
        self.register_buffer("gene_mean", torch.zeros(config.genes))
        self.register_buffer("gene_scale", torch.ones(config.genes))
        self.hidden = nn.Parameter(torch.zeros(width))
        self.place = nn.Parameter(torch.full((width,), 0.1))  # what a spot holds outweighs where it lies, to begin with
        self.read_in, self.read_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.encoder = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.encoded = nn.LayerNorm(width)
        self.decoder = nn.ModuleList(Block(width, config.heads) for _ in range(config.decoder_depth))
        # small, so that the first steps turn the embeddings to what genes have in common: large ones would stay the
        # random projection that they are at first
        for weights in (self.gene_in.weight, self.gene_out.weight, self.hidden):
            nn.init.normal_(weights, std=_SMALL)

    def standardize_by(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Take the genes' moments, (genes,) each; before training, since they are part of the network."""
        self.gene_mean.copy_(mean)
        self.gene_scale.copy_(torch.sqrt(variance + _LEAST_VARIANCE))

    def standardized(self, x: torch.Tensor, genes: torch.Tensor) -> torch.Tensor:
        """Return (B, C, H, W) values less their gene's mean, divided by about its standard deviation."""
        at = genes.long()
        return (x - self.gene_mean[at][:, :, None, None]) / self.gene_scale[at][:, :, None, None]

    def forward(self, x: torch.Tensor, genes: torch.Tensor, measured: torch.Tensor, mask: Mask) -> torch.Tensor:
        """Return (B, C, H, W) predicted standardized values; arguments as for `encode`."""
        height, width = x.shape[2:]
        seen = self.encode(x, genes, measured, mask)
        # hidden spots are a learned token, the seen ones lie where they were
        tokens = self.hidden.expand(len(x), height * width, -1).to(seen.dtype)
        at = mask.seen.unsqueeze(2).expand_as(seen)
        tokens = tokens.scatter(1, at, torch.where(mask.real.unsqueeze(2), seen, tokens.gather(1, at)))
        tokens = tokens + self.place * positions(height, width, self.config.width, x.device)
        for block in self.decoder:
            tokens = block(tokens, mask.occupied)
        predicted = torch.einsum("bpd,bcd->bcp", self.read_out(tokens), self.gene_out(genes.long()))
        return predicted.unflatten(2, (height, width))

    def encode(self, x: torch.Tensor, genes: torch.Tensor, measured: torch.Tensor, mask: Mask) -> torch.Tensor:
        """Return the tokens of the spots that the mask leaves.

        Parameters
        ----------
        x
            (B, C, H, W) standardized values.
        genes, measured
            (B, C) gene ids, and whether the slide measured them.
        mask
            Which pixels are seen.

        Returns
        -------
        torch.Tensor
            (B, K, D), in the order of `Mask.seen`; those that are not `Mask.real` mean nothing.
        """
        height, width = x.shape[2:]
        pixels = x.flatten(2).gather(2, mask.seen.unsqueeze(1).expand(-1, x.shape[1], -1))  # (B, C, K)
        shown = mask.shown & measured
        tokens = torch.einsum("bck,bcd->bkd", pixels * shown.unsqueeze(2), self.gene_in(genes.long()))
        tokens = self.read_in(tokens / shown.sum(1).clamp(min=1).sqrt()[:, None, None])
        tokens = tokens + self.place * positions(height, width, self.config.width, x.device)[mask.seen]
        for block in self.encoder:
            tokens = block(tokens, mask.real)
        encoded: torch.Tensor = self.encoded(tokens)
        return encoded


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Return (B, K, D) tokens; only those that are `real`, (B, K) bool, are attended to."""
        mixed = self.mix(self.before_attention(tokens)).unflatten(2, (3, self.heads, -1))
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=real[:, None, None, :])
        tokens = tokens + self.out(found.transpose(1, 2).flatten(2))
        changed: torch.Tensor = tokens + self.perceptron(self.before_perceptron(tokens))
        return changed


def positions(height: int, width: int, size: int, device: Any) -> torch.Tensor:
    """Return (height * width, size) sines and cosines of row and column: half of the numbers for each."""
    quarter = size // 4
    rates = torch.exp(torch.arange(quarter, device=device) * (-math.log(10_000) / quarter))
    sides = []
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    for side in torch.meshgrid(rows, columns, indexing="ij"):
        angles = side.reshape(-1, 1) * rates
        sides += [angles.sin(), angles.cos()]
    return torch.cat(sides, 1)


def masked_error(
    predicted: torch.Tensor, x: torch.Tensor, *, mask: Mask, measured: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Return the mean squared error over measured channels of valid samples, where a spot or the channel is hidden.

    Parameters
    ----------
    predicted, x
        (B, C, H, W) standardized values.
    mask
        Which pixels and channels are hidden.
    measured
        (B, C) bool: elsewhere a 0 does not mean absence.
    valid
        (B,) bool: the others fill up a batch.
    """
    spots = mask.occupied.unsqueeze(1)
    scored = (mask.hidden.unsqueeze(1) | (spots & ~mask.shown.unsqueeze(2))) & measured.unsqueeze(2)
    scored = scored & valid[:, None, None]
    squares = (predicted.float() - x).square().flatten(2)
    return torch.where(scored, squares, 0).sum() / scored.sum().clamp(min=1)
