"""The words and tables that all pages share."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from dense_imb.report import page
from dense_imb.report.found import Found
from dense_imb.report.page import Picture

SCORES, ERRORS, TRAINING = "Scores", "Where it errs", "Training"
_MADE_FROM, _AGAIN = "What it was made from", "How to make it again"


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


def number(value: float | str, form: str = ".3f") -> str:
    """A number for people, a dash where it is unknown."""
    return "-" if math.isnan(float(value)) else format(float(value), form)


def whole_page(found: Found, told: str, pictures: Sequence[Picture]) -> str:
    """The page of a run, `told` being its headline."""
    parts = [page.heading(found.name, 1), page.paragraph(told, "headline")]
    parts += [page.paragraph(note, "note") for note in found.notes]
    tables = found.tables()
    for section in found.sections:
        content = list(tables.get(section, []))
        content += [page.figure(one) for one in pictures if one.section == section]
        if content:
            parts += [page.heading(section), *content]
    parts += [page.heading(_MADE_FROM), page.facts(_facts(found))]
    stored = yaml.safe_dump(asdict(found.run.whole_config), sort_keys=False)
    parts.append(page.folded("config.yaml", page.code(stored)))
    parts += [page.heading(_AGAIN), page.code(found.commands())]
    return page.page(f"{found.name} - dense-imb", parts)


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
