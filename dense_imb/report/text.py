"""The words and tables of the page."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from dense_imb.hits import Evaluation
from dense_imb.report import page
from dense_imb.report.found import Found
from dense_imb.report.page import Picture

SCORES, ERRORS, SAMPLES = "Scores", "Where it errs", "Events before and after"
TRAINING, MADE_FROM, AGAIN = "Training", "What it was made from", "How to make it again"
_COLUMNS = (
    ("signal kept", "retention"),
    ("noise removed", "removal"),
    ("purity", "purity"),
    ("AUC", "auc"),
    ("avg. precision", "average_precision"),
)
_QUANTILES = {
    "q05": "5 % of events below",
    "q25": "25 % below",
    "q50": "half below",
    "q75": "75 % below",
    "q95": "95 % below",
}


def headline(found: Found) -> str:
    """The result in a sentence."""
    measured, name = found.measured, found.name
    wanted = f"{100 * found.retention:g}"
    validated = (found.metrics.get("best") or {}).get(f"removal_at_{wanted}")
    parts = []
    if validated is not None:
        parts.append(
            f"{percent(validated)} of the noise removed at {wanted} % of the signal kept "
            "(validation)"
        )
    if measured is not None:
        own = measured.evaluation[name]
        where = "test" if found.test else "half of the validation events"
        parts.append(
            f"{percent(own['removal'])} removed at {percent(own['retention'])} kept ({where})"
        )
        if (best := best_baseline(measured.evaluation, name)) is not None:
            row = measured.evaluation[best]
            parts.append(
                f"best baseline, {best}: {percent(row['removal'])} at {percent(row['retention'])}"
            )
    if not parts:
        return "No scores yet."
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}."


def best_baseline(table: Evaluation, name: str) -> str | None:
    """The one that removes most noise, by name."""
    others = [row for row in table.rows if row["scorer"] != name]
    found = [row for row in others if float(row["removal"]) == float(row["removal"])]
    return str(max(found, key=lambda row: float(row["removal"]))["scorer"]) if found else None


def percent(share: float | str) -> str:
    """A share for people, with another digit where it counts; a dash where it is unknown.

    Example:
        >>> percent(0.5412), percent(0.98765), percent(0.99987), percent(float("nan"))
        ('54.1 %', '98.77 %', '99.987 %', '-')
    """
    value = float(share)
    if math.isnan(value):
        return "-"
    digits = 1 if value < 0.95 or value == 1 else 2 if value < 0.999 else 3
    return f"{100 * value:.{digits}f} %"


def whole_page(found: Found, told: str, pictures: Sequence[Picture]) -> str:
    """The page of a run, `told` being its headline."""
    name, config = found.name, found.run.config
    parts = [page.heading(name, 1), page.paragraph(told, "headline")]
    parts += [page.paragraph(note, "note") for note in found.notes]
    sections: dict[str, list[str]] = {SCORES: [], SAMPLES: [], ERRORS: [], TRAINING: []}
    if found.measured is not None:
        sections[SCORES] = _scores(found.measured.evaluation, name, found.adds_noise)
        sections[ERRORS] = [_quantiles(found.measured.evaluation, name)]
    for picture in pictures:
        sections[picture.section].append(page.figure(picture))
    for title, content in sections.items():
        if content:
            parts += [page.heading(title), *content]
    parts += [page.heading(MADE_FROM), page.facts(_facts(found))]
    stored = yaml.safe_dump(asdict(config), sort_keys=False)
    parts.append(page.folded("config.yaml", page.code(stored)))
    parts += [page.heading(AGAIN), page.code(commands(found))]
    return page.page(f"{name} - dense-imb", parts)


def _scores(table: Evaluation, name: str, adds_noise: bool) -> list[str]:
    further = [r for r in table.retentions if r != table.retention]
    header = ["", *(title for title, _ in _COLUMNS)]
    header += [f"removed at {100 * r:g} %" for r in further]
    rows = []
    for row in table.rows:
        cells = [str(row["scorer"])]
        for _, key in _COLUMNS:
            is_score = key in ("auc", "average_precision")
            value = float(row[key])
            cells.append(_number(value, ".4f") if is_score else percent(value))
        cells += [percent(row[f"removal_at_{100 * r:g}"]) for r in further]
        rows.append([*cells, _number(float(row["events_per_second"]), ",.0f")])
    first = table.rows[0]
    seen = (
        f"Each threshold was chosen to keep {100 * table.retention:g} % of the signal, and the "
        f"table says what it kept: {table.chosen_on}; {float(first['n_signal']):,.0f} signal and "
        f"{float(first['n_noise']):,.0f} noise hits, those hidden behind others in their pixel "
        f"({percent(first['occluded_share'])} of the signal) not counted."
    )
    if adds_noise:
        seen += " The test events were clean, and degraded as the run's own events are."
    return [page.table([*header, "events per second"], rows, own=name), page.paragraph(seen)]


def _quantiles(table: Evaluation, name: str) -> str:
    best = best_baseline(table, name)
    header = ["within single events", *_QUANTILES.values()]
    rows = []
    for scorer in (name, best):
        if scorer is None:
            continue
        for key, words in (("removal", "noise removed"), ("retention", "signal kept")):
            row = table[scorer]
            cells = [percent(row[f"event_{key}_{q}"]) for q in _QUANTILES]
            rows.append([f"{scorer}: {words}", *cells])
    return page.table(header, rows)


def _facts(found: Found) -> dict[str, str]:
    run, metrics, environment = found.run, found.metrics, found.environment
    known = {"folder": str(run.folder), "network": run.config.model.name, "loss": run.config.loss}
    if metrics:
        best = metrics.get("best") or {}
        known |= {
            "parameters": f"{metrics.get('parameters', 0):,}",
            "steps": f"{metrics.get('steps', 0):,} of {run.config.steps:,}",
            "best after step": f"{best['step']:.0f}" if best.get("step") is not None else "none",
            "training": f"{metrics.get('seconds', math.nan):,.0f} s",
        }
    packages = environment.get("packages")
    versions = {
        name: environment[name]
        for name in ("dense_imb", "python", "system", "device", "threads")
        if name in environment
    }
    versions |= packages if isinstance(packages, dict) else {}
    if versions:
        known["versions"] = ", ".join(f"{name} {value}" for name, value in versions.items())
    git = environment.get("git")
    known["git"] = f"{git} (+: with changes)" if str(git).endswith("+") else str(git or "unknown")
    if isinstance(environment.get("command"), list):
        program, *words = [*map(str, environment["command"])] or ["unknown"]
        is_ours = Path(program).name in ("__main__.py", "dense-imb")
        known["command"] = shlex.join(["dense-imb" if is_ours else program, *words])
    known["seed"] = str(run.config.seed)
    return known


def commands(found: Found) -> str:
    """What to type to repeat it all, and to use it."""
    run, test = found.run, found.test
    folder = shlex.quote(str(run.folder))
    files = shlex.join(test) if test else "test.h5"
    wanted = f"--retention {found.retention:g}"
    data = run.config.data
    # without a test file it is the validation data that tell what a file looks like
    is_clean = found.adds_noise if test else data.noise not in (0, [0, 0])
    extra = ""
    if is_clean and isinstance(data.noise, int):
        extra = f" --noise {data.noise}"
        extra += f" --signal {data.signal}" if isinstance(data.signal, int) else ""
    lines = [
        "# the same network again, in a new folder",
        f"dense-imb train --config {shlex.quote(str(run.folder / 'config.yaml'))} --out again",
        "# scores beside the baselines",
        f"dense-imb evaluate {folder} {files}{extra} {wanted}",
        "# a score and a verdict for each hit of a file of yours",
        f"dense-imb denoise {folder} raw.h5 clean.h5 {wanted}",
        "# this page",
        f"dense-imb report {folder}{' --test ' + files if test else ''} {wanted} "
        f"--events {found.n_events}",
    ]
    return "\n".join(lines)


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)
