"""Tables and the card written anew: the same libraries give the same bytes, so that any other byte is damage.

What a Parquet file says beside its rows, such as the least and largest value of each column, is read by programs that
skip what cannot match. No reader compares it with the rows; writing them once more does.
"""

from __future__ import annotations

import io
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import stpatch
from stpatch.dataset.card import CARD, card
from stpatch.dataset.manifest import SEALED_SINCE, Manifest
from stpatch.dataset.tables import schema, write_arrow
from stpatch.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa

_HINT = "fetch the file again, or build the dataset again"


def check_anew(
    folder: Path,
    manifest: Manifest,
    tables: Mapping[str, tuple[pa.Table, Mapping[str, str]]],
    *,
    intact: Container[str],
) -> Iterator[DatasetError]:
    """Yield tables and the card where they are not the bytes that their contents are written as.

    Nothing is compared where other versions of the libraries wrote them.

    Parameters
    ----------
    tables
        By name, the rows and the columns with their types.
    intact
        Paths of the files whose bytes are those that the manifest tells of; the card is looked at if it is one.
    """
    import pyarrow as pa

    if manifest.versions.get("pyarrow") == pa.__version__:
        for name, (table, columns) in tables.items():
            typed = schema({column: columns[column] for column in table.column_names})
            sink = io.BytesIO()
            write_arrow(table.cast(typed), sink, name)
            path = folder / manifest.tables[name].path
            if path.read_bytes() != sink.getvalue():
                yield DatasetError("a table is not the bytes that its rows are written as", where=path, hint=_HINT)
    own = manifest.version >= SEALED_SINCE and manifest.versions.get("stpatch") == stpatch.__version__
    if own and CARD in intact and (folder / CARD).read_bytes() != card(manifest).encode():
        yield DatasetError("the card is not what the manifest says", where=folder / CARD, hint=_HINT)
