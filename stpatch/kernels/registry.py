"""The register of compiled loops: one decorator compiles a loop, and remembers how it is compiled ahead.

A loop without an example is called by other loops alone, and is compiled as a part of them.
"""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stpatch.kernels.cache import find_cache

Examples = Callable[[np.dtype[Any]], Iterable[tuple[Any, ...]]]
"""Takes the dtype of stored counts; returns lists of arguments, of which the types matter and the values do not."""

STAGES = ("ingest", "normalize", "shard")
"""The stages whose loops are compiled before their units start, in their order."""

ANNOUNCEMENT = "compiling the kernels; this happens once and takes about half a minute"
PATIENCE = 1.0
"""Seconds of compiling before it is announced."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A compiled loop.

    Attributes
    ----------
    name
        Module and function.
    function
        The compiler's dispatcher.
    stage
        The stage before which it is compiled; None: when it is first called, or as a part of other loops.
    examples
        The arguments that it is compiled for; None where only other loops call it.
    """

    name: str
    function: Any
    stage: str | None
    examples: Examples | None

    def compile(self, counts_dtype: DTypeLike = np.uint16) -> bool:
        """Compile the loop for its examples, or load it from the cache; return whether the cache lacked anything."""
        import numba

        typeof: Callable[[Any], Any] = numba.typeof

        before = self.missed
        for arguments in self.examples(np.dtype(counts_dtype)) if self.examples else ():
            self.function.compile(tuple(map(typeof, arguments)))
        return self.missed > before

    @property
    def missed(self) -> int:
        """How often this process found no compiled loop in the cache."""
        return sum(self.function.stats.cache_misses.values())

    @property
    def signatures(self) -> list[Any]:
        """The argument types that this process has the loop for."""
        return list(self.function.signatures)


_KERNELS: dict[str, Kernel] = {}


def kernel(
    *, stage: str | None = None, examples: Examples | None = None, inline: bool = False
) -> Callable[[_Function], _Function]:
    """Return a decorator that compiles a loop and registers it.

    Every loop is cached on disk (see `find_cache`) and lets other threads run. Division by zero gives inf or nan, as
    NumPy's does: the check for it would stand in the innermost loops.

    Parameters
    ----------
    stage
        Of `STAGES`: compile it before the units of this stage. None: when it is first called.
    examples
        The arguments to compile it for, given the dtype of counts.
    inline
        Copy the loop into those that call it.

    Raises
    ------
    ValueError
        The stage is unknown, or has no examples.
    """
    if stage is not None and (stage not in STAGES or examples is None):
        raise ValueError(f"a kernel of stage {stage!r} needs a stage of {STAGES} and examples")
    import numba
    from numba import njit

    cache = find_cache()
    if cache.folder is not None:
        numba.config.CACHE_DIR = str(cache.folder)  # type: ignore[attr-defined]
    options: dict[str, Any] = {"inline": "always"} if inline else {}

    def register(function: _Function) -> _Function:
        name = f"{function.__module__}.{function.__qualname__}"
        compiled: Any = njit(cache=cache.used, nogil=True, error_model="numpy", **options)(function)
        _KERNELS[name] = Kernel(name=name, function=compiled, stage=stage, examples=examples)
        return compiled  # type: ignore[no-any-return]

    return register


def all_kernels() -> dict[str, Kernel]:
    """Return every kernel by name; imports all modules of this package."""
    package = importlib.import_module("stpatch.kernels")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(_KERNELS)


def compile_kernels(
    stages: Sequence[str], *, counts_dtype: DTypeLike = np.uint16, announce: Callable[[str], object]
) -> bool:
    """Compile the kernels of some stages, or load them from the cache.

    Parameters
    ----------
    stages
        Of the pipeline; those that have no kernels cost nothing.
    counts_dtype
        Of the stored counts; every dtype has its own compiled loops.
    announce
        Is told once, when compiling has taken longer than `PATIENCE` and goes on; never for what is in the cache.

    Returns
    -------
    bool
        Whether the cache lacked anything.
    """
    if not set(stages) & set(STAGES):
        return False
    wanted = [item for stage in stages for item in all_kernels().values() if item.stage == stage]
    begun = time.perf_counter()
    missed = announced = False
    for item in wanted:
        if missed and not announced and time.perf_counter() - begun > PATIENCE:
            announce(ANNOUNCEMENT)
            announced = True
        missed |= item.compile(counts_dtype)
    return missed


def mapped(dtype: DTypeLike) -> NDArray[Any]:
    """Return an example of an array of a mapped slide: read-only, which is a type of its own to the compiler."""
    array: NDArray[Any] = np.empty(0, dtype)
    array.setflags(write=False)
    return array
