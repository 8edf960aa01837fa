"""Parquet tables that are one file or, as Dask and Spark write them, a folder of parts."""

from __future__ import annotations

from pathlib import Path

from stpatch.errors import InputMissingError


def parquet_parts(path: Path) -> tuple[Path, ...]:
    """Return the files of a table: the file itself, or the parts in a folder in order of their names.

    Raises
    ------
    InputMissingError
        The folder has no part.
    """
    if not path.is_dir():
        return (path,)
    parts = tuple(sorted(item for item in path.rglob("*.parquet") if item.is_file()))
    if not parts:
        raise InputMissingError("the folder of parquet parts is empty", where=path, expected="files *.parquet in it")
    return parts
