"""Licences of data by their SPDX names: what each asks for, and the one that asks for all that several do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

BY, SA, NC, ND = "attribution", "share alike", "no commercial use", "no derivatives"
LICENCES: dict[str, frozenset[str]] = {
    "CC0-1.0": frozenset(),
    "PDDL-1.0": frozenset(),
    "CC-BY-3.0": frozenset({BY}),
    "CC-BY-4.0": frozenset({BY}),
    "ODC-By-1.0": frozenset({BY}),
    "CDLA-Permissive-2.0": frozenset({BY}),
    "MIT": frozenset({BY}),
    "BSD-3-Clause": frozenset({BY}),
    "Apache-2.0": frozenset({BY}),
    "CC-BY-SA-3.0": frozenset({BY, SA}),
    "CC-BY-SA-4.0": frozenset({BY, SA}),
    "ODbL-1.0": frozenset({BY, SA}),
    "CC-BY-NC-3.0": frozenset({BY, NC}),
    "CC-BY-NC-4.0": frozenset({BY, NC}),
    "CC-BY-NC-SA-3.0": frozenset({BY, NC, SA}),
    "CC-BY-NC-SA-4.0": frozenset({BY, NC, SA}),
    "CC-BY-ND-4.0": frozenset({BY, ND}),
    "CC-BY-NC-ND-4.0": frozenset({BY, NC, ND}),
}
"""What each asks for, by its SPDX name. What is not here is known to SPDX perhaps, but not to be a licence of data."""
UNKNOWN = "unknown"
_BY_CASE = {name.lower(): name for name in LICENCES}


def spdx_name(text: str) -> str:
    """Return the SPDX name of a licence, in its own case; "" if `text` is none of `LICENCES`.

    Blanks count as hyphens, and ``CC BY 4.0`` and ``cc-by-4.0`` are one.
    """
    return _BY_CASE.get("-".join(text.strip().lower().split()), "")


def near_licence(text: str) -> str:
    """Return the name that an unknown text is nearest to, "" if it is near none."""
    near = difflib.get_close_matches("-".join(text.strip().lower().split()), list(_BY_CASE), n=1, cutoff=0.6)
    return _BY_CASE[near[0]] if near else ""


def strictest(names: Iterable[str]) -> str:
    """Return the licence of `names` that asks for all that any of them does; "" where there is none among them.

    A share-alike licence asks for its own name, so that two of them, or one beside a licence that asks for more, have
    no such licence; neither has anything beside one without derivatives, which a dataset of patches is.
    """
    given = list(dict.fromkeys(names))
    if not given or any(name not in LICENCES for name in given):
        return ""
    asked = frozenset().union(*(LICENCES[name] for name in given))
    alike = [name for name in given if SA in LICENCES[name]]
    best = [name for name in given if LICENCES[name] == asked]
    if len(alike) > 1 or (alike and alike != best[:1]):
        return ""
    return best[0] if best else ""
