"""The lines that `scripts/mutate.py` breaks, and the tests that should notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One broken line.

    Attributes
    ----------
    path
        The file, from the repository's folder.
    what
        What is broken, in words.
    old, new
        A text that stands in the file exactly once, and what replaces it.
    tests
        The tests that are run; at least one should fail.
    """

    path: str
    what: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "stpatch/stages/plan.py",
        "order of slides within a mixing group",
        "for i in sorted(members[start : start + mix]):",
        "for i in members[start : start + mix]:",
        ("tests/stages/test_plan.py",),
    ),
    Mutation(
        "stpatch/stages/plan.py",
        "every group is shuffled alike",
        'generator(seed, "plan", split, group)',
        'generator(seed, "plan", split)',
        ("tests/stages/test_plan.py",),
    ),
    Mutation(
        "stpatch/stages/plan.py",
        "splits are shuffled alike",
        'generator(seed, "plan", split, "slides")',
        'generator(seed, "plan", "slides")',
        ("tests/stages/test_plan.py", "tests/golden"),
    ),
    Mutation(
        "stpatch/image/grid.py",
        "float noise at a pixel's edge",
        "_ROUNDING = 1e-9",
        "_ROUNDING = 0.0",
        ("tests/image/test_grid.py", "tests/golden"),
    ),
    Mutation(
        "stpatch/image/grid.py",
        "hexagonal columns",
        "col, step = col // 2, 2",
        "col, step = (col + 1) // 2, 2",
        ("tests/image/test_grid.py",),
    ),
    Mutation(
        "stpatch/image/crop.py",
        "centre of a centered window",
        "np.array([[size[0] // 2], [size[1] // 2]])",
        "np.array([[(size[0] - 1) // 2], [(size[1] - 1) // 2]])",
        ("tests/image/test_crop.py",),
    ),
    Mutation(
        "stpatch/image/crop.py",
        "the last tile of an axis",
        "np.arange(min(1 + _ceil_div(max(n - size, 0), stride), _ceil_div(n, stride)), dtype=np.int64) * stride",
        "np.arange(max(min(_ceil_div(max(n - size, 0), stride), _ceil_div(n, stride)), 1), dtype=np.int64) * stride",
        ("tests/image/test_crop.py",),
    ),
    Mutation(
        "stpatch/expression/moments.py",
        "guard for constant genes",
        "np.where(self.m2 <= rounding, 0.0, self.m2)",
        "self.m2",
        ("tests/expression/test_moments.py",),
    ),
    Mutation(
        "stpatch/expression/dispersion.py",
        "number of dispersion bins",
        "N_BINS = 20",
        "N_BINS = 21",
        ("tests/expression/test_scanpy.py",),
    ),
    Mutation(
        "stpatch/slides/readers/xenium.py",
        "molecules of exactly the least quality",
        "block[quality] >= options.min_qv",
        "block[quality] > options.min_qv",
        ("tests/slides/test_xenium.py",),
    ),
    Mutation(
        "stpatch/slides/qc.py",
        "spots of exactly the least count",
        "totals < section.min_counts",
        "totals <= section.min_counts",
        ("tests/slides/test_qc.py",),
    ),
    Mutation(
        "stpatch/slides/qc.py",
        "spots of exactly the largest count",
        "totals > section.max_counts",
        "totals >= section.max_counts",
        ("tests/slides/test_qc.py",),
    ),
    Mutation(
        "stpatch/slides/qc.py",
        "spots of exactly the least number of genes",
        "n_genes < section.min_genes",
        "n_genes <= section.min_genes",
        ("tests/slides/test_qc.py",),
    ),
    Mutation(
        "stpatch/dataset/content.py",
        "coverage in validate --deep",
        "if abs(coverage * pixels - covered) > slack:",
        "if abs(coverage * pixels - covered) > pixels:",
        ("tests/dataset/test_validate.py",),
    ),
    Mutation(
        "stpatch/dataset/validate.py",
        "coverage above one",
        "(coverage >= 0) & (coverage <= 1)",
        "(coverage >= 0)",
        ("tests/dataset/test_validate.py",),
    ),
    Mutation(
        "stpatch/dataset/formats/tar.py",
        "blocks at a tar's end",
        "END = bytes(2 * BLOCK)",
        "END = bytes(3 * BLOCK)",
        ("tests/dataset/test_tar.py",),
    ),
    Mutation(
        "stpatch/dataset/formats/tar.py",
        "mode of a member",
        'b"0000644\\0"',
        'b"0000600\\0"',
        ("tests/dataset/test_tar.py",),
    ),
    Mutation(
        "stpatch/dataset/formats/zarr.py",
        "checksum of a shard's index",
        "self._write(index + _crc32c(index))",
        "self._write(index + bytes(4))",
        ("tests/dataset/test_zarr.py",),
    ),
    Mutation(
        "stpatch/stages/cutter.py",
        "the label of a pixel of several spots",
        "np.lexsort((-pairs, counts))",
        "np.lexsort((pairs, counts))",
        ("tests/stages/test_cutter.py", "tests/stages/test_image_built.py"),
    ),
    Mutation(
        "stpatch/engine/ranks.py",
        "a rank's share",
        "units[self.rank :: self.world_size]",
        "units[self.rank + 1 :: self.world_size]",
        ("tests/engine/test_ranks.py",),
    ),
    Mutation(
        "stpatch/image/blocks.py",
        "the last block of a split",
        "cumulative[np.flatnonzero(shares)[-1] :] = n",
        "cumulative[np.flatnonzero(shares)[-1] :] = n - 1",
        ("tests/image/test_split.py",),
    ),
    Mutation(
        "stpatch/stages/receipts.py",
        "an input of another size",
        "if stat.st_size != self.bytes:",
        "if stat.st_size < self.bytes:",
        ("tests/stages/test_receipts.py", "tests/engine/test_run.py"),
    ),
    Mutation(
        "stpatch/seeds.py",
        "an unstable sort of random keys",
        'np.argsort(raw_draws(source, n), kind="stable")',
        "np.argsort(-raw_draws(source, n).astype(np.int64))",
        ("tests/test_seeds.py",),
    ),
    Mutation(
        "stpatch/storage.py",
        "a file that is renamed before it is written",
        "            file.flush()\n            os.fsync(file.fileno())\n        temporary.replace(path)",
        "            temporary.replace(path)",
        ("tests/test_storage.py",),
    ),
    Mutation(
        "stpatch/slides/canonical.py",
        "order of spots in a slide",
        "    order = np.lexsort(keys)\n",
        "    order = np.lexsort(keys[::-1])\n",
        ("tests/slides/test_canonical.py",),
    ),
)
