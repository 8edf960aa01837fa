"""A decoder for plain webdataset: ``wds.WebDataset(urls).decode(stpatch_decoder(path))`` gives arrays everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stpatch.dataset import codecs as codec
from stpatch.dataset.manifest import read_manifest
from stpatch.errors import ConfigError

Decoder = Callable[[str, bytes], "NDArray[Any] | None"]


def stpatch_decoder(path: str | Path) -> Decoder:
    """Return a handler for the Blosc frames of the dataset in folder `path`; all else is left to webdataset.

    Raises
    ------
    DatasetError
        There is no dataset.
    ConfigError
        Its samples differ in shape (unit slide), which a handler of one field cannot know; use `stpatch.open`.
    """
    layout = read_manifest(Path(path)).layout
    if layout.variable and layout.encoding == "blosc":
        raise ConfigError("samples of unit slide differ in shape", where=path, hint="use stpatch.open")

    def decode(key: str, data: bytes) -> NDArray[Any] | None:
        if key.rpartition(".")[2] != "blosc":
            return None
        return codec.decode(data, "blosc", dtype=layout.dtype, shape=layout.shape, where=key)

    return decode
