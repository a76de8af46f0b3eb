"""Events that are degraded at random in each epoch, reproducibly."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dense_imb.hits import (
    Degradation,
    Events,
    Geometry,
    HitsFile,
    HitsFiles,
    MeasuredNoise,
    Sensors,
    Uniform,
    degrade,
)
from dense_imb.hits.provenance import content_hash_of

VALIDATION_EPOCH = 2**31 - 1  # no training gets there
_MOST = 2**32  # events with random numbers of their own
_AT_ONCE = 4096


@dataclass(frozen=True)
class VirtualEvents:
    """Events of hits files, each degraded by random numbers of (seed, epoch, event).

    Args:
        source: the files.
        degradation: degradation of each event; None for none.
        seed: random seed.
        first: first event of the source to use.
        count: number of events; None for all that follow.
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
    def geometry(self) -> Geometry | Sensors:
        """Grid of pixels, or table of sensors."""
        return self.source.geometry

    @property
    def grid(self) -> Geometry:
        """The grid of pixels; refuses a table of sensors."""
        return self.source.grid

    def clean(self, numbers: NDArray[np.int64]) -> Events:
        """Return events of the source without degradation, by their numbers in this set.

        Numbers from len(self) on mean the same events again, with other random numbers.
        """
        return self.source[np.asarray(numbers) % len(self) + self.first]

    def degraded(
        self, numbers: NDArray[np.int64], epoch: int, clean: Events | None = None
    ) -> Events:
        """Return events degraded for an epoch.

        Args:
            numbers: numbers of the events in this set.
            epoch: pass over the set.
            clean: result of `clean(numbers)`, if known; saves reading it again.
        """
        events = self.clean(numbers) if clean is None else clean
        if self.degradation is None:
            return events
        times, number = np.divmod(np.asarray(numbers), len(self))
        index = (number + self.first + times * len(self.source)) % _MOST
        return degrade(events, self.degradation, seed=self.seed, epoch=epoch, event_index=index)

    def fingerprint(self) -> str:
        """Return a text that is equal for sets with equal hits, see `content_hash_of`."""
        files = self.source.files if isinstance(self.source, HitsFiles) else [self.source]
        stored = [content_hash_of(file) for file in files]
        digest = hashlib.sha256("\n".join(stored).encode()).hexdigest()
        return f"{len(self)} events from {self.first} of {self.source.n_hits} hits, {digest[:16]}"

    def describe(self) -> str:
        """Describe the degradation in words, measured noise by its digest."""
        if self.degradation is None:
            return "none"
        profiles = [
            f"Measured({_digest(profile.events)}, weight={profile.weight})"
            if isinstance(profile, MeasuredNoise)
            else str(profile)
            for profile in self.degradation.profiles
        ]
        others = replace(self.degradation, profiles=(Uniform(),))
        return f"{others} with noise of {', '.join(profiles)}"

    def kinds(self) -> tuple[bool, bool]:
        """Whether the degraded events hold any signal, and any noise.

        Hits without labels count as signal if noise is added, else as neither.
        """
        adds_noise = self.degradation is not None and self.degradation.noise not in (0, (0, 0))
        keeps_signal = self.degradation is None or self.degradation.signal not in (0, (0, 0))
        has_signal, has_noise = False, adds_noise
        is_labelled = "/hit/label" in self.source.columns
        for start in range(0, len(self), _AT_ONCE):
            events = self.clean(np.arange(start, min(start + _AT_ONCE, len(self))))
            if is_labelled and events.label is not None:
                is_signal = events.label > 0
                has_signal |= bool(is_signal.any())
                has_noise |= not bool(is_signal.all())
            else:
                has_signal |= adds_noise and events.n_hits > 0
            if has_signal and has_noise:
                break
        return has_signal and keeps_signal, has_noise

    def class_content(self) -> NDArray[np.int64]:
        """Count the hits of each signal label in each clean event, (n_events, n_classes)."""
        if "/hit/label" not in self.source.columns:
            raise ValueError(
                "Expected hits with labels for the classes of events, got none; leave `sampling` "
                "at instance, and `mixing` at none or mixup."
            )
        parts: list[NDArray[np.int64]] = []
        for start in range(0, len(self), _AT_ONCE):
            events = self.clean(np.arange(start, min(start + _AT_ONCE, len(self)))).numpy()
            label = np.asarray(events.label, np.int64)
            n_labels = max(int(label.max(initial=0)), 1) + 1
            place = events.event_index() * n_labels + label
            count = np.bincount(place, minlength=len(events) * n_labels)
            parts.append(count.reshape(len(events), n_labels)[:, 1:])
        widest = max(part.shape[1] for part in parts)
        content = np.concatenate(
            [np.pad(part, ((0, 0), (0, widest - part.shape[1]))) for part in parts]
        )
        content = content[:, content.any(0)]  # a label without hits is no class
        if content.shape[1] < 2:
            raise ValueError(
                "Expected events of at least two classes, label 1, 2 and so on of their hits, got "
                "one; leave `sampling` at instance, and `mixing` at none or mixup."
            )
        return content


def _digest(events: Events) -> str:
    digest = hashlib.sha256()
    for name, column in sorted(events.numpy().hit_columns().items()):
        digest.update(name.encode() + np.ascontiguousarray(column).tobytes())
    return f"{events.n_hits} hits, {digest.hexdigest()[:16]}"
