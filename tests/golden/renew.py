"""Renew the digests on purpose; see test_golden.py. From the project's root::

    PYTHONPATH=tests python -m golden.renew

Whoever changes a byte of a dataset raises the version of stpatch and says so in CHANGELOG.md: digests that were
written by this version are changed only with ``--same-version``, which is for versions that were never released. New
configs are always added, and those that are gone are always removed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from golden.datasets import (
    CONFIGS,
    DIGESTS,
    build,
    differences,
    exact_digests,
    portable_digests,
    slides_digest,
    versions,
    write_slides,
)

import stpatch


def renew(*, same_version: bool) -> int:
    """Build all datasets, say what differs and write the digests; return the exit code."""
    known: dict[str, Any] = json.loads(DIGESTS.read_text()) if DIGESTS.is_file() else {"configs": {}}
    found: dict[str, Any] = {"stpatch": stpatch.__version__, "libraries": versions(), "configs": {}}
    changed = False
    with tempfile.TemporaryDirectory() as place:
        slides = write_slides(Path(place) / "slides")
        found["slides"] = slides_digest(slides)
        comparable = ["files"]
        if all(found[name] == known.get(name) for name in ("libraries", "slides")):
            comparable.append("exact")
        for name in CONFIGS:
            folder = Path(place) / name
            folder.mkdir()
            dataset = build(name, folder, slides)
            record = {"files": portable_digests(dataset), "exact": exact_digests(dataset)}
            found["configs"][name] = record
            old = known["configs"].get(name)
            if old is None:
                print(f"{name}: new")
                continue
            words = [words for what in comparable if (words := differences(old[what], record[what]))]
            print(f"{name}: {'; '.join(words) or 'as before'}")
            changed |= bool(words)
    if changed and known["stpatch"] == stpatch.__version__ and not same_version:
        print(f"Nothing was written: bytes have changed, but the version is {stpatch.__version__} as before. Raise it")
        print("and say in CHANGELOG.md what has changed (a version that was never released: --same-version).")
        return 1
    DIGESTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--same-version", action="store_true", help="the bytes of this version were never released")
    arguments = parser.parse_args()
    sys.exit(renew(same_version=arguments.same_version))
