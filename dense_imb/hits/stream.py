"""Masking of a stream of events with bounded latency, as in the loop of a data acquisition."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from dense_imb.base.checks import check_at_least
from dense_imb.hits.baselines import Scorer
from dense_imb.hits.events import Events, concatenate
from dense_imb.hits.masking import as_point, mask_events, score_columns
from dense_imb.metrics import OperatingPoint

_LOOK_EVERY = 0.1  # seconds between two looks of a waiting reader whether it should stop


def mask_stream(
    scorer: Scorer,
    point: OperatingPoint | float,
    events: Iterable[Events],
    *,
    max_events: int = 1,
    max_seconds: float = 0.05,
    only_kept: bool = False,
    threads: int | None = 1,
) -> Iterator[Events]:
    """Yield the masked events of a stream, an item for each item, in order.

    By default each item is scored when it comes. With `max_events` a thread reads ahead, and items
    that come together are scored together, which takes less time for each.

    Args:
        scorer: baseline or trained model.
        point: operating point, or a threshold.
        events: items of one event or several, such as a generator over a socket.
        max_events: largest number of events scored together.
        max_seconds: longest time that an item waits for others.
        only_kept: yield kept hits only.
        threads: CPU threads that score; None for torch's number. More than one hardly helps with
            single events, and each operation waits for the slowest: on busy cores some 20 times
            as long.

    Example:
        >>> from dense_imb.hits import Degradation, HitDensity, degrade, simulate
        >>> noisy = degrade(simulate("arc", 3, seed=1), Degradation(signal=30, noise=200), seed=1)
        >>> for one in mask_stream(HitDensity(), 0.7, noisy):
        ...     print(len(one), one.n_hits, one.hit["keep"].dtype)
        1 230 bool
        1 230 bool
        1 230 bool
    """
    check_at_least("max_events", max_events, 1)
    check_at_least("max_seconds", max_seconds, 0)
    if threads is not None:
        check_at_least("threads", threads, 1)
    items = _checked(events)
    batches: Iterator[list[Events]] = ([item] for item in items)
    if max_events > 1:
        batches = _batches(items, max_events, max_seconds)
    return _masked(scorer, as_point(point), batches, only_kept=only_kept, threads=threads)


def _checked(events: Iterable[Events]) -> Iterator[Events]:
    """Return the items of a stream; refuse what is no stream at once, and other items as they come.

    Args:
        events: items of one event or several.
    """
    if isinstance(events, (str, os.PathLike)):
        raise TypeError(
            f"Expected `events` to be a stream of Events, got the path {os.fspath(events)!r}; open "
            f"the file, open_hits({os.fspath(events)!r})."
        )
    if not isinstance(events, Iterable):
        raise TypeError(f"Expected `events` to be a stream of Events, got {type(events).__name__}.")
    return _events_of(events)


def _events_of(events: Iterable[Events]) -> Iterator[Events]:
    for item in events:
        if not isinstance(item, Events):
            raise TypeError(
                f"Expected a stream of Events, got {type(item).__name__} in it; "
                "`Events.from_arrays` makes events of flat arrays."
            )
        yield item


def _masked(
    scorer: Scorer,
    point: OperatingPoint,
    batches: Iterator[list[Events]],
    *,
    only_kept: bool,
    threads: int | None,
) -> Iterator[Events]:
    for items in batches:
        with _threads(threads):
            columns = score_columns(scorer, items[0] if len(items) == 1 else concatenate(items))
        start = 0
        for item in items:
            stop = start + item.n_hits
            own = {name: column[start:stop] for name, column in columns.items()}
            score = own.pop("score")
            yield mask_events(item, score, point, only_kept=only_kept, further=own)
            start = stop


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """Let torch use n threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    if n is None or n == before:
        yield
        return
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Read(NamedTuple):
    """One reading of a stream: an item, its end, or an exception that stopped it."""

    item: Events | None
    problem: BaseException | None = None
    when: float = 0.0


def _batches(
    events: Iterable[Events], max_events: int, max_seconds: float
) -> Iterator[list[Events]]:
    """Yield items that fit together, at most `max_seconds` after the first of them came."""
    waiting: queue.Queue[_Read] = queue.Queue(maxsize=max_events)
    is_over = threading.Event()
    threading.Thread(target=_read, args=(events, waiting, is_over), daemon=True).start()
    ahead: _Read | None = None
    try:
        while True:
            read, ahead = ahead or waiting.get(), None
            if read.problem is not None:
                raise read.problem
            if read.item is None:
                return
            items, n_events = [read.item], len(read.item)
            until = read.when + max_seconds
            while n_events < max_events and ahead is None:
                try:
                    read = waiting.get(timeout=max(until - time.monotonic(), 0.0))
                except queue.Empty:
                    break
                has_room = read.item is not None and n_events + len(read.item) <= max_events
                if read.item is not None and has_room and _fit(items[0], read.item):
                    items.append(read.item)
                    n_events += len(read.item)
                else:
                    ahead = read
            yield items
    finally:
        is_over.set()


def _read(events: Iterable[Events], waiting: queue.Queue[_Read], is_over: threading.Event) -> None:
    """Read items ahead, until the stream or its user has ended."""

    def put(read: _Read) -> bool:
        while not is_over.is_set():
            try:
                waiting.put(read, timeout=_LOOK_EVERY)
            except queue.Full:
                continue
            return True
        return False

    try:
        for item in events:
            if not put(_Read(item, when=time.monotonic())):
                return
    except BaseException as problem:  # raised again where the items are used
        put(_Read(None, problem))
    else:
        put(_Read(None))


def _fit(first: Events, other: Events) -> bool:
    """Tell whether two items can be scored together."""
    return (
        first.geometry == other.geometry
        and first.is_torch == other.is_torch
        and first.hit_columns().keys() == other.hit_columns().keys()
        and first.event.keys() == other.event.keys()
    )
