"""What a version that extends another may not contradict, and what it will add and take over, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from stpatch.errors import ConfigError, one_or_many
from stpatch.stages.deal import kept_slides
from stpatch.stages.job import Job
from stpatch.stages.parent import Parent, parent_problems
from stpatch.stages.taken_over import taken_over

_LISTED = 5


def require_parent(job: Job) -> None:
    """Refuse to extend a dataset that the config contradicts, or that lacks what a new version goes on from."""
    if job.parent is None:
        return
    listed = {slide_id: source.path for slide_id, source in job.listed.items()}
    if problems := parent_problems(job.parent, job.config, listed):
        raise one_or_many(problems)
    if not job.sources and not job.config.slides.withdraw:
        raise ConfigError(
            "there is nothing new: the dataset that is extended has every slide",
            where="key slides",
            found=f"{len(job.listed)} slides, all in {job.parent.folder}",
            hint="add slides, or withdraw some (slides.withdraw)",
        )


def growth_notes(job: Job, parent: Parent, split_of: Mapping[str, str] | None) -> list[str]:
    """Say what is taken over from the dataset that is extended, what is new, and what goes."""
    dataset, over = parent.manifest.dataset, taken_over(job)
    anew, gone = sum(over.values()), len(parent.shards) - len(over)
    slides = len(kept_slides(job))
    notes = [
        f"extends {dataset.get('name', '')} {dataset.get('version', '')} ({parent.folder}): {slides} slides and "
        f"{len(over) - anew} of {len(parent.shards)} shards are taken over as they are"
    ]
    if job.config.slides.withdraw:
        notes.append(
            f"withdrawn: {_some(sorted(job.config.slides.withdraw))}; {anew} shards are written anew without them"
            + (f", {gone} go" if gone else "")
        )
    if still := sorted(parent.withdrawn.intersection(job.listed)):
        notes.append(
            f"withdrawn in an earlier version, and left out though they are listed: {_some(still)} (under another "
            "slide_id they would be new)"
        )
    if job.sources:
        dealt = Counter((split_of or {}).values())
        parts = ", ".join(f"{name} {count}" for name, count in sorted(dealt.items()) if name)
        notes.append(f"new: {len(job.sources)} slides" + (f" (splits: {parts})" if parts else ""))
    return notes


def _some(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
