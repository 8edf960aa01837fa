"""What is done is skipped, what changed is redone with what depends on it, and nothing else."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bundles.corpus import digests, write_config, write_corpus
from bundles.h5ad import write_h5ad
from commands import built, stpatch

from stpatch.slides.formats.hdf5.files import faults
from stpatch.stages import ingest
from stpatch.storage import sha256_file

STAGES = ("ingest", "normalize", "select", "crop", "plan", "shard", "finalize")
SLIDES = {"V1", "V2", "A1", "H1"}
OF_ENGINE = ("log/", "identity", "finished.json")
"""What the engine keeps in the work dir and no unit makes."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built corpus; never change it."""
    folder = tmp_path_factory.mktemp("engine") / "corpus"
    built("build", write_corpus(folder), "-q")
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """What the built corpus left, to change; its slides stay where they are."""
    for name in ("out", "out.work"):
        shutil.copytree(finished / name, tmp_path / name)
    write_config(tmp_path, slides={"sheet": str(finished / "slides.csv")})
    return tmp_path


@pytest.fixture
def corpus(finished: Path, tmp_path: Path) -> Path:
    """A built corpus whose slides may be changed."""
    folder = tmp_path / "corpus"
    shutil.copytree(finished, folder, copy_function=shutil.copy2)
    built("build", folder / "config.yaml", "-q")  # receipts know their inputs by place
    return folder


def stamps(folder: Path) -> dict[str, int]:
    """Return when each receipt was written."""
    receipts = folder / "out.work" / "receipts"
    return {
        path.relative_to(receipts).with_suffix("").as_posix(): path.stat().st_mtime_ns
        for path in receipts.rglob("*.json")
    }


def redone(folder: Path, **sections: dict[str, Any]) -> dict[str, set[str]]:
    """Build again, with other settings where given; return the units that were run, by stage."""
    before = stamps(folder)
    slides = yaml.safe_load((folder / "config.yaml").read_text())["slides"]
    built("build", write_config(folder, slides=slides, **sections), "-q", "--replace")
    found: dict[str, set[str]] = {}
    for name, stamp in stamps(folder).items():
        if before.get(name) != stamp:
            stage, _, unit = name.partition("/")
            found.setdefault(stage, set()).add(unit)
    return found


def same_as_fresh(folder: Path, config: Path) -> None:
    """See that redoing a part gave what doing it all gives."""
    fresh = folder / "fresh"
    built("build", config, "-q", "--set", f"dataset.output={fresh}")
    assert digests(folder / "out") == digests(fresh)


def test_an_unchanged_corpus_is_left_alone(copied: Path) -> None:
    before = digests(copied / "out")
    assert redone(copied) == {}
    assert digests(copied / "out") == before
    assert "up to date" in built("build", copied / "config.yaml", "-q").out


def test_touched_inputs_are_still_the_same(corpus: Path) -> None:
    os.utime(corpus / "h1.h5ad", ns=(0, 0))
    assert redone(corpus) == {}


