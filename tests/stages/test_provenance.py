"""What made a unit: the code that runs, and nothing but it; versions that are true whatever was upgraded since."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles.corpus import digests, write_config, write_corpus
from commands import built, stpatch

from stpatch.engine.graph import STAGES
from stpatch.image.crop import Patches
from stpatch.stages import crop, provenance
from stpatch.stages.provenance import CodeIndex, library_versions, read_module

STAGE = "toycode.stage"
MODULES = {
    "__init__": "from toycode.unused import nothing\n",
    "stage": '"""Doc."""\nfrom typing import TYPE_CHECKING\nfrom toycode.parts import steps\nimport toycode.limits\n'
    "if TYPE_CHECKING:\n    from toycode.types import Kind\n\n\n"
    "def run():\n    from toycode.late import end\n    return end()\n",
    "parts/__init__": "",
    "parts/steps": 'from . import near\nfrom ..above import up\nMOST = 3\n"""Doc of MOST."""\n\n\ndef step(x):\n'
    '    """Doc."""\n    if x > MOST:  # why\n        raise ValueError(f"{x} is above {MOST}")\n    return x\n',
    "parts/near": "NEAR = 1\n",
    "parts/registry": "import importlib\n\n\n"
    "def find(name):\n    return importlib.import_module(f'toycode.parts.{name}')\n",
    "parts/plugin": "from toycode import deep\n",
    "above": "UP = 2\n",
    "deep": "DEEP = 1\n",
    "late": "def end():\n    return 1\n",
    "limits": "LIMIT = 1\n",
    "types": "Kind = int\n",
    "unused": "nothing = 0\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a few modules, which nobody imports."""
    folder = tmp_path / "toycode"
    for name, text in MODULES.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(provenance.importlib.resources, "files", lambda _name: folder)
    return folder


def index(**options: Any) -> CodeIndex:
    return CodeIndex("toycode", version="1", **options)


def names(*roots: str) -> list[str]:
    return [name.removeprefix("toycode.") for name in index().modules(roots)]


def test_imports_are_followed_wherever_they_stand(package: Path) -> None:
    assert names(STAGE) == ["above", "late", "limits", "parts", "parts.near", "parts.steps", "stage"]


def test_a_module_that_imports_by_name_may_import_its_neighbours(package: Path) -> None:
    assert names("toycode.parts.registry") == [
        "above", "deep", "parts", "parts.near", "parts.plugin", "parts.registry", "parts.steps",
    ]  # fmt: skip


CHANGES = [
    ("parts/steps", "MOST = 3", "MOST = 4", True),
    ("parts/steps", "return x", "return -x", True),
    ("parts/steps", "x > MOST", "x >= MOST", True),
    ("parts/near", "NEAR = 1", "NEAR = 1.0", True),
    ("late", "return 1", "return 2", True),
    ("above", "UP = 2", "UP = '2'", True),
    ("parts/steps", '"""Doc."""', '"""Another."""', False),
    ("parts/steps", "Doc of MOST", "What MOST is", False),
    ("parts/steps", "# why", "# because", False),
    ("parts/steps", "is above", "is more than", False),
    ("parts/steps", "return x", "return (\n        x\n    )", False),
    ("stage", '"""Doc."""\n', "", False),
    ("stage", "    from toycode.types import Kind\n", "    from toycode.types import Other\n", False),
    ("types", "int", "str", False),
    ("unused", "0", "1", False),
    ("parts/registry", "find", "look", False),
]


@pytest.mark.parametrize(("module", "old", "new", "counts"), CHANGES)
def test_what_runs_counts_and_nothing_else(package: Path, module: str, old: str, new: str, counts: bool) -> None:
    before = index().digest([STAGE])
    path = package / f"{module}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert (index().digest([STAGE]) != before) is counts


def test_what_was_found_is_kept_until_a_file_changes(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "kept" / "code.json"
    first = index(caches=[cache]).digest([STAGE])
    assert not cache.exists(), "no folder is made for it"
    cache.parent.mkdir()
    assert index(caches=[tmp_path / "none" / "a.json", cache]).digest([STAGE]) == first
    stamp = cache.stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "read_module", lambda *_words, **_named: pytest.fail("nothing has changed"))
        assert index(caches=[cache]).digest([STAGE]) == first
    assert cache.stat().st_mtime_ns == stamp
    (package / "late.py").write_text("def end():\n    return 3\n")
    changed = index(caches=[cache]).digest([STAGE])
    assert changed == index().digest([STAGE]) != first
    for text in ("", "{", "[]", '{"package": []}', cache.read_text().replace(f'"{package}"', '"elsewhere"')):
        cache.write_text(text)
        assert index(caches=[cache]).digest([STAGE]) == changed


