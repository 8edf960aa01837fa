"""The format's specification names everything that the code writes, and the published schemas are the models'."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from bundles.dataset import make_layout, write_dataset
from typer.testing import CliRunner

import stpatch
from stpatch.cli.app import app
from stpatch.dataset.manifest import MANIFEST, Manifest, manifest_schema
from stpatch.dataset.planes import LABEL, LABEL_KIND
from stpatch.dataset.tables import DIGESTS, GENES, SLIDES, patch_columns
from stpatch.registry import ENCODINGS, FORMATS

PACKAGE = Path(stpatch.__file__).parent
CONFIGS = PACKAGE.parent / "configs"
TEXT = (PACKAGE / "dataset" / "README.md").read_text()


def rows_of(heading):
    """Return the first cells' names and the second cells of the table after a heading."""
    part = TEXT.split(heading, 1)[1].split("\n\n", 2)[1]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()[2:]]
    return {name: row[1:] for row in cells for name in re.findall(r"`([^`]+)`", row[0])}


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("genes", GENES),
        ("slides", SLIDES | DIGESTS),
        ("patches", patch_columns(make_layout(variable=True), draws=2)),
    ],
)
def test_every_column_is_described(table, columns):
    described = {name: cells[0] for name, cells in rows_of(f"\n`{table}.parquet`, one row").items()}
    assert described == columns


def test_every_plane_is_described():
    described = rows_of("### Planes")
    planes = make_layout(labels=("a",)).planes
    names = {f"{LABEL}<name>" if plane.kind == LABEL_KIND else plane.name: plane for plane in planes}
    assert list(described) == list(names)
    for name, plane in names.items():
        kind, dims, dtype, _, fill, _ = described[name]
        assert kind == f"`{plane.kind}`"
        assert dims == ", ".join(plane.dims)
        assert plane.dtype in dtype
        assert fill == str(plane.fill)


def test_every_format_and_encoding_is_described():
    for name in (*FORMATS.own(), *ENCODINGS.own()):
        assert f"`{name}`" in TEXT


@pytest.mark.parametrize(("command", "file"), [("config", "config.schema.json"), ("validate", "manifest.schema.json")])
def test_the_published_schema_is_what_the_command_prints(command, file):
    done = CliRunner().invoke(app, [command, "--schema"])
    assert done.exit_code == 0
    assert (CONFIGS / file).read_text() == done.stdout, f"stpatch {command} --schema > configs/{file}"


def test_a_manifest_has_the_keys_of_its_schema(tmp_path):
    write_dataset(tmp_path)
    schema, value = manifest_schema(), json.loads((tmp_path / MANIFEST).read_text())
    assert {*schema["required"], "digest"} == set(value)  # which format 1 does not have
    assert set(schema["properties"]) - set(value) == {"planes", "version_sets", "extends", "merged"}
    assert set(schema["properties"]["tables"]["required"]) == {"genes", "slides", "patches"}
    assert Manifest.model_validate(value).as_json() == value


def test_public_names():
    assert set(stpatch.__all__) <= set(dir(stpatch))
    for name in stpatch.__all__:
        assert getattr(stpatch, name) is not None
        assert name == "__version__" or getattr(stpatch, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        stpatch.nothing  # noqa: B018
