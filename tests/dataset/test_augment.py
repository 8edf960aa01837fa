from __future__ import annotations

import numpy as np
import pytest
from bundles.dataset import write_dataset

import stpatch
from stpatch.dataset.augment import Arrays, Augment, check_symmetry
from stpatch.errors import ConfigError

B, C, SIZE = 40, 5, 3


def arrays():
    x = np.arange(B * C * SIZE * SIZE).reshape(B, C, SIZE, SIZE)
    genes = np.tile(np.array([7, 0, 3, 9, 4], np.int32), (B, 1))
    return Arrays(x=x, genes=genes, measured=genes > 3, images={"totals": (x[:, 0].copy(), 1, 2)})


def apply(epoch=0, numbers=None, places=None, **changes):
    numbers = np.arange(B) if numbers is None else numbers
    return Augment(**changes).apply(arrays(), epoch=epoch, numbers=numbers, places=places)


@pytest.mark.parametrize(("symmetry", "kinds"), [("none", 1), ("flips", 4), ("turns", 4), ("all", 8)])
def test_symmetries(symmetry, kinds):
    made, done = arrays(), apply(symmetry=symmetry)
    allowed = {
        "none": [lambda a: a],
        "flips": [lambda a: a, np.flipud, np.fliplr, lambda a: np.rot90(a, 2)],
        "turns": [lambda a, k=k: np.rot90(a, k) for k in range(4)],
        "all": [lambda a, k=k, t=t: np.rot90(a.T if t else a, k) for k in range(4) for t in (0, 1)],
    }[symmetry]
    seen = set()
    for n in range(B):
        which = [k for k, turn in enumerate(allowed) if (turn(made.x[n, 0]) == done.x[n, 0]).all()]
        assert len(which) == 1
        seen.add(which[0])
        for channel in range(C):
            np.testing.assert_array_equal(allowed[which[0]](made.x[n, channel]), done.x[n, channel])
        np.testing.assert_array_equal(done.images["totals"][0][n], done.x[n, 0])  # all planes alike
    assert len(seen) == kinds


def test_draws_belong_to_the_sample_and_the_epoch():
    first = apply(symmetry="all", channels=3)
    order = np.random.default_rng(0).permutation(B)
    again = Augment(symmetry="all", channels=3).apply(
        Arrays(
            x=arrays().x[order],
            genes=arrays().genes[order],
            measured=arrays().measured[order],
            images={"totals": (arrays().images["totals"][0][order], 1, 2)},
        ),
        epoch=0,
        numbers=order,
    )
    np.testing.assert_array_equal(first.x[order], again.x)
    for other in ({"epoch": 1}, {"seed": 1}, {"places": np.arange(B) + 5}):
        assert (apply(symmetry="all", channels=3, **other).x != first.x).any()


def test_channels_are_drawn_and_padded():
    done = apply(channels=3, pad_channels=6)
    assert done.x.shape == (B, 6, SIZE, SIZE)
    for n in range(B):
        chosen = (done.x[n, :3, 0, 0] - arrays().x[n, 0, 0, 0]) // (SIZE * SIZE)
        assert (np.diff(chosen) > 0).all()
        np.testing.assert_array_equal(done.genes[n, :3], arrays().genes[n][chosen])
        np.testing.assert_array_equal(done.measured[n, :3], arrays().measured[n][chosen])
        assert 0 not in done.genes[n, :3]  # pads only where there are too few others
    assert not done.x[:, 3:].any()
    assert not done.genes[:, 3:].any()
    assert not done.measured[:, 3:].any()
    assert len(np.unique(done.genes, axis=0)) == 4
    with pytest.raises(ConfigError, match="more channels"):
        apply(pad_channels=4)


def test_symmetry_only_where_it_is_exact(tmp_path):
    write_dataset(tmp_path, shape=(4, 3, 3))  # lattice of platform st: square
    dataset = stpatch.open(tmp_path, "train")
    check_symmetry("all", dataset)
    for method, platform, symmetry, message in [
        ("fit", "st", "turns", "scales each axis"),
        ("lattice", "visium", "flips", "may be hexagonal"),
        ("other", "st", "flips", "grid other"),
    ]:
        dataset.manifest = dataset.manifest.model_copy(update={"grid": {"method": method}})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dataset, "codes", lambda _, platform=platform: (np.zeros(6, np.int32), [platform]))
            with pytest.raises(ConfigError, match=message):
                check_symmetry(symmetry, dataset)
            check_symmetry(symmetry, dataset, strict=False)


@pytest.mark.parametrize(
    ("changes", "symmetry", "message"),
    [({}, "turns", "3 x 5 pixels"), ({"variable": True}, "flips", "differ in size")],
)
def test_shapes_that_cannot_turn(tmp_path, changes, symmetry, message):
    write_dataset(tmp_path, **changes)
    with pytest.raises(ConfigError, match=message):
        check_symmetry(symmetry, stpatch.open(tmp_path, "train"), strict=False)
