"""Inspection of hits files with a table of sensors: one pass over the events."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.hits import Events, Sensors
from dense_imb.hits.reader import HitsFile, HitsFiles
from dense_imb.inspection.blank import rows_of_logits
from dense_imb.inspection.tally import Tally, summary_of
from dense_imb.inspection.weights import Partition, proposals
from dense_imb.statistics import ClassStatistics

_HITS_AT_ONCE = 1 << 18
_MOST_LABELS = 256  # the values of uint8
_TIME_BINS = 40
_N_TOP = 5  # sensors listed
_HOT, _SIGNIFICANT = 5.0, 6.0  # times the mean of the sensors, and standard deviations above it
_SAMPLES = 2


class SensorCounts:
    """Counts of one pass over events of a table of sensors.

    Args:
        geometry: table of sensors.
        is_labelled: whether hits have labels; otherwise each counts as signal.
    """

    def __init__(self, geometry: Sensors, is_labelled: bool) -> None:
        self.geometry, self.is_labelled = geometry, is_labelled
        names = ("hits", "noise", "signal", "sensors_hit", "repeated", "duration")
        self.per_event = {name: Tally() for name in names}
        self.labels = np.zeros(_MOST_LABELS, np.int64)
        self.events = np.zeros(_MOST_LABELS, np.int64)  # that hold each label
        self.hits_of_events = np.zeros(_MOST_LABELS, np.int64)
        self.per_sensor = np.zeros((2, len(geometry)), np.int64)  # noise and signal
        self.time: NDArray[np.int64] = np.zeros((2, _TIME_BINS), np.int64)
        self.edges: NDArray[np.float64] | None = None  # of times from the first hit of the event
        self.samples: list[Events] = []

    def add(self, events: Events) -> None:
        """Count more events."""
        n, in_event = len(events), events.event_index()
        label = np.ones(events.n_hits, np.uint8) if events.label is None else events.label
        label, sensor = label.astype(np.int64), events.sensor.astype(np.int64)
        is_signal = label > 0
        n_hits = np.diff(events.offset).astype(np.int64)
        n_signal = np.bincount(in_event[is_signal], minlength=n)
        place = np.unique(in_event * len(self.geometry) + sensor) // len(self.geometry)
        n_sensors = np.bincount(place, minlength=n)
        time, duration = _times_from_first(events)
        for name, numbers in (
            ("hits", n_hits),
            ("noise", n_hits - n_signal),
            ("signal", n_signal),
            ("sensors_hit", n_sensors),
            ("repeated", n_hits - n_sensors),
            ("duration", np.rint(duration).astype(np.int64)),
        ):
            self.per_event[name].add(numbers)
        counts = np.bincount(in_event * _MOST_LABELS + label, minlength=n * _MOST_LABELS)
        counts = counts.reshape(n, _MOST_LABELS)
        self.labels += counts.sum(0)
        self.events += (counts > 0).sum(0)
        self.hits_of_events += (n_hits[:, None] * (counts > 0)).sum(0)
        for k, chosen in enumerate((~is_signal, is_signal)):
            self.per_sensor[k] += np.bincount(sensor[chosen], minlength=len(self.geometry))
        if self.edges is None and len(time):
            top = float(np.quantile(time, 0.9995)) or 1.0
            self.edges = np.linspace(0, top, _TIME_BINS + 1)
        if self.edges is not None:
            for k, chosen in enumerate((~is_signal, is_signal)):
                self.time[k] += np.histogram(time[chosen], self.edges)[0]
        for event in np.flatnonzero(n_hits)[: _SAMPLES - len(self.samples)]:
            self.samples.append(events[int(event)].take([0]))  # a copy: the batch may go

    def numbers(self) -> dict[str, Any]:
        """Return the numbers of the report."""
        hits, counts = self.per_event["hits"].arrays()
        signal, signal_counts = self.per_event["signal"].arrays()
        n_events = int(counts.sum())
        names = ["hits", "sensors_hit", "repeated"]
        names[1:1] = ["noise", "signal"] if self.is_labelled else []
        partitions = {"hits": self._partition(n_events)} if self.is_labelled else {}
        n_noise, n_all = int(self.labels[0]), int(self.labels.sum())
        losses = {}
        if self.is_labelled and n_noise:
            losses["logits_hits"] = rows_of_logits(partitions["hits"].statistics.class_counts)
        return {
            "labelled": self.is_labelled,
            "empty_events": int(counts[hits == 0].sum()),
            "events_without_signal": int(signal_counts[signal == 0].sum()),
            "per_event": {name: self.per_event[name].summary() for name in names},
            "duration": self.per_event["duration"].summary(),
            "time": self._time(),
            "sensors": self._sensors(n_events),
            "accuracy": {"blank": _ratio(n_noise, n_all), "input": _ratio(n_all - n_noise, n_all)},
            "partitions": {
                name: {
                    "classes": partition.shares(),
                    "imbalance": partition.imbalance,
                    "never_seen": partition.absent(),
                    **proposals(partition),
                }
                for name, partition in partitions.items()
            },
            "losses": {name: [row.as_dict() for row in rows] for name, rows in losses.items()},
        }

    def _partition(self, n_events: int) -> Partition:
        labels = np.flatnonzero(self.labels[1:])
        n_signal = int(labels[-1]) + 1 if len(labels) else 1
        names = ("signal",) if n_signal == 1 else tuple(f"signal {k + 1}" for k in range(n_signal))
        counted = (self.labels, self.events, self.hits_of_events)
        hits, events, of_events = (one[: n_signal + 1].tolist() for one in counted)
        statistics = ClassStatistics.from_counts(hits, events, of_events, n_events)
        return Partition(("noise", *names), statistics)

    def _time(self) -> dict[str, Any]:
        rows = {"hits": self.time.sum(0)}
        if self.is_labelled:
            rows |= {"noise": self.time[0], "signal": self.time[1]}
        edges = np.arange(_TIME_BINS + 1.0) if self.edges is None else self.edges
        counted = int(self.time.sum())
        return {
            "bin_edges": edges.tolist(),
            "share_outside_bins": 1.0 - _ratio(counted, int(self.labels.sum())),
            "histogram": {name: row.tolist() for name, row in rows.items()},
        }

    def _sensors(self, n_events: int) -> dict[str, Any]:
        total, noise = self.per_sensor.sum(0), self.per_sensor[0]
        counted = noise if noise.any() else total
        mean = float(counted.mean())
        is_hot = (counted > _HOT * mean) & (counted - mean > _SIGNIFICANT * math.sqrt(mean + 1))
        order = np.lexsort((counted, is_hot))[::-1][:_N_TOP]
        duration = self.per_event["duration"].summary()["mean"]
        rate = math.nan
        if self.is_labelled and n_events and duration > 0:
            rate = 1e6 * float(noise.mean()) / (n_events * duration)  # hits in a ns, in kHz
        values, counts = np.unique(counted, return_counts=True)
        return {
            "table": self.geometry.size_text(),
            "directions": self.geometry.direction is not None,
            "low": self.geometry.position.min(0).tolist(),
            "high": self.geometry.position.max(0).tolist(),
            "hits_per_sensor": summary_of(values, counts),
            "silent": int((total == 0).sum()),
            "hot": int(is_hot.sum()),
            "noise_rate_khz": rate,
            "hottest": [
                {
                    "sensor": int(k),
                    "position": self.geometry.position[k].tolist(),
                    "hits_per_event": float(counted[k] / max(n_events, 1)),
                    "times_mean": float(counted[k] / mean) if mean else math.nan,
                    "is_hot": bool(is_hot[k]),
                }
                for k in order
                if counted[k]
            ],
        }

    def pictures(self) -> dict[str, Any]:
        """Return the arrays and sample events of the figure."""
        return {
            "per_sensor": self.per_sensor,
            "position": self.geometry.position,
            "hits_per_event": self.per_event["hits"].arrays(),
            "signal_per_event": self.per_event["signal"].arrays() if self.is_labelled else None,
            "samples": self.samples,
        }


def parts_of(chosen: NDArray[np.int64], hits: HitsFile | HitsFiles) -> Iterator[NDArray[np.int64]]:
    """Yield the numbers of events that are read together."""
    mean = max(1, hits.n_hits // max(len(hits), 1))
    size = max(1, min(4096, _HITS_AT_ONCE // mean))
    for start in range(0, len(chosen), size):
        yield chosen[start : start + size]


def warnings_of_sensors(numbers: dict[str, Any]) -> list[str]:
    """Return the warnings of a report on a table of sensors."""
    lines = []
    sensors = numbers["sensors"]
    if sensors["hot"]:
        top = sensors["hottest"][0]
        lines.append(
            f"{sensors['hot']} hot sensors, the hottest number {top['sensor']} with "
            f"{top['hits_per_event']:.3g} hits an event, {top['times_mean']:.3g} x average: mask "
            "them, or train on measured noise"
        )
    if numbers["inspected_events"] and not numbers["labelled"]:
        lines.append("no labels: this report takes every hit for signal")
    for name in numbers["partitions"].get("hits", {}).get("never_seen", []):
        lines.append(f"no hit of class {name}")
    return lines


def _times_from_first(events: Events) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return times from the first hit of their event, and the duration of each event, in ns."""
    time = np.asarray(events.t, np.float64)
    duration = np.zeros(len(events))
    if not len(time):
        return time, duration
    n_hits = np.diff(events.offset).astype(np.int64)
    has_hits = n_hits > 0
    start = np.asarray(events.offset[:-1], np.int64)[has_hits]
    first = np.minimum.reduceat(time, start)
    duration[has_hits] = np.maximum.reduceat(time, start) - first
    return time - np.repeat(first, n_hits[has_hits]), duration


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
