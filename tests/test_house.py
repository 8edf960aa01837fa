"""The rules of the house that its architecture page states, held against the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "stpatch"
ROOMS = ("cli", "engine", "stages", "views", "dataset", "expression", "image", "slides", "kernels", "demo")
"""From the top down: a room imports from itself and from those below it."""
CROWDED = {"slides/readers/table.py": 550}
"""Modules that hold more than one thing and wait to be divided; no other may join them."""
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def tree_of(module: Path) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


def imports_of(module: Path) -> Iterator[str]:
    """Every imported name, wherever in the module the import stands."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_room_is_on_the_list_and_has_its_page() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert folders == set(ROOMS)
    page = (PACKAGE / "README.md").read_text(encoding="utf-8")
    for room in ROOMS:
        assert (PACKAGE / room / "README.md").is_file(), f"{room} has no README.md"
        assert f"`{room}/`" in page, f"the architecture page does not name {room}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_run_one_way(module: Path) -> None:
    if len(module.parts) == 1:
        pytest.skip("stands at the root")
    floor = ROOMS.index(module.parts[0])
    for name in imports_of(module):
        parts = name.split(".")
        if parts[0] == "stpatch" and len(parts) > 1 and parts[1] in ROOMS:
            assert ROOMS.index(parts[1]) >= floor, f"{module} imports {name}, which lies above it"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_compiled_loops_stand_in_one_room(module: Path) -> None:
    compilers = [name for name in imports_of(module) if name.split(".")[0] in ("numba", "llvmlite")]
    assert not compilers or module.parts[0] == "kernels", f"{module} imports {', '.join(compilers)}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_modules_and_signatures_stay_small(module: Path) -> None:
    lines = (PACKAGE / module).read_text(encoding="utf-8").count("\n")
    assert lines <= CROWDED.get(module.as_posix(), 480), f"{module} has {lines} lines: it holds more than one thing"
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.FunctionDef):
            positional = len(node.args.posonlyargs) + len(node.args.args)
            assert positional <= 10, f"{module}, {node.name}: {positional} positional arguments"


def test_links_of_the_pages_lead_somewhere() -> None:
    for page in [PACKAGE / "README.md", *PACKAGE.rglob("*/README.md"), PACKAGE.parent / ".github" / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page}: {target}"
