"""What a reader of another format hands on: its events, batch by batch, as often as asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.hits import Events, Geometry

BATCH_BYTES = 8 << 20  # of frames or columns, read at a time
BATCH_HITS = 1 << 18


@dataclass
class Source:
    """Events in another format.

    Args:
        name: what sentences about bad values call it.
        batches: reads all events from the beginning, as batches of this geometry. Values are
            not checked against it.
        width, height: of the frame, where the format knows them.
        n_events: where known before reading.
        largest_time: where known before reading.
        n_labels_lost: labelled pixels without a hit, counted while reading.
    """

    name: str
    batches: Callable[[Geometry], Iterator[Events]]
    width: int | None = None
    height: int | None = None
    n_events: int | None = None
    largest_time: float | None = None
    n_labels_lost: int = 0


def events_of(
    geometry: Geometry,
    offset: NDArray[np.int64],
    hit: dict[str, NDArray[Any]],
    event: dict[str, NDArray[Any]],
) -> Events:
    """Events from columns by name; x, y, t and, where known, label among those of the hits."""
    further = {name: column for name, column in hit.items() if name not in ("x", "y", "t", "label")}
    return Events(geometry, offset, hit["x"], hit["y"], hit["t"], hit.get("label"), further, event)
