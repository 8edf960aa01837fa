"""Public peers on the same slides, each in an environment of its own; a row says why where one does not run.

A peer's script gets a folder of .h5ad slides and a number of seconds and prints one JSON line a measurement.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

INSTALL_SECONDS, RUN_SECONDS = 900, 240
MEASURE_SECONDS = 6
HERE = Path(__file__).parent

PEERS = {
    "cellfm-datasets": (["cellfm-datasets[benchmark]"], "on_cellfm.py"),
    "scdataset": (["scdataset", "anndata"], "on_scdataset.py"),
    "spatialdata": (["spatialdata", "geopandas"], "on_spatialdata.py"),
}


def measure_peers(cache: Path, corpora: dict[str, Path]) -> list[dict[str, Any]]:
    """Install every peer and run it on every corpus (a folder of slides by name).

    Returns
    -------
    list of dict
        A row a measurement: `peer`, `version`, `corpus`, what was done (`what`), `samples/s`; or `skipped`, the reason.
    """
    rows = []
    for peer, (packages, script) in PEERS.items():
        try:
            python, version = _installed(cache, peer, packages)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            rows.append({"peer": peer, "skipped": f"not installed: {_reason(error)}"})
            continue
        for corpus, slides in corpora.items():
            row = {"peer": peer, "version": version, "corpus": corpus}
            try:
                found = _output([python, str(HERE / script), str(slides), str(MEASURE_SECONDS)])
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                rows.append({**row, "skipped": _reason(error)})
                continue
            rows += [{**row, **json.loads(line)} for line in found.splitlines() if line.startswith("{")]
    for done in rows:
        if "seconds" in done:
            done["samples/s"] = done["samples"] / done["seconds"]
    return rows


def _installed(cache: Path, peer: str, packages: list[str]) -> tuple[str, str]:
    """Return the Python of a peer's environment, made where it is not there, and the peer's version."""
    folder = cache / f"peer-{peer}"
    python = str(folder / "bin" / "python")
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, text=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        subprocess.run(install, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        (folder / "installed").touch()
    return python, _output([python, "-c", f"import importlib.metadata as m; print(m.version({peer!r}))"])


def _output(command: list[str]) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=RUN_SECONDS)
    return done.stdout.strip()


def _reason(error: subprocess.CalledProcessError | subprocess.TimeoutExpired) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"took longer than {error.timeout:.0f} s"
    lines = (error.stderr or "").strip().splitlines() or ["no message"]
    return str(lines[-1][:200])
