"""The origin of a run, and numbers as text."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dense_imb.config import TrainConfig
from dense_imb.metrics.score_table import percent_digits
from dense_imb.runs.stages import FIRST
from dense_imb.tasks.stages import stages_of

if TYPE_CHECKING:
    from dense_imb.report.source import ReportSource


def percent(share: float | str) -> str:
    """Return a share as a percentage, with more digits near 100 %; a dash for NaN.

    Example:
        >>> percent(0.5412), percent(0.98765), percent(0.99987), percent(float("nan"))
        ('54.1 %', '98.77 %', '99.987 %', '-')
    """
    value = float(share)
    if math.isnan(value):
        return "-"
    digits = 1 if value < 0.95 or value == 1 else 2 if value < 0.999 else 3
    return f"{percent_digits(value, digits)} %"


def number(value: float | str, form: str = ".3f") -> str:
    """Return a number as text, a dash for NaN."""
    return "-" if math.isnan(float(value)) else format(float(value), form)


def run_facts(source: ReportSource) -> dict[str, str]:
    """Return the origin of a run, by name: network, stages, samples, versions, command."""
    run, metrics, environment = source.run, source.metrics, source.environment
    facts = {"folder": str(run.folder), "network": run.config.model.name}
    if metrics:
        facts["parameters"] = f"{metrics.get('parameters', 0):,}"
    first, second = stages_of(run.whole_config)
    if second is None:
        facts |= _stage_facts(first, metrics)
    else:
        records = source.first_metrics or _noted_first_metrics(metrics)
        stages = {
            "first": {"folder": str(run.folder / FIRST), **_stage_facts(first, records)},
            "second": _stage_facts(second, metrics),
        }
        for stage, known in stages.items():
            facts |= {f"{stage} stage, {name}": value for name, value in known.items()}
    return {**facts, **_sample_facts(source), **_environment_facts(environment)} | {
        "seed": str(run.config.seed)
    }


def _stage_facts(config: TrainConfig, metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of a stage, and its results where they are known."""
    sampling: str = config.sampling.kind
    sampling += f" {config.sampling.power:g}" if sampling == "power" else ""
    facts = {"loss": config.loss, "sampling": sampling}
    if metrics:
        best = metrics.get("best") or {}
        facts |= {
            "steps": f"{metrics.get('steps', 0):,} of {config.steps:,}",
            "best after step": f"{best['step']:.0f}" if best.get("step") is not None else "none",
            "training": f"{metrics.get('seconds', math.nan):,.0f} s",
        }
    return facts


def _noted_first_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the second stage noted of the first, for a first stage without a folder."""
    noted = {name: metrics.get(f"{FIRST}_{name}") for name in ("steps", "seconds")}
    if noted["steps"] is None:
        return {}
    return {"best": metrics.get(FIRST), **noted}


def _sample_facts(source: ReportSource) -> dict[str, str]:
    """Return the numbers of samples, and the origin of those without labels."""
    config, facts = source.run.whole_config, {}
    try:
        facts["samples"] = source.run.format_sample_counts()
        facts["pseudo-labels"] = source.run.format_teacher()
    except (ValueError, TypeError, OSError):  # metrics.json can't be read, which a note says
        facts = {}
    if config.labelled_share < 1:
        facts["labelled share"] = f"{config.labelled_share:g} of the training {source.unit}s"
    if config.is_semi_supervised:
        wanted = config.unlabelled
        places = [wanted.train] if isinstance(wanted.train, str) else wanted.train or []
        facts["without labels"] = (
            f"the training {source.unit}s left out by the labelled share"
            if wanted.rest
            else ", ".join(places)
        )
    return {name: value for name, value in facts.items() if value}


def _environment_facts(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions, the commit and the command of the training."""
    facts = {}
    names = ("dense_imb", "python", "system", "device", "threads")
    versions = {name: environment[name] for name in names if name in environment}
    packages = environment.get("packages")
    versions |= packages if isinstance(packages, dict) else {}
    if versions:
        facts["versions"] = ", ".join(f"{name} {value}" for name, value in versions.items())
    git = environment.get("git")
    facts["git"] = f"{git} (+: with changes)" if str(git).endswith("+") else str(git or "unknown")
    if isinstance(environment.get("command"), list):
        program, *words = [*map(str, environment["command"])] or ["unknown"]
        is_ours = Path(program).name in ("__main__.py", "dense-imb")
        facts["command"] = shlex.join(["dense-imb" if is_ours else program, *words])
    return facts
