"""A data set that is degraded anew each epoch, and yet the same in every run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dense_imb.hits import Degradation, Events, Geometry, HitsFile, HitsFiles, degrade

VALIDATION_EPOCH = 2**31 - 1  # no training gets there


@dataclass(frozen=True)
class VirtualEvents:
    """Some of the events of hits files, each degraded by numbers of (seed, epoch, event).

    Args:
        source: the files.
        degradation: what happens to each event; None leaves them as they are.
        seed: of the random numbers.
        first: event of the source that this set begins with.
        count: events; None takes all that follow.
    """

    source: HitsFile | HitsFiles
    degradation: Degradation | None
    seed: int
    first: int = 0
    count: int | None = None

    def __len__(self) -> int:
        rest = len(self.source) - self.first
        return rest if self.count is None else min(self.count, rest)

    @property
    def geometry(self) -> Geometry:
        """The frame of the events."""
        return self.source.geometry

    def clean(self, numbers: NDArray[np.int64]) -> Events:
        """Events as they are in the source, by their numbers in this set."""
        return self.source[np.asarray(numbers) + self.first]

    def degraded(
        self, numbers: NDArray[np.int64], epoch: int, clean: Events | None = None
    ) -> Events:
        """The same events as the epoch shows them.

        Args:
            numbers: events of this set.
            epoch: pass over the set.
            clean: what `clean(numbers)` gave, to save reading it again.
        """
        events = self.clean(numbers) if clean is None else clean
        if self.degradation is None:
            return events
        index = np.asarray(numbers) + self.first
        return degrade(events, self.degradation, seed=self.seed, epoch=epoch, event_index=index)

    def has_signal(self) -> bool:
        """Whether any hit is labelled signal, or none is labelled at all: all are signal then."""
        for start in range(0, len(self), 4096):
            events = self.clean(np.arange(start, min(start + 4096, len(self))))
            if events.n_hits and (events.label is None or bool((events.label > 0).any())):
                return True
        return False

    def source_columns(self) -> frozenset[str]:
        """Names of the columns in the files, "/hit/label" say."""
        return frozenset(self.source.columns)
