"""Figures of a report on hits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.metrics import HitScores, OperatingPoint, ScoreHistogram
from dense_imb.report.drawing import (
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    RED,
    SKY,
    Panel,
    Rows,
    bin_counts,
    column,
    draw_panels,
    logit,
    loss_panel,
    plain_log_ticks,
    probability_ticks,
    rate_panel,
    share_axis,
    write_message,
)
from dense_imb.report.hits.measures import HitMeasures, by_number_of_hits
from dense_imb.report.hits.profiles import ScoreProfile

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BASELINES = ("#000000", RED, GREEN, PINK, ORANGE, SKY)
_DASHES: tuple[Any, ...] = (
    ":",
    "--",
    "-.",
    (0, (6, 2, 1.5, 2, 1.5, 2)),
    (0, (3, 1.5)),
    (0, (9, 3)),
)
_ZOOM = 0.9  # smallest retention in the second panel


def removal_steps(histogram: ScoreHistogram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return retentions, rising from 0, and the smallest share of noise kept to reach each.

    Equal points are merged. The curve begins with the first signal kept.
    """
    curve = histogram.curve()
    points = np.stack([curve.retention.numpy(), 1 - curve.removal.numpy()], 1)
    points = np.unique(points[np.isfinite(points).all(1) & (points[:, 0] > 0)], axis=0)
    if len(points) == 0:
        return np.zeros(0), np.zeros(0)
    # the first of a retention keeps the least noise
    retention, first = np.unique(points[:, 0], return_index=True)
    kept = points[first, 1]
    return np.concatenate([[0.0], retention]), np.concatenate([kept[:1], kept])


def draw_removal(measured: HitMeasures, network: str, figure: Figure) -> None:
    """Draw noise removed against signal kept: the whole curve, and retentions above 90 %."""
    whole, zoom = figure.subplots(1, 2)
    drawn: dict[str, tuple[NDArray[np.float64], NDArray[np.float64], list[str]]] = {}
    for name, scores in measured.scores.items():
        retention, kept = removal_steps(scores.histogram)
        same = next(
            (
                d
                for d in drawn.values()
                if np.array_equal(d[0], retention) and np.array_equal(d[1], kept)
            ),
            None,
        )
        if same is not None:  # identity and blank both rank nothing
            same[2].append(name)
        else:
            drawn[name] = retention, kept, [name]
    number = 0
    for name, (retention, kept, names) in drawn.items():
        style: dict[str, Any] = {"color": BLUE, "linewidth": 2.6, "zorder": 3}
        if name != network:
            style = {"color": _BASELINES[number % 6], "linestyle": _DASHES[number % 6]}
            number += 1
        # steps: a wanted retention gets the point at or above it
        whole.plot(100 * retention, 100 * (1 - kept), drawstyle="steps-pre", **style)
        positive = np.where(kept > 0, kept, np.nan)  # a log scale has no 0
        zoom.plot(100 * retention, positive, drawstyle="steps-pre", label=", ".join(names), **style)
    row = measured.evaluation[network]
    at, kept_noise = float(row["retention"]), 1 - float(row["removal"])
    dot: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 9, "zorder": 4}
    dot |= {"markeredgecolor": "#FFFFFF", "linestyle": "none"}
    whole.plot([100 * at], [100 * (1 - kept_noise)], **dot)
    if kept_noise > 0:
        zoom.plot([100 * at], [kept_noise], label="operating point", **dot)
    whole.set(title="Whole curve", xlim=(0, 101), ylim=(0, 102))
    whole.set(xlabel="signal kept (%)", ylabel="noise removed (%)")
    zoom.set(title="High retention", xlim=(100 * _ZOOM, 100.1), xlabel="signal kept (%)")
    left = np.concatenate([kept[(kept > 0) & (r >= _ZOOM)] for r, kept, _ in drawn.values()])
    _removal_axis(zoom, least=max(float(left.min(initial=0.5)) * 0.6, 1e-6))
    for axes in (whole, zoom):
        axes.axvline(100 * measured.evaluation.retention, color="#777777", linewidth=0.9, zorder=0)
    figure.legend(loc="outside lower center", ncols=3)


def draw_training(history: Rows, figure: Figure, second: float | None = None) -> None:
    """Draw the validation scores against the step; for `second` see `draw_panels`."""
    removals = sorted(
        {name for row in history for name in row if name.startswith("removal_at_")},
        key=lambda name: float(name.removeprefix("removal_at_")),
    )
    kept = {f"{n.removeprefix('removal_at_')} %": 1 - column(history, n) for n in removals}
    panels = [
        loss_panel(history),
        Panel(
            "Noise removed (%) at a retention",
            {name: np.where(values > 0, values, np.nan) for name, values in kept.items()},
            _removal_panel_axis,
        ),
        Panel("AUC", {"AUC": column(history, "auc")}),
        rate_panel(history),
        Panel(
            "Share of the loss's gradient",
            {n: column(history, f"gradient_share_{n}") for n in ("signal", "noise", "empty")},
            share_axis,
        ),
        Panel(
            "At 1/2 as trained: collapsed if both are 0 or 1",
            {
                "signal kept": column(history, "recall_at_half"),
                "hits kept": column(history, "lit_at_half"),
            },
            share_axis,
        ),
    ]
    draw_panels(column(history, "step"), panels, figure, second)


def _removal_panel_axis(axes: Axes, curves: Sequence[NDArray[np.float64]]) -> None:
    least = min((float(np.nanmin(v)) for v in curves if np.isfinite(v).any()), default=0.5)
    _removal_axis(axes, least=max(least * 0.6, 1e-6), label="")


