"""The table of a comparison: means and spreads over seeds, tests against chance, advice."""

from __future__ import annotations

import importlib
import importlib.util
import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dense_imb.base.refusals import suggest
from dense_imb.compare.contestants import Contestant
from dense_imb.compare.headings import FORMS, SECOND, explain, header
from dense_imb.losses.foreign.parse import LOSS_MODULES, is_in, parse_spec
from dense_imb.losses.foreign.short_names import SHORT_NAMES, full_text
from dense_imb.metrics.score_table import Row, ScoreTable, aligned, finite_rows

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes

_FORMAT, _VERSION = "dense-imb-comparison", 1
_CHANCE = 0.05
_FEW_STEPS = 300


@dataclass(frozen=True, repr=False)
class ComparisonTable(ScoreTable):
    """Scores of losses over seeds, the best first.

        NAME              mean over the seeds
        NAME_sd           standard deviation over the seeds; NaN with one seed
        gain, p           gain in the first score over plain cross-entropy, paired by seed: mean
                          difference and p-value of a t-test (NaN without SciPy, with one seed, or
                          where cross-entropy does not compete)
        from_best, p_best gain of the best loss over this one, and its p-value
        p_alone, p_best_alone   the same without correction; p and p_best are corrected for the
                          number of losses, see `holm`
        failed            reason why a loss fails; "" for all others

    Args:
        rows: one row for each loss.
        runs: one row for each loss and seed.
        scores: names of the scores; the first one decides.
        losses: text of each loss, by its name.
        steps: steps of each run.
        plain: name of plain cross-entropy, if it competes.
        folder: folder of the runs; "" where there is none.
        kind: kind of the data, see `dense_imb.config.KINDS`.
        false_objects: number of false objects an image of `object_recall`.
        modules: names of the losses that are Modules, without a text that builds them.
        typed: command of the comparison without its losses, seeds and folder; "" where there is
            none.
        references: rows without a network, such as a blank map.

    Example:
        >>> from dense_imb.compare import ComparisonTable, Contestant
        >>> losses = [Contestant(name, name) for name in ("FocalLoss", "DiceLoss")]
        >>> runs = [{"loss": one.name, "seed": 0, "cpu_seconds": 9.0} for one in losses]
        >>> runs[0]["auc"], runs[1]["auc"] = 0.5, 0.75
        >>> table = ComparisonTable.from_runs(runs, ["auc"], losses, steps=2000)
        >>> [(row["loss"], row["auc"]) for row in table.rows]
        [('DiceLoss', 0.75), ('FocalLoss', 0.5)]
    """

    rows: tuple[Row, ...]
    runs: tuple[dict[str, Any], ...]
    scores: tuple[str, ...]
    losses: dict[str, str]
    steps: int
    plain: str | None = None
    folder: str = ""
    kind: str = ""
    false_objects: float = 1.0
    modules: tuple[str, ...] = ()
    typed: str = ""
    references: tuple[Row, ...] = ()

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
        failed: Mapping[str, str] | None = None,
        false_objects: float = 1.0,
        typed: str = "",
        references: Sequence[Row] = (),
    ) -> Self:
        """Make the table of single runs with `loss`, `seed` and scores.

        Args:
            runs: runs in any order.
            scores: names of the scores; the first one decides.
            losses: losses of the rows.
            steps: steps of each run.
            plain: name of the row that others are compared with; by default plain cross-entropy,
                or the mean squared error where it does not compete.
            folder: folder of the runs.
            kind: kind of the data.
            failed: reasons by name of the losses that fail; they come last.
            false_objects, typed, references: see `ComparisonTable`.
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
                row[score] = statistics.fmean(values) if values else math.nan
                is_known = len(values) > 1 and not any(math.isnan(value) for value in values)
                row[f"{score}_sd"] = statistics.stdev(values) if is_known else math.nan
            row["failed"] = (failed or {}).get(name, "")
            rows.append(row)
        rows.sort(key=lambda row: (bool(row["failed"]), -_or_least(float(row[first]))))
        best = str(rows[0]["loss"])
        candidates = [one.name for one in losses if one.is_plain]
        candidates += [one.name for one in losses if one.is_plain_of_values]
        plain = plain or next(iter(candidates), None)
        for row in rows:
            own = by_name[str(row["loss"])]
            row["gain"], row["p"] = _paired(own, by_name.get(plain or "", []), first)
            row["from_best"], row["p_best"] = _paired(by_name[best], own, first)
        for name in ("p", "p_best"):
            alone = [float(row[name]) for row in rows]
            for row, p, corrected in zip(rows, alone, holm(alone), strict=True):
                row[f"{name}_alone"], row[name] = p, corrected
        return cls(
            tuple(rows),
            tuple(runs),
            tuple(scores),
            {one.name: one.text for one in losses},
            steps,
            plain,
            folder,
            kind,
            false_objects,
            tuple(one.name for one in losses if one.module is not None),
            typed,
            tuple(references),
        )

    @property
    def trained(self) -> tuple[Row, ...]:
        """Rows of the losses that do not fail."""
        return tuple(row for row in self.rows if not row["failed"])

    @property
    def known_scores(self) -> tuple[str, ...]:
        """Scores that at least one loss has."""
        return tuple(
            name
            for name in self.scores
            if not all(math.isnan(float(row[name])) for row in self.rows)
        )

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
            "references": finite_rows(self.references),
            "runs": [{n: None if v != v else v for n, v in run.items()} for run in self.runs],
        }

    def text(self) -> str:
        """Return the table and the advice, for a terminal."""
        legend, *failures = self.text_notes()
        lines = [*aligned(self.cells()), legend, "", *failures]
        return "\n".join([*lines, self.advice()])

    def text_tables(self) -> list[list[list[str]]]:
        """Return the table of `cells`."""
        return [self.cells()]

    def text_notes(self) -> list[str]:
        """Return the legend, and a sentence for each loss that fails."""
        failures = (f"{row['loss']} fails: {row['failed']}." for row in self.rows if row["failed"])
        return [f"{self.legend()}.", *failures]

    def plot(self, ax: Axes | None = None, column: str | None = None) -> Axes:
        """Draw a score, a row for each loss and a dot for each seed, and return the axes.

        Args:
            ax: axes of matplotlib to draw on; None takes the current ones of pyplot where it is in
                use, and new ones elsewhere.
            column: name of the score; None takes the first one, which decides.
        """
        from dense_imb.base.axes import choose_axes
        from dense_imb.compare.figure import draw_score, name_rows

        column, known = self.scores[0] if column is None else column, self.known_scores
        if column not in known:
            raise ValueError(
                f"Expected `column` to be one of {', '.join(known)}, got {column!r}."
                f"{suggest(column, known)}"
            )
        axes = choose_axes(ax)
        draw_score(self, column, axes)
        name_rows(self, axes)
        return axes

    def cells(self) -> list[list[str]]:
        """Return the table as texts, the header first."""
        scores = self.known_scores
        compared = [] if self.plain is None else ["gain", "p"]
        table = [["", *(header(name) for name in scores), *compared, "CPU s"]]
        for row in self.rows:
            cells = [_with_spread(row, name) for name in scores]
            if compared:
                cells += [_number(row["gain"], "+.3f"), _number(row["p"], ".3f")]
            table.append([str(row["loss"]), *cells, _number(row["cpu_seconds"], ".0f")])
        empty = [""] * (1 + len(compared))
        for row in self.references:
            table.append([str(row["loss"]), *(_with_spread(row, name) for name in scores), *empty])
        return table

    def legend(self) -> str:
        """Return the explanation of the table, without a full stop."""
        legend = f"{self.describe_seeds()}, {self.steps} steps each"
        if max(float(row["n_seeds"]) for row in self.rows) > 1:
            legend += "; +- is the standard deviation over seeds"
        if self.plain is not None:
            n_tests = sum(not math.isnan(float(row["p"])) for row in self.rows)
            legend += f"; gain in {header(self.scores[0])} over {self.plain}, p of a paired t-test"
            if n_tests > 1:
                legend += f", corrected for {n_tests} losses (Holm)"
            if importlib.util.find_spec("scipy") is None:
                legend += " (pip install scipy)"
        has_none = any(math.isnan(float(row.get("natural_f1", 0))) for row in self.trained)
        return legend + explain(self.scores, self.known_scores, self.false_objects, has_none)

    def describe_seeds(self) -> str:
        """Return the numbers of seeds of the losses, in words."""
        numbers = sorted({int(float(row["n_seeds"])) for row in self.rows} - {0})
        return f"{' or '.join(map(str, numbers))} seed{'s' * (numbers != [1])}"

    def advice(self) -> str:
        """Return the loss to choose, how certain that is, and a line for each next command."""
        best = self.rows[0]
        name = str(best["loss"])
        sentences = [self.lead("loss")]
        if self.plain not in (None, name):
            gain, chance = float(best["gain"]), _chance(best["p"])
            sentences.append(f"Over {self.plain} it gains {gain:.3f}{chance}.")
        if leaders := self._other_leaders():
            sentences.append(f"Other scores have other leaders: {', '.join(leaders)}.")
        if self.steps < _FEW_STEPS:
            sentences.append(f"{self.steps} steps are few: an early lead may not last.")
        lines = [" ".join(sentences), f"To train with it: {self.command(name)}"]
        if near := self.level():
            lines.append(f"More seeds make it more certain: {self._more_seeds([name, *near[:3]])}")
        return "\n".join(lines)

    def _other_leaders(self) -> list[str]:
        """Return the rows that are clearly ahead of the first in a second score, in words."""
        best, leaders = self.rows[0], []
        for name in (name for name in SECOND if name in self.known_scores):
            sign = 1 if SECOND[name] else -1
            rows = [row for row in self.trained if not math.isnan(float(row[name]))]
            leader = max(rows, key=lambda row: sign * float(row[name]))
            if leader is not best and _is_far(leader, best, name, sign):
                leaders.append(f"{header(name)} {leader['loss']} ({_with_spread(leader, name)})")
        return leaders

    def _more_seeds(self, names: Sequence[str]) -> str:
        """Return the command that compares a few losses with five seeds."""
        if modules := [name for name in names if name in self.modules]:
            return (
                f"call compare with n_seeds=5 and another folder ({', '.join(modules)} has no text)"
            )
        losses = "".join(f" --loss {self._typed(name)!r}" for name in names)
        if not self.typed:
            return f"add --seeds 5{losses} and another --out"
        folder = shlex.quote(f"{self.folder}-5-seeds")
        return f"{self.typed} --steps {self.steps} --seeds 5{losses} --out {folder}"

    def command(self, name: str) -> str:
        """Return the command that trains with a loss."""
        loss = self.losses[name]
        if name in self.modules:
            return "pass it in Python, train(Recipe.of(config, loss=loss), folder)"
        if not self.folder:
            return f"--loss {loss!r}"
        config = self.run_folder(name, 0) / "config.yaml"
        words = f"dense-imb train {self.kind} --config {shlex.quote(str(config))} --steps 2000"
        for package in own_packages(loss):
            words += f" --allow-import {package}"
        return f"{words} --out RUN"

    def _typed(self, name: str) -> str:
        """Return a loss as one types it: its name where that says it all, else NAME=LOSS."""
        loss = self.losses[name]
        base, dice = name.removesuffix(" + Dice"), SHORT_NAMES["Dice"]
        with_dice = f"{SHORT_NAMES.get(base)} + {dice}" if base != name else None
        is_known = loss in (name, full_text(name), with_dice)
        return name if is_known else f"{name}={loss}"

    def run_folder(self, name: str, seed: int) -> Path:
        """Return the folder of the run of a loss with a seed."""
        return Path(self.folder) / f"{Contestant(name, self.losses[name]).folder}-{seed}"

    def level(self) -> list[str]:
        """Return the rows over which the lead of the first may be chance."""
        others = [row for row in self.rows[1:] if not row["failed"]]
        return [str(row["loss"]) for row in others if self._may_be_chance(row)]

    def lead(self, what: str) -> str:
        """Return the first row and how certain its lead is; `what` is the noun of a row."""
        first = self.scores[0]
        best, *others = self.trained or self.rows
        name, near = str(best["loss"]), self.level()
        far = [row for row in others if str(row["loss"]) not in near]
        score = f"{header(first)} {_with_spread(best, first)}"
        if not others:
            sentences = [f"{name} is the only {what} that does not fail ({score})."]
        elif not near:
            sentences = [f"Take {name} ({score}): it is ahead of all others."]
        else:
            sentences = [
                f"No {what} is clearly ahead. The first is {name} ({score}), but its lead over "
                f"{_listed(near)} may be chance."
            ]
            if far:
                sentences.append(f"It is ahead of {_listed([str(row['loss']) for row in far])}.")
        equal = [row for row in self.references if not float(row[first]) < float(best[first])]
        if equal:
            rows = _listed([str(row["loss"]) for row in equal])
            sentences.append(f"It does not beat {rows}, which needs no network: train longer.")
        return " ".join(sentences)

    def _may_be_chance(self, row: Row) -> bool:
        """Whether the lead of the best loss over another one may be chance."""
        p = float(row["p_best"])
        if math.isnan(p):
            return not _is_far(self.rows[0], row, self.scores[0])
        return p >= _CHANCE


def own_packages(loss: str) -> list[str]:
    """Return the packages of a text that are no known libraries, and need a permission."""
    try:
        terms = parse_spec(loss).terms
    except ValueError:  # a code, or a Module as text
        return []
    modules = [term.module for term in terms if term.module is not None]
    own = [one for one in modules if not any(is_in(one, known) for known in LOSS_MODULES)]
    return sorted({module.partition(".")[0] for module in own})


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for the number of tests by Holm's method; NaN are no tests.

    Example:
        >>> holm([0.01, 0.04, 0.03, float("nan")])
        [0.03, 0.06, 0.06, nan]
    """
    known = sorted((one, k) for k, one in enumerate(p) if not math.isnan(one))
    corrected, largest = [math.nan] * len(p), 0.0
    for place, (one, k) in enumerate(known):
        largest = max(largest, min((len(known) - place) * one, 1.0))
        corrected[k] = largest
    return corrected


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
    # one seed, or the very same run, but for rounding
    is_constant = math.isclose(min(differences), max(differences), rel_tol=1e-12)
    if is_constant or importlib.util.find_spec("scipy") is None:
        return mean, math.nan
    stats = importlib.import_module("scipy.stats")
    return mean, float(stats.ttest_1samp(differences, 0.0).pvalue)


def _is_far(best: Row, row: Row, score: str, sign: int = 1) -> bool:
    """Whether a mean is ahead by more than both spreads; used where there is no test.

    Args:
        best, row: rows to compare.
        score: name of the score.
        sign: 1 where more is better, -1 where less is.
    """
    spread = sum(
        0.0 if math.isnan(float(one[f"{score}_sd"])) else float(one[f"{score}_sd"])
        for one in (best, row)
    )
    return spread > 0 and sign * (float(best[score]) - float(row[score])) > spread


def _or_least(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _chance(p: str | float) -> str:
    return "" if math.isnan(float(p)) else f" (p = {float(p):.2g})"


def _with_spread(row: Row, name: str) -> str:
    spread, form = float(row.get(f"{name}_sd", math.nan)), FORMS.get(name, ".3f")
    mean = _number(row[name], form)
    return mean if math.isnan(spread) else f"{mean} +- {spread:{form}}"


def _number(value: str | float, form: str) -> str:
    return "-" if math.isnan(float(value)) else format(float(value), form)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
