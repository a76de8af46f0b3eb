"""Baselines by name and for a frame: reaches that were chosen on one frame fit another."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from dense_imb.base.checks import check_choice
from dense_imb.hits.baselines import BASELINES, Scorer
from dense_imb.hits.events import Events, Geometry

CHOSEN_ON = Geometry(width=88, height=128, time_steps=1000)  # of the defaults
_PIXELS, _STEPS, _WINDOWS = ("radius_xy", "sigma"), ("radius_t",), ("size",)


def available_baselines(
    geometry: Geometry | None = None,
) -> tuple[list[Scorer], tuple[str, ...]]:
    """Every baseline that can run here, and a sentence on each that can't.

    Args:
        geometry: the frame to make them for, see `make_baseline`.
    """
    scorers, missing = [], []
    for name in BASELINES:
        if name == "DBSCAN" and importlib.util.find_spec("sklearn") is None:
            missing.append("no row for DBSCAN, which needs scikit-learn: pip install scikit-learn.")
        else:
            scorers.append(make_baseline(name, geometry))
    return scorers, tuple(missing)


def make_baseline(name: str, geometry: Geometry | None = None, **options: Any) -> Scorer:
    """A baseline by name, its reaches in proportion to the frame.

        pixels of a reach = default * sqrt(width * height / (88 * 128))
        steps of a reach  = default * time_steps / 1000

    Args:
        name: of `BASELINES`, or as a command has it: "hit density" or "hit-density".
        geometry: the frame to make it for; without one the defaults stay as they are.
        options: of the baseline, taken as they are; its name then tells them.
    Example:
        >>> make_baseline("hit-density", Geometry(45, 40, 100))
        HitDensity(radius_xy=8.0, radius_t=12.0)
        >>> scorer = make_baseline("hit density", Geometry(45, 40, 100), radius_t=10)
        >>> scorer.name, scorer.scorer
        ('hit density (radius_t=10)', HitDensity(radius_xy=8.0, radius_t=10))
    """
    known = {known.lower().replace(" ", "-"): known for known in BASELINES}
    wanted = name.lower().replace(" ", "-")
    check_choice("baseline", wanted, known)
    make: Any = BASELINES[known[wanted]]
    takes = [field.name for field in fields(make)]
    for option in options:
        if not takes:
            raise ValueError(f"Expected no options of {wanted}, got `{option}`.")
        check_choice(f"option of {wanted}", option, takes)
    scaled = {} if geometry is None else _scaled(make(), geometry)
    scorer: Scorer = make(**{**scaled, **options})
    if not options:
        return scorer
    said = ", ".join(f"{option}={value}" for option, value in options.items())
    return Named(f"{scorer.name} ({said})", scorer)


@dataclass(frozen=True)
class Named:
    """A scorer under another name, so that a table may have it twice."""

    name: str
    scorer: Scorer

    def score(self, events: Events) -> Tensor:
        return self.scorer.score(events)


def scaling_note(geometry: Geometry, names: Iterable[str] = tuple(BASELINES)) -> str | None:
    """A sentence on the reaches in this frame; None where they are the defaults."""
    if geometry.size == CHOSEN_ON.size:
        return None
    told = []
    for name in names:
        if name in BASELINES and (scaled := _scaled(BASELINES[name](), geometry)):
            told.append(f"{name} {', '.join(f'{k}={v:g}' for k, v in scaled.items())}")
    if not told:
        return None
    return (
        f"the reaches of baselines, chosen on {CHOSEN_ON.size_text()}, are scaled to "
        f"{geometry.size_text()}: {'; '.join(told)}."
    )


def _scaled(scorer: Any, geometry: Geometry) -> dict[str, float]:
    """What of a baseline's defaults follows the frame, for this frame."""
    area = CHOSEN_ON.width * CHOSEN_ON.height
    pixels = math.sqrt(geometry.width * geometry.height / area)
    steps = geometry.time_steps / CHOSEN_ON.time_steps
    found: dict[str, float] = {}
    for field in fields(scorer):
        value = getattr(scorer, field.name)
        if field.name in _PIXELS:
            found[field.name] = float(f"{value * pixels:.3g}")
        elif field.name in _STEPS:
            found[field.name] = float(f"{value * steps:.3g}")
        elif field.name in _WINDOWS:  # odd, and never the hit's own pixel alone
            found[field.name] = max(3, 2 * round((value * pixels - 1) / 2) + 1)
    return found
