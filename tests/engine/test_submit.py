"""The chain of jobs: what waits for what, how wide it is, and what a changed or half-done build submits."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bundles.many import spoil, write_many
from commands import built, stpatch

from stpatch.cli.options import job_of
from stpatch.engine.graph import STAGES
from stpatch.engine.slurm import Submission, script
from stpatch.engine.submit import Batch, plan_batches
from stpatch.errors import ConfigError


def batches(config: Path, *, largest_array: int = 1001, units_per_task: int | None = 1) -> dict[str, Batch]:
    found = plan_batches(job_of(config, None), largest_array=largest_array, units_per_task=units_per_task)
    return {batch.name: batch for batch in found}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_many(tmp_path, 5, shards={"patches": 6, "mix": 4})


def test_a_fresh_chain(corpus: Path) -> None:
    found = batches(corpus)
    assert list(found) == list(STAGES)
    assert {name: batch.after for name, batch in found.items()} == {
        "ingest": (),
        "normalize": (("aftercorr", "ingest"),),
        "select": (("afterok", "ingest"), ("afterok", "normalize")),
        "crop": (("afterok", "select"),),
        "plan": (("afterok", "crop"),),
        "shard": (("afterok", "plan"),),
        "finalize": (("afterok", "shard"),),
    }
    assert found["ingest"].tasks == found["normalize"].tasks == found["crop"].tasks == (0, 1, 2, 3, 4)
    assert all(found[name].tasks is None for name in ("select", "plan", "finalize"))
    assert all(batch.memory > 4e8 and batch.seconds >= 600 for batch in found.values())


def test_failing_slides_that_are_left_out_keep_no_reduce_waiting(tmp_path: Path) -> None:
    config = write_many(tmp_path, 5, run={"on_error": "skip"})
    found = batches(config)
    assert found["normalize"].after == (("aftercorr", "ingest"),)  # the slide's own task alone is taken out
    assert found["select"].after == (("afterany", "ingest"), ("afterany", "normalize"))
    assert found["plan"].after == (("afterany", "crop"),)
    assert found["finalize"].after == (("afterok", "shard"),)
    # A failed slide would take out others of its task.
    assert batches(config, units_per_task=2)["normalize"].after == (("afterany", "ingest"),)


def test_a_number_of_the_whole_corpus_is_waited_for(tmp_path: Path) -> None:
    config = write_many(tmp_path, 3, normalize={"target_sum": "corpus_median"})
    assert batches(config)["normalize"].after == (("afterok", "ingest"),)


def test_windows_of_arrays(corpus: Path) -> None:
    found = batches(corpus, largest_array=2)
    spans = [(name, batch.offset, batch.tasks) for name, batch in found.items() if batch.stage == "normalize"]
    assert spans == [("normalize", 0, (0, 1)), ("normalize-2", 2, (0, 1)), ("normalize-3", 4, (0,))]
    assert found["normalize-3"].after == (("aftercorr", "ingest-3"),)
    assert len(found["select"].after) == 6
    assert {batch.world_size for batch in found.values() if batch.stage == "normalize"} == {5}


def test_small_units_share_tasks(corpus: Path) -> None:
    found = batches(corpus, units_per_task=None)
    assert found["ingest"].tasks == found["crop"].tasks == (0,)
    assert batches(corpus, units_per_task=2)["ingest"].world_size == 3


def test_what_is_left(corpus: Path) -> None:
    built("run", "ingest", corpus, "-q", "--unit", "S00", "--unit", "S03")
    built("run", "normalize", corpus, "-q", "--unit", "S00")
    found = batches(corpus)
    assert found["ingest"].tasks == (1, 2, 4)
    assert (found["normalize"].tasks, found["normalize"].after) == ((1, 2, 4), (("aftercorr", "ingest"),))
    assert (found["normalize-2"].tasks, found["normalize-2"].after) == ((3,), ())
    for stage in ("ingest", "normalize", "select"):
        built("run", stage, corpus, "-q")
    built("run", "crop", corpus, "-q", "--unit", "S02")
    found = batches(corpus)
    assert list(found) == ["crop", "plan", "shard", "finalize"]
    assert (found["crop"].tasks, found["crop"].after) == ((0, 1, 3, 4), ())
    built("run", "crop", corpus, "-q")
    built("run", "plan", corpus, "-q")
    built("run", "shard", corpus, "-q", "--offset", "1")
    found = batches(corpus)
    assert list(found) == ["shard", "finalize"]
    assert 1 not in (found["shard"].tasks or ())
    assert found["shard"].tasks is not None
    assert found["shard"].world_size == len(found["shard"].tasks) + 1
    built("build", corpus, "-q")
    assert batches(corpus) == {}
    assert built("submit", corpus, "--dry-run").out == "nothing is left\n"


def test_a_slide_whose_header_cannot_be_read(tmp_path: Path) -> None:
    config = write_many(tmp_path, 2)
    (tmp_path / "s01.h5ad").write_bytes(b"no slide")
    done = stpatch("submit", config, "--dry-run")
    assert done.code == 2
    assert "s01.h5ad" in done.err
    skipped = json.loads(built("submit", config, "--dry-run", "--json", "--set", "run.on_error=skip").out)
    assert len(skipped["jobs"]) == 7


def test_the_words_of_a_job(tmp_path: Path) -> None:
    config = write_many(tmp_path / "my corpus", 2, run={"setup": ["module load python"]})
    spoil(config.parent / "s01.h5ad")  # which no header tells
    done = built(
        "submit", config, "--dry-run", "--setup", "source env/bin/activate", "--sbatch", "--qos=long run", "--at-once",
        "7", "--set", "channels.n=4", "--units-per-task", "1", "--program", "srun stpatch",
    )  # fmt: skip
    assert subprocess.run(["bash", "-n"], input=done.out, text=True, check=False).returncode == 0
    assert "\nmodule load python\nsource env/bin/activate\n" in done.out
    assert '#SBATCH "--qos=long run"' in done.out
    assert "#SBATCH --array=0,1%7" in done.out
    assert f'#SBATCH "--output={config.parent}/out.work/slurm/ingest-%A_%a.log"' in done.out
    word = f"'{config}' --quiet --set channels.n=4"
    assert f"srun stpatch run ingest {word} --offset 0 --world-size 2 &" in done.out
    assert f"srun stpatch run select {word} --rank 0 --world-size 1 &" in done.out
    assert "normalize=$(sbatch --parsable --dependency=aftercorr:$ingest <<'STPATCH'" in done.out


@pytest.mark.parametrize("option", ["--comment=a\nb", '--comment="'])
def test_options_that_a_script_cannot_hold(option: str) -> None:
    batch = Batch(name="plan", stage="plan", tasks=None, memory=10**9, seconds=600)
    submission = Submission(program=("stpatch",), config=Path("/c.yaml"), work=Path("/w"), options=(option,))
    with pytest.raises(ConfigError, match="line break or a quote"):
        script(batch, submission)


def test_without_slurm_the_command_says_so(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    done = stpatch("submit", corpus)
    assert done.code == 2
    assert "there is no Slurm here" in done.err
    assert "--dry-run" in done.err


def answers(script_text: str, tmp_path: Path, **environment: Any) -> subprocess.CompletedProcess[str]:
    """Run a job's script with a scontrol that prints what it is asked."""
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho scontrol $@\n")
    (tmp_path / "scontrol").chmod(0o755)
    return subprocess.run(
        ["bash"], input=script_text, text=True, capture_output=True, check=False,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **{name: str(value) for name, value in environment.items()}},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("program", "restarts", "code", "said"),
    [
        ("true", 0, 0, ""),
        ("false", 0, 1, ""),
        ("sh -c 'kill -9 $$'", 0, 137, "scontrol requeue 8_3\n"),
        ("sh -c 'kill -9 $$'", 3, 137, ""),
    ],
)
def test_a_task_that_is_killed_is_queued_again_a_few_times(
    tmp_path: Path, program: str, restarts: int, code: int, said: str
) -> None:
    batch = Batch(name="crop", stage="crop", tasks=(3,), world_size=9, memory=10**9, seconds=600)
    submission = Submission(program=shlex.split(program), config=Path("/c.yaml"), work=Path("/w"))
    numbers = {"SLURM_ARRAY_JOB_ID": 8, "SLURM_ARRAY_TASK_ID": 3, "SLURM_RESTART_COUNT": restarts}
    done = answers(script(batch, submission), tmp_path, **numbers)
    assert (done.returncode, done.stdout) == (code, said)
