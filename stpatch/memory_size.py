"""Sizes of memory as people write them: ``16GB``, ``4GiB``, ``auto``."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

_MEMORY = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kKmMgGtT])([iI]?))?[bB]?")


def memory_bytes(value: object) -> int:
    """Return the bytes of a memory size such as ``16GB`` (powers of 1000), ``4GiB`` (powers of 1024) or ``800000000``.

    Raises
    ------
    PydanticCustomError
        It is no size, or less than a byte.
    """
    match = _MEMORY.fullmatch(str(value).strip()) if isinstance(value, int | float | str) else None
    size = 0.0
    if match is not None and not isinstance(value, bool):
        size = float(match[1]) * (1024 if match[3] else 1000) ** (" kmgt".index((match[2] or " ").lower()))
    if size < 1:
        raise PydanticCustomError("memory_size", "a size such as 16GB, 4GiB or a number of bytes")
    return int(size)


def _memory_limit(value: object) -> int | str | None:
    if value is None or value == "auto":
        return None if value is None else "auto"
    return memory_bytes(value)


MemoryLimit = Annotated[
    int | Literal["auto"] | None,
    BeforeValidator(_memory_limit),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": f"^{_MEMORY.pattern}$"},
                {"type": "integer", "minimum": 1},
                {"const": "auto", "type": "string"},
                {"type": "null"},
            ]
        }
    ),
]
"""Bytes; ``auto``: what the cgroup or the machine has; null: no limit."""
