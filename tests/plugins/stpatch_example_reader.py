"""A reader from outside stpatch: slides as lines of ``x y gene count`` after a line ``#example``."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.formats.names import gene_frame
from stpatch.slides.formats.text.lines import read_lines
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource


class ExampleReader:
    """Reader of the example layout."""

    platform = "example"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Recognize the first line."""
        if source.path.suffix != ".example" or not source.path.is_file():
            return None
        if not source.path.read_bytes().startswith(b"#example"):
            return None
        return Probe(platform=self.platform, reason="a first line #example", files=(source.path,), unit="um")

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:
        """Read all lines."""
        rows = [line.split() for line in read_lines(source.path)[1:]]
        if not rows or any(len(row) != 4 for row in rows):
            raise InputError("a line does not have four words", where=source.path, expected="x y gene count")
        places = sorted({(float(x), float(y)) for x, y, _, _ in rows})
        genes = sorted({gene for _, _, gene, _ in rows})
        counts = np.array([int(count) for *_, count in rows])
        spot = [places.index((float(x), float(y))) for x, y, _, _ in rows]
        gene = [genes.index(name) for _, _, name, _ in rows]
        matrix = sparse.csr_matrix((counts, (spot, gene)), shape=(len(places), len(genes)))
        return RawSlide(
            counts=matrix,
            spot_ids=np.array([f"spot{i}" for i in range(len(places))], dtype=object),
            genes=gene_frame(genes),
            xy=np.array(places, dtype=np.float64),
            um_per_unit=1.0,
        )