@pytest.mark.parametrize(
    ("sections", "first"),
    [
        ({"ingest": {"qc": {"min_counts": 2}}}, "ingest"),
        ({"normalize": {"method": "total"}}, "normalize"),
        ({"channels": {"n": 4}}, "select"),
        ({"channels": {"n": 5, "fit_on": "all", "candidates": {"method": "detected", "n": 11}}}, "normalize|select"),
        ({"crop": {"size": [2, 2], "min_coverage": 0}}, "crop"),
        ({"dataset": {"seed": 1}}, "select"),  # which slides are train: the statistics' slides
        ({"split": {"by": "slide_id"}}, "select"),
        ({"shards": {"patches": 4}}, "plan"),
        ({"shards": {"mix": 1}}, "plan"),
        ({"shards": {"encoding": "npy"}}, "shard"),
        ({"shards": {"format": "zarr"}}, "shard"),
        ({"dataset": {"license": "CC0-1.0"}}, "finalize"),
        ({"dataset": {"description": "others"}}, "finalize"),
        ({"run": {"workers": 2, "on_error": "skip"}}, "none"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else value,
)
def test_a_changed_key_redoes_its_stage_and_what_follows(copied: Path, sections: dict[str, Any], first: str) -> None:
    found = redone(copied, **sections)
    if first == "none":
        assert found == {}
        return
    stages = [stage for stage in STAGES if stage in found]
    assert stages[0] in first.split("|")
    assert "finalize" in found
    for stage in ("ingest", "normalize", "crop"):
        assert found.get(stage, SLIDES) == SLIDES
    if first == "plan":
        assert "crop" not in found
    built("validate", copied / "out")
    same_as_fresh(copied, copied / "config.yaml")


def test_a_changed_input_redoes_its_slide_only(corpus: Path) -> None:
    write_h5ad(corpus / "h1.h5ad", rows=5, columns=7, n_genes=9, seed=9)
    found = redone(corpus)
    assert found["ingest"] == found["normalize"] == {"H1"}
    assert found["select"] == {"corpus"}
    built("validate", corpus / "out", "--deep")


def test_a_changed_selection_file_is_an_input_too(corpus: Path) -> None:
    path = corpus / "st" / "ST-spotfiles" / "A1_selection.tsv"
    lines = path.read_text().splitlines()
    lines[1] = lines[1][:-1] + "0"
    path.write_text("\n".join(lines) + "\n")
    assert redone(corpus)["ingest"] == {"A1"}


def test_a_sheet_column_redoes_what_looks_at_it(corpus: Path) -> None:
    sheet = corpus / "slides.csv"
    sheet.write_text(sheet.read_text().replace("H1,h1.h5ad,h5ad,d4", "H1,h1.h5ad,h5ad,d9"))
    assert redone(corpus)["ingest"] == {"H1"}


def test_a_slide_that_is_taken_out_leaves_nothing_behind(corpus: Path) -> None:
    sheet = corpus / "slides.csv"
    sheet.write_text("".join(line for line in sheet.read_text().splitlines(keepends=True) if "V2" not in line))
    found = redone(corpus)
    assert "ingest" not in found
    assert "V2" not in json.dumps(json.loads((corpus / "out" / "manifest.json").read_text()))
    built("validate", corpus / "out", "--deep")
    same_as_fresh(corpus, corpus / "config.yaml")


DAMAGES = {
    "out.work/slides/V1.h5ad": "ingest/V1",
    "out.work/slides/V1.totals.npy": "ingest/V1",
    "out.work/statistics/V1.npy": "normalize/V1",
    "out.work/channels.json": "select/corpus",
    "out.work/patches/V1.npy": "crop/V1",
    "out.work/plan.npz": "plan/corpus",
    "out/train/train-000000.tar": "shard/train-000000",
    "out.work/rows/train-000000.npz": "shard/train-000000",
    "out/patches.parquet": "finalize/corpus",
    "out/index/train.json": "finalize/corpus",
    "out/README.md": "finalize/corpus",
    "out.work/receipts/crop/V1.json": "crop/V1",
    "out.work/receipts/finalize/corpus.json": "finalize/corpus",
}


@pytest.mark.parametrize("how", ["deleted", "cut off"])
def test_a_damaged_output_is_made_again(copied: Path, how: str) -> None:
    before = digests(copied / "out")
    for name, unit in DAMAGES.items():
        path = copied / name
        if how == "deleted":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-7])
        found = {f"{stage}/{unit}" for stage, units in redone(copied).items() for unit in units}
        assert found - {"finalize/corpus"} == {unit} - {"finalize/corpus"}, name
        assert digests(copied / "out") == before, name


def work_digests(folder: Path) -> dict[str, str]:
    """Return the digests of what stages left for one another."""
    found = digests(folder / "out.work")
    return {name: text for name, text in found.items() if not name.startswith(("receipts/", "code.json", *OF_ENGINE))}


def one_bit(content: bytes, number: int) -> bytes:
    place = number * 7919 % len(content)
    return content[:place] + bytes([content[place] ^ (1 << number % 8)]) + content[place + 1 :]


def one_page(content: bytes, number: int) -> bytes:
    start = number * 7919 % len(content) // 4096 * 4096
    size = len(content[start : start + 4096])
    return content[:start] + bytes(size) + content[start + size :]


