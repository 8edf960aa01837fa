"""Snippets of the card: how libraries that know nothing of stpatch read a dataset's first sample.

All of them run in the dataset's folder and print the sample's key; those that read arrays, the shape of x and the sum
of totals too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from stpatch.dataset.index import FOLDER
from stpatch.dataset.layout import META
from stpatch.dataset.planes import X
from stpatch.registry import ENCODINGS

if TYPE_CHECKING:
    from stpatch.dataset.manifest import Manifest


class Snippet(NamedTuple):
    """How one library reads a dataset.

    Attributes
    ----------
    title
        The library.
    words
        What one must know of it; may be empty.
    lines
        Python.
    """

    title: str
    words: str
    lines: list[str]


def workers_words(split: str, shards: int) -> str:
    """Return how many workers plain webdataset can feed: it deals whole shards."""
    return (
        f"webdataset deals whole shards to ranks and workers, and split {split} has {shards}: with more workers in "
        "all, some get none, which is an error. More of them read with `resampled=True` (random shards, without end) "
        "and `.with_epoch(...)`; several ranks need `nodesplitter=webdataset.split_by_node` too. stpatch's own loader "
        "deals samples, for any number of workers and ranks."
    )


def tar_snippets(manifest: Manifest, split: str, *, numbers: Sequence[int]) -> list[Snippet]:
    """Return how webdataset, its indexed reader and Hugging Face datasets read archives.

    Parameters
    ----------
    manifest, split
        What is read.
    numbers
        Of the split's shards.
    """
    layout = manifest.layout
    x, totals = layout.planes[:2]
    encoding = ENCODINGS.get(x.encoding)
    shape = f'sample["{META}"]["shape"]' if layout.variable else str(layout.shape)
    imports, read = encoding.snippet(x.member, dtype=x.dtype, shape=shape)
    show = f'print(sample["__key__"], {X}.shape, totals.sum())'
    streamed = [
        *imports,
        "import webdataset",
        "",
        f'samples = webdataset.WebDataset("{split}/{split}-{_braces(numbers)}.tar", shardshuffle=False).decode()',
        *_first([*read, f'totals = sample["{totals.member}"]', show]),
    ]
    hub = [
        *_with_numpy(imports),
        "import os",
        "import datasets",
        "",
        f'samples = datasets.load_dataset(os.getcwd(), split="{split}", streaming=True)',
        *_first(
            [
                *read,
                *([f'{X} = numpy.asarray({X}, "{x.dtype}")'] if encoding.tells_shape else []),
                f'totals = numpy.asarray(sample["{totals.member}"], "{totals.dtype}")',
                show,
            ]
        ),
    ]
    arrays = [totals.member, *([x.member] if encoding.tells_shape else [])]
    indexed = [
        *_with_numpy(imports),
        "import io",
        *(["import json"] if layout.variable else []),
        "import wids",
        "",
        f'members = wids.ShardListDataset("{FOLDER}/{split}.json", transformations=[], localname=str)[0]',
        'sample = {name[1:]: members[name].read() for name in members if name.startswith(".")}',
        *(f'sample["{name}"] = numpy.load(io.BytesIO(sample["{name}"]))' for name in arrays),
        *([f'sample["{META}"] = json.loads(sample["{META}"])'] if layout.variable else []),
        *read,
        f'totals = sample["{totals.member}"]',
        f'print(members["__key__"], {X}.shape, totals.sum())',
    ]
    return [
        Snippet("webdataset", workers_words(split, len(numbers)), streamed),
        Snippet(
            "Hugging Face datasets",
            "Likewise without `streaming=True`, which makes a copy of all samples first. Arrays may come as lists, "
            'which `numpy.asarray` takes. Do without `.with_format("numpy")`: it cuts zeros off the ends of bytes. '
            'Tables are read by `datasets.load_dataset("parquet", data_files="patches.parquet")`.',
            hub,
        ),
        Snippet(
            "wids",
            "Random access, with what webdataset before version 1.0 brings along. `localname=str` reads the shards "
            "where they lie; without it, wids copies them to a folder for all datasets, where shards "
            "of one name are mixed up.",
            indexed,
        ),
    ]


def zarr_snippets(manifest: Manifest, split: str, *, folder: str, gaps: Literal["yes", "no"]) -> list[Snippet]:
    """Return how zarr and what reads Zarr v3 read arrays.

    Parameters
    ----------
    manifest, split
        What is read.
    folder
        The split's group.
    gaps
        Whether some rows of the arrays hold no sample, as in a dataset that grew: they are fill values.
    """
    layout = manifest.layout
    rows = f'rows = pyarrow.parquet.read_table("patches.parquet", filters=[("split", "==", "{split}")]).to_pylist()'
    crop = [f'{X} = {X}[:, : rows[0]["height"], : rows[0]["width"]]'] if layout.variable else []
    show = [*crop, f'print(rows[0]["key"], {X}.shape, totals.sum())']
    encoding = ENCODINGS.get(layout.encoding)
    own_codec = encoding.zarr_serializer(np.dtype(layout.dtype)) is not None
    imports: list[str] = []
    at, place = "0", []
    if gaps == "yes":
        at, place = "at", [f'at = int(rows[0]["shard"].split("/")[3]) * {layout.patches} + rows[0]["index"]']
    read = [*place, f'{X}, totals = arrays["{X}"][{at}], arrays["totals"][{at}]']
    words = 'Batches are slices: `arrays["x"][0:32]`. The codec pipeline of package `zarrs` reads the same arrays.'
    if own_codec:  # plain zarr may lack the codec
        imports, lines = encoding.snippet(X, dtype=layout.dtype, shape=str(layout.shape))
        read = [
            'with open(rows[0]["shard"], "rb") as file:',
            '    file.seek(rows[0]["offset"])',
            f'    sample = {{"{X}": file.read(rows[0]["nbytes"])}}',
            *lines,
            *place,
            f'totals = arrays["totals"][{at}]',
        ]
        words = (
            f'Where stpatch is installed, `arrays["{X}"][0]` is enough for zarr and xarray: it brings the codec '
            f"of `{X}`. tensorstore does not know that codec, and reads the other arrays."
        )
    tables = Snippet(
        "Hugging Face datasets",
        "It reads the tables; it does not read zarr arrays, which stand at the table's row numbers within a split.",
        [
            "import os",
            "import datasets",
            "",
            'patches = datasets.load_dataset(os.getcwd(), "patches", split="patches", streaming=True)',
            "row = next(iter(patches))",
            'print(row["key"], row["slide_id"], row["n_spots"])',
        ],
    )
    plain = [*imports, "import pyarrow.parquet", "import zarr", "", f'arrays = zarr.open("{folder}", mode="r")', rows]
    found = [Snippet("zarr", words, [*plain, *read, *show]), tables]
    if not own_codec:
        found += _of_arrays([rows, *place], at, show, folder=folder)
    return found


def _of_arrays(rows: Sequence[str], at: str, show: Sequence[str], *, folder: str) -> list[Snippet]:
    labelled = [
        "import pyarrow.parquet",
        "import xarray",
        "",
        f'arrays = xarray.open_zarr("{folder}", consolidated=False, chunks=None)',
        *rows,
        f'{X}, totals = arrays["{X}"][{at}].values, arrays["totals"][{at}].values',
        *show,
    ]
    stored = [
        "import pyarrow.parquet",
        "import tensorstore",
        "",
        "def opened(name):",
        f'    place = {{"driver": "file", "path": f"{folder}/{{name}}/"}}',
        '    return tensorstore.open({"driver": "zarr3", "kvstore": place}, read=True).result()',
        "",
        *rows,
        f'{X}, totals = opened("{X}")[{at}].read().result(), opened("totals")[{at}].read().result()',
        *show,
    ]
    return [
        Snippet("xarray", "Axes have names: patch, channel, row, col.", labelled),
        Snippet("tensorstore", "Reads are futures, so that many run at once.", stored),
    ]


def _first(lines: Sequence[str]) -> list[str]:
    return ["for sample in samples:", *(f"    {line}" for line in lines), "    break"]


def _with_numpy(imports: Sequence[str]) -> list[str]:
    return list(imports) if "import numpy" in imports else ["import numpy", *imports]


def _braces(numbers: Sequence[int]) -> str:
    """Return shard numbers as webdataset expands them: ``{000000..000007}``; a dataset that grew may lack some."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [f"{first:06d}" if first == last else f"{{{first:06d}..{last:06d}}}" for first, last in runs]
    return parts[0] if len(parts) == 1 else f"{{{','.join(parts)}}}"
