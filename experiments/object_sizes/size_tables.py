"""Tables and a figure of the runs of `recall_by_size.py`.

The paired test compares the found small objects of two losses in each seed and image. Seeds and
images are both random: the variance of the mean difference is that of a two-way analysis of
variance, (MS_seed + MS_image - MS_rest) / (seeds x images), with Satterthwaite's degrees of
freedom. p-values of a table are corrected for the number of its tests by Holm's method.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from size_images import BINS, SizeImages

from dense_imb.base.files import write_whole
from dense_imb.compare.table import holm

PLAIN = "cross-entropy"
SMALL = 25  # objects of fewer pixels are small
RULE, OTHER_RULE = "touch", "half"
PAIRS = (  # the same loss with and without instances
    ("blob + CE", "Dice + CE"),
    ("Dice + blob + CE", "Dice + CE"),
    ("CC + CE", "Dice + CE"),
    ("CE per instance", "balanced cross-entropy"),
)
_BLUES = ("#000000", "#0072B2", "#56B4E9", "#7F7F7F", "#9C84C4")
_REDS = ("#D55E00", "#E69F00", "#8C510A", "#F08080")
_GREENS = ("#009E73", "#66A61E", "#00441B", "#00C0A0")
COLOURS = dict(
    zip(
        (PLAIN, "balanced cross-entropy", "balanced softmax", "focal", "hard mining",
         "Dice", "Tversky", "MONAI DiceCE", "Dice + CE",
         "blob + CE", "Dice + blob + CE", "CC + CE", "CE per instance"),
        (*_BLUES, *_REDS, *_GREENS),
        strict=True,
    )
)  # fmt: skip


class TrueObjects(NamedTuple):
    """Size and image of each true object of the test images."""

    size: NDArray[np.int64]
    image: NDArray[np.int64]
    n_images: int

    @classmethod
    def of(cls, test: SizeImages) -> TrueObjects:
        sizes = test.sizes()
        number = np.repeat(np.arange(len(sizes)), [len(one) for one in sizes])
        return cls(np.concatenate(sizes), number, len(sizes))


class Difference(NamedTuple):
    """Difference of two losses in recall, and its p-value."""

    gain: float
    p: float
    n_seeds: int


def compare_found(
    found: NDArray[np.int64], other: NDArray[np.int64], image: NDArray[np.int64], n_images: int
) -> Difference:
    """Compare two losses by the objects that they find.

    Args:
        found, other: (seeds, objects), 1 for a found object.
        image: image of each object.
        n_images: number of images.
    """
    n_seeds, n_objects = found.shape
    change = np.zeros((n_seeds, n_images))
    for row, ours, theirs in zip(change, found, other, strict=True):
        np.add.at(row, image, ours - theirs)
    gain = float(change.sum() / max(n_seeds * n_objects, 1))
    if n_seeds < 2 or not change.any():
        return Difference(gain, math.nan, n_seeds)
    seeds, images, mean = change.mean(1), change.mean(0), change.mean()
    rest = change - seeds[:, None] - images + mean
    free = np.array([n_seeds - 1, n_images - 1, (n_seeds - 1) * (n_images - 1)])
    squares = np.array(
        [n_images * seeds.var(ddof=1), n_seeds * images.var(ddof=1), (rest**2).sum() / free[2]]
    )
    signed = squares * [1, 1, -1]
    total = max(float(signed.sum()), float(squares[1]))  # never below the images alone
    degrees = total**2 / float((squares**2 / free).sum())
    t = mean / math.sqrt(total / change.size)
    return Difference(gain, float(2 * stats.t.sf(abs(t), max(degrees, 1.0))), n_seeds)


class Runs:
    """Runs of one number of steps, by loss and seed."""

    def __init__(self, folder: Path, objects: TrueObjects) -> None:
        self.objects = objects
        self.by_loss: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        for path in sorted(folder.glob("*.json")):
            row = json.loads(path.read_text())
            self.by_loss[row["loss"]][row["seed"]] = row

    def losses(self) -> list[str]:
        """Return the losses in the order of COLOURS."""
        return [name for name in COLOURS if name in self.by_loss]

    def found(
        self, loss: str, seeds: Sequence[int], rule: str = RULE, n_false: str = "1"
    ) -> NDArray[np.int64]:
        """Return (seeds, objects), 1 for a found object."""
        return np.array([self.by_loss[loss][seed]["points"][n_false][rule] for seed in seeds])

    def recall(
        self, loss: str, low: int, high: int, rule: str = RULE, n_false: str = "1"
    ) -> list[float]:
        """Return the recall of the objects of a range of sizes, for each seed."""
        is_meant = (self.objects.size >= low) & (self.objects.size < high)
        found = self.found(loss, sorted(self.by_loss[loss]), rule, n_false)
        return found[:, is_meant].mean(1).tolist() if is_meant.any() else [math.nan] * len(found)

    def recall_at_one(self, loss: str) -> list[float]:
        """Return the recall of small objects at exactly 1 false object a test image, by seed.

        Thresholds are chosen on validation images, so losses differ a little in the false objects
        of the test images. The recall is read from the line through both points of a run, over
        the logarithm of the false objects.
        """
        recalls = {n: self.recall(loss, 0, SMALL, n_false=n) for n in ("1", "0.1")}
        exact = []
        for k, (_, run) in enumerate(sorted(self.by_loss[loss].items())):
            n_false = {n: run["points"][n]["false_objects"] for n in recalls}
            here, there = (math.log(max(one, 1e-9)) for one in n_false.values())
            slope = (recalls["1"][k] - recalls["0.1"][k]) / (here - there) if here > there else 0
            exact.append(recalls["1"][k] - slope * here if n_false["1"] > 0 else math.nan)
        return exact

    def difference(self, loss: str, other: str) -> Difference:
        """Compare two losses by the small objects that they find in their common seeds."""
        seeds = sorted(set(self.by_loss[loss]) & set(self.by_loss[other]))
        if not seeds:
            return Difference(math.nan, math.nan, 0)
        is_small = self.objects.size < SMALL
        return compare_found(
            self.found(loss, seeds)[:, is_small],
            self.found(other, seeds)[:, is_small],
            self.objects.image[is_small],
            self.objects.n_images,
        )

    def row(self, loss: str) -> dict[str, list[float]]:
        """Return every score of a loss, a number for each seed."""
        runs = [run for _, run in sorted(self.by_loss[loss].items())]
        row = {f"{low}-{high}": self.recall(loss, low, high) for low, high in pairwise(BINS)}
        row["small"] = self.recall(loss, 0, SMALL)
        row["small at exactly 1"] = self.recall_at_one(loss)
        row["small, half of the pixels"] = self.recall(loss, 0, SMALL, OTHER_RULE)
        row["small, 0.1 false"] = self.recall(loss, 0, SMALL, n_false="0.1")
        row["false objects"] = [run["points"]["1"]["false_objects"] for run in runs]
        row["AP"] = [run["average_precision"] for run in runs]
        row["F1"] = [run["f1"] for run in runs]
        return row


def table(runs: Runs) -> tuple[str, list[dict[str, Any]]]:
    """Return the table of all losses as text, the best for small objects on top, and as rows."""
    names = sorted(runs.losses(), key=lambda name: -statistics.fmean(runs.recall(name, 0, SMALL)))
    others = [name for name in names if name != PLAIN and PLAIN in runs.by_loss]
    tests = {name: runs.difference(name, PLAIN) for name in others}
    corrected = dict(zip(tests, holm([one.p for one in tests.values()]), strict=True))
    columns = list(runs.row(names[0]))
    lines = [
        f"| loss | {' | '.join(columns)} | gain, p |",
        "| --- " * (len(columns) + 2) + "|",
    ]
    rows: list[dict[str, Any]] = []
    for name in names:
        scores, test = runs.row(name), tests.get(name)
        cells = [_cell(values, column == "small") for column, values in scores.items()]
        gain = f"{test.gain:+.3f}, {_p(corrected[name])}" if test else ""
        lines.append(f"| {name} ({len(scores['AP'])}) | {' | '.join(cells)} | {gain} |")
        row: dict[str, Any] = {"loss": name, "n_seeds": len(scores["AP"])}
        for column, values in scores.items():
            row[column] = statistics.fmean(values)
            row[f"{column} sd"] = _spread(values)
        row["gain"], row["p"] = (test.gain, corrected[name]) if test else (math.nan, math.nan)
        rows.append(row)
    return "\n".join(lines), rows


def pairs(runs: Runs) -> str:
    """Return the table of the losses with and without instances."""
    known = [pair for pair in PAIRS if all(name in runs.by_loss for name in pair)]
    tests = [runs.difference(*pair) for pair in known]
    edges = ((SMALL, BINS[3]), (BINS[3], BINS[-1]))
    lines = [
        "| with instances, without | small, p | small at exactly 1 "
        f"| {SMALL}-{BINS[3]} | {BINS[3]}-{BINS[-1]} | AP |",
        "| --- " * 6 + "|",
    ]
    for (one, other), test, p in zip(known, tests, holm([t.p for t in tests]), strict=True):
        seeds = sorted(set(runs.by_loss[one]) & set(runs.by_loss[other]))
        exact = [
            dict(zip(sorted(runs.by_loss[name]), runs.recall_at_one(name), strict=True))
            for name in (one, other)
        ]
        cells = [
            f"{test.gain:+.3f}, {_p(p)}",
            _cell([exact[0][seed] - exact[1][seed] for seed in seeds], True, "+"),
        ]
        for low, high in edges:
            is_meant = (runs.objects.size >= low) & (runs.objects.size < high)
            change = runs.found(one, seeds) - runs.found(other, seeds)
            cells.append(f"{change[:, is_meant].mean():+.3f}" if is_meant.any() else "-")
        precision = [
            runs.by_loss[one][seed]["average_precision"]
            - runs.by_loss[other][seed]["average_precision"]
            for seed in seeds
        ]
        cells.append(_cell(precision, True, "+"))
        lines.append(f"| {one}, {other} ({len(seeds)}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float], has_spread: bool, sign: str = "") -> str:
    mean = statistics.fmean(values)
    if not has_spread or len(values) < 2:
        return f"{mean:{sign}.3f}"
    return f"{mean:{sign}.3f} +- {_spread(values):.3f}"


def _spread(values: Sequence[float]) -> float:
    """Return the standard deviation over seeds; NaN of one seed, or without objects."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _p(p: float) -> str:
    return "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def draw(by_steps: dict[int, Runs], path: Path) -> None:
    """Draw the recall by size, one line for each loss and one panel for each number of steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 5.2 * len(by_steps), 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(1, len(by_steps), sharey=True, squeeze=False)[0]
    middles = [math.sqrt(low * high) for low, high in pairwise(BINS)]
    for axes, (steps, runs) in zip(panels, by_steps.items(), strict=True):
        for name in runs.losses():
            recall = [
                statistics.fmean(runs.recall(name, low, high)) for low, high in pairwise(BINS)
            ]
            style = "-" if COLOURS[name] in _BLUES else "--" if COLOURS[name] in _REDS else "-."
            axes.plot(middles, recall, style, marker="o", markersize=4, color=COLOURS[name],
                      linewidth=1.6, label=name)  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks((*BINS[:-1], 500), [str(edge) for edge in (*BINS[:-1], 500)])
        axes.minorticks_off()
        axes.set_xlabel("pixels of the object")
        axes.set_title(f"{steps} steps", loc="left", fontsize=11)
        axes.grid(color="#E8E8E8", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("found objects, at 1 false object an image")
    panels[-1].legend(loc="lower right", fontsize=8, frameon=False)
    write_whole(path, lambda to: figure.savefig(to, format="png", dpi=130))


def write(out: Path, test: SizeImages) -> None:
    """Write and print the tables of all runs in the folder, and draw the figure."""
    objects, by_steps = TrueObjects.of(test), {}
    for folder in sorted((f for f in out.iterdir() if f.name.isdigit()), key=lambda f: int(f.name)):
        runs = by_steps[int(folder.name)] = Runs(folder, objects)
        text, rows = table(runs)
        text = f"{text}\n\n{pairs(runs)}\n"
        print(f"\n{folder.name} steps\n\n{text}")
        write_whole(out / f"table_{folder.name}.md", lambda to, text=text: to.write_text(text))
        write_whole(out / f"table_{folder.name}.csv", lambda to, rows=rows: _write_csv(to, rows))
    draw(by_steps, out / "recall_by_size.png")


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
