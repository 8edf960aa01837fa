"""A decoder for plain webdataset: ``wds.WebDataset(urls).decode(stpatch_decoder(path))`` gives arrays everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stpatch.dataset.manifest import read_manifest
from stpatch.errors import ConfigError
from stpatch.registry import ENCODINGS

Decoder = Callable[[str, bytes], "NDArray[Any] | None"]


def stpatch_decoder(path: str | Path) -> Decoder:
    """Return a handler for members that do not tell their shape, such as Blosc frames; all else is left to webdataset.

    Parameters
    ----------
    path
        The dataset's folder: its manifest tells the shape.

    Raises
    ------
    DatasetError
        There is no dataset.
    ConfigError
        Its samples differ in shape (unit slide), which a handler of one field cannot know; use `stpatch.open`.
    """
    layout = read_manifest(Path(path)).layout
    members = {plane.member: plane for plane in layout.planes if not ENCODINGS.get(plane.encoding).tells_shape}
    if layout.variable and members:
        raise ConfigError("samples of unit slide differ in shape", where=path, hint="use stpatch.open")

    def decode(key: str, data: bytes) -> NDArray[Any] | None:
        plane = members.get(key.lstrip("."))
        if plane is None:
            return None
        return ENCODINGS.get(plane.encoding).decode(data, dtype=plane.dtype, shape=plane.shape, where=key)

    return decode
