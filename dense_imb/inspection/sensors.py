"""Counts of hits of a table of sensors: classes, times, and hits by sensor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.hits import Events, Sensors
from dense_imb.inspection.blank import rows_of_logits
from dense_imb.inspection.tally import QUANTILES, Tally
from dense_imb.inspection.weights import Partition, proposals
from dense_imb.statistics import ClassStatistics

_MOST_LABELS = 256  # the values of uint8
_MOST_TIMES = 1 << 20  # hits whose times are held
_TIME_BINS = 40
_INSIDE = (0.0005, 0.9995)  # quantiles of the times that bins span: outliers would squeeze the rest
_HOT, _SIGNIFICANT = 5.0, 6.0  # times the median, and standard deviations of a count
_N_TOP = 5
_SAMPLES = 2


class SensorCounts:
    """Counts of one pass over events of sensors; their size does not grow with the events.

    Args:
        sensors: table of the events.
        is_labelled: whether hits have labels.
        n_hits: number of hits to come, roughly; it decides how many times are held.
    """

    def __init__(self, sensors: Sensors, is_labelled: bool, n_hits: int) -> None:
        self.sensors, self.is_labelled = sensors, is_labelled
        self.every = max(1, -(-n_hits // _MOST_TIMES))
        self.per_event = {name: Tally() for name in ("hits", "noise", "signal")}
        self.hits = np.zeros(_MOST_LABELS, np.int64)  # of each label
        self.events = np.zeros(_MOST_LABELS, np.int64)
        self.hits_of_events = np.zeros(_MOST_LABELS, np.int64)
        self.by_sensor = np.zeros(len(sensors), np.int64)
        self.lit_by_sensor = np.zeros(len(sensors), np.int64)  # events
        self.times: list[NDArray[np.float64]] = []
        self.is_signal: list[NDArray[np.bool_]] = []
        self.samples: list[Events] = []

    def add(self, events: Events) -> None:
        """Count more events."""
        n, in_event = len(events), events.event_index()
        label = events.label
        if label is None:  # every hit counts as signal
            label = np.ones(events.n_hits, np.uint8)
        label = label.astype(np.int64)
        n_hits = np.diff(events.offset).astype(np.int64)
        # (n, labels)
        counts = np.bincount(in_event * _MOST_LABELS + label, minlength=n * _MOST_LABELS)
        counts = counts.reshape(n, _MOST_LABELS)
        self.hits += counts.sum(0)
        self.events += (counts > 0).sum(0)
        self.hits_of_events += (n_hits[:, None] * (counts > 0)).sum(0)
        for name, numbers in (
            ("hits", n_hits),
            ("noise", counts[:, 0]),
            ("signal", n_hits - counts[:, 0]),
        ):
            self.per_event[name].add(numbers)
        sensor = events.sensor.astype(np.int64)  # type: ignore[union-attr]
        self.by_sensor += np.bincount(sensor, minlength=len(self.sensors))
        lit = np.unique(in_event * len(self.sensors) + sensor) % len(self.sensors)
        self.lit_by_sensor += np.bincount(lit, minlength=len(self.sensors))
        self.times.append(events.t[:: self.every].astype(np.float64))
        self.is_signal.append(label[:: self.every] > 0)
        for event in np.flatnonzero(n_hits)[: _SAMPLES - len(self.samples)]:
            self.samples.append(events[int(event)].take([0]))  # a copy: the batch may go

    def numbers(self) -> dict[str, Any]:
        """Return the numbers of the report."""
        hits, hit_counts = self.per_event["hits"].arrays()
        n_events = int(hit_counts.sum())
        signal, signal_counts = self.per_event["signal"].arrays()
        partition = self._partition(n_events)
        counts = partition.statistics.class_counts
        has_hits = self.is_labelled and sum(counts) > 0
        has_both = self.is_labelled and sum(count > 0 for count in counts) > 1
        return {
            "labelled": self.is_labelled,
            "empty_events": int(hit_counts[hits == 0].sum()),
            "events_without_signal": int(signal_counts[signal == 0].sum()),
            "per_event": {
                name: tally.summary()
                for name, tally in self.per_event.items()
                if self.is_labelled or name == "hits"
            },
            "time": self._time(),
            "map": self._map(n_events),
            "accuracy": {"blank": counts[0] / sum(counts) if has_hits else math.nan},
            "partitions": {
                "hits": {
                    "classes": partition.shares(),
                    "imbalance": partition.imbalance,
                    "never_seen": partition.absent(),
                    **proposals(partition),
                }
            },
            "losses": {
                "logits_hits": [row.as_dict() for row in rows_of_logits(counts)] if has_both else []
            },
        }

    def _partition(self, n_events: int) -> Partition:
        labels = np.flatnonzero(self.hits[1:])
        n_signal = int(labels[-1]) + 1 if len(labels) else 1
        names = ["signal"] if n_signal == 1 else [f"signal {k + 1}" for k in range(n_signal)]
        part = slice(0 if self.is_labelled else 1, 1 + n_signal)
        names = ["noise", *names] if self.is_labelled else ["hit"]
        hits, events, event_hits = (
            counts[part].tolist() for counts in (self.hits, self.events, self.hits_of_events)
        )
        counted = ClassStatistics.from_counts(hits, events, event_hits, n_events)
        return Partition(tuple(names), counted)

    def _time(self) -> dict[str, Any]:
        time = np.concatenate([np.zeros(0), *self.times])
        is_signal = np.concatenate([np.zeros(0, np.bool_), *self.is_signal])
        if not len(time):
            return {}
        quantiles = np.quantile(time, [*QUANTILES.values()], method="inverted_cdf").tolist()
        low, high = np.quantile(time, _INSIDE)
        edges = np.linspace(low, high if high > low else low + 1, _TIME_BINS + 1)
        groups = {"hits": time}
        if self.is_labelled:
            groups |= {"noise": time[~is_signal], "signal": time[is_signal]}
        inside = np.histogram(time, edges)[0].sum()
        return {
            "mean": float(time.mean()),
            **dict(zip(QUANTILES, quantiles, strict=True)),
            "hits": len(time),
            "bin_edges": edges.tolist(),
            "share_outside_bins": 1.0 - int(inside) / len(time),
            "histogram": {
                name: np.histogram(values, edges)[0].tolist() for name, values in groups.items()
            },
        }

    def _map(self, n_events: int) -> dict[str, Any]:
        n = max(n_events, 1)
        typical = float(np.median(self.lit_by_sensor))
        excess = self.lit_by_sensor - typical
        is_hot = (self.lit_by_sensor > _HOT * typical) & (
            excess > _SIGNIFICANT * (typical + 1) ** 0.5
        )
        order = np.argsort(-self.by_sensor, kind="stable")[:_N_TOP]
        return {
            "mean_hits_per_sensor_and_event": float(self.by_sensor.mean() / n),
            "silent_sensors": int((self.by_sensor == 0).sum()),
            "hot_sensors": int(is_hot.sum()),
            "hottest": [
                {
                    "sensor": int(k),
                    "position_m": self.sensors.position[k].tolist(),
                    "hits_per_event": float(self.by_sensor[k] / n),
                    "share_of_events": float(self.lit_by_sensor[k] / n),
                    "is_hot": bool(is_hot[k]),
                }
                for k in order
                if self.by_sensor[k] > 0
            ],
        }

    def warnings(self, numbers: dict[str, Any]) -> list[str]:
        """Return the warnings that follow from the numbers."""
        lines = []
        if n_hot := numbers["map"]["hot_sensors"]:
            top = numbers["map"]["hottest"][0]
            lines.append(
                f"{n_hot} hot sensors, lit in more than {_HOT:g} times as many events as the "
                f"median sensor; most hits has sensor {top['sensor']}, {top['hits_per_event']:.3g} "
                "an event"
            )
        if numbers["inspected_events"] and not self.is_labelled:
            lines.append("no labels: this report takes every hit for signal")
        for name in numbers["partitions"]["hits"]["never_seen"] if self.is_labelled else ():
            lines.append(f"no hit of class {name}")
        return lines

    def pictures(self) -> dict[str, Any]:
        """Return the arrays and sample events of the figure."""
        return {
            "sensors": self.sensors,
            "by_sensor": self.by_sensor,
            "hits_per_event": self.per_event["hits"].arrays(),
            "signal_per_event": self.per_event["signal"].arrays() if self.is_labelled else None,
            "samples": self.samples,
        }
