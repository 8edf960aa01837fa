"""Encodes samples, where it helps on a thread of its own while the next ones are cut."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from stpatch.shards.layout import Layout
from stpatch.shards.sample import Sample
from stpatch.shards.shard import encode_sample

AHEAD = 4
"""Samples that are cut and not yet encoded."""

Encoded = tuple[int, str, dict[str, bytes]]


def encoded_ahead(
    samples: Iterable[tuple[int, Sample]], layout: Layout, *, thread: bool | None = None
) -> Iterator[Encoded]:
    """Yield (place, key, encoded parts) of placed samples, in their order.

    Parameters
    ----------
    samples
        (place, sample); samples share no memory.
    layout
        The dataset's.
    thread
        Whether to encode on a second thread; by default where a processor is likely to be free for it.
    """
    if not (has_free_processor() if thread is None else thread):
        for place, sample in samples:
            yield place, sample.key, encode_sample(sample, layout)
        return
    waiting: deque[tuple[int, str, Future[dict[str, bytes]]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="encode") as helper:
        for place, sample in samples:
            waiting.append((place, sample.key, helper.submit(encode_sample, sample, layout)))
            if len(waiting) > AHEAD:
                yield _result(waiting)
        while waiting:
            yield _result(waiting)


def has_free_processor() -> bool:
    """Whether this process is no worker among others, and may use more than one processor."""
    if multiprocessing.parent_process() is not None:
        return False
    return len(os.sched_getaffinity(0)) > 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) > 1


def _result(waiting: deque[tuple[int, str, Future[dict[str, bytes]]]]) -> Encoded:
    place, key, future = waiting.popleft()
    return place, key, future.result()
