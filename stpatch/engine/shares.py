"""Shares: which units of a stage one process runs, from options or from the scheduler's environment."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stpatch.engine.ranks import Rank, checked_rank, find_rank, task_number
from stpatch.errors import ConfigError, InputMissingError


class Share(Protocol):
    """Which units of a stage a process runs."""

    def share(self, units: Sequence[str], /) -> list[str]:
        """Return the process' part of a stage's numbered units."""
        ...


@dataclass(frozen=True)
class Numbered:
    """The one unit whose number is `number`; none where the stage has fewer."""

    number: int
    source: str

    def share(self, units: Sequence[str]) -> list[str]:
        """Return that unit."""
        return list(units[self.number : self.number + 1])

    def __str__(self) -> str:
        return f"unit number {self.number} ({self.source})"


@dataclass(frozen=True)
class Named:
    """Units by their names."""

    names: tuple[str, ...]
    source: str

    def share(self, units: Sequence[str]) -> list[str]:
        """Return these units, in the stage's order.

        Raises
        ------
        ConfigError
            The stage has no such unit.
        """
        wanted = set(self.names)
        for name in self.names:
            if name not in units:
                near = difflib.get_close_matches(name, units, n=1)
                raise ConfigError(
                    "the stage has no such unit",
                    where=self.source,
                    found=name,
                    expected=f"one of {len(units)} units, such as {', '.join(units[:3])}",
                    hint=f"did you mean {near[0]!r}?" if near else "stpatch retry CONFIG --names lists what is left",
                )
        return [unit for unit in units if unit in wanted]

    def __str__(self) -> str:
        return f"unit {self.names[0]}" if len(self.names) == 1 else f"{len(self.names)} units of {self.source}"


@dataclass(frozen=True, kw_only=True)
class ShareOptions:
    """The options of ``stpatch run`` that say which units are meant.

    Attributes
    ----------
    rank, world_size
        One share of so many; from the scheduler where they are None.
    units
        Names of units.
    offset
        What comes on top of the task's number: an array has no numbers beyond the scheduler's largest.
    from_list
        A text file of one unit's name per line, which stands for the stage's units.
    """

    rank: int | None = None
    world_size: int | None = None
    units: tuple[str, ...] = ()
    offset: int | None = None
    from_list: Path | None = None


def find_share(options: ShareOptions, environment: Mapping[str, str]) -> Share:
    """Return which units to run.

    With ``offset`` the task's number plus the offset is the rank where a world size is given; without one it is the
    number of a single unit, so that an array may have holes. With ``from_list`` the same is said of the file's lines.

    Raises
    ------
    ConfigError
        Options that contradict one another, or numbers that make no sense.
    InputMissingError
        There is no such list.
    """
    if options.units:
        if options != ShareOptions(units=options.units):
            raise ConfigError(
                "--unit names the units",
                where="--unit",
                found="--rank, --world-size, --offset or --from-list beside it",
                hint="leave them out",
            )
        return Named(options.units, "--unit")
    share = _by_number(options, environment)
    if options.from_list is None:
        return share
    names = _read_list(options.from_list)
    return Named(tuple(share.share(names)), str(options.from_list))


def _by_number(options: ShareOptions, environment: Mapping[str, str]) -> Rank | Numbered:
    if options.offset is None:
        return find_rank(options.rank, options.world_size, environment)
    number, source = (options.rank, "options") if options.rank is not None else task_number(environment)
    number += options.offset
    if number < 0:
        raise ConfigError("a unit has no negative number", where="--offset", found=number, expected="0 or more")
    if options.world_size is not None:
        return checked_rank(number, options.world_size, source)
    return Numbered(number, source)


def _read_list(path: Path) -> list[str]:
    if not path.is_file():
        raise InputMissingError(
            "there is no such list of units",
            where=f"--from-list {path}",
            hint="stpatch retry CONFIG --stage STAGE --names > FILE writes one",
        )
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]
