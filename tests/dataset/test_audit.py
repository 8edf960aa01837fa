from __future__ import annotations

import json

import numpy as np
import pytest
from bundles.built import build, square, write_counts

from stpatch.dataset.audit import audit, digest_lines, read_digests
from stpatch.dataset.near import audit_near, profiles, similarity
from stpatch.errors import DatasetError

SIZE = 12
GENES = 60


def section(seed, *, tissue=0):
    """Counts of a section: a tissue's genes, a donor's own changes of them, and noise."""
    means = np.random.default_rng([1, tissue]).gamma(0.6, 3, GENES)
    rng = np.random.default_rng([2, seed])
    donor = means * np.exp(rng.normal(0, 0.5, GENES))
    depth = rng.gamma(4, 0.25, (SIZE * SIZE, 1))
    return rng.poisson(depth * donor) + (np.arange(GENES) == 0)


def dataset(folder, slides, *, split="train", **sections):
    folder.mkdir()
    rows = []
    for slide_id, (counts, donor) in slides.items():
        write_counts(folder / f"{slide_id}.h5ad", counts, array=square(SIZE, SIZE)[: len(counts)])
        rows.append(
            {"slide_id": slide_id, "donor": donor, "split": split if isinstance(split, str) else split[slide_id]}
        )
    channels = {"scope": "panel", "method": "hvg_seurat", "n": GENES - 5}
    sections = {
        "dataset": {"allow_duplicates": list(slides)},
        "split": {"column": "split", "allow_leak": ["donor"]},
        **sections,
    }
    return build(folder, rows, channels=channels, **sections).output


def kinds(found):
    return sorted({item.kind for item in found.shared})


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    first = dataset(folder / "a", {"s1": (section(1), "d1"), "s2": (section(2), "d2")})
    again = section(1)[np.random.default_rng(0).permutation(SIZE * SIZE)]  # saved anew, spots in another order
    second = dataset(folder / "b", {"t1": (again, "p1"), "t2": (section(3), "d2"), "t3": (section(4), "?")})
    return first, second


def test_datasets_share_sections_and_donors(pair):
    first, second = pair
    found = audit(first, against=[second])
    assert kinds(found) == ["donor", "genes", "matrix", "spots"]
    (matrix,) = (item for item in found.shared if item.kind == "matrix")
    assert [slide.slide_id for slide in matrix.slides] == ["s1", "t1"]
    (donor,) = (item for item in found.shared if item.kind == "donor")
    assert (donor.value, [slide.slide_id for slide in donor.slides]) == ("d2", ["s2", "t2"])
    assert json.loads(json.dumps(found.as_json()))["disjoint"] is False
    assert "slide s1 (train)" in found.text()
    assert audit(first).as_json()["disjoint"] is True


def test_a_version_shares_its_files(pair):
    first, _ = pair
    assert kinds(audit(first, against=[first])) == ["donor", "file", "genes", "matrix", "spots"]


def test_a_published_list_tells_what_is_in_it(pair, tmp_path):
    first, second = pair
    lines = digest_lines(second)
    assert not any("t1" in line or "p1" in line for line in lines)
    path = tmp_path / "digests.txt"
    path.write_text("# a benchmark\n\n" + "\n".join(f"{line}  # its own" for line in lines))
    assert kinds(audit(first, digests=read_digests(path))) == ["genes", "matrix", "spots"]
    path.write_text("\n".join(line.split()[1] for line in lines))
    assert kinds(audit(first, digests=read_digests(path))) == ["genes", "matrix", "spots"]
    path.write_text("genes " + next(line for line in lines if line.startswith("spots")).split()[1])
    assert audit(first, digests=read_digests(path)).shared == ()
    path.write_text("\nword\n")
    with pytest.raises(DatasetError, match="line 2"):
        read_digests(path)


def test_splits_share_donors_and_copies(tmp_path):
    slides = {"s1": (section(1), "d1"), "s2": (section(1), "d1"), "s3": (section(3), "d3")}
    output = dataset(tmp_path / "a", slides, split={"s1": "train", "s2": "val", "s3": "train"})
    found = audit(output)
    assert kinds(found) == ["donor", "file", "genes", "matrix", "spots"]
    assert {item.between for item in found.shared} == {"splits train and val"}


def copies(counts, rng):
    """The ways in which a section comes back under other digests."""
    moved = counts.copy()
    spill = rng.binomial(moved, 0.15)  # segmented anew: some counts belong to the neighbour
    return {
        "half of the counts": rng.binomial(counts, 0.5),
        "a fifth of the counts": rng.binomial(counts, 0.2),
        "half of the spots": counts[: len(counts) // 2],
        "segmented anew": rng.binomial(moved - spill + np.roll(spill, 1, axis=0), 0.9),
        "a serial section": rng.poisson(np.roll(counts, SIZE, axis=0) * rng.gamma(400, 1 / 400, GENES)),
    }


@pytest.mark.slow
def test_recall_of_copies_and_other_donors(tmp_path):
    """Of 6 sections and 5 ways of copying each, all copies are near; of other donors' sections of the tissue, none."""
    rng = np.random.default_rng(7)
    sections = {f"s{i}": (section(10 + i), f"d{i}") for i in range(6)}
    first = dataset(tmp_path / "a", sections)
    made = {
        f"s{i}-{n}": (np.maximum(copy, np.arange(GENES) == 0), f"d{i}")
        for i in range(6)
        for n, copy in enumerate(copies(sections[f"s{i}"][0], rng).values())
    }
    second = dataset(tmp_path / "b", made)
    found = {(p.first.slide_id, p.second.slide_id) for p in audit_near(first, against=[second], near=True).near}
    copied = {(slide_id.partition("-")[0], slide_id) for slide_id in made}
    assert len(copied & found) == len(copied) == 30
    assert found == copied
    ours = profiles(first)
    others = [similarity(a, b)[0] for i, a in enumerate(ours) for b in ours[i + 1 :]]
    assert max(others) < 0.97
