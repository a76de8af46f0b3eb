"""The collapse figure, drawn from the stored numbers of `collapse.py`.

python experiments/values/collapse_figure.py runs/values/collapse.json collapse.png
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
LEAST = 0.003  # lit / target of a blank loss, at the edge of a logarithmic axis


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
            axes.set_xscale("log")
            axes.set_xlabel(x_label)
            axes.set_title(title, loc="left", fontsize=10)
            axes.grid(color="#E8E8E8", linewidth=0.7)
            axes.spines[["top", "right"]].set_visible(False)
            if key.endswith("lit"):
                axes.set_yscale("log")
                axes.set_ylim(LEAST / 1.3, None)
                axes.axhspan(*WANTED, color="#009E73", alpha=0.15, linewidth=0)
            elif key == "error":
                axes.set_yscale("log")
            else:
                axes.set_ylim(-0.03, 1.03)
        line[0].set_ylabel(label)
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    write_whole(path, lambda to: figure.savefig(to, format="png", dpi=110))


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
        for steps in sorted(_common_steps(mouse)):
            label = f"heat maps, {steps} steps"
            rows.append((label, share, _by_share(mouse, str(steps)), error))
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