def test_any_file_damaged_at_its_size_is_found_and_made_again(copied: Path) -> None:
    before = digests(copied / "out")
    data = work_digests(copied)
    files = sorted(path for name in ("out", "out.work") for path in (copied / name).rglob("*") if path.is_file())
    like = re.compile(r"receipts/.*/(V2|A1|H1|[a-z]+-00000[1-9])\.json$")  # one receipt of each stage is enough
    files = [path for path in files if not like.search(path.as_posix())]
    assert len(files) > 30
    for number, path in enumerate(files):
        whole = path.read_bytes()
        times = path.stat()
        path.write_bytes((one_bit if number % 2 else one_page)(whole, number))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert path.read_bytes() != whole
        done = built("build", copied / "config.yaml", "-q")
        assert digests(copied / "out") == before, path
        assert work_digests(copied) == data, path
        own = path.relative_to(copied).as_posix().removeprefix("out.work/")
        if not own.startswith(("receipts/", "code.json", *OF_ENGINE)):
            assert f"note: {path} was damaged" in done.err
    assert "damaged" not in built("build", copied / "config.yaml", "-q").err


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("normalize", "slides/V1.h5ad"),
        ("select", "statistics/V1.npy"),
        ("crop", "channels.json"),
        ("shard", "patches/V1.npy"),
        ("shard", "plan.npz"),
        ("finalize", "moments.npz"),
        ("finalize", "rows/train-000000.npz"),
    ],
)
def test_a_stage_that_is_run_alone_refuses_what_is_damaged(copied: Path, stage: str, name: str) -> None:
    before = digests(copied / "out")
    path = copied / "out.work" / name
    path.write_bytes(one_bit(path.read_bytes(), 5))
    (
        copied / "out.work" / "receipts" / stage / ("V1.json" if stage in ("normalize", "crop") else "corpus.json")
    ).unlink(missing_ok=True)
    done = stpatch("run", stage, copied / "config.yaml", "-q")
    assert done.code == 2
    assert "is damaged" in done.err
    assert str(path) in done.err
    maker = done.err.rpartition("stpatch run ")[2].split()[0]
    built("run", maker, copied / "config.yaml", "-q")
    built("run", stage, copied / "config.yaml", "-q")
    built("build", copied / "config.yaml", "-q")
    assert digests(copied / "out") == before


def test_outputs_are_read_once_a_run_to_be_checked(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr("stpatch.stages.receipts.sha256_file", lambda path: (read.append(path), sha256_file(path))[1])
    built("build", copied / "config.yaml", "-q", "--workers", "1")
    recorded = [
        output["path"].split("/", 1)[1]
        for path in (copied / "out.work" / "receipts").rglob("*.json")
        for output in json.loads(path.read_text())["outputs"]
    ]
    assert len(read) == len(set(read)) == len(recorded) > 20
    assert "up to date" in built("build", copied / "config.yaml", "-q").out
    read.clear()
    built("status", copied / "config.yaml", "--json")
    assert not read


def test_another_dataset_is_told_from_a_damaged_one(copied: Path) -> None:
    manifest = copied / "out" / "manifest.json"
    value = json.loads(manifest.read_text())
    value["fingerprint"] = value["fingerprint"][::-1]
    manifest.write_text(manifest.read_text().replace(value["fingerprint"][::-1], value["fingerprint"]))
    assert "holds another dataset" in stpatch("build", copied / "config.yaml", "-q").err


def test_a_deleted_manifest_is_written_again(copied: Path) -> None:
    before = digests(copied / "out")
    (copied / "out" / "manifest.json").unlink()
    assert redone(copied) == {"finalize": {"corpus"}}
    assert digests(copied / "out") == before


def test_a_shard_without_a_receipt_does_not_stay(copied: Path) -> None:
    before = digests(copied / "out")
    for name in ("train/train-000099.tar", "train.zarr/x/c/0/0/0/0"):  # as a kill after a shard, and a config set back
        path = copied / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no one knows me")
    (copied / "out" / "manifest.json").unlink()
    built("build", copied / "config.yaml", "-q")
    assert digests(copied / "out") == before
    assert not (copied / "out" / "train.zarr").exists()


def break_slide(folder: Path) -> None:
    """Give slide A1 a cell of text."""
    path = folder / "st" / "ST-cnts" / "A1.tsv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    lines[3] = lines[3].rsplit("\t", 1)[0] + "\tmany"
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode(), mtime=0))


def test_stop_ends_at_the_first_fault(tmp_path: Path) -> None:
    config = write_corpus(tmp_path)
    break_slide(tmp_path)
    done = stpatch("build", config, "-q")
    assert done.code == 2
    assert "A1.tsv.gz" in done.err
    assert "many" in done.err
    assert not (tmp_path / "out").exists()
    failed = json.loads((tmp_path / "out.work/receipts/ingest/A1.failed.json").read_text())
    assert failed["kind"] == "InputError"
    status = {row["stage"]: row for row in json.loads(built("status", config, "--json").out)}
    assert list(status["ingest"]["failed"]) == ["A1"]
    assert status["ingest"]["done"] == 2
    assert status["ingest"]["left"] == 1


def test_skip_goes_on_lists_and_leaves_a_whole_dataset(tmp_path: Path) -> None:
    config = write_corpus(tmp_path, run={"on_error": "skip", "workers": 1})
    break_slide(tmp_path)
    done = stpatch("build", config, "-q")
    assert done.code == 1
    assert "1 unit failed; the rest is done" in done.err
    assert "[ingest A1]" in done.err
    built("validate", tmp_path / "out", "--deep")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert any("A1" in note for note in manifest["dataset"]["notes"])
    again = stpatch("build", config, "-q")
    assert again.code == 1
    assert "[ingest A1]" in again.err

    stopped = stpatch("build", config, "-q", "--set", "run.on_error=stop")
    assert stopped.code == 2
    assert "A1" in stopped.err


