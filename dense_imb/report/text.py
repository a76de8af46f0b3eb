"""The words and tables that all pages share."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from dense_imb.config import TrainConfig
from dense_imb.report import page
from dense_imb.report.found import Found
from dense_imb.report.page import Picture
from dense_imb.runs.stages import FIRST
from dense_imb.tasks.stages import stages_of

SCORES, ERRORS = "Scores", "Where it errs"
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


def _stage(config: TrainConfig, metrics: Mapping[str, Any]) -> dict[str, str]:
    """What a stage was, and what is known to have become of it."""
    sampling: str = config.sampling.kind
    sampling += f" {config.sampling.power:g}" if sampling == "power" else ""
    known = {"loss": config.loss, "sampling": sampling}
    if metrics:
        best = metrics.get("best") or {}
        known |= {
            "steps": f"{metrics.get('steps', 0):,} of {config.steps:,}",
            "best after step": f"{best['step']:.0f}" if best.get("step") is not None else "none",
            "training": f"{metrics.get('seconds', math.nan):,.0f} s",
        }
    return known


def _of_first(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the second stage has noted of the first one, whose folder is gone."""
    noted = {name: metrics.get(f"{FIRST}_{name}") for name in ("steps", "seconds")}
    if noted["steps"] is None:
        return {}
    return {"best": metrics.get(FIRST), **noted}


def _samples(found: Found) -> dict[str, str]:
    """How many there were, and what was learnt from without labels."""
    config, known = found.run.whole_config, {}
    try:
        told = {
            "samples": found.run.format_sample_counts(),
            "pseudo-labels": found.run.format_teacher(),
        }
    except (ValueError, TypeError, OSError):  # metrics.json can't be read, which a note says
        told = {}
    if config.labelled_share < 1:
        known["labelled share"] = f"{config.labelled_share:g} of the training {found.unit}s"
    if config.is_semi_supervised:
        wanted = config.unlabelled
        places = [wanted.train] if isinstance(wanted.train, str) else wanted.train or []
        known["without labels"] = (
            f"the training {found.unit}s left out by the labelled share"
            if wanted.rest
            else ", ".join(places)
        )
    return {name: value for name, value in {**told, **known}.items() if value}


def _facts(found: Found) -> dict[str, str]:
    run, metrics, environment = found.run, found.metrics, found.environment
    known = {"folder": str(run.folder), "network": run.config.model.name}
    first, second = stages_of(run.whole_config)
    if metrics:
        known["parameters"] = f"{metrics.get('parameters', 0):,}"
    if second is None:
        known |= _stage(first, metrics)
    else:
        records = found.first_metrics or _of_first(metrics)
        of_first = {"folder": str(run.folder / FIRST), **_stage(first, records)}
        for stage, facts in (("first", of_first), ("second", _stage(second, metrics))):
            known |= {f"{stage} stage, {name}": value for name, value in facts.items()}
    known |= _samples(found)
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
