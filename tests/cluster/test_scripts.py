"""The examples for other schedulers: every unit is run by exactly one task, and each job waits for the one before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from bundles.corpus import digests
from bundles.many import write_many
from commands import built

from stpatch.engine.graph import STAGES
from stpatch.engine.shares import ShareOptions, find_share

FOLDER = Path(__file__).parents[2] / "scripts" / "cluster"
UNITS = [f"S{i:02d}" for i in range(11)]
ARRAYS = {"ingest", "normalize", "crop", "shard"}
SUBMITS = {"sge": "qsub", "pbs": "qsub", "lsf": "bsub"}
SAID = {
    "sge": 'echo "$id.1-3:1"',
    "pbs": 'echo "$id[].host"',
    "lsf": 'echo "Job <$id> is submitted to default queue <normal>."',
}
"""What the real commands print."""
INDEX = {
    "sge": lambda i, n: {"SGE_TASK_ID": i + 1, "SGE_TASK_FIRST": 1, "SGE_TASK_LAST": n, "SGE_TASK_STEPSIZE": 1},
    "pbs": lambda i, n: {"PBS_ARRAY_INDEX": i, "PBS_O_WORKDIR": "."},
    "lsf": lambda i, n: {"LSB_JOBINDEX": i + 1, "LSB_JOBINDEX_END": n, "LSB_JOBINDEX_STEP": 1},
}
ALONE = {
    "sge": {"SGE_TASK_ID": "undefined"},
    "pbs": {"PBS_O_WORKDIR": "."},
    "lsf": {"LSB_JOBINDEX": 0, "LSB_JOBINDEX_END": 0},
}
"""What they set in a job that is not an array."""


def options_of(words: Sequence[str]) -> tuple[str, ShareOptions]:
    """Return the stage and the options of a ``stpatch run`` command."""
    assert words[:2] == ["stpatch", "run"]
    numbers = {name: int(words[words.index(name) + 1]) for name in ("--rank", "--world-size") if name in words}
    return words[2], ShareOptions(rank=numbers.get("--rank"), world_size=numbers.get("--world-size"))


def share_of(words: Sequence[str], environment: Mapping[str, Any]) -> list[str]:
    return find_share(options_of(words)[1], {name: str(text) for name, text in environment.items()}).share(UNITS)


def stub(folder: Path, name: str, *lines: str) -> None:
    path = folder / name
    path.write_text("\n".join(["#!/bin/bash", *lines, ""]))
    path.chmod(0o755)


@pytest.mark.parametrize("scheduler", SUBMITS)
def test_a_script_submits_a_chain_whose_tasks_share_the_units(scheduler: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "bin").mkdir()
    stub(
        tmp_path / "bin", SUBMITS[scheduler], f'printf "%s\\x1f" "$@" >> {log}', f'printf "\\n" >> {log}',
        f"id=$(wc -l < {log})", SAID[scheduler],
    )  # fmt: skip
    stub(tmp_path / "bin", "stpatch", "printf '%s\\x1f' stpatch \"$@\"")
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    script = FOLDER / f"{scheduler}.sh"

    def run(*words: object, **more: object) -> str:
        done = subprocess.run(
            ["bash", script, *map(str, words)], cwd=tmp_path, text=True, check=False, capture_output=True,
            env=environment | {name: str(value) for name, value in more.items()},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run("my config.yaml", 3, "--more", "an option")
    assert [line.split()[0] for line in said.splitlines()] == list(STAGES)
    calls = [line.split("\x1f")[:-1] for line in log.read_text().splitlines()]
    for number, (stage, call) in enumerate(zip(STAGES, calls, strict=True)):
        text = " ".join(call)
        assert ("1-3" in text or "0-2" in text) == (stage in ARRAYS)
        assert "--more an option" in text
        assert call.count("an option") == 1
        if number:
            assert any(str(number) in word.replace("1-3", "").replace("0-2", "") for word in call), call
        variables = dict(
            part.strip().split("=", 1) for word in call for part in word.split(",") if "STPATCH_" in part.split("=")[0]
        )
        assert variables["STPATCH_CONFIG"] == str(tmp_path / "my config.yaml")
        environments = [INDEX[scheduler](i, 3) for i in range(3)] if stage in ARRAYS else [ALONE[scheduler]]
        found = []
        for task in environments:
            words = run(**variables, **task).split("\x1f")[:-1]
            assert words[2:4] == [stage, str(tmp_path / "my config.yaml")]
            found += share_of(words, task)
        assert sorted(found) == UNITS


def test_kubernetes_jobs_share_the_units() -> None:
    jobs = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
    assert [job["metadata"]["labels"]["stage"] for job in jobs] == list(STAGES)
    for job in jobs:
        spec = job["spec"]
        words = spec["template"]["spec"]["containers"][0]["command"]
        assert words[2] == job["metadata"]["labels"]["stage"]
        assert (spec.get("completionMode") == "Indexed") == (words[2] in ARRAYS)
        tasks = [{"JOB_COMPLETION_INDEX": i} for i in range(spec["completions"])] if words[2] in ARRAYS else [{}]
        assert sorted(unit for task in tasks for unit in share_of(words, task)) == UNITS


def test_aws_batch_jobs_share_the_units() -> None:
    chain = json.loads((FOLDER / "aws-batch.json").read_text())["jobs"]
    assert [job["containerOverrides"]["command"][2] for job in chain] == list(STAGES)
    for before, job in zip([None, *chain], chain, strict=False):
        words = job["containerOverrides"]["command"]
        size = job.get("arrayProperties", {}).get("size")
        assert (size is not None) == (words[2] in ARRAYS)
        tasks = [{"AWS_BATCH_JOB_ARRAY_INDEX": i} for i in range(size)] if size else [{}]
        assert sorted(unit for task in tasks for unit in share_of(words, task)) == UNITS
        if before is not None:
            waits = job["dependsOn"][0]
            assert waits["jobId"] == f"{{{before['containerOverrides']['command'][2]}}}"
            assert (waits.get("type") == "N_TO_N") == (words[2] == "normalize")


def test_snakemake_gives_what_a_build_gives(tmp_path: Path) -> None:
    snakemake = os.environ.get("STPATCH_SNAKEMAKE") or shutil.which("snakemake")
    if snakemake is None:
        pytest.skip("Snakemake is not installed here (set STPATCH_SNAKEMAKE to the command)")
    config = write_many(tmp_path, 3, shards={"patches": 6, "mix": 4})
    words = [
        snakemake, "-s", FOLDER / "Snakefile", "--cores", "2", "--quiet", "--directory", tmp_path / "flow",
        "--config", f"build={config}", f"program={sys.executable} -m stpatch",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def run() -> str:
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run()
    built("build", config, "-q", "--set", f"dataset.output={tmp_path / 'alone'}")
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")
    assert "finalize" not in run()  # all is up to date
