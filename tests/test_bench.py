"""The bench's own arithmetic: what it simulates, what it calls growth, and that its table fits a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _scripts_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
        monkeypatch.delitem(sys.modules, name)


def test_simulated_counts_are_the_same_each_time_and_as_full_as_asked_for() -> None:
    from scripts.bench.simulate import simulate_counts

    spec = {"spots": 400, "genes": 500, "columns": 20, "filled": 0.1, "seed": 3}
    counts, again = simulate_counts(**spec), simulate_counts(**spec)
    assert (counts != again).nnz == 0
    assert counts.shape == (400, 500)
    assert counts.dtype == np.uint16
    assert counts.data.min() >= 1
    assert 0.05 < counts.nnz / (400 * 500) < 0.2
    assert all((np.diff(row.indices) > 0).all() for row in counts)


def test_a_drawn_gene_follows_its_share() -> None:
    from scripts.bench.simulate import _draw, _fill_alias_table

    shares = np.array([0.5, 0.3, 0.15, 0.05])
    chance, other = np.empty((1, 4)), np.empty((1, 4), np.int32)
    _fill_alias_table(shares * 4, chance[0], other[0])
    data, indices, indptr = np.empty(4, np.uint16), np.empty(4, np.int32), np.zeros(2, np.int64)
    found = _draw(
        np.random.default_rng(0), np.zeros(1, np.int64), np.array([60_000]), chance, other, data, indices, indptr
    )
    assert found == 4
    np.testing.assert_allclose(data / 60_000, shares, atol=0.01)


def test_growth_is_the_power_of_the_time_for_a_byte_of_work() -> None:
    from scripts.bench.growth import exponent

    rows = [{"point": n, "work bytes": 100.0 * n, "shard cpu s": 100.0 * n * n**0.5} for n in (1, 10, 100)]
    assert exponent(rows) == pytest.approx(0.5)


def test_the_table_is_at_most_120_columns_wide() -> None:
    from scripts.bench.report import table

    points = [
        {"point": n, "samples/s": 1e6, "samples/cpu s": 1e6, "work MB/cpu s": 1e5, "shard peak MB": 1e4}
        for n in (1, 1000)
    ]
    peer: dict[str, Any] = {"peer": "peer" * 9, "corpus": "hd", "version": "1.2.3"}
    found = {
        "took": {"peers": {"seconds": 1.0, "load before": 0.5}, "growth": {"seconds": 1.0, "load before": 0.5}},
        "peers": {
            "ours": {"hd": {"cut and stored/s": 1e5, "read/s": 1e5}},
            "rows": [{**peer, "what": "w" * 90, "samples/s": 3.0}, {**peer, "skipped": "r" * 200}],
        },
        "growth": {"slide size": {"points": points, "exponent": 0.0}},
        "versions": {"python": "3.11"},
        "machine": {"processors": 2, "processor": "any"},
    }
    assert max(map(len, table(found).splitlines())) <= 120
