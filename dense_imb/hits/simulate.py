"""Simulation of clean patterns with many photons.

A pattern is a formula from random numbers of the pattern and of each photon to (x, y, t), in
pixels and time steps. All patterns are then blurred, rounded, and cut at the edge of the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.base.random import Draws, between, normal_quantile
from dense_imb.hits.events import Events
from dense_imb.hits.geometry import Geometry
from dense_imb.hits.noise import Floats

# (8, n, 1) random numbers of each pattern, (4, n, n_photons) of each photon, all in (0, 1)
Formula = Callable[[Floats, Floats, Geometry], tuple[Floats, Floats, Floats]]

# purposes of random numbers; those of degrade.py are below 64
_COUNT, _PATTERN, _PHOTON, _BLUR = 64, 65, 66, 67
_STRIDE = 128  # distance between the purposes of successive patterns of an event
_CHUNK = 128  # patterns per batch, to limit memory


def _on(low: float, high: float, number: Floats) -> Floats:
    """Map numbers in (0, 1) to (low, high)."""
    return low + (high - low) * number


def _between_walls(x: Floats, width: float) -> Floats:
    """Fold a straight path at mirrors on 0 and `width`."""
    return np.asarray(width - np.abs(np.mod(x, 2 * width) - width))


def arc(pattern: Floats, photon: Floats, geometry: Geometry) -> tuple[Floats, Floats, Floats]:
    """Arc with two arms, the reference task: a hyperbola in x and y, and another one in time.

        x = x0 + 42 u
        y = y0 + b (sqrt(1 + ((x - x0) / a)^2) - 1)
        t = t0 + 500 (sqrt(1 + 2.25 u^2) - 1)        u ~ U(-1, 1)

    x0 ~ U(25, 63), y0 ~ U(15, 55), a ~ U(8, 20), b ~ U(25, 60), t0 ~ U(100, 500) in a frame of
    88 x 128 x 1000; other frames scale them in proportion.
    """
    w, h, s = geometry.width / 88, geometry.height / 128, geometry.time_steps / 1000
    x0, y0 = w * _on(25, 63, pattern[0]), h * _on(15, 55, pattern[1])
    a, b, t0 = w * _on(8, 20, pattern[2]), h * _on(25, 60, pattern[3]), _on(100, 500, pattern[4])
    u = _on(-1, 1, photon[0])
    x = x0 + 42 * w * u
    y = y0 + b * (np.sqrt(1 + ((x - x0) / a) ** 2) - 1)
    return x, y, s * (t0 + 500 * (np.sqrt(1 + 2.25 * u**2) - 1))


def cross(pattern: Floats, photon: Floats, geometry: Geometry) -> tuple[Floats, Floats, Floats]:
    """Cross of two lines at a right angle, randomly rotated; t is linear along each line."""
    return _star(pattern, photon, geometry, n_lines=2)


def line(pattern: Floats, photon: Floats, geometry: Geometry) -> tuple[Floats, Floats, Floats]:
    """Straight track in a random direction; t is linear along it."""
    return _star(pattern, photon, geometry, n_lines=1)


def _star(
    pattern: Floats, photon: Floats, geometry: Geometry, n_lines: int
) -> tuple[Floats, Floats, Floats]:
    x0, y0, t0 = _centre(pattern, geometry)
    arm = _on(0.15, 0.45, pattern[3]) * min(geometry.width, geometry.height)
    angle = np.pi * (pattern[4] + np.floor(n_lines * photon[1]) / n_lines)
    u = _on(-1, 1, photon[0])
    slope = _on(-0.25, 0.25, pattern[5]) * geometry.time_steps
    return x0 + arm * u * np.cos(angle), y0 + arm * u * np.sin(angle), t0 + slope * u


def v(pattern: Floats, photon: Floats, geometry: Geometry) -> tuple[Floats, Floats, Floats]:
    """Two straight arms from one point, reflected at the side walls; t grows along each arm."""
    u = _on(-1, 1, photon[0])
    x0 = _on(0.1, 0.9, pattern[0]) * geometry.width
    y0 = _on(0.02, 0.3, pattern[1]) * geometry.height
    x = x0 + _on(0.3, 1.2, pattern[2]) * geometry.width * u
    y = y0 + _on(0.5, 0.65, pattern[3]) * geometry.height * np.abs(u)
    t = (_on(0.1, 0.4, pattern[4]) + _on(0.2, 0.5, pattern[5]) * np.abs(u)) * geometry.time_steps
    return _between_walls(x, geometry.width - 1), y, t


def parabola(pattern: Floats, photon: Floats, geometry: Geometry) -> tuple[Floats, Floats, Floats]:
    """Parabola: y and t grow with the square of the distance in x."""
    u = _on(-1, 1, photon[0])
    x = (_on(0.25, 0.75, pattern[0]) + _on(0.2, 0.5, pattern[2]) * u) * geometry.width
    y = (_on(0.05, 0.4, pattern[1]) + _on(0.2, 0.6, pattern[3]) * u**2) * geometry.height
    t = (_on(0.1, 0.5, pattern[4]) + _on(0.1, 0.4, pattern[5]) * u**2) * geometry.time_steps
    return x, y, t


def ring(pattern: Floats, photon: Floats, geometry: Geometry) -> tuple[Floats, Floats, Floats]:
    """Inclined circle: t varies with the cosine of the angle along the circle."""
    x0, y0, t0 = _centre(pattern, geometry)
    radius = _on(0.1, 0.35, pattern[3]) * min(geometry.width, geometry.height)
    slant = _on(0.0, 0.2, pattern[4]) * geometry.time_steps
    angle = 2 * np.pi * photon[0]
    t = t0 + slant * np.cos(angle - 2 * np.pi * pattern[5])
    return x0 + radius * np.cos(angle), y0 + radius * np.sin(angle), t


def hemisphere(
    pattern: Floats, photon: Floats, geometry: Geometry
) -> tuple[Floats, Floats, Floats]:
    """Half sphere in (x, y, t), uniform in x and y; its rim has the largest t."""
    x0, y0, t0 = _centre(pattern, geometry)
    radius = _on(0.1, 0.35, pattern[3]) * min(geometry.width, geometry.height)
    depth = _on(0.1, 0.3, pattern[4]) * geometry.time_steps
    angle, share = 2 * np.pi * photon[0], photon[1]  # fraction of the disc within the radius
    x, y = (radius * np.sqrt(share) * wave(angle) for wave in (np.cos, np.sin))
    return x0 + x, y0 + y, t0 + depth * (1 - np.sqrt(1 - share))


def torch_plate(
    pattern: Floats, photon: Floats, geometry: Geometry
) -> tuple[Floats, Floats, Floats]:
    """Cherenkov light in a TORCH-like radiator plate, read out at its upper edge.

    A fast particle crosses a quartz plate, 660 mm wide and 2,500 mm high, at a right angle. It
    emits light on a cone with cos(theta) = 1 / n and azimuth u. The light is reflected between
    the faces and at the side walls; part of it goes down and returns from the lower edge. The
    focusing optics convert the steepness into y; x is the position and t the time of arrival:

        tan(steepness) = tan(theta) cos(u)      x = x0 + path_y tan(u), folded at the walls
        t = path / v_group,  path = path_y / (sin(theta) cos(u))

    The refractive index n depends on the energy of the photon, which widens the pattern
    (chromatic dispersion). The frame spans 60 ns in t and 0.3 to 0.85 rad in steepness.
    """
    plate_width, plate_height, light_mm_ns, window_ns = 660.0, 2500.0, 299.8, 60.0
    x0 = _on(0.05, 0.95, pattern[0]) * plate_width
    height = _on(0.3, 0.9, pattern[1]) * plate_height
    t0 = _on(0.0, 0.1, pattern[2]) * geometry.time_steps
    u = _on(-1.25, 1.25, photon[0])
    index = _on(1.46, 1.48, photon[1])
    # fused silica between 3 and 5 eV: the group index rises about three times as fast as n
    group_index = 1.50 + 3 * (index - 1.46)
    theta = np.arccos(1 / index)
    # `height` is measured from the lower edge, where 40 % of the photons are reflected
    path_y = np.where(photon[2] < 0.4, height + plate_height, plate_height - height)
    x = _between_walls(x0 + path_y * np.tan(u), plate_width) / plate_width
    steepness = np.arctan(np.tan(theta) * np.cos(u))
    path = path_y / (np.sin(theta) * np.cos(u))
    t = t0 + path * group_index / light_mm_ns / window_ns * geometry.time_steps
    y = (steepness - 0.3) / (0.85 - 0.3) * geometry.height
    return x * (geometry.width - 1), y, t


def _centre(pattern: Floats, geometry: Geometry) -> tuple[Floats, Floats, Floats]:
    sizes = (geometry.width, geometry.height, geometry.time_steps)
    x, y, t = (_on(0.25, 0.75, number) * size for number, size in zip(pattern, sizes, strict=False))
    return x, y, t


# formulas of simulated patterns, by name
PATTERNS: dict[str, Formula] = {
    "arc": arc,
    "cross": cross,
    "line": line,
    "v": v,
    "parabola": parabola,
    "ring": ring,
    "hemisphere": hemisphere,
    "torch": torch_plate,
}


def simulate(
    pattern: str | Sequence[str],
    n_events: int,
    seed: int,
    geometry: Geometry | None = None,
    *,
    first_event: int = 0,
    patterns_per_event: int | tuple[int, int] = 1,
    frequency: Sequence[float] | None = None,
    n_photons: int = 1500,
    blur_xy: float = 0.5,
    blur_t: float | None = None,
) -> Events:
    """Simulate clean events with many hits; photons outside the frame are lost.

    Args:
        pattern: name in `PATTERNS`, or several names from which each pattern is drawn. Hits of
            the first name have the label 1, of the second 2, and so on.
        n_events: number of events.
        seed: random seed. Event i is the same in every batch that contains it.
        geometry: size of the frame, 88 x 128 x 1000 by default.
        first_event: index of the first event, default 0.
        patterns_per_event: number of patterns, or a range (low, high), both included.
        frequency: relative frequency of each name, equal by default.
        n_photons: photons per pattern.
        blur_xy: standard deviation of x and y in pixels.
        blur_t: standard deviation of t in time steps, 0.8 % of T by default.
    Example:
        >>> events = simulate(["arc", "ring"], 3, seed=1, patterns_per_event=(1, 4))
        >>> len(events), sorted(set(events.label.tolist()))
        (3, [1, 2])
        >>> rare = simulate(["arc", "ring"], 1000, seed=1, frequency=[95, 5], n_photons=1)
        >>> int((rare.label == 2).sum())
        51
    """
    names = [pattern] if isinstance(pattern, str) else list(pattern)
    for name in names:
        check_choice("pattern", name, PATTERNS)
    geometry = Geometry() if geometry is None else geometry
    low, high = (
        patterns_per_event
        if isinstance(patterns_per_event, tuple)
        else (patterns_per_event, patterns_per_event)
    )
    if not names or not 1 <= low <= high:
        raise ValueError(
            "Expected at least one `pattern` and `patterns_per_event` of at least 1, "
            f"got {pattern!r} and {patterns_per_event!r}."
        )
    cumulative = None if frequency is None else _cumulative_share(frequency, names)
    check_at_least("n_events", n_events, 0)
    check_at_least("n_photons", n_photons, 1)
    blur_t = 0.008 * geometry.time_steps if blur_t is None else blur_t
    check_at_least("blur_xy", blur_xy, 0)
    check_at_least("blur_t", blur_t, 0)
    event = np.arange(first_event, first_event + n_events)
    n_patterns = between(Draws(seed, 0, event).uniform(_COUNT, 1)[0], low, high)
    # event of each pattern, and its index within the event
    row = np.repeat(np.arange(n_events), n_patterns)
    rank = np.arange(len(row)) - np.repeat(np.cumsum(n_patterns) - n_patterns, n_patterns)
    columns: dict[str, list[NDArray[np.generic]]] = {"x": [], "y": [], "t": [], "label": []}
    kept: list[NDArray[np.int64]] = []
    for start in range(0, len(row), _CHUNK):
        part = slice(start, start + _CHUNK)
        draws, purpose = Draws(seed, 0, event[row[part]]), _STRIDE * rank[part]
        size = len(row[part])
        numbers = draws.uniform(purpose + _PATTERN, 3).reshape(4, size, 3)
        drawn = np.concatenate([*np.moveaxis(numbers, 2, 0)])[..., None]  # (12, size, 1)
        photon = draws.uniform(purpose + _PHOTON, n_photons).reshape(4, size, n_photons)
        normal = normal_quantile(draws.uniform(purpose + _BLUR, n_photons)[:3])
        choice = drawn[11, :, 0]
        label = 1 + (
            between(choice, 0, len(names) - 1)
            if cumulative is None
            else np.searchsorted(cumulative, choice, side="right")
        )
        point = np.empty((3, size, n_photons))
        for kind, name in enumerate(names):
            is_kind = label == 1 + kind
            point[:, is_kind] = PATTERNS[name](drawn[:8, is_kind], photon[:, is_kind], geometry)
        width = np.array([blur_xy, blur_xy, blur_t])[:, None, None]
        point = np.floor(point + width * normal.reshape(point.shape) + 0.5)
        x, y, t = point
        is_inside = (x >= 0) & (x < geometry.width) & (y >= 0) & (y < geometry.height)
        is_inside &= (t >= 1) & (t <= geometry.time_steps)
        kept.append(is_inside.sum(1))
        for name, axis in zip("xyt", point, strict=True):
            # T may be 65536, one more than the maximum of uint16
            wide = name == "t" and geometry.time_steps > 65535
            columns[name].append(axis[is_inside].astype(np.uint32 if wide else np.uint16))
        columns["label"].append(np.repeat(label, kept[-1]).astype(np.uint8))
    count = np.bincount(row, np.concatenate([*kept, []]), n_events).astype(np.int64)
    offset = np.concatenate([[0], np.cumsum(count)])
    types = {"x": np.uint16, "y": np.uint16, "t": np.uint16, "label": np.uint8}
    joined = {n: np.concatenate([*c, np.empty(0, types[n])]) for n, c in columns.items()}
    return Events(geometry, offset, joined["x"], joined["y"], joined["t"], joined["label"])


def _cumulative_share(frequency: Sequence[float], names: Sequence[str]) -> Floats:
    """Return the cumulative fractions of the names without the last, which is 1."""
    shares = np.asarray(frequency, np.float64)
    is_valid = shares.shape == (len(names),) and bool(np.isfinite(shares).all())
    if not (is_valid and shares.min() >= 0 and shares.sum() > 0):
        raise ValueError(
            f"Expected `frequency` with one number of at least 0 for each of {', '.join(names)}, "
            f"and not only zeros, got {list(frequency)}."
        )
    return np.asarray(np.cumsum(shares)[:-1] / shares.sum())
