"""The table of a comparison: means and spreads over seeds, tests against chance, advice."""

from __future__ import annotations

import importlib
import importlib.util
import math
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dense_imb.compare.contestants import Contestant
from dense_imb.metrics.score_table import Row, ScoreTable, aligned

_FORMAT, _VERSION = "dense-imb-comparison", 1
_CHANCE = 0.05
_FEW_STEPS = 300
_HEADERS = {
    "average_precision": "AP",
    "tolerant_f1": "F1 within tolerance",
    "f1": "F1",
    "recall_at_precision": "recall at precision",
    "calibration_error": "calibration error",
    "likeliest_iou": "IoU likeliest",
    "auc": "AUC",
    "retention_at_half": "kept at 1/2",
}


@dataclass(frozen=True, repr=False)
class ComparisonTable(ScoreTable):
    """Scores of losses over seeds, the best first.

        NAME              mean over the seeds
        NAME_sd           standard deviation over the seeds; NaN with one seed
        gain, p           gain in the first score over plain cross-entropy, paired by seed: mean
                          difference and p-value of a t-test (NaN without SciPy, with one seed, or
                          where cross-entropy does not compete)
        from_best, p_best gain of the best loss over this one, and its p-value

    Args:
        rows: one row for each loss.
        runs: one row for each loss and seed.
        scores: names of the scores; the first one decides.
        losses: text of each loss, by its name.
        steps: steps of each run.
        plain: name of plain cross-entropy, if it competes.
        folder: folder of the runs; "" where there is none.
        kind: kind of the data, see `dense_imb.config.KINDS`.
    """

    rows: tuple[Row, ...]
    runs: tuple[dict[str, Any], ...]
    scores: tuple[str, ...]
    losses: dict[str, str]
    steps: int
    plain: str | None = None
    folder: str = ""
    kind: str = ""

    def __repr__(self) -> str:
        return f"ComparisonTable({', '.join(str(row['loss']) for row in self.rows)}; best first)"

    @classmethod
    def from_runs(
        cls,
        runs: Sequence[dict[str, Any]],
        scores: Sequence[str],
        losses: Sequence[Contestant],
        steps: int,
        *,
        plain: str | None = None,
        folder: str = "",
        kind: str = "",
    ) -> Self:
        """Make the table of single runs with `loss`, `seed` and scores.

        Args:
            runs: runs in any order.
            scores: names of the scores; the first one decides.
            losses: losses of the rows.
            steps: steps of each run.
            plain: name of the row that others are compared with; by default plain cross-entropy.
            folder: folder of the runs.
            kind: kind of the data.
        """
        first = scores[0]
        by_name = {
            one.name: sorted((r for r in runs if r["loss"] == one.name), key=lambda r: r["seed"])
            for one in losses
        }
        rows: list[Row] = []
        for name, own_runs in by_name.items():
            row: Row = {"loss": name, "n_seeds": float(len(own_runs))}
            for score in (*scores, "cpu_seconds"):
                values = [float(run[score]) for run in own_runs]
                row[score] = statistics.fmean(values)
                is_known = len(values) > 1 and not any(math.isnan(value) for value in values)
                row[f"{score}_sd"] = statistics.stdev(values) if is_known else math.nan
            rows.append(row)
        rows.sort(key=lambda row: -_or_least(float(row[first])))
        best = str(rows[0]["loss"])
        plain = plain or next((one.name for one in losses if one.is_plain), None)
        for row in rows:
            own = by_name[str(row["loss"])]
            row["gain"], row["p"] = _paired(own, by_name.get(plain or "", []), first)
            row["from_best"], row["p_best"] = _paired(by_name[best], own, first)
        texts = {one.name: one.loss for one in losses}
        return cls(tuple(rows), tuple(runs), tuple(scores), texts, steps, plain, folder, kind)

    def as_json(self) -> dict[str, Any]:
        """Return the table for strict JSON: NaN becomes null."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "scores": list(self.scores),
            "losses": self.losses,
            "steps": self.steps,
            "advice": self.advice(),
            "rows": self.finite_rows(),
            "runs": [{n: None if v != v else v for n, v in run.items()} for run in self.runs],
        }

    def text(self) -> str:
        """Return the table and the advice, for a terminal."""
        first = self.scores[0]
        compared = [] if self.plain is None else ["gain", "p"]
        table = [["", *(header(name) for name in self.scores), *compared, "CPU s"]]
        for row in self.rows:
            cells = [_with_spread(row, name) for name in self.scores]
            if compared:
                cells += [_number(row["gain"], "+.3f"), _number(row["p"], ".3f")]
            table.append([str(row["loss"]), *cells, _number(row["cpu_seconds"], ".0f")])
        legend = f"{self.describe_seeds()}, {self.steps} steps each"
        if max(float(row["n_seeds"]) for row in self.rows) > 1:
            legend += "; +- is the standard deviation over seeds"
        if compared:
            legend += f"; gain in {header(first)} over {self.plain}, p of a paired t-test"
            if importlib.util.find_spec("scipy") is None:
                legend += " (pip install scipy)"
        if "f1" in self.scores:
            legend += "; F1 at the threshold chosen on the validation images"
        return "\n".join([*aligned(table), f"{legend}.", "", self.advice()])

    def describe_seeds(self) -> str:
        """Return the numbers of seeds of the losses, in words."""
        numbers = sorted({int(float(row["n_seeds"])) for row in self.rows})
        return f"{' or '.join(map(str, numbers))} seed{'s' * (numbers != [1])}"

    def advice(self) -> str:
        """Return the loss to choose, how certain that is, and the next command."""
        best = self.rows[0]
        name, near = str(best["loss"]), self.level()
        sentences = [self.lead("loss"), f"To train with it: {self._command(name)}."]
        if self.plain not in (None, name):
            gain, chance = float(best["gain"]), _chance(best["p"])
            sentences.append(f"Over {self.plain} it gains {gain:.3f}{chance}.")
        if near:
            again = "".join(f" --loss {other!r}" for other in [name, *near[:3]])
            sentences.append(
                f"More seeds make it more certain: add --seeds 5{again} and another --out."
            )
        if self.steps < _FEW_STEPS:
            sentences.append(f"{self.steps} steps are few: an early lead may not last.")
        return " ".join(sentences)

    def _command(self, name: str) -> str:
        """Return the command that trains with a loss."""
        loss = self.losses[name]
        if not self.folder:
            return f"--loss {loss!r}"
        config = Path(self.folder) / f"{Contestant(name, loss).folder}-0" / "config.yaml"
        path = shlex.quote(str(config))
        return f"dense-imb train {self.kind} --config {path} --steps 2000 --out RUN"

    def level(self) -> list[str]:
        """Return the rows over which the lead of the first may be chance."""
        return [str(row["loss"]) for row in self.rows[1:] if self._may_be_chance(row)]

    def lead(self, what: str) -> str:
        """Return the first row and how certain its lead is; `what` is the noun of a row."""
        first = self.scores[0]
        best, others = self.rows[0], self.rows[1:]
        name, near = str(best["loss"]), self.level()
        far = [row for row in others if str(row["loss"]) not in near]
        score = f"{header(first)} {_with_spread(best, first)}"
        if not near:
            sentences = [f"Take {name} ({score}): it is ahead of all others."]
        else:
            sentences = [
                f"No {what} is clearly ahead. The first is {name} ({score}), but its lead over "
                f"{_listed(near)} may be chance."
            ]
            if far:
                sentences.append(f"It is ahead of {_listed([str(row['loss']) for row in far])}.")
        return " ".join(sentences)

    def _may_be_chance(self, row: Row) -> bool:
        """Whether the lead of the best loss over another one may be chance."""
        p = float(row["p_best"])
        if math.isnan(p):
            return not _is_far(self.rows[0], row, self.scores[0])
        return p >= _CHANCE


def _paired(
    ones: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], score: str
) -> tuple[float, float]:
    """Return the mean difference over the common seeds, and the p-value of a paired t-test."""
    other = {run["seed"]: float(run[score]) for run in others}
    pairs = [(float(run[score]), other[run["seed"]]) for run in ones if run["seed"] in other]
    if not pairs:
        return math.nan, math.nan
    differences = [mine - theirs for mine, theirs in pairs]
    mean = statistics.fmean(differences)
    is_constant = len(set(differences)) == 1  # one seed, or the very same run
    if is_constant or importlib.util.find_spec("scipy") is None:
        return mean, math.nan
    stats = importlib.import_module("scipy.stats")
    return mean, float(stats.ttest_1samp(differences, 0.0).pvalue)


def _is_far(best: Row, row: Row, score: str) -> bool:
    """Whether two means differ by more than both spreads; used where there is no test."""
    spread = sum(
        0.0 if math.isnan(float(one[f"{score}_sd"])) else float(one[f"{score}_sd"])
        for one in (best, row)
    )
    return spread > 0 and float(best[score]) - float(row[score]) > spread


def _or_least(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _chance(p: str | float) -> str:
    return "" if math.isnan(float(p)) else f" (p = {float(p):.2g})"


def header(name: str) -> str:
    """Return the heading of a score."""
    if name.startswith("removal_at_"):
        return f"removed at {name.removeprefix('removal_at_')} %"
    return _HEADERS.get(name, name.replace("_", " "))


def _with_spread(row: Row, name: str) -> str:
    spread = float(row[f"{name}_sd"])
    mean = _number(row[name], ".3f")
    return mean if math.isnan(spread) else f"{mean} +- {spread:.3f}"


def _number(value: str | float, form: str) -> str:
    return "-" if math.isnan(float(value)) else format(float(value), form)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
