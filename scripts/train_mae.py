"""Trains a masked autoencoder on a dataset's patches.

    python -m scripts.train_mae DATASET --out runs/mae --steps 300
    torchrun --standalone --nproc-per-node 2 -m scripts.train_mae DATASET --out runs/mae --steps 300

The same command goes on where a run was stopped, in the middle of an epoch too. `scripts.probe` says what it learned.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import stpatch
from scripts.mae.model import ModelConfig
from scripts.mae.training import Settings, process_group, train
from stpatch.errors import StpatchError


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    try:
        with process_group(given.device) as ranks:
            dataset = stpatch.open(given.dataset, split=given.split, values="normalized")
            model = ModelConfig(
                genes=len(dataset.vocabulary),
                width=given.width,
                heads=given.heads,
                depth=given.depth,
                decoder_depth=given.decoder_depth,
            )
            settings = Settings(
                steps=given.steps,
                batch_size=given.batch_size,
                hide_spots=given.hide_spots,
                hide_channels=given.hide_channels,
                learning_rate=given.learning_rate,
                seed=given.seed,
                balance=given.balance,
                temperature=given.temperature,
                symmetry=given.symmetry,
                bf16=given.bf16,
            )
            train(
                dataset,
                given.out,
                settings,
                model=model,
                ranks=ranks,
                workers=given.workers,
                checkpoint_every=given.checkpoint_every,
                stop_after=given.stop_after,
            )
    except StpatchError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("dataset", type=Path)
    made.add_argument("--out", type=Path, required=True, help="folder of checkpoint.pt and log.jsonl")
    made.add_argument("--split", default="train")
    made.add_argument("--steps", type=int, default=300, help="of the whole run (default 300)")
    made.add_argument("--stop-after", type=int, help="stop after so many steps; the same command goes on")
    made.add_argument("--checkpoint-every", type=int, default=50, help="steps (default 50)")
    made.add_argument("--batch-size", type=int, default=32, help="samples per rank (default 32)")
    made.add_argument("--hide-spots", type=float, default=0.5, help="share that is hidden (default 0.5)")
    made.add_argument("--hide-channels", type=float, default=0.5, help="share that is hidden (default 0.5)")
    made.add_argument("--learning-rate", type=float, default=1e-3)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--balance", help="a column whose rare values are drawn more often; needs --temperature")
    made.add_argument("--temperature", type=float)
    made.add_argument("--symmetry", default="none", choices=["none", "flips", "turns", "all"])
    made.add_argument("--width", type=int, default=128, help="numbers per token (default 128)")
    made.add_argument("--heads", type=int, default=4)
    made.add_argument("--depth", type=int, default=4, help="blocks of the encoder (default 4)")
    made.add_argument("--decoder-depth", type=int, default=1)
    made.add_argument("--workers", type=int, default=1, help="processes that read (default 1)")
    made.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    made.add_argument("--bf16", action="store_true", help="compute in bfloat16 where that is safe")
    return made


if __name__ == "__main__":
    sys.exit(main())
