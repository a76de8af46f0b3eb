"""The part of a report as text that is on a table of sensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from dense_imb.inspection.lines import QUANTILES, heading, quantile_line, sparkline


def sensor_line(sensors: Mapping[str, Any]) -> str:
    """Return number, extent and units of the sensors in one line."""
    sides = ", ".join(
        f"{axis} {low:.4g} .. {high:.4g} m"
        for axis, low, high in zip("xyz", sensors["low"], sensors["high"], strict=False)
    )
    directions = ", with directions" if sensors["directions"] else ""
    return f"  {sensors['table']} ({sides}){directions}; times in ns"


def sensor_sections(numbers: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the sections on times and on sensors."""
    if not numbers["hits"]:
        return
    time, sensors = numbers["time"], numbers["sensors"]
    edges = time["bin_edges"]
    lines = [
        heading("Times in ns", ("mean", *QUANTILES.values())),
        quantile_line("duration", numbers["duration"]),
    ]
    for name, counts in time["histogram"].items():
        if name != "hits" or len(time["histogram"]) == 1:
            lines.append(f"  {name:16} {sparkline(counts)}")
    lines.append(f"  bins of {edges[1]:.4g} ns from the first hit of the event")
    yield lines
    counted = sensors["hits_per_sensor"]
    lines = [
        heading("Sensors", ("mean", *QUANTILES.values())),
        quantile_line("hits a sensor", counted),
        f"  sensors without any hit: {sensors['silent']:,}",
    ]
    if not math.isnan(sensors["noise_rate_khz"]):
        lines.append(f"  noise of a sensor: {sensors['noise_rate_khz']:.3g} kHz")
    for one in sensors["hottest"]:
        place = ", ".join(f"{x:.4g}" for x in one["position"])
        lines.append(
            f"  sensor {one['sensor']:<9} {one['hits_per_event']:8.3g} hits an event, "
            f"{one['times_mean']:.3g} x average, at {place} m{'  HOT' * one['is_hot']}"
        )
    yield lines
