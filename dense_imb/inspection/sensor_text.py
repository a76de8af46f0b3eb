"""Lines of the report as text on hits of a table of sensors."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from dense_imb.inspection.formats import (
    percent,
    spectrum_lines,
)
from dense_imb.losses.foreign.recommended import MILD


def table_line(sensors: Mapping[str, Any]) -> str:
    """Return the size of a table of sensors."""
    extent = ", ".join(
        f"{axis} {low:.4g} to {high:.4g}"
        for axis, (low, high) in zip("xyz", sensors["extent_m"], strict=False)
    )
    directions = "with" if sensors["has_direction"] else "without"
    return (
        f"{sensors['number']:,} sensors in {sensors['axes']}-D, {directions} directions; {extent} "
        f"m; {sensors['spacing_m']:.3g} m between neighbours"
    )


def time_lines(time: Mapping[str, Any]) -> list[str]:
    """Return the spectrum of times in ns."""
    edges = time["bin_edges"]
    bins = f"bins of {edges[1] - edges[0]:.4g} ns, from {edges[0]:.5g} to {edges[-1]:.5g}"
    return spectrum_lines("Time (ns)", time, bins)


def map_lines(counts: Mapping[str, Any], n_sensors: int) -> list[str]:
    """Return the sensors with most hits, and the number of those without any."""
    mean = counts["mean_hits_per_sensor_and_event"]
    lines = [f"Sensors with most hits (hits an event; {mean:.3g} on average)"]
    for one in counts["hottest"]:
        rate = one["hits_per_event"]
        place = ", ".join(f"{x:.4g}" for x in one["position_m"])
        lines.append(
            f"  {one['sensor']:<8} {rate:8.3g}, {rate / mean:.3g} x average, lit in "
            f"{percent(one['share_of_events'])} of the events, at ({place}) m"
            f"{'  HOT' if one['is_hot'] else ''}"
        )
    silent = counts["silent_sensors"]
    lines.append(f"  sensors without any hit: {silent:,} ({percent(silent / n_sensors)})")
    return lines


def blank_lines(numbers: Mapping[str, Any]) -> list[str]:
    """Return the accuracy of a prediction that calls every hit noise."""
    blank = numbers["accuracy"]["blank"]
    return ["Scores of a BLANK prediction on these data", f"  accuracy {percent(blank)}"]


def advice_lines(numbers: Mapping[str, Any]) -> list[str]:
    """Return the advice that follows from the numbers, one sentence a line."""
    lines = []
    partition = numbers["partitions"]["hits"]
    if "noise" in partition["never_seen"]:
        lines.append(
            "no noise (label 0) here: training needs files with noise, or measured noise "
            "(--hits.noise N --hits.measured_noise FILE --hits.profiles)"
        )
    elif partition["imbalance"] > MILD:
        lines.append(
            f"{partition['imbalance']:,.0f} to 1: judge by noise removal and purity, not by "
            "accuracy"
        )
    return [*lines, *feature_lines(numbers)]


def feature_lines(numbers: Mapping[str, Any]) -> list[str]:
    """Return the advice on columns that a network of hits does not see by itself."""
    if not numbers.get("unseen"):
        return []
    line = f"columns that a network of hits does not see by itself: {numbers['unseen']}"
    if numbers["features"]:
        has_direction = numbers.get("sensors", {}).get("has_direction", False)
        names = f"direction {numbers['features']}" if has_direction else numbers["features"]
        line += f"; --hits.features {names} lets it"
    return [line]


def next_command(numbers: Mapping[str, Any]) -> tuple[str, str]:
    """Return the purpose of the next command, and the command; "" where there is none."""
    classes = numbers["partitions"]["hits"]["classes"]
    if not numbers["labelled"] or sum(one["pixels"] > 0 for one in classes.values()) < 2:
        return "", ""
    first = shlex.quote(numbers["files"][0])
    return "train a network of hits", f"dense-imb train hits --hits.train {first} --out runs/first"
