"""Events in another format, read in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.refusals import Refused
from dense_imb.hits import Events, Geometry, Sensors

BATCH_BYTES = 8 << 20  # of frames or columns, read at a time
BATCH_HITS = 1 << 18
_HITS = ("t", "label")  # beside the columns of a geometry


@dataclass
class Columns:
    """A batch of events as the source has them, before they get a geometry.

    Args:
        offset: (n_events + 1,) first hit of each event, and the number of hits.
        hit: columns of the hits by name.
        event: columns of the events by name.

    Example:
        >>> import numpy as np
        >>> from dense_imb.data.events.formats import Columns
        >>> t = np.array([5.0, 6.5, 7.0])
        >>> hit, event = {"x": t, "y": t, "t": t}, {"run": np.array([7, 8])}
        >>> batch = Columns(np.array([0, 2, 3]), hit, event)
        >>> len(batch)  # events
        2
    """

    offset: NDArray[np.int64]
    hit: dict[str, NDArray[Any]]
    event: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.offset) - 1


@dataclass
class Source:
    """Events in another format.

    Args:
        name: name of the source in errors.
        read: function that reads all events from the beginning, in batches. Their values are not
            checked yet.
        width: width of the frame, if the format stores it.
        height: height of the frame, if the format stores it.
        n_events: number of events, if known before reading.
        largest_time: largest time, if known before reading.
        names: names of the columns that place the hits: x, y, t or sensor, t.
        sensors: table of sensors in the same file.
        n_parts: number of sources that this one joins.
        n_labels_lost: labelled pixels without a hit, counted while reading.
        notes: sentences about merged events and columns left out, collected while reading; options
            are in braces as in `dense_imb.base.refusals`.

    Example:
        >>> import numpy as np
        >>> from dense_imb.data.events.formats import Columns, Source
        >>> from dense_imb.hits import Geometry
        >>> t = np.array([5, 6, 7])
        >>> def read():  # your own format
        ...     yield Columns(np.array([0, 2, 3]), {"x": t, "y": t, "t": t}, {})
        >>> source = Source("my detector", read)
        >>> next(source.batches(Geometry()))
        Events(2 events, 3 hits, 88 x 128 x 1000)
    """

    name: str
    read: Callable[[], Iterator[Columns]]
    width: int | None = None
    height: int | None = None
    n_events: int | None = None
    largest_time: float | None = None
    names: tuple[str, ...] = ("x", "y", "t")
    sensors: Sensors | None = None
    n_parts: int = 1
    n_labels_lost: int = 0
    notes: list[str] = field(default_factory=list)

    def batches(self, geometry: Geometry | Sensors) -> Iterator[Events]:
        """Read all events of a geometry; their values are not checked against it."""
        return (make_events(geometry, columns) for columns in self.read())


def make_events(geometry: Geometry | Sensors, columns: Columns) -> Events:
    """Give columns a geometry."""
    hit = dict(columns.hit)
    own = {name: hit.pop(name, None) for name in (*geometry.columns, *_HITS)}
    return Events(geometry, columns.offset, **own, hit=hit, event=columns.event)


def slices_of(offset: NDArray[np.int64]) -> Iterator[slice]:
    """Yield slices of whole events with about `BATCH_HITS` hits each."""
    start = 0
    while start < len(offset) - 1:
        stop = int(np.searchsorted(offset, offset[start] + BATCH_HITS, side="right")) - 1
        stop = max(start + 1, stop)
        yield slice(start, stop)
        start = stop


def chain_sources(sources: Sequence[Source], source_column: str | None = None) -> Source:
    """Join sources, one after the other; events of different sources stay apart.

    Args:
        sources: at least one.
        source_column: name of a new column of the events: number of their source, from 0.

    Example:
        >>> import numpy as np
        >>> from dense_imb.data.events.formats import chain_sources, frames_source
        >>> from dense_imb.hits import Geometry
        >>> frames = frames_source("a frame", np.array([[[0, 7, 0]]]))
        >>> both = chain_sources([frames, frames], source_column="file")
        >>> [batch.event["file"].tolist() for batch in both.batches(Geometry(3, 1, 9))]
        [[0], [1]]
    """
    first = sources[0]
    if len(sources) == 1 and source_column is None:
        return first
    counts = [one.n_events for one in sources]
    times = [one.largest_time for one in sources]
    tables = [one.sensors for one in sources if one.sensors is not None]
    for one in sources:
        if (one.width, one.height, one.names) != (first.width, first.height, first.names):
            raise ValueError(
                f"Expected sources of one kind and frame, got {first.name} and {one.name}; "
                "convert them one by one."
            )
    for table in tables:
        if table != tables[0]:
            raise ValueError(
                f"Expected one table of sensors in all sources, got another than that of "
                f"{first.name}; convert them one by one."
            )

    def read() -> Iterator[Columns]:
        joined.notes.clear()
        joined.n_labels_lost = 0
        known: tuple[set[str], set[str]] | None = None
        for number, one in enumerate(sources):
            for columns in one.read():
                names = set(columns.hit), set(columns.event)
                known = known or names
                if names != known:
                    differ = (known[0] ^ names[0]) | (known[1] ^ names[1])
                    raise Refused(
                        f"{one.name} with the columns of {first.name}",
                        f"{', '.join(sorted(differ))} in one of them only",
                        "name the columns to keep with {keep=NAME}; {keep} alone keeps none",
                    )
                if source_column is not None:
                    if source_column in columns.event:
                        raise ValueError(
                            "Expected a new name for the column of sources, got "
                            f"`{source_column}`, which {one.name} has."
                        )
                    columns.event[source_column] = np.full(len(columns), number, np.int64)
                yield columns
            joined.notes += one.notes
            joined.n_labels_lost += one.n_labels_lost

    joined = Source(
        first.name if len(sources) == 1 else f"{first.name} and {len(sources) - 1} more",
        read,
        first.width,
        first.height,
        None if None in counts else sum(count or 0 for count in counts),
        None if None in times else max(time or 0.0 for time in times),
        first.names,
        tables[0] if tables else None,
        len(sources),
    )
    return joined
