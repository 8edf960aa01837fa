"""The register of compiled loops, and that what is compiled ahead is what the stages call."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles.corpus import write_config, write_corpus

import stpatch
from stpatch.engine.graph import STAGES as GRAPH
from stpatch.kernels import registry
from stpatch.kernels.registry import ANNOUNCEMENT, STAGES, all_kernels, compile_kernels, kernel


def with_examples() -> list[str]:
    return [name for name, item in all_kernels().items() if item.examples]


@pytest.mark.parametrize("name", with_examples())
@pytest.mark.parametrize("dtype", ["uint16", "uint32", "float32"])
def test_every_kernel_compiles_from_its_examples(name, dtype):
    item = all_kernels()[name]
    item.compile(dtype)
    n_examples = len(list(item.examples(np.dtype(dtype))))
    assert 1 <= n_examples <= len(item.signatures)
    before = item.signatures
    assert not item.compile(dtype)
    assert item.signatures == before


def test_the_stages_are_the_graphs():
    assert set(STAGES) <= set(GRAPH)
    assert {item.stage for item in all_kernels().values()} == {*STAGES, None}


AHEAD_AND_AFTER = """
import sys
from commands import built
from stpatch.kernels.registry import STAGES, all_kernels, compile_kernels

def signatures():
    return {name: set(item.signatures) for name, item in all_kernels().items() if item.stage}

compile_kernels(STAGES, counts_dtype=sys.argv[1], announce=lambda _text: None)
ahead = signatures()
for config in sys.argv[2:]:
    built("build", config, "-q", "--workers", 1)
print({name: new - ahead[name] for name, new in signatures().items() if new - ahead[name]})
"""


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_build_compiles_nothing_that_was_not_compiled_ahead(tmp_path, dtype):
    write_corpus(tmp_path)
    sheet = tmp_path / "some.csv"  # one platform each that shares its genes, and a reader that takes normalized values
    lines = (tmp_path / "slides.csv").read_text().splitlines()
    sheet.write_text("\n".join([lines[0], *(lines[1:3] if dtype == "uint16" else lines[4:])]) + "\n")
    panel = {"channels": {"scope": "panel", "method": "variance", "n": 5}, "crop": {"method": "random", "density": 9}}
    patch: dict[str, Any] = {"crop": {"method": "random", "density": 9}}
    own = {"ingest": {"values": "normalized"}, "normalize": {"method": "none"}, "shards": {"values": "normalized"}}
    configs = [
        write_config(
            tmp_path,
            name=f"{name}.yaml",
            dataset={"output": name},
            slides={"sheet": str(sheet)},
            split={"fractions": {"train": 1.0}},
            **sections,
            **({} if dtype == "uint16" else own),
        )
        for name, sections in {"panel": panel, "patch": patch}.items()
    ]
    tests = Path(__file__).resolve().parents[1]
    paths = os.pathsep.join([str(tests), str(tests.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", AHEAD_AND_AFTER, dtype, *map(str, configs)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1] == "{}"


class Slow:
    """A dispatcher that compiles each type once, and takes its time; it can stand for a full cache too."""

    def __init__(self, *, cached: bool) -> None:
        self.cached, self.stats, self.signatures = cached, self, []
        self.cache_misses: dict[Any, int] = {}

    def compile(self, types: Any) -> None:
        time.sleep(0.02)
        if not self.cached:
            self.cache_misses[types] = 1


@pytest.mark.parametrize(("cached", "said"), [(True, []), (False, [ANNOUNCEMENT])])
def test_what_the_cache_lacks_is_announced_once(monkeypatch, cached, said):
    slow = {
        str(i): registry.Kernel(
            name=str(i), function=Slow(cached=cached), stage="ingest", examples=lambda dtype: [(dtype.type(0),)]
        )
        for i in range(4)
    }
    monkeypatch.setattr(registry, "all_kernels", lambda: slow)
    monkeypatch.setattr(registry, "PATIENCE", 0.01)
    found: list[str] = []
    assert compile_kernels(["ingest"], announce=found.append) is not cached
    assert found == said
    assert compile_kernels(["ingest", "shard"], announce=lambda _text: pytest.fail("all is there")) is False


def test_a_short_compilation_is_not_announced(monkeypatch):
    slow = {"one": registry.Kernel(name="one", function=Slow(cached=False), stage="ingest", examples=lambda _: [(1,)])}
    monkeypatch.setattr(registry, "all_kernels", lambda: slow)
    assert compile_kernels(["ingest"], announce=lambda _text: pytest.fail("it was over at once"))


def test_a_stage_without_kernels_imports_nothing(monkeypatch):
    monkeypatch.setattr(registry, "all_kernels", lambda: pytest.fail("imported"))
    assert compile_kernels(["crop", "plan"], announce=print) is False


def test_a_kernel_compiled_ahead_needs_a_stage_of_the_pipeline_and_examples():
    with pytest.raises(ValueError, match="needs a stage"):
        kernel(stage="shards", examples=lambda _: [()])
    with pytest.raises(ValueError, match="and examples"):
        kernel(stage="shard")


def test_no_other_room_imports_the_compiler():
    root = Path(stpatch.__file__).parent
    for path in root.rglob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
        assert path.parent.name == "kernels" or not names & {"numba", "llvmlite"}, path


def test_no_kernel_takes_more_than_eight_arguments():
    for item in all_kernels().values():
        assert item.function.py_func.__code__.co_argcount <= 8, item.name
