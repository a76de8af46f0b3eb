"""Baselines by name, with radii and widths scaled to the size of the frame."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from dense_imb.base.checks import check_choice
from dense_imb.hits.baselines import BASELINES, Scorer
from dense_imb.hits.events import Events
from dense_imb.hits.geometry import Geometry

CHOSEN_ON = Geometry(width=88, height=128, time_steps=1000)  # frame of the default options
_PIXELS, _STEPS, _WINDOWS = ("radius_xy", "sigma"), ("radius_t",), ("size",)


def available_baselines(
    geometry: Geometry | None = None,
) -> tuple[list[Scorer], tuple[str, ...]]:
    """Return all baselines that can run, and one sentence for each that cannot.

    Args:
        geometry: size of the frame, see `make_baseline`.
    """
    scorers, missing = [], []
    for name in BASELINES:
        if name == "DBSCAN" and importlib.util.find_spec("sklearn") is None:
            missing.append("no row for DBSCAN, which needs scikit-learn: pip install scikit-learn.")
        else:
            scorers.append(make_baseline(name, geometry))
    return scorers, tuple(missing)


def make_baseline(name: str, geometry: Geometry | None = None, **options: Any) -> Scorer:
    """Make a baseline by name, with radii and widths in proportion to the frame.

        pixels     = default * sqrt(width * height / (88 * 128))
        time steps = default * time_steps / 1000

    Args:
        name: key of `BASELINES`; hyphens are allowed: "hit density" or "hit-density".
        geometry: size of the frame; None does not scale.
        **options: options of the baseline, not scaled; its name then lists them.
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
            raise ValueError(f"{wanted} takes no options; drop `{option}`.")
        check_choice(f"option of {wanted}", option, takes)
    scaled = {} if geometry is None else _scaled(make(), geometry)
    scorer: Scorer = make(**{**scaled, **options})
    if not options:
        return scorer
    listed = ", ".join(f"{option}={value}" for option, value in options.items())
    return RenamedScorer(f"{scorer.name} ({listed})", scorer)


@dataclass(frozen=True)
class RenamedScorer:
    """Scorer under another name, so that a table can hold variants of it.

    Args:
        name: name in tables.
        scorer: scorer of the hits.
    """

    name: str
    scorer: Scorer

    def score(self, events: Events) -> Tensor:
        return self.scorer.score(events)


def scaling_note(geometry: Geometry, names: Iterable[str] = tuple(BASELINES)) -> str | None:
    """Return a sentence with the scaled options of baselines; None where nothing is scaled."""
    if geometry.size == CHOSEN_ON.size:
        return None
    parts = []
    for name in names:
        if name in BASELINES and (scaled := _scaled(BASELINES[name](), geometry)):
            parts.append(f"{name} {', '.join(f'{k}={v:g}' for k, v in scaled.items())}")
    if not parts:
        return None
    return (
        f"options of baselines, chosen on {CHOSEN_ON.size_text()}, are scaled to "
        f"{geometry.size_text()}: {'; '.join(parts)}."
    )


def _scaled(scorer: Any, geometry: Geometry) -> dict[str, float]:
    """Return the default options that scale with the frame, scaled to this frame."""
    area = CHOSEN_ON.width * CHOSEN_ON.height
    pixels = math.sqrt(geometry.width * geometry.height / area)
    steps = geometry.time_steps / CHOSEN_ON.time_steps
    scaled: dict[str, float] = {}
    for field in fields(scorer):
        value = getattr(scorer, field.name)
        if field.name in _PIXELS:
            scaled[field.name] = float(f"{value * pixels:.3g}")
        elif field.name in _STEPS:
            scaled[field.name] = float(f"{value * steps:.3g}")
        elif field.name in _WINDOWS:  # odd, and more than the pixel of the hit
            scaled[field.name] = max(3, 2 * round((value * pixels - 1) / 2) + 1)
    return scaled