def draw_scores(scores: HitScores, figure: Figure) -> None:
    """Draw the histograms of the scores of signal and of noise, and the threshold."""
    axes = figure.add_subplot()
    edges, signal, noise = score_bins(scores.histogram)
    style: dict[str, Any] = {"linewidth": 1.8}
    axes.stairs(noise, edges, color="#000000", linestyle="--", label="noise", **style)
    axes.stairs(signal, edges, color=BLUE, label="signal", fill=True, alpha=0.25, linewidth=0)
    axes.stairs(signal, edges, color=BLUE, **style)
    at = logit(scores.operating_point.threshold)
    if edges[0] <= at <= edges[-1]:
        axes.axvline(at, color=RED, linewidth=1.6, label="threshold: hits to its right are kept")
    axes.set(yscale="log", ylim=(0.7, 3 * max(float(max(signal.max(), noise.max())), 1.0)))
    axes.set(xlabel="score", ylabel="hits", xlim=(edges[0], edges[-1]))
    axes.set_xticks(*probability_ticks(edges[0], edges[-1]))
    figure.legend(loc="outside upper center", ncols=3)


def score_bins(
    histogram: ScoreHistogram,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return bin edges in the logit of the score, and the counts of signal and noise."""
    edges, *counts = bin_counts(histogram)
    lit = np.flatnonzero(counts[0] + counts[1])
    first, last = (int(lit[0]), int(lit[-1]) + 1) if len(lit) else (0, len(edges) - 1)
    together = max(math.ceil((last - first) / 80), 1)
    first, last = max(first - together, 0), min(last + together, len(edges) - 1)
    place = np.unique([*range(first, last, together), last])
    signal, noise = (np.add.reduceat(count, place[:-1])[: len(place) - 1] for count in counts)
    # reduceat's last sum runs to the end, where nothing is
    return edges[place], signal, noise


def draw_profiles(profiles: Sequence[ScoreProfile], point: OperatingPoint, figure: Figure) -> None:
    """Draw the scores of signal and noise along the time and along a side of the detector."""
    places = figure.subplots(1, len(profiles), sharey=True, squeeze=False)[0]
    at = logit(point.threshold)
    for axes, profile in zip(places, profiles, strict=True):
        edges = profile.edges
        lines = []
        for name, colour, dash in (("noise", "#000000", "--"), ("signal", BLUE, "-")):
            low, middle, high = (
                profile.quantile(share, is_signal=name == "signal") for share in (0.1, 0.5, 0.9)
            )
            style: dict[str, Any] = {"color": colour, "step": "post", "linewidth": 0}
            ends = [np.append(values, values[-1]) for values in (low, high)]
            axes.fill_between(edges, *ends, alpha=0.18, **style)
            axes.stairs(
                middle,
                edges,
                baseline=None,
                color=colour,
                linestyle=dash,
                label=name,
                linewidth=1.8,
            )
            lines += [low, high]
        if math.isfinite(at):
            axes.axhline(at, color=RED, linewidth=1.6, label="threshold")
        axes.set(title=f"Against {profile.label.partition(' (')[0]}", xlabel=profile.label)
        axes.set(xlim=(edges[0], edges[-1]))
        if not any(np.isfinite(values).any() for values in lines):
            write_message(axes, "too few hits")
    low, high = places[0].get_ylim()
    places[0].set(ylabel="score")
    places[0].set_yticks(*probability_ticks(low, high))
    handles, labels = places[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)


def draw_events(measured: HitMeasures, figure: Figure) -> None:
    """Draw the hits of events, and retention and removal against their number."""
    numbers, axes = figure.subplots(1, 2)
    _draw_numbers(measured.events, numbers)
    groups = by_number_of_hits(measured.events)
    hits = [group["hits"] for group in groups]
    for name, label, colour, form in (
        ("removal", "noise removed", "#000000", "--s"),
        ("retention", "signal kept", BLUE, "-o"),
    ):
        shares = [100 * group[name] for group in groups]
        axes.plot(hits, shares, form, color=colour, markersize=4.5, label=label)
    axes.set(title="Events with more hits", xlabel="hits per event", ylabel="share (%)")
    figure.legend(loc="outside lower center", ncols=5)
    if len(groups) == 1:
        write_message(axes, "all events have about as many hits")


def _draw_numbers(events: NDArray[np.int64], axes: Axes) -> None:
    """Draw histograms of the hits of an event: all of them, the signal, and the kept ones."""
    shown = {
        "all hits": (events[:, 0], "#8A8A8A", ":"),
        "signal hits": (events[:, 1], GREEN, "-"),
        "kept hits": (events[:, 2] + events[:, 4], PINK, "-."),
    }
    counts = np.concatenate([values for values, *_ in shown.values()])
    counts = counts[counts > 0] if counts.any() else np.ones(1)
    low, high = int(counts.min()), int(counts.max())
    edges = np.unique(np.round(np.geomspace(low, high + 1, 41))) - 0.5
    for name, (values, colour, dash) in shown.items():
        height, _ = np.histogram(np.maximum(values, 1), edges)
        axes.stairs(height, edges, color=colour, linestyle=dash, linewidth=1.8, label=name)
    axes.set(title="Hits per event", xlabel="hits per event", ylabel="events", xscale="log")
    plain_log_ticks(axes, "x", edges[[0, -1]])


def _removal_axis(axes: Axes, least: float, label: str = "noise removed (%)") -> None:
    """Label a logarithmic y axis of kept noise as removed noise: 90, 99, 99.9 % upwards."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set(yscale="log", ylim=(1.1, min(least, 0.5)), ylabel=label)
    decades = [10.0**-k for k in range(8)]
    ticks = [*decades, *(d * m for d in decades[1:] for m in ((5, 2) if least > 8e-3 else (5,)))]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda kept, _: f"{100 * (1 - kept):.8g}"))
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
