"""What is asked for when a dataset of whole slides is opened, and what the dataset is called then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from stpatch.config import CropSection
from stpatch.dataset.cropping.rule import ChannelRule
from stpatch.dataset.layout import Layout
from stpatch.dataset.manifest import Manifest
from stpatch.errors import ConfigError

POOL = 16
"""Slides that a reader keeps open, unless it is told otherwise; of which an epoch's order mixes the samples."""
TRAIN = "train"
"""The split whose windows and draws are fresh in every epoch, unless it is told otherwise."""
SAMPLES = "samples"
"""The key of ``crop`` that is no key of the config: windows of an epoch."""


@dataclass(frozen=True, kw_only=True)
class Cropping:
    """What was asked for beside values and dtype; see `stpatch.open`.

    Attributes
    ----------
    crop, channels, weights
        Mappings, or None for the dataset's own.
    pitch
        Stored pixels on a side of those that are read.
    fresh
        Whether each epoch draws anew.
    seed
        Of random windows; None: the dataset's.
    pool
        Slides that are kept open.
    """

    crop: Mapping[str, Any] | None = None
    channels: Mapping[str, Any] | None = None
    weights: Mapping[str, Any] | None = None
    pitch: int = 1
    fresh: bool | None = None
    seed: int | None = None
    pool: int = POOL

    @property
    def given(self) -> list[str]:
        """Names of what differs from the defaults."""
        plain = Cropping()
        return [name for name in vars(self) if getattr(self, name) != getattr(plain, name)]

    def __post_init__(self) -> None:
        for key in ("pitch", "pool"):
            value = getattr(self, key)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{key} is a whole number of at least 1", where=f"stpatch.open, {key}", found=value)


def crop_section(manifest: Manifest, asked: Mapping[str, Any] | None) -> tuple[CropSection, int | None]:
    """Return the crop section with what was asked for, and the number of samples of an epoch where it was given."""
    given = dict(asked or {})
    samples = given.pop(SAMPLES, None)
    if samples is not None and (type(samples) is not int or samples < 1):
        raise ConfigError("samples is a whole number of at least 1", where="stpatch.open, crop", found=samples)
    if isinstance(given.get("size"), int):
        given["size"] = (given["size"], given["size"])
    kept = dict(manifest.crop)
    if "size" in given and "stride" not in given:
        kept["stride"] = None  # one of another size means nothing here
    try:
        return CropSection.model_validate({**kept, **given}), samples
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(
            f"crop: {problem['msg']}",
            where=f"stpatch.open, crop, key {key}",
            found=problem.get("input"),
            expected=f"{', '.join(CropSection.model_fields)} or {SAMPLES}",
        ) from None


def reopened_manifest(manifest: Manifest, layout: Layout, section: CropSection, rule: ChannelRule) -> Manifest:
    """Return the manifest as if the dataset had been built as it was opened."""
    scope = "panel" if rule.panel is not None else "slide" if rule.by_slide else "patch"
    channels = {**manifest.channels, "scope": scope, "n": rule.n, "draws": rule.draws}
    if rule.method is not None:
        channels["method"] = rule.method
    tensor = manifest.tensor.model_copy(
        update={"shape": layout.shape, "dtype": layout.dtype, "variable": layout.variable}
    )
    other = manifest.model_copy(
        update={"tensor": tensor, "channels": channels, "crop": section.model_dump(mode="json")}
    )
    other.__dict__.pop("layout", None)
    return other
