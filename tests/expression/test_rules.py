"""The registry of rules: what it lists, what other packages add, and that every rule is held against a reference."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import built
from corpora import make_slide, panel_of
from expression.plain import gene_name
from expression.references import PANEL_REFERENCES, PATCH_REFERENCES

import stpatch as package
from stpatch import extensions
from stpatch.config import Config
from stpatch.config_file import load_config
from stpatch.errors import ConfigError
from stpatch.expression.normalizations import NORMALIZATIONS
from stpatch.expression.normalize import SCALED_METHODS, resolve_normalization, spot_totals
from stpatch.expression.rules.base import PanelRule, PatchRule, RuleSpec
from stpatch.expression.rules.registry import (
    panel_rule,
    patch_rule,
)
from stpatch.expression.sample import PatchSampler
from stpatch.image.moments import Moments
from stpatch.registry import PANEL_RULES, PATCH_RULES
from stpatch.seeds import name_keys

ROOT = Path(__file__).parents[2]
PLUGINS = ROOT / "tests" / "plugins"


def corpus(seed: int = 0) -> list[Any]:
    """Return three slides on one square lattice, of the same genes, with ties."""
    rng = np.random.default_rng(seed)
    array = np.column_stack([np.arange(36) // 6, np.arange(36) % 6])
    slides = []
    for number in range(3):
        counts = rng.poisson(rng.lognormal(0.5, 1, 50) * rng.gamma(2, 0.5, (36, 50)))
        counts[:, 7] = counts[:, 5]
        slides.append(make_slide(f"s{number}", counts, xy=array[:, ::-1], array=array, geometry="square"))
    return slides


@pytest.mark.parametrize("name", PANEL_RULES.own())
def test_every_panel_rule_equals_its_reference(name: str) -> None:
    assert name in PANEL_REFERENCES, f"panel rule {name} has no reference in tests/expression/references.py"
    for slides in (corpus()[:1], corpus(1)):
        genes = ("g0004", "g0001", "g0030") if panel_rule(name).needs_genes else ()
        panel = panel_of(slides, RuleSpec(method=name, n=12, genes=genes))
        wanted = PANEL_REFERENCES[name](slides, genes)
        if isinstance(wanted, tuple):
            assert panel.genes == wanted
            continue
        # by falling score, and each gene has its own score: genes that are equal but for rounding may change places
        np.testing.assert_allclose(panel.scores, np.sort(wanted[~np.isnan(wanted)])[::-1][:12], rtol=1e-8)
        np.testing.assert_allclose(panel.scores, wanted[[int(gene[1:]) for gene in panel.genes]], rtol=1e-8)
        assert len(set(panel.genes)) == 12


@pytest.mark.parametrize("name", PATCH_RULES.own())
@pytest.mark.parametrize("number", range(5))
def test_every_patch_rule_equals_its_reference(name: str, number: int) -> None:
    assert name in PATCH_REFERENCES, f"patch rule {name} has no reference in tests/expression/references.py"
    rng = np.random.default_rng(number)
    values = rng.poisson(rng.lognormal(0, 1, 40), (25, 40)).astype(np.float64)
    ids = rng.permutation(90)[:40] + 1
    keys = name_keys(gene_name(int(i)) for i in ids)
    sampler = PatchSampler(method=name, n=9, gene_ids=ids.astype(np.int32), gene_keys=keys, seed=3)
    moments = Moments(n_pixels=25, mean=values.mean(axis=0), variance=values.var(axis=0, ddof=1))
    found = sampler.choose(moments, slide_id="a", number=number)
    assert sorted(ids[found].tolist()) == sorted(
        PATCH_REFERENCES[name](values, ids, 9, (3, "a", "channels", number, 0))
    )


@pytest.mark.parametrize("name", PANEL_RULES.own())
def test_every_panel_rule_says_what_it_is(name: str) -> None:
    rule = panel_rule(name)
    assert isinstance(rule, PanelRule)
    assert (rule.name, rule.refuses <= set(NORMALIZATIONS)) == (name, True)
    assert rule.source
    assert type(rule).__doc__
    assert not rule.refuses or rule.refusal


@pytest.mark.parametrize("name", PATCH_RULES.own())
def test_every_patch_rule_says_what_it_is(name: str) -> None:
    rule = patch_rule(name)
    assert isinstance(rule, PatchRule)
    assert rule.name == name
    assert rule.source
    assert type(rule).__doc__


def test_the_readme_lists_every_rule() -> None:
    row = next(
        line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if line.startswith("| Which genes?")
    )
    panel, patch = row.split("|")[3].split("; `patch`:")
    assert sorted(re.findall(r"`(\w+)`", panel.split(":", 1)[1])) == list(PANEL_RULES.own())
    assert sorted(re.findall(r"`(\w+)`", patch)) == list(PATCH_RULES.own())


def test_the_configs_choices_are_the_registrys() -> None:
    schema: Any = Config.model_json_schema()["$defs"]
    assert schema["CandidatesSection"]["properties"]["method"]["enum"] == list(PANEL_RULES.names())
    methods = schema["ChannelsSection"]["properties"]["method"]["enum"]
    assert set(methods) == {*PANEL_RULES.names(), *PATCH_RULES.names()}
    assert schema["NormalizeSection"]["properties"]["method"]["enum"] == list(NORMALIZATIONS)


def test_a_config_imports_one_rule_and_nothing_numerical() -> None:
    code = (
        "import sys; from stpatch.config import Config; Config.model_json_schema(); "
        "Config.model_validate({'dataset': {'output': 'o'}, 'slides': ['a'], 'channels': {'draws': 2}}); "
        "print([n for n in sys.modules if n in ('numpy', 'numba', 'scipy', 'pandas') "
        "or n.startswith(('stpatch.expression.rules.panel.', 'stpatch.expression.rules.patch.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "['stpatch.expression.rules.patch.variance_sampled']"


@pytest.mark.parametrize("name", list(NORMALIZATIONS))
def test_the_table_of_normalizations_is_what_they_do(name: str) -> None:
    kind = NORMALIZATIONS[name]
    slide = corpus()[0]
    resolved = resolve_normalization(name, counts=slide.counts, totals=spot_totals(slide.counts))
    assert resolved.keeps_zeros == kind.keeps_zeros
    assert (resolved.target_sum is not None) == kind.scaled == (name in SCALED_METHODS)
    assert (resolved.gene_sums is not None) == kind.whole_slide


@pytest.mark.parametrize(
    ("section", "near"),
    [
        ({"channels": {"method": "variance_smapled"}}, "variance_sampled"),
        ({"channels": {"candidates": {"method": "morna"}}}, "moran"),
        ({"normalize": {"method": "log_total"}}, "log1p_total"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(section: dict[str, Any], near: str, tmp_path: Path) -> None:
    text = {"dataset": {"output": "out"}, "slides": [str(tmp_path)], **section}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(ConfigError, match=f"did you mean '{near}'"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("channels", "normalize", "message"),
    [
        ({"scope": "panel", "method": "cv"}, "pearson_residuals", "divides by a gene's mean"),
        ({"candidates": {"method": "hvg_seurat"}}, "pearson_residuals", "divides by a gene's mean"),
        ({"scope": "panel", "method": "hvg_seurat_v3"}, "none", "models raw counts"),
    ],
)
def test_a_rule_and_a_normalization_that_do_not_go_together_are_told_by_the_config(
    channels: dict[str, Any], normalize: str, message: str
) -> None:
    values = {"shards": {"values": "normalized"}, "normalize": {"method": normalize}, "channels": channels}
    if normalize == "none":
        values["ingest"] = {"values": "normalized"}
    with pytest.raises(ValueError, match=message):
        Config.model_validate({"dataset": {"output": "o"}, "slides": ["a"], **values})


def dataset(folder: Path, name: str, **channels: Any) -> Any:
    """Build a dataset of one slide in process and open it."""
    counts = np.random.default_rng(0).poisson(np.arange(1, 13) / 4, (16, 12)) + np.eye(16, 12, dtype=int)
    rows = ["\t".join(["spot", *(f"G{i:02d}" for i in range(12))])]
    rows += [f"{i % 4}x{i // 4}\t" + "\t".join(map(str, row)) for i, row in enumerate(counts)]
    (folder / "a.tsv").write_text("\n".join(rows) + "\n")
    values = {
        "dataset": {"output": name},
        "slides": [{"slide_id": "a", "path": "a.tsv"}],
        "ingest": {"platform": "st"},
        "normalize": {"method": "none"},
        "channels": {"n": 3, **channels},
        "crop": {"size": [4, 4]},
        "split": {"fractions": {"train": 1.0}},
        "run": {"workers": 1},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    built("build", folder / f"{name}.yaml")
    return package.open(folder / name, split="train"), counts


def test_rules_from_another_package_build_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = {"dataset": {"output": "out"}, "slides": ["a"], "channels": {"method": "fano"}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(ConfigError, match="is not valid"):
        load_config(tmp_path / "c.yaml")
    monkeypatch.syspath_prepend(PLUGINS)
    assert PANEL_RULES.names() == (*PANEL_RULES.own(), "widest")
    assert PATCH_RULES.names() == (*PATCH_RULES.own(), "fano")
    panel, counts = dataset(tmp_path, "panel", scope="panel", method="widest")
    widest = np.argsort(-np.count_nonzero(counts, axis=0), kind="stable")[:3]
    assert panel[0].x.reshape(3, 16).tolist() == counts.T[widest].tolist()
    patch, counts = dataset(tmp_path, "patch", scope="patch", method="fano")
    fano = np.sort(np.argsort(-counts.var(axis=0, ddof=1) / counts.mean(axis=0), kind="stable")[:3])
    assert patch[0].x.reshape(3, 16).tolist() == counts.T[fano].tolist()
    text["channels"] = {"method": "fano", "draws": 2}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(ConfigError, match="every draw would be the same"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([("variance", "other:Rule")], r"two packages register one name[\s\S]*variance[\s\S]*stpatch itself"),
        ([("gone", "no_such_module_here:Rule")], r"cannot be imported[\s\S]*no_such_module_here"),
        ([("gone", "collections:OrderedDict")], r"registered that is not one[\s\S]*OrderedDict"),
    ],
)
def test_what_a_package_registers_wrongly_is_named(
    points: list[tuple[str, str]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tuple(EntryPoint(name=name, value=value, group="stpatch.rules.panel") for name, value in points)
    monkeypatch.setattr(extensions, "_points", lambda _group, _path: found)
    with pytest.raises(ConfigError, match=message):
        assert PANEL_RULES.names()[-1] == panel_rule("gone").name


def test_an_unknown_rule_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown panel rule 'hvg_seurat_v4'[\s\S]*did you mean 'hvg_seurat_v3'"):
        panel_rule("hvg_seurat_v4")
    with pytest.raises(ConfigError, match="unknown patch rule 'cv'"):
        patch_rule("cv")
