"""Says what a masked autoencoder has learned: a linear probe on a label map of slides that it did not see.

    python -m scripts.probe DATASET --checkpoint runs/mae/checkpoint.pt --label domain

The probe is fitted on spots of split train and tells the labels of spots of val and test, from frozen features. Beside
the network's stand those of principal components of the same spots' values, with and without the mean of their
neighbours, and those of a network that was not trained.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import stpatch
from scripts.mae.features import Spots, principal_components, read_spots
from scripts.mae.linear import Scores, probe, scores
from scripts.mae.model import MaskedAutoencoder
from scripts.mae.training import load_network
from stpatch.errors import ConfigError, StpatchError

TRAINED, UNTRAINED = "network", "untrained network"


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    try:
        network, _ = load_network(given.checkpoint)
        found = compare(
            given.dataset,
            network,
            label=given.label,
            train=given.train,
            test=given.test,
            spots=given.spots,
            components=given.components,
            seed=given.seed,
        )
    except StpatchError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(found, indent=1) if given.json else table(found))
    return 0


def compare(
    folder: Path,
    network: MaskedAutoencoder,
    *,
    label: str,
    train: str = "train",
    test: Sequence[str] = ("val", "test"),
    spots: int = 8192,
    components: int = 50,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the scores of every kind of features.

    Parameters
    ----------
    folder
        The dataset: its values by the network's normalization.
    network
        A trained one.
    label
        The label map.
    train, test
        The split on whose spots probe and components are fitted, and those whose labels are told, together.
    spots
        The most spots to take of a split.
    components
        Principal components.
    seed
        Of the draw of spots and of the untrained network.

    Returns
    -------
    dict
        ``scores`` by features, ``train`` and ``test``: spots and slides, ``unseen``: test spots that are left out since
        no spot of `train` has their label.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = MaskedAutoencoder(network.config)
    untrained.gene_mean, untrained.gene_scale = network.gene_mean, network.gene_scale
    networks = {TRAINED: network.eval(), UNTRAINED: untrained.eval()}
    splits = {
        name: stpatch.open(folder, split=name, values="normalized")
        for name in (train, *test)
        if name == train or name in _splits(folder)
    }
    slides = {name: set(dataset.table["slide_id"].unique().to_pylist()) for name, dataset in splits.items()}
    for name in test:
        if both := slides.get(name, set()) & slides[train]:
            raise ConfigError("slides are in both splits", where=folder, found=", ".join(sorted(both)), expected=None)
    read = {name: read_spots(dataset, networks, label=label, most=spots, seed=seed) for name, dataset in splits.items()}
    fitted_on, told = read.pop(train), _joined(list(read.values()))
    known = torch.isin(told.labels, fitted_on.labels.unique())
    here, there = features_of(fitted_on, fitted_on, components), features_of(told, fitted_on, components)
    found = {name: probe((here[name], fitted_on.labels), (there[name][known], told.labels[known])) for name in here}
    commonest = fitted_on.labels.mode().values.expand(int(known.sum()))
    found["commonest label"] = scores(commonest, told.labels[known])
    return {
        "label": label,
        "train": {"spots": len(fitted_on.labels), "slides": sorted(slides.pop(train))},
        "test": {"spots": int(known.sum()), "slides": sorted(set().union(*slides.values()))},
        "unseen": int((~known).sum()),
        "scores": {name: asdict(score) for name, score in found.items()},
    }


def features_of(spots: Spots, fitted_on: Spots, components: int) -> dict[str, torch.Tensor]:
    """Return (N, D) features by name."""
    project = principal_components(fitted_on.values, components)
    own, around = project(spots.values), project(spots.around)
    return {**spots.tokens, "components": own, "components and neighbours": torch.cat([own, around], 1)}


def table(found: dict[str, Any]) -> str:
    """Return the scores as lines of text."""
    names = list(asdict(Scores(accuracy=0, balanced_accuracy=0, macro_f1=0)))
    rows = [["features", *(name.replace("_", " ") for name in names)]]
    rows += [[name, *(f"{score[key]:.3f}" for key in names)] for name, score in found["scores"].items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    sizes = [
        f"{part}: {found[part]['spots']:,} spots of {len(found[part]['slides'])} slides" for part in ("train", "test")
    ]
    sizes += [f"{found['unseen']:,} spots left out whose label no spot of train has"] if found["unseen"] else []
    return "\n".join([f"label {found['label']}; " + "; ".join(sizes), *lines])


def _splits(folder: Path) -> set[str]:
    from stpatch.dataset.manifest import read_manifest

    return {name for name, split in read_manifest(folder).splits.items() if split.patches}


def _joined(parts: Sequence[Spots]) -> Spots:
    return Spots(
        labels=torch.cat([part.labels for part in parts]),
        values=torch.cat([part.values for part in parts]),
        around=torch.cat([part.around for part in parts]),
        tokens={name: torch.cat([part.tokens[name] for part in parts]) for name in parts[0].tokens},
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("dataset", type=Path)
    made.add_argument("--checkpoint", type=Path, required=True, help="of scripts.train_mae")
    made.add_argument("--label", required=True, help="a label map of the dataset")
    made.add_argument("--train", default="train", help="the split that the probe is fitted on (default train)")
    made.add_argument("--test", nargs="+", default=["val", "test"], help="splits that are told (default val test)")
    made.add_argument("--spots", type=int, default=8192, help="the most spots of a split (default 8192)")
    made.add_argument("--components", type=int, default=50, help="principal components (default 50)")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--json", action="store_true")
    return made


if __name__ == "__main__":
    sys.exit(main())