def test_a_change_that_leaves_size_and_second_is_seen(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "code.json"
    before = index(caches=[cache]).digest([STAGE])
    path = package / "limits.py"
    path.write_text("LIMIT = 2\n")
    os.utime(path, ns=(0, 7))
    assert index(caches=[cache]).digest([STAGE]) != before


def test_an_archive_gives_the_same_digest(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = index().digest([STAGE])
    with zipfile.ZipFile(tmp_path / "toycode.zip", "w") as archive:
        for path in package.rglob("*.py"):
            archive.write(path, path.relative_to(tmp_path).as_posix())
    root = zipfile.Path(tmp_path / "toycode.zip", "toycode/")
    monkeypatch.setattr(provenance.importlib.resources, "files", lambda _name: root)
    assert index().digest([STAGE]) == expected


def test_without_sources_the_version_stands_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance.importlib.resources, "files", lambda _name: tmp_path)
    one, two = (CodeIndex("toycode", version=version).digest([STAGE]) for version in "12")
    assert one != two


def test_relative_imports_start_at_their_package() -> None:
    source = b"from . import a\nfrom ..b import c\nimport d.e\n"
    assert read_module(source, name="p.q.r", package="p", is_package=False).imports == ("p.b", "p.b.c", "p.q", "p.q.a")
    assert read_module(source, name="p.q.r", package="p", is_package=True).imports[:2] == ("p.q.b", "p.q.b.c")


def test_optional_libraries_that_are_not_installed_are_left_out() -> None:
    assert list(library_versions(["numpy", "no-such-thing"])) == ["numpy"]


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        ("ingest", "slides.readers.visium"),
        ("ingest", "slides.matrix"),
        ("ingest", "slides.formats.molecules.binner"),
        ("normalize", "expression.statistics"),
        ("select", "expression.select"),
        ("crop", "image.grid"),
        ("plan", "image.split"),
        ("shard", "stages.cutter"),
        ("shard", "dataset.formats.tar"),
        ("finalize", "dataset.tables"),
    ],
)
def test_stages_know_their_code(stage: str, module: str) -> None:
    modules = CodeIndex().modules([f"stpatch.stages.{stage}"])
    assert f"stpatch.{module}" in modules
    assert not [name for name in modules if name.startswith(("stpatch.cli", "stpatch.engine", "stpatch.views"))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built corpus; never change it."""
    folder = tmp_path_factory.mktemp("provenance")
    built("build", write_corpus(folder), "-q")
    return folder


@pytest.fixture
def corpus(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "corpus", copy_function=shutil.copy2)
    folder = tmp_path / "corpus"
    built("build", folder / "config.yaml", "-q")  # receipts know their inputs by location
    return folder


def manifest(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "out" / "manifest.json").read_text())
    return value


def upgraded(monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda asked: version if asked == name else real(asked))


def test_an_upgrade_and_a_new_version_leave_the_versions_of_the_shards(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, tars = manifest(corpus), digests(corpus / "out" / "train")
    upgraded(monkeypatch, "numcodecs", "99.0")
    built("build", write_config(corpus, dataset={"version": "2.0.0"}), "-q")
    after = manifest(corpus)
    assert after["dataset"]["version"] == "2.0.0"
    assert digests(corpus / "out" / "train") == tars
    assert after["versions"] == before["versions"]
    assert after["versions"]["numcodecs"] != "99.0" == importlib.metadata.version("numcodecs")
    assert "version_sets" not in after


def test_shards_of_two_versions_are_told(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = importlib.metadata.version("numcodecs")
    shards = len(list((corpus / "out").rglob("*.tar")))
    (corpus / "out" / "train" / "train-000000.tar").unlink()
    upgraded(monkeypatch, "numcodecs", "99.0")
    done = built("build", corpus / "config.yaml", "-q")
    value = manifest(corpus)
    assert value["versions"]["numcodecs"] == f"99.0, {old}"
    sets = {item["versions"]["numcodecs"]: item["shards"] for item in value["version_sets"]}
    assert sets == {old: shards - 1, "99.0": 1}
    note = f"stage shard was done by different versions: numcodecs 99.0 (1) and {old} ({shards - 1})"
    assert note in value["dataset"]["notes"]
    assert note in done.err
    built("validate", corpus / "out", "--deep")
    assert "up to date" in built("build", corpus / "config.yaml", "-q").out


def test_another_library_that_gives_other_bytes_redoes_what_follows(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slide's patches are lost and made again, and come out a little different."""
    real = crop.cut_patches

    def cut_patches(*words: Any, **named: Any) -> Patches:
        patches = real(*words, **named)
        return replace(patches, coverage=patches.coverage * 0.5) if named["slide_id"] == "V1" else patches

    (corpus / "out.work" / "patches" / "V1.npy").unlink()
    plan = corpus / "out.work" / "receipts" / "plan" / "corpus.json"
    stamp = plan.stat().st_mtime_ns
    monkeypatch.setattr(crop, "cut_patches", cut_patches)
    upgraded(monkeypatch, "numpy", "99.0")
    built("build", corpus / "config.yaml", "-q")
    receipt = json.loads((corpus / "out.work" / "receipts" / "crop" / "V1.json").read_text())
    assert receipt["revision"]
    assert receipt["software"]["libraries"]["numpy"] == "99.0"
    assert plan.stat().st_mtime_ns != stamp
    built("validate", corpus / "out")
    assert "up to date" in built("build", corpus / "config.yaml", "-q").out


@pytest.mark.parametrize("stage", ["ingest", "crop", "shard", "finalize"])
def test_a_changed_code_redoes_its_stage_and_what_follows(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    before = digests(corpus / "out")
    real = CodeIndex.modules

    def changed(self: CodeIndex, roots: list[str]) -> dict[str, Any]:
        found = real(self, roots)
        return found if f"stpatch.stages.{stage}" not in roots else {**found, "other": found[roots[0]]}

    monkeypatch.setattr(CodeIndex, "modules", changed)
    if stage != "finalize":
        done = stpatch("run", "finalize", corpus / "config.yaml", "-q")
        assert done.code == 2
        assert f"stage {stage} was run by other code" in done.err
    stamps = {path: path.stat().st_mtime_ns for path in (corpus / "out.work" / "receipts").rglob("*.json")}
    built("build", corpus / "config.yaml", "-q", "--replace")
    redone = {path.parent.name for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    following = list(STAGES)[list(STAGES).index(stage) :]
    assert redone == set(following)
    assert digests(corpus / "out") == before


def test_another_release_redoes_everything(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("stpatch"), "__version__", "9.9.9")
    built("build", corpus / "config.yaml", "-q", "--replace")
    assert manifest(corpus)["versions"]["stpatch"] == "9.9.9"
    assert "version_sets" not in manifest(corpus)
