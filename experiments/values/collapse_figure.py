"""The collapse figure, drawn from the stored numbers of `collapse.py`.

python experiments/values/collapse_figure.py experiments/values/collapse.json collapse.png
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dense_imb.base.files import write_whole

STYLES = {  # colour and marker
    "MSE": ("#000000", "o"),
    "MAE": ("#7F7F7F", "s"),
    "weighted MSE": ("#56B4E9", "^"),
    "ACB-MSE": ("#D55E00", "o"),
    "value bins": ("#E69F00", "s"),
    "value bins, power 1/2": ("#009E73", "^"),
    "Balanced MSE": ("#CC79A7", "D"),
}
WANTED = (0.8, 1.25)  # lit / target
LEAST = 0.02  # lit / target below this is drawn here, at the edge of the axis


def draw(numbers: dict[str, Any], path: Path) -> None:
    """Draw rows of panels: crosses by share, the rarest crosses by steps, heat maps by share.

    Args:
        numbers: scores by task, see `contest.summary`.
        path: PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = _rows(numbers)
    if not rows:
        return
    figure = Figure(figsize=(14.5, 0.7 + 3.3 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(len(rows), 4, squeeze=False)
    for line, (label, x_label, points, score) in zip(panels, rows, strict=True):
        columns = (
            ("raw blank", "blank frames, as trained"),
            ("raw lit", "lit / target, as trained"),
            ("lit", "lit / target, after read-out"),
            score,
        )
        for axes, (key, title) in zip(line, columns, strict=True):
            for name, by_x in points.items():
                x, y = _means(by_x, key)
                is_ratio = key.endswith("lit")
                colour, marker = STYLES[name]
                axes.plot(x, [max(one, LEAST) for one in y] if is_ratio else y, color=colour,
                          marker=marker, markersize=5, linewidth=1.5, label=name)  # fmt: skip
            ticks = sorted({x for by_x in points.values() for x in by_x})
            axes.set_xscale("log")
            axes.set_xticks(
                ticks, [f"{tick:,.2g}" if tick < 100 else f"{tick:,.0f}" for tick in ticks]
            )
            axes.minorticks_off()
            axes.set_xlabel(x_label)
            axes.set_title(title, loc="left", fontsize=10)
            axes.grid(color="#E8E8E8", linewidth=0.7)
            axes.spines[["top", "right"]].set_visible(False)
            if key.endswith("lit"):
                _plain_log(axes, (LEAST, 0.1, 1, 10, 100), ("blank", "0.1", "1", "10", "100"))
                axes.axhspan(*WANTED, color="#009E73", alpha=0.15, linewidth=0)
            elif key == "error":
                _plain_log(axes, (1, 2, 4, 10, 20, 40, 100))
            else:
                axes.set_ylim(-0.03, 1.03)
        line[0].set_ylabel(label)
    known = {}
    for axes in panels[:, 0]:
        known |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    names = [name for name in STYLES if name in known]
    figure.legend([known[name] for name in names], names, loc="outside upper center",
                  ncols=len(names), frameon=False)  # fmt: skip
    write_whole(path, lambda to: figure.savefig(to, format="png", dpi=110))


def _plain_log(axes: Any, ticks: Sequence[float], labels: Sequence[str] | None = None) -> None:
    """Make the y axis logarithmic, with these ticks where the data reach."""
    low, high = axes.get_ylim()
    if labels:  # from blank to at least 3
        low, high = ticks[0], max(high, 3.0)
    axes.set_yscale("log")
    axes.set_yticks(ticks, labels or [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(max(low, ticks[0]) / 1.2, high * 1.2)


def _rows(numbers: dict[str, Any]) -> list[tuple[str, str, dict[str, Any], tuple[str, str]]]:
    """Return label, x label, scores by loss and x, and the score of the last panel of each row."""
    rows = []
    crosses = {name: one for name, one in numbers.items() if name.startswith("crosses")}
    mouse = {name: one for name, one in numbers.items() if name.startswith("mouse")}
    f1, share = ("F1", "F1, after read-out"), "share of the target, %"
    if crosses:
        steps = _middle(crosses)
        rows.append((f"crosses, {steps} steps", share, _by_share(crosses, steps), f1))
        rarest = min(crosses.values(), key=lambda one: one["share"])
        by_steps = {
            name: {float(n): scores for n, scores in points.items()}
            for name, points in rarest["losses"].items()
        }
        label = f"crosses, {100 * rarest['share']:.2g} % of the frame"
        rows.append((label, "steps", by_steps, f1))
    if mouse:
        error = ("error", "error of key points, pixels")
        steps = str(max(_common_steps(mouse)))
        rows.append((f"heat maps, {steps} steps", share, _by_share(mouse, steps), error))
    return rows


def _common_steps(tasks: dict[str, Any]) -> set[int]:
    steps = [
        {int(n) for points in task["losses"].values() for n in points} for task in tasks.values()
    ]
    return set.intersection(*steps)


def _middle(tasks: dict[str, Any]) -> str:
    steps = sorted(_common_steps(tasks))
    return str(steps[len(steps) // 2])


def _by_share(tasks: dict[str, Any], steps: str) -> dict[str, Any]:
    points: dict[str, Any] = {}
    for name in STYLES:
        by_share = {
            100 * task["share"]: task["losses"][name][steps]
            for task in tasks.values()
            if steps in task["losses"].get(name, {})
        }
        if by_share:
            points[name] = by_share
    return points


def _means(by_x: dict[float, Any], key: str) -> tuple[list[float], list[float]]:
    """Return the x with a score in some seed, and the mean over seeds there."""
    known = {
        x: [one for one in scores[key] if one is not None] for x, scores in sorted(by_x.items())
    }
    known = {x: found for x, found in known.items() if found}
    return [*known], [statistics.fmean(found) for found in known.values()]


def main(arguments: Sequence[str]) -> None:
    source, target = map(Path, arguments)
    draw(json.loads(source.read_text()), target)


if __name__ == "__main__":
    main(sys.argv[1:])
