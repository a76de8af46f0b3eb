"""The table of a comparison: means, spreads, what is beyond chance, and which loss to take."""

from __future__ import annotations

import importlib
import importlib.util
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class ComparisonTable(ScoreTable):
    """Scores of losses over seeds, the best first.

        NAME              mean over the seeds
        NAME_sd           standard deviation over the seeds; NaN of one seed
        gain, p           in the first score over plain cross-entropy, paired by seed: the mean
                          difference, and the chance of one as large if there were none (t-test;
                          NaN without SciPy, with one seed, or where cross-entropy does not compete)
        from_best, p_best the same, of the best loss over this one

    Args:
        rows: one for each loss.
        runs: one for each loss and seed.
        scores: names, the first one decides.
        losses: what each name stands for.
        steps: of each run.
        plain: the name of plain cross-entropy, if it competes.
    """

    rows: tuple[Row, ...]
    runs: tuple[dict[str, Any], ...]
    scores: tuple[str, ...]
    losses: dict[str, str]
    steps: int
    plain: str | None = None

    @classmethod
    def of_runs(
        cls,
        runs: Sequence[dict[str, Any]],
        scores: Sequence[str],
        losses: Sequence[Contestant],
        steps: int,
        *,
        plain: str | None = None,
    ) -> Self:
        """The table of single runs with `loss`, `seed` and scores.

        Args:
            runs: in any order.
            scores: names, the first one decides.
            losses: the names of rows.
            steps: of each run.
            plain: the row that others are compared with; by default plain cross-entropy.
        """
        first = scores[0]
        by_name = {
            one.name: sorted((r for r in runs if r["loss"] == one.name), key=lambda r: r["seed"])
            for one in losses
        }
        rows: list[Row] = []
        for name, of_loss in by_name.items():
            row: Row = {"loss": name, "n_seeds": float(len(of_loss))}
            for score in (*scores, "cpu_seconds"):
                values = [float(run[score]) for run in of_loss]
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
        known = {one.name: one.loss for one in losses}
        return cls(tuple(rows), tuple(runs), tuple(scores), known, steps, plain)

    def as_json(self) -> dict[str, Any]:
        """Strict JSON: NaN becomes null."""
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
        """The table to read, and the advice."""
        first = self.scores[0]
        compared = [] if self.plain is None else ["gain", "p"]
        table = [["", *(header(name) for name in self.scores), *compared, "CPU s"]]
        for row in self.rows:
            cells = [_with_spread(row, name) for name in self.scores]
            if compared:
                cells += [_number(row["gain"], "+.3f"), _number(row["p"], ".3f")]
            table.append([str(row["loss"]), *cells, _number(row["cpu_seconds"], ".0f")])
        legend = f"{self.told_seeds()}, {self.steps} steps each"
        if max(float(row["n_seeds"]) for row in self.rows) > 1:
            legend += "; +- is the standard deviation over seeds"
        if compared:
            legend += f"; gain in {header(first)} over {self.plain}, p of a paired t-test"
            if importlib.util.find_spec("scipy") is None:
                legend += " (pip install scipy)"
        if "f1" in self.scores:
            legend += "; F1 at the threshold that validation images chose"
        return "\n".join([*aligned(table), f"{legend}.", "", self.advice()])

    def told_seeds(self) -> str:
        """How many seeds there were, in words."""
        found = sorted({int(float(row["n_seeds"])) for row in self.rows})
        return f"{' or '.join(map(str, found))} seed{'s' * (found != [1])}"

    def advice(self) -> str:
        """Which loss to take, and how sure that is."""
        best = self.rows[0]
        name, near = str(best["loss"]), self.level()
        sentences = [self.lead("loss"), f"To train with it: --loss {self.losses[name]!r}."]
        if self.plain not in (None, name):
            gain, chance = float(best["gain"]), _chance(best["p"])
            sentences.append(f"Over {self.plain} it gains {gain:.3f}{chance}.")
        if near:
            again = "".join(f" --loss {other!r}" for other in [name, *near[:3]])
            sentences.append(
                f"More seeds tell more: --seeds 5{again}, with the other options as they were and "
                "another --out."
            )
        if self.steps < _FEW_STEPS:
            sentences.append(f"{self.steps} steps are few: an early lead may not last.")
        return " ".join(sentences)

    def level(self) -> list[str]:
        """The rows over which the lead of the first may be chance."""
        return [str(row["loss"]) for row in self.rows[1:] if self._may_be_chance(row)]

    def lead(self, what: str) -> str:
        """Which row is first, and how sure that is; `what` a row is, in a word."""
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
        """Whether the best loss may lead over another one by chance."""
        p = float(row["p_best"])
        if math.isnan(p):
            return not _is_far(self.rows[0], row, self.scores[0])
        return p >= _CHANCE


def _paired(
    ones: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], score: str
) -> tuple[float, float]:
    """Mean difference over the seeds that both have, and the p of a paired t-test."""
    of_other = {run["seed"]: float(run[score]) for run in others}
    pairs = [(float(r[score]), of_other[r["seed"]]) for r in ones if r["seed"] in of_other]
    if not pairs:
        return math.nan, math.nan
    differences = [mine - theirs for mine, theirs in pairs]
    mean = statistics.fmean(differences)
    is_alike = len(set(differences)) == 1  # one seed, or the very same run
    if is_alike or importlib.util.find_spec("scipy") is None:
        return mean, math.nan
    stats = importlib.import_module("scipy.stats")
    return mean, float(stats.ttest_1samp(differences, 0.0).pvalue)


def _is_far(best: Row, row: Row, score: str) -> bool:
    """Whether two means differ by more than both spreads, where there is no test."""
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
    """What people call a score."""
    if name.startswith("removal_at_"):
        return f"removed at {name.removeprefix('removal_at_')} %"
    return _HEADERS.get(name, name.replace("_", " "))


def _with_spread(row: Row, name: str) -> str:
    spread = float(row[f"{name}_sd"])
    told = _number(row[name], ".3f")
    return told if math.isnan(spread) else f"{told} +- {spread:.3f}"


def _number(value: str | float, form: str) -> str:
    return "-" if math.isnan(float(value)) else format(float(value), form)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
