"""What other people's files hold, and how a source is read to the end."""

from __future__ import annotations

import numpy as np

from dense_imb.data.events.formats import Source
from dense_imb.hits import Events, Geometry, concatenate

HEIGHT, WIDTH, STEPS = 5, 7, 300


def frames(n_frames: int = 6, seed: int = 0) -> np.ndarray:
    """Times (N, H, W), a fifth of the pixels lit, the third frame empty."""
    rng = np.random.default_rng(seed)
    time = rng.integers(1, STEPS + 1, (n_frames, HEIGHT, WIDTH))
    time[rng.random(time.shape) > 0.2] = 0
    time[2:3] = 0
    return time.astype(np.uint16)


def labels_of(time: np.ndarray) -> np.ndarray:
    return ((time > 0) * (1 + time % 2)).astype(np.uint8)


def read(source: Source, width: int = WIDTH, height: int = HEIGHT) -> Events:
    return concatenate([*source.batches(Geometry(width, height, 65536))])


def dense(events: Events, values: np.ndarray | None = None) -> np.ndarray:
    """Frames by plain loops; later hits win."""
    shape = (len(events), events.geometry.height, events.geometry.width)
    frame = np.zeros(shape)
    values = events.t if values is None else values
    for i in range(len(events)):
        for k in range(events.offset[i], events.offset[i + 1]):
            frame[i, events.y[k], events.x[k]] = values[k]
    return frame
