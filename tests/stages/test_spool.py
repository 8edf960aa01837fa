from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stpatch.stages.spool import Spool


@given(st.permutations(range(12)), st.integers(0, 200))
def test_a_spool_gives_back_all_samples_in_order(tmp_path_factory, order, in_memory):
    folder = tmp_path_factory.mktemp("spool") / "new"
    samples = {place: {"x": bytes([place]) * (place * 3), "y": b""} for place in order}
    with Spool(folder, in_memory=in_memory) as spool:
        for place in order:
            spool.put(place, f"k{place}", dict(samples[place]))
        assert list(spool.in_order()) == [(f"k{place}", samples[place]) for place in range(12)]
    assert not folder.exists() or not list(folder.iterdir())


def test_what_fits_into_memory_makes_no_file(tmp_path):
    with Spool(tmp_path / "spool") as spool:
        spool.put(0, "k", {"x": b"abc"})
        assert list(spool.in_order()) == [("k", {"x": b"abc"})]
    assert not (tmp_path / "spool").exists()