def test_a_mended_slide_comes_in(tmp_path: Path) -> None:
    config = write_corpus(tmp_path, run={"on_error": "skip", "workers": 1})
    whole = (tmp_path / "st" / "ST-cnts" / "A1.tsv.gz").read_bytes()
    break_slide(tmp_path)
    assert stpatch("build", config, "-q").code == 1
    (tmp_path / "st" / "ST-cnts" / "A1.tsv.gz").write_bytes(whole)
    built("build", config, "-q")
    assert not list((tmp_path / "out.work" / "receipts").rglob("*.failed.json"))
    same_as_fresh(tmp_path, config)


def test_a_slide_that_breaks_after_a_build_leaves_the_dataset(tmp_path: Path) -> None:
    config = write_corpus(tmp_path, run={"on_error": "skip", "workers": 1})
    built("build", config, "-q")
    break_slide(tmp_path)
    assert stpatch("build", config, "-q", "--replace").code == 1
    built("validate", tmp_path / "out", "--deep")
    fresh = tmp_path / "fresh"
    assert stpatch("build", config, "-q", "--set", f"dataset.output={fresh}").code == 1
    assert digests(tmp_path / "out") == digests(fresh)


def test_errors_come_back_from_worker_processes(tmp_path: Path) -> None:
    config = write_corpus(tmp_path, run={"workers": 2})
    (tmp_path / "h1.h5ad").unlink()
    break_slide(tmp_path)
    done = stpatch("build", config, "-q", "--set", "run.on_error=skip")
    assert done.code == 1
    assert "2 units failed" in done.err
    assert "[ingest A1]" in done.err
    assert "[ingest H1] there is no such file or folder" in done.err


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_stage_asks_for_the_one_before(tmp_path: Path, stage: str) -> None:
    config = write_corpus(tmp_path)
    done = stpatch("run", stage, config, "-q")
    assert done.code == 2
    assert "is not finished" in done.err
    assert not (tmp_path / "out").exists()


def test_a_stage_refuses_what_another_config_made(copied: Path, finished: Path) -> None:
    config = write_config(copied, slides={"sheet": str(finished / "slides.csv")}, ingest={"qc": {"min_counts": 5}})
    done = stpatch("run", "shard", config, "-q")
    assert done.code == 2
    assert "stage ingest was run with another config" in done.err
    assert "stpatch run ingest" in done.err
    built("validate", copied / "out")


@pytest.mark.parametrize(
    "error", [MemoryError("too large"), OSError(errno.EIO, os.strerror(errno.EIO))], ids=["memory", "disk"]
)
def test_a_fault_of_the_machine_is_not_the_slides(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, error: MemoryError | OSError
) -> None:
    before = digests(corpus / "out")
    slide = (corpus / "out.work" / "slides" / "H1.h5ad").read_bytes()
    receipt = corpus / "out.work" / "receipts" / "ingest" / "H1.json"
    receipt.unlink()
    read = ingest.read_canonical

    def failing(job: Any, slide_id: str, probe: Any) -> Any:
        with faults("h1.h5ad"):
            if slide_id == "H1":
                raise error
            return read(job, slide_id, probe)

    monkeypatch.setattr(ingest, "read_canonical", failing)
    for on_error in ("skip", "stop"):
        done = stpatch("build", corpus / "config.yaml", "-q", "--set", f"run.on_error={on_error}", "--workers", "1")
        assert done.code != 0
        assert ("not enough memory" if isinstance(error, MemoryError) else "cannot be read or written") in done.err
        assert "unit H1, h1.h5ad" in done.err
        assert "damaged" not in done.err
        assert not receipt.with_name("H1.failed.json").exists()
        assert (corpus / "out.work" / "slides" / "H1.h5ad").read_bytes() == slide
    monkeypatch.undo()
    built("build", corpus / "config.yaml", "-q")
    assert digests(corpus / "out") == before


def test_a_size_that_no_machine_has_is_the_files_fault(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (corpus / "out.work" / "receipts" / "ingest" / "H1.json").unlink()

    def failing(job: Any, slide_id: str, probe: Any) -> Any:
        with faults("h1.h5ad"):
            return np.zeros((2**50, 2), np.uint8)

    monkeypatch.setattr(ingest, "read_canonical", failing)
    done = stpatch("build", corpus / "config.yaml", "-q", "--workers", "1")
    assert "it is damaged" in done.err
    assert (corpus / "out.work" / "receipts" / "ingest" / "H1.failed.json").exists()
