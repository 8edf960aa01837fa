"""Datasets for PyTorch: batches made in the worker, one order for any number of ranks and workers, exact states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torch.utils.data import Dataset as MapDataset

from stpatch.dataset.augment import Symmetry
from stpatch.dataset.order import AT_ONCE, Balance, Epoch, Last, Order, State
from stpatch.dataset.reader import Dataset
from stpatch.dataset.tensors import TensorBatch, shared_numbers, tensor_maker
from stpatch.errors import ConfigError


class PatchDataset(IterableDataset[TensorBatch]):
    """One rank's batches of an epoch, for ``DataLoader(data, batch_size=None, num_workers=...)``.

    Batch t of a rank is made by worker ``t % num_workers``, which is the order in which `DataLoader` asks them, so that
    batches come in the same order for any number of workers. Call `set_epoch` before each epoch, as with torch's
    `DistributedSampler`; `PatchLoader` does that by itself, and knows where it stands.

    Parameters
    ----------
    dataset
        From `stpatch.open`.
    batch_size, seed, shuffle, last
        See `Order`.
    balance
        Name of a column of the patches, the slides or the samplesheet; each of its values is a category, and rows
        without a value are one too.
    temperature
        See `Balance`; only with `balance`.
    symmetry, channels, pad_channels
        See `Augment`.
    symmetry_check
        ``off`` allows a symmetry that is not known to be exact on the dataset's grid; see `check_symmetry`.
    rank, ranks
        Which share of the batches is read; taken from `torch.distributed` where it is initialized when reading begins
        (or when the dataset is sent to a worker), else the only one.

    Raises
    ------
    ConfigError
        A value is out of range, or the symmetry is not exact.
    DatasetError
        There is no such column.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        last: Last = "pad",
        balance: str | None = None,
        temperature: float | None = None,
        symmetry: Symmetry = "none",
        symmetry_check: Literal["on", "off"] = "on",
        channels: int | None = None,
        pad_channels: int | None = None,
        rank: int | None = None,
        ranks: int | None = None,
    ) -> None:
        super().__init__()
        if (rank is None) != (ranks is None):
            raise ConfigError("rank and ranks are given together", found=f"rank {rank}, ranks {ranks}")
        if (balance is None) != (temperature is None):
            raise ConfigError("balance and temperature are given together", found=f"{balance}, {temperature}")
        drawn = None
        if balance is not None and temperature is not None:
            drawn = Balance(codes=dataset.codes(balance)[0], temperature=temperature)
        self.order = Order(
            samples=len(dataset),
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            last=last,
            balance=drawn,
            pools=dataset.pools,
        )
        self._tensors = tensor_maker(dataset, seed, symmetry, symmetry_check, channels, pad_channels)
        self._place = None if rank is None or ranks is None else (rank, ranks)
        self.order.share(rank=rank or 0, ranks=1 if ranks is None else ranks)  # tells a wrong rank at once
        self._shared = shared_numbers(3)
        """Epoch and position where the next iteration begins, and whether workers read; persistent workers see it."""
        self._resume: tuple[State, int, Mapping[str, Any]] | None = None
        self._running: _Running | None = None
        self._epoch: Epoch | None = None

    # -- where it stands ------------------------------------------------------------------------------------------

    @property
    def start(self) -> State:
        """Where the next iteration begins."""
        return State(epoch=int(self._shared[0]), position=int(self._shared[1]))

    def begin_at(self, state: State) -> None:
        """Begin the next iteration at `state`."""
        self._resume = self._running = None
        self._shared[:] = torch.tensor([state.epoch, state.position, 0])

    def set_epoch(self, epoch: int) -> None:
        """Begin the next iteration with `epoch`; the epoch that a loaded state is in goes on from its position."""
        running = self._running is not None or bool(self._shared[2])
        if epoch != self.start.epoch or running:
            self.begin_at(State(epoch=epoch))

    def place(self) -> tuple[int, int]:
        """Return (rank, number of ranks)."""
        if self._place is not None:
            return self._place
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def state_dict(self, *, after: TensorBatch | None = None) -> dict[str, Any]:
        """Return where reading stands, as JSON values.

        In the process that reads it is known exactly; torchdata's `StatefulDataLoader` asks each worker. Where workers
        of a plain `DataLoader` read ahead, say `after` which batch, or use `PatchLoader`.

        Parameters
        ----------
        after
            The batch that was trained on last. All ranks stand after the same number of batches, so that the state of
            any rank is that of all.

        Raises
        ------
        ConfigError
            Workers read, so that it is not known here.
        """
        if after is not None:
            rank, ranks = self.place()
            return State(epoch=after.epoch, position=after.position - rank + ranks).as_json(self.order)
        running = self._running
        if running is None:
            if self._shared[2] and get_worker_info() is None:
                raise ConfigError(
                    "workers read ahead of what was delivered, so that the dataset cannot tell where training stands",
                    hint="use stpatch.torch.PatchLoader, or state_dict(after=batch)",
                )
            return self.start.as_json(self.order)
        if running.workers == 1:
            position = running.start.position + running.taken * running.ranks
            return State(epoch=running.start.epoch, position=position).as_json(self.order)
        return running.start.as_json(self.order) | {"taken": running.taken, "place": running.place()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin the next iteration where a state was saved; under any number of ranks and workers.

        The states that `StatefulDataLoader` keeps of single workers go to the same workers again.

        Raises
        ------
        ConfigError
            The state is that of another order of samples, or it is damaged.
        """
        loaded = State.of(state, self.order)
        if get_worker_info() is None and "taken" not in state:
            self.begin_at(loaded)
        else:
            self._resume = (loaded, int(state.get("taken", 0)), dict(state.get("place", {})))

    # -- reading --------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of batches of this rank in the iteration that begins next."""
        rank, ranks = self.place()
        return len(self.order.share(position=self.start.position, rank=rank, ranks=ranks))

    def __iter__(self) -> Iterator[TensorBatch]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        rank, ranks = self.place()
        start, taken, place = self._resume or (self.start, 0, {})
        self._resume = None
        running = _Running(start=start, taken=taken, worker=number, workers=workers, rank=rank, ranks=ranks)
        if place and place != running.place():
            raise ConfigError(
                "the state of a worker can go on in the same worker only",
                found=place,
                expected=running.place(),
                hint="keep the numbers of ranks and workers, or save states with stpatch.torch.PatchLoader",
            )
        self._running = running
        if worker is not None:
            self._shared[2] = 1
        return self._read(running)

    def _read(self, running: _Running) -> Iterator[TensorBatch]:
        start = running.start
        share = self.order.share(position=start.position, rank=running.rank, ranks=running.ranks)
        positions, size = share[running.worker :: running.workers][running.taken :], self.order.batch_size
        if self._epoch is None or self._epoch.epoch != start.epoch:
            self._epoch = None  # let the former go before the next is made
            self._epoch = self.order.epoch(start.epoch)
        made = self._epoch
        for first in range(0, len(positions), AT_ONCE):
            some = positions[first : first + AT_ONCE]
            batches = made.batches(some)
            ahead = self._tensors.dataset.read_ahead([numbers for numbers, _ in batches])
            for position, numbers, (_, valid) in zip(some, ahead, batches, strict=True):
                places = None if self.order.balance is None else position * size + np.arange(size)
                batch = self._tensors.make(numbers, valid=valid, epoch=start.epoch, position=position, places=places)
                running.taken += 1
                yield batch

    def __getstate__(self) -> dict[str, Any]:
        """Go to a spawned worker with this process' rank, without the epoch's order."""
        rank, ranks = self.place()
        return {
            **self.__dict__,
            "_epoch": None,
            "_running": None,
            "_place": (rank, ranks) if ranks > 1 else self._place,
        }


@dataclass(kw_only=True)
class _Running:
    """An iteration in this process: where it began, and how many batches it has given."""

    start: State
    taken: int
    worker: int
    workers: int
    rank: int
    ranks: int

    def place(self) -> dict[str, int]:
        return {"worker": self.worker, "workers": self.workers, "rank": self.rank, "ranks": self.ranks}


class PatchLoader:
    """A `DataLoader` over a `PatchDataset` that goes from epoch to epoch and knows which batches it has delivered.

    Each ``for`` loop is one epoch, or the rest of the one whose state was loaded; the loop after it is the next epoch.
    A loop that was left begins again where it had begun.

    Parameters
    ----------
    data
        What to read.
    options
        Of `DataLoader`: num_workers, prefetch_factor, persistent_workers, multiprocessing_context, pin_memory, ...
    """

    def __init__(self, data: PatchDataset, **options: Any) -> None:
        self.data = data
        self._loader: DataLoader[TensorBatch] = DataLoader(data, batch_size=None, **options)
        self._state = data.start

    def __len__(self) -> int:
        """Return the number of batches of the loop that begins next."""
        return len(self.data)

    def __iter__(self) -> Iterator[TensorBatch]:
        start = self._state = self.data.start
        _, ranks = self.data.place()
        for number, batch in enumerate(self._loader, 1):
            self._state = State(epoch=start.epoch, position=start.position + number * ranks)
            yield batch
        self.begin_at(State(epoch=start.epoch + 1))

    @property
    def epoch(self) -> int:
        """The epoch that is read, or that comes next."""
        return self._state.epoch

    def set_epoch(self, epoch: int) -> None:
        """Go on with `epoch`; from its position where it is the one whose state was loaded."""
        if epoch != self._state.epoch or self._state != self.data.start:
            self.begin_at(State(epoch=epoch))

    def begin_at(self, state: State) -> None:
        """Begin the next loop at `state`."""
        self.data.begin_at(state)
        self._state = state

    def state_dict(self) -> dict[str, Any]:
        """Return where training stands, as JSON values: after the last batch that was delivered, read ahead or not.

        All ranks have the same state after the same number of batches.
        """
        state, order = self._state, self.data.order
        rank, ranks = self.data.place()
        if state.position and not order.share(position=state.position, rank=rank, ranks=ranks):
            state = State(epoch=state.epoch + 1)
        return state.as_json(order)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin the next loop where a state was saved; under any number of ranks and workers."""
        self.begin_at(State.of(state, self.data.order))


class PatchSamples(MapDataset[dict[str, Any]]):
    """Single samples by number as dicts of tensors, for samplers and collation of one's own.

    A sample has the entries of `TensorBatch` without its first axis: x, totals, occupied, genes, measured, number,
    label_<name>, further planes, and key. torch's default collation stacks them.

    Parameters
    ----------
    dataset
        From `stpatch.open`.
    seed, symmetry, channels, pad_channels
        See `Augment`.
    symmetry_check
        See `PatchDataset`.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        seed: int = 0,
        symmetry: Symmetry = "none",
        symmetry_check: Literal["on", "off"] = "on",
        channels: int | None = None,
        pad_channels: int | None = None,
    ) -> None:
        self._tensors = tensor_maker(dataset, seed, symmetry, symmetry_check, channels, pad_channels)
        self._epoch = shared_numbers(1)

    def set_epoch(self, epoch: int) -> None:
        """Draw flips and channels anew, in persistent workers too."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        return len(self._tensors.dataset)

    def __getitem__(self, number: Any) -> dict[str, Any]:
        numbers = np.array([self._tensors.dataset.number(number)], dtype=np.int64)
        one = self._tensors.make(
            numbers, valid=np.ones(1, np.bool_), epoch=int(self._epoch), position=int(numbers[0]), places=None
        )
        planes = {"x": one.x, "totals": one.totals, "occupied": one.occupied, "genes": one.genes}
        planes |= {"measured": one.measured, "number": one.numbers}
        planes |= {f"label_{name}": label for name, label in one.labels.items()} | dict(one.further)
        return {**{name: tensor[0] for name, tensor in planes.items()}, "key": one.keys[0]}
