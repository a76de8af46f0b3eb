"""Baselines by name, with radii and widths scaled to the frame, or to the table of sensors.

For a table of sensors, radii follow the spacing of the sensors and the speed of light:

    radius in metres = factor * spacing
    radius in ns     = 1.5 * radius in metres / 0.2998 m/ns

The factors are 6.5 for the hit density and 5.5 for DBSCAN with 40 neighbours. They remove most
noise at 97 % retention on 16 events of a neutrino telescope (KM3NeT, 36 m between modules, 4,458
hits an event of 13.5 us, 4 % of them signal). Hit density removes 97.8 % of the noise there with
its two radii tied by light, and 90 % or less with half the time. Light in water and glass is
slower than in vacuum by 1.35 to 1.5. Choose other options where hits do not follow light: the
drift time of a gas detector is longer.
"""

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
from dense_imb.hits.geometry import Geometry, Sensors

CHOSEN_ON = Geometry(width=88, height=128, time_steps=1000)  # frame of the default options
_PIXELS, _STEPS, _WINDOWS = ("radius_xy", "sigma"), ("radius_t",), ("size",)
_OF_FRAMES = ("blurred hits", "median filter")  # need a grid of pixels
# for a table of sensors: radius in units of the spacing, and other options
_RADIUS = {"hit density": 6.5, "DBSCAN": 5.5}
_MIN_SAMPLES = 40
LIGHT = 0.299792458  # metres in a ns
SLOWNESS = 1.5  # of light in glass or water


def available_baselines(
    geometry: Geometry | Sensors | None = None,
) -> tuple[list[Scorer], tuple[str, ...]]:
    """Return all baselines that can run, and one sentence for each that cannot.

    Args:
        geometry: size of the frame or table of sensors, see `make_baseline`.

    Example:
        >>> from dense_imb.hits import Geometry, available_baselines
        >>> scorers, missing = available_baselines(Geometry(256, 256, 4000))
        >>> [scorer.name for scorer in scorers][:3]
        ['identity', 'blank', 'blurred hits']
    """
    scorers, missing = [], []
    for name in BASELINES:
        if isinstance(geometry, Sensors) and name in _OF_FRAMES:
            missing.append(f"no row for {name}, which needs a grid of pixels.")
        elif name == "DBSCAN" and importlib.util.find_spec("sklearn") is None:
            missing.append("no row for DBSCAN, which needs scikit-learn: pip install scikit-learn.")
        else:
            scorers.append(make_baseline(name, geometry))
    return scorers, tuple(missing)


def make_baseline(name: str, geometry: Geometry | Sensors | None = None, **options: Any) -> Scorer:
    """Make a baseline by name, with radii and widths in proportion to the frame.

        pixels     = default * sqrt(width * height / (88 * 128))
        time steps = default * time_steps / 1000

    For a table of sensors, radii are in metres and ns, see `dense_imb.hits.scaling`.

    Args:
        name: key of `BASELINES`; hyphens are allowed: "hit density" or "hit-density".
        geometry: size of the frame, or table of sensors; None does not scale.
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
    if isinstance(geometry, Sensors) and known[wanted] in _OF_FRAMES:
        raise ValueError(
            f"Expected hits on a grid of pixels for {wanted}, got hits of {geometry.size_text()}; "
            "take hit-density."
        )
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


def scaling_note(
    geometry: Geometry | Sensors, names: Iterable[str] = tuple(BASELINES)
) -> str | None:
    """Return a sentence with the scaled options of baselines; None where nothing is scaled."""
    if geometry.size == CHOSEN_ON.size:
        return None
    parts = []
    for name in names:
        if name in BASELINES and (scaled := _scaled(BASELINES[name](), geometry)):
            parts.append(f"{name} {', '.join(f'{k}={v:g}' for k, v in scaled.items())}")
    if not parts:
        return None
    if isinstance(geometry, Sensors):
        return (
            f"options of baselines follow the spacing of the {len(geometry)} sensors, "
            f"{geometry.spacing:.3g} m, and the speed of light: {'; '.join(parts)}."
        )
    return (
        f"options of baselines, chosen on {CHOSEN_ON.size_text()}, are scaled to "
        f"{geometry.size_text()}: {'; '.join(parts)}."
    )


def pixel_scale(geometry: Geometry) -> float:
    """Return the size of a frame in pixels, relative to that of the default options."""
    area = CHOSEN_ON.width * CHOSEN_ON.height
    return math.sqrt(geometry.width * geometry.height / area)


def step_scale(geometry: Geometry) -> float:
    """Return the number of time steps, relative to that of the default options."""
    return geometry.time_steps / CHOSEN_ON.time_steps


def _scaled(scorer: Any, geometry: Geometry | Sensors) -> dict[str, float]:
    """Return the default options that scale with the geometry, scaled to this one."""
    if isinstance(geometry, Sensors):
        return _scaled_to_table(scorer.name, geometry)
    pixels, steps = pixel_scale(geometry), step_scale(geometry)
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


def _scaled_to_table(name: str, sensors: Sensors) -> dict[str, float]:
    if name not in _RADIUS:
        return {}
    radius = float(f"{_RADIUS[name] * sensors.spacing:.3g}")
    scaled = {"radius_xy": radius, "radius_t": float(f"{SLOWNESS * radius / LIGHT:.3g}")}
    return {**scaled, "min_samples": _MIN_SAMPLES} if name == "DBSCAN" else scaled
