"""Hostile inputs: each must end with a clear error, in bounded time and memory, and touch nothing that is not its own.

    python scripts/faults/hostile.py
    python scripts/faults/hostile.py bomb link      only the cases whose names contain one of the words

Every case is given to `check` and to `build`. Wanted: an error that is one block (or, where a case is harmless in the
end, success); at most `MOST_BYTES` and `MOST_SECONDS`; no file outside of the output, the work dir and the inputs
written; the secret file, which only a followed link could reach, neither opened nor found in anything that was written.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import h5py
import numpy as np
import yaml
from bundles.h5ad import write_h5ad
from bundles.visium import write_visium
from runs import count, counted, digests, prepare, run

MOST_BYTES = 3 << 30
MOST_SECONDS = 60.0
SECRET = np.arange(1, 4001, dtype=np.int32) * 7919 % 9973
"""What lies in the secret files; a run of it in any output is a leak."""
Case = Callable[[Path], None]


def base(folder: Path, row: str = "H1,h1.h5ad", **sections: Any) -> None:
    """Write samplesheet and config of one slide."""
    (folder / "slides.csv").write_text(f"slide_id,path\n{row}\n")
    value = {
        "dataset": {"output": "out"},
        "slides": {"sheet": "slides.csv"},
        "channels": {"n": 3},
        "crop": {"size": [3, 3], "min_coverage": 0},
        "split": {"fractions": {"train": 1.0}},
        **sections,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(value))


def sound(folder: Path) -> Path:
    path = folder / "h1.h5ad"
    write_h5ad(path, rows=5, columns=7, n_genes=9)
    return path


def bad_id(slide_id: str, folder: Path) -> None:
    sound(folder)
    base(folder, f"{slide_id},h1.h5ad")


def bad_path(path: str, folder: Path) -> None:
    sound(folder)
    base(folder, f"H1,{path}")


def special(kind: str, column: str, folder: Path) -> None:
    sound(folder)
    path = folder / "special"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path = Path("/dev/zero")
    base(folder)
    text = f"slide_id,path,{column}\nH1,h1.h5ad,{path}\n" if column != "path" else f"slide_id,path\nH1,{path}\n"
    (folder / "slides.csv").write_text(text)


def key_file(kind: str, key: str, folder: Path) -> None:
    """Have a key of the config name a pipe, a device, or a bomb."""
    sound(folder)
    path = folder / "special.txt"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path = folder / "bomb.csv.gz"
        bomb(path, b"\n", 1 << 29)
    genes: Any = {"genes": {key: str(path)}} if key != "genes" else {}
    base(folder, ingest={"platform": "h5ad", **genes})
    if key == "genes":
        base(folder, channels={"scope": "panel", "method": "list", "n": 3, "genes": str(path)})


def special_inside(name: str, folder: Path) -> None:
    """Have one file of a Visium folder be a pipe."""
    write_visium(folder / "V1", rows=5, columns=5, matrix="mex" if name in ("matrix.mtx", "barcodes") else "h5")
    found = next(path for path in (folder / "V1").rglob("*") if name in path.name and path.is_file())
    found.unlink()
    os.mkfifo(found)
    base(folder, "V1,V1")


def bomb(path: Path, text: bytes, size: int) -> None:
    """Write a gzip file of a text repeated to `size` bytes."""
    block = text * max(1, (1 << 20) // len(text))
    with gzip.open(path, "wb", compresslevel=6) as file:
        for _ in range(size // len(block)):
            file.write(block)


def text_bomb(text: bytes, size: int, start: bytes, folder: Path) -> None:
    path = folder / "counts.tsv.gz"
    with gzip.open(path, "wb") as file:
        file.write(start)
        block = text * max(1, (1 << 20) // len(text))
        for _ in range(size // len(block)):
            file.write(block)
    base(folder, "H1,counts.tsv.gz")


def mex_bomb(name: str, folder: Path) -> None:
    write_visium(folder / "V1", rows=5, columns=5, matrix="mex")
    found = next(path for path in (folder / "V1").rglob(f"*{name}*") if path.is_file())
    bomb(found, b"\n", 1 << 29)
    base(folder, "V1,V1")


def linked(kind: str, key: str, folder: Path) -> None:
    """Have a dataset of an h5ad lie in the secret file."""
    path, secret = sound(folder), folder.parent / "secret"
    base(folder)
    with h5py.File(path, "r+") as file:
        shape, dtype = file[key].shape, file[key].dtype
        attributes = dict(file[key].attrs)
        del file[key]
        if kind == "external link":
            file[key] = h5py.ExternalLink(str(secret / "secret.h5"), "/x")
            return
        if kind == "external storage":
            file.create_dataset(key, shape=shape, dtype="i4", external=[(str(secret / "secret.bin"), 0, 16000)])
        else:
            layout = h5py.VirtualLayout(shape, dtype=dtype)
            layout[:] = h5py.VirtualSource(str(secret / "secret.h5"), "x", (4000,))[: shape[0]]
            file.create_virtual_dataset(key, layout)
        file[key].attrs.update(attributes)


def linked_group(folder: Path) -> None:
    path, secret = sound(folder), folder.parent / "secret"
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = h5py.SoftLink("/elsewhere/X")
        file["elsewhere"] = h5py.ExternalLink(str(secret / "secret.h5"), "/")
    base(folder)


def huge_dataset(shape: tuple[int, ...], key: str, folder: Path) -> None:
    path = sound(folder)
    with h5py.File(path, "r+") as file:
        attributes, dtype = dict(file[key].attrs), file[key].dtype
        del file[key]
        file.create_dataset(key, shape=shape, dtype=dtype, chunks=(1 << 16,) * len(shape))
        file[key].attrs.update(attributes)
    base(folder)


def loop_of_groups(folder: Path) -> None:
    path = sound(folder)
    with h5py.File(path, "r+") as file:
        file["obs/again"] = file["obs"]
        file["uns/self"] = h5py.SoftLink("/uns/self")
    base(folder)


def loop_of_folders(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "a").symlink_to(folder / "a")
    base(folder, "H1,a")


def yaml_bomb(folder: Path) -> None:
    base(folder)
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]" for i in range(9)]
    (folder / "config.yaml").write_text("\n".join(lines))


def config_text(text: str, folder: Path) -> None:
    base(folder)
    (folder / "config.yaml").write_text(text)


def sheet_bytes(data: bytes, folder: Path) -> None:
    sound(folder)
    base(folder)
    (folder / "slides.csv").write_bytes(data)


def output_at(path: str, folder: Path) -> None:
    sound(folder)
    base(folder, dataset={"output": path})


def output_through_link(folder: Path) -> None:
    sound(folder)
    (folder / "out").symlink_to(folder.parent / "secret")
    base(folder)


def vocabulary_pickle(folder: Path) -> None:
    import pickle

    sound(folder)
    (folder / "vocabulary.json").write_bytes(pickle.dumps({"G": 1}))
    base(folder, ingest={"genes": {"vocabulary": "vocabulary.json"}})


def deep_json(folder: Path) -> None:
    sound(folder)
    (folder / "vocabulary.json").write_text("[" * 200_000)
    base(folder, ingest={"genes": {"vocabulary": "vocabulary.json"}})


def cases() -> Iterator[tuple[str, Case]]:  # noqa: C901 - a list
    """Yield every case by name."""
    ids = ["../x", "..", ".", "/etc/passwd", "a/b", "a\\b", "~", "-rf", "CON", "nul", "com1.txt", "LPT9", "aux.h5",
           "a.", "a ", " ", "x" * 129, "a\tb", "a;b", "$(id)", "a%00b", "ä", "\u202eabc", "a:b", "a*", "a|b",
           "prn.a.b"]  # fmt: skip
    for text in ids:
        yield f"id {text[:20]!r}", partial(bad_id, f'"{text}"')
    for text in ["", ".", "..", "/", "/dev/null", "/dev/stdin", "/proc/self/mem", "/proc/self/fd", "nothing",
                 "~nobody/x", "h1.h5ad/x", "x" * 5000, "/etc/passwd", "/sys"]:  # fmt: skip
        yield f"path {text[:20]!r}", partial(bad_path, text)
    for kind in ("pipe", "socket", "device"):
        for column in ("path", "matrix", "transcripts", "coordinates", "labels"):
            yield f"{kind} as {column}", partial(special, kind, column)
    for kind in ("pipe", "device", "bomb"):
        for key in ("map", "vocabulary", "reference", "genes"):
            yield f"{kind} as key {key}", partial(key_file, kind, key)
    for name in ("matrix.h5", "tissue_positions", "scalefactors", "matrix.mtx", "barcodes"):
        yield f"pipe inside, {name}", partial(special_inside, name)
    for title, text, start in [
        ("newlines", b"\n", b""),
        ("newlines after a header", b"\n", b"gene\ts1\ts2\n"),
        ("comments", b"# x\n", b""),
        ("blanks", b"   \n", b""),
        ("one line", b"a", b""),
        ("one line of tabs", b"\t", b""),
        ("zeros", b"\0", b""),
        ("quotes", b'"', b""),
        ("carriage returns", b"\r", b""),
    ]:
        yield f"bomb of {title}", partial(text_bomb, text, 1 << 28, start)
    for name in ("matrix.mtx", "barcodes", "features"):
        yield f"bomb as {name}", partial(mex_bomb, name)
    for kind in ("external link", "external storage", "virtual dataset"):
        for key in ("X/data", "X/indices", "X/indptr", "obs/array_row"):
            yield f"{kind}, {key}", partial(linked, kind, key)
    yield "external link behind a soft link", linked_group
    for shape in ((1 << 40,), (1 << 62,)):
        for key in ("X/data", "X/indptr", "obs/array_row"):
            yield f"a claim of 2**{shape[0].bit_length() - 1} values, {key}", partial(huge_dataset, shape, key)
    yield "a loop of groups", loop_of_groups
    yield "a loop of folders", loop_of_folders
    yield "YAML bomb", yaml_bomb
    for title, text in [
        ("an object", "!!python/object/apply:os.system ['touch hacked']"),
        ("a list", "- a"),
        ("nothing", ""),
        ("depth", "[" * 10000),
        ("a number", "1"),
        ("twice", "a: 1\na: 2"),
        ("NUL", "a: \0"),
    ]:
        yield f"config of {title}", partial(config_text, text)
    for title, data in [
        ("NUL", b"slide_id,path\nH1,h1\0.h5ad\n"),
        ("latin-1", "slide_id,path\nÄ,h1.h5ad\n".encode("latin-1")),
        ("an open quote", b'slide_id,path\n"H1,h1.h5ad\n'),
        ("a long line", b"slide_id,path\n" + b"x" * (1 << 24)),
        ("UTF-16", "slide_id,path\nH1,h1.h5ad\n".encode("utf-16")),
        ("case", b"slide_id,path\nH1,h1.h5ad\nh1,h1.h5ad\n"),
        ("a formula", b"slide_id,path\n=1+1,h1.h5ad\n"),
    ]:
        yield f"sheet of {title}", partial(sheet_bytes, data)
    for text in ("h1.h5ad", "h1.h5ad/x", "/dev/null", "/proc/x", "."):
        yield f"output {text!r}", partial(output_at, text)
    yield "output through a link", output_through_link
    yield "vocabulary as pickle", vocabulary_pickle
    yield "vocabulary of depth", deep_json


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("words", nargs="*", help="only cases whose names contain one of these")
    options = parser.parse_args()
    prepare()
    bad = 0
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as logs, counted("hostile") as counts:
        folder = Path(name)
        secret = folder / "secret"
        secret.mkdir()
        SECRET.tofile(secret / "secret.bin")
        with h5py.File(secret / "secret.h5", "w") as file:
            file["x"] = SECRET
        for title, case in cases():
            if options.words and not any(word in title for word in options.words):
                continue
            place = folder / "case"
            place.mkdir()
            case(place)
            before = {key: text for key, text in _files(folder).items() if not key.startswith("case/out")}
            faults = []
            for command in ("check", "build"):
                words = [command, place / "config.yaml", "-q"] + (["-w", 1] if command == "build" else [])
                done = run(words, Path(logs) / "log", patience=2 * MOST_SECONDS, before=partial(os.chdir, place))
                if done.code is None or done.seconds > MOST_SECONDS:
                    faults.append(f"{command} took {done.seconds:.0f} s")
                elif done.code not in (0, 1, 2) or (done.code and not done.told):
                    faults.append(f"{command} ended with {done.code}: {done.err[-600:]}")
                if done.peak > MOST_BYTES:
                    faults.append(f"{command} took {done.peak >> 20} MiB")
                count(counts, f"{command} {'passed' if done.code == 0 else 'refused'}")
            after = {key: text for key, text in _files(folder).items() if not key.startswith("case/out")}
            if after != before:
                faults.append(f"touched {sorted(set(after.items()) ^ set(before.items()))[:3]}")
            if leaks := [path for path in place.rglob("out*/**/*") if path.is_file() and _leaks(path)]:
                faults.append(f"the secret is in {leaks[0]}")
            for fault in faults:
                print(f"{title}: {fault}", flush=True)
            bad += bool(faults)
            count(counts, "cases")
            shutil.rmtree(place)
        count(counts, "faults", bad)
    return 1 if bad else 0


def _files(folder: Path) -> dict[str, str]:
    special = [path for path in folder.rglob("*") if not path.is_file() and not path.is_dir()]
    return {**digests(folder), **{str(path.relative_to(folder)): "special" for path in special}}


def _leaks(path: Path) -> bool:
    data = path.read_bytes()
    return any(SECRET[5:15].astype(dtype).tobytes() in data for dtype in ("i4", "i8", "u2", "u4", "f4", "f8"))


if __name__ == "__main__":
    sys.exit(main())
