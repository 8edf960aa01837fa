"""The training loop that README and card show: the lines of a masked autoencoder that matter."""

from __future__ import annotations

import json

_LOOP = '''\
import torch
from torch import nn

import stpatch
from stpatch.torch import PatchDataset, PatchLoader


class Autoencoder(nn.Module):
    """Tokens are spots; a channel is known by its gene, so that patches may differ in their channels."""

    def __init__(self, genes, pixels, width=64):
        super().__init__()
        self.gene_in, self.gene_out = nn.Embedding(genes, width), nn.Embedding(genes, width)
        self.place = nn.Parameter(0.1 * torch.randn(pixels, width))
        self.hidden = nn.Parameter(torch.zeros(width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x, genes, occupied, hidden):
        tokens = torch.einsum("bcp,bcd->bpd", x, self.gene_in(genes)) / x.shape[1] ** 0.5
        tokens = torch.where(hidden[..., None], self.hidden, tokens) + self.place
        tokens = self.blocks(tokens, src_key_padding_mask=~occupied)
        return torch.einsum("bpd,bcd->bcp", tokens, self.gene_out(genes)) / tokens.shape[2] ** 0.5


dataset = stpatch.open(FOLDER, split=SPLIT, values="normalized")
loader = PatchLoader(PatchDataset(dataset, batch_size=16, seed=0), num_workers=2)
_, height, width = dataset.manifest.layout.shape
model = Autoencoder(len(dataset.vocabulary), height * width)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for batch in loader:  # one epoch; the next loop is the next epoch
    x, genes = batch.x.flatten(2) * batch.measured[:, :, None], batch.genes.long()
    occupied = batch.occupied.flatten(1)
    hidden = occupied & (torch.rand(occupied.shape) < 0.5)
    predicted = model(x, genes, occupied, hidden)
    # what counts: hidden spots, genes that the slide measured, and no sample that fills up the last batch
    scored = hidden[:, None] & batch.measured[:, :, None] & batch.valid[:, None, None]
    loss = (predicted - x)[scored].square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    state = {"model": model.state_dict(), "reader": loader.state_dict()}  # a checkpoint: goes on after this batch
print(f"loss {loss:.3f}")
'''


def training_loop(folder: str, split: str) -> str:
    """Return the loop as Python for a folder and a split."""
    return _LOOP.replace("FOLDER", json.dumps(folder)).replace("SPLIT", json.dumps(split))
