"""Events in another format, read in batches."""

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
        name: name of the source in errors.
        batches: function that reads all events of a geometry from the beginning, in batches. It
            does not check values against the geometry.
        width: width of the frame, if the format stores it.
        height: height of the frame, if the format stores it.
        n_events: number of events, if known before reading.
        largest_time: largest time, if known before reading.
        n_labels_lost: labelled pixels without a hit, counted while reading.
    """

    name: str
    batches: Callable[[Geometry], Iterator[Events]]
    width: int | None = None
    height: int | None = None
    n_events: int | None = None
    largest_time: float | None = None
    n_labels_lost: int = 0


def make_events(
    geometry: Geometry,
    offset: NDArray[np.int64],
    hit: dict[str, NDArray[Any]],
    event: dict[str, NDArray[Any]],
) -> Events:
    """Make events from columns by name.

    Args:
        geometry: the frame.
        offset: (n_events + 1,) first hit of each event, and the number of hits.
        hit: columns of the hits: x, y, t, perhaps label, and further ones.
        event: columns of the events.
    """
    further = {name: column for name, column in hit.items() if name not in ("x", "y", "t", "label")}
    return Events(geometry, offset, hit["x"], hit["y"], hit["t"], hit.get("label"), further, event)
