"""The sweep: value and gradient of any number of losses along a scenario, as a table."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dense_imb.curves.scenarios import Constants, Point, Scenario
from dense_imb.curves.subjects import Subject, as_subjects
from dense_imb.curves.table import Column, Table


class CurveWarning(UserWarning):
    """A loss that a sweep left out, or a gap in its curve."""


def sweep(
    scenario: Scenario, losses: Mapping[str, nn.Module] | Iterable[nn.Module | Subject]
) -> Table:
    """Evaluate losses along a scenario.

    The table holds, for each loss, its value and the magnitude of its gradient: the sum over the
    pixels of |dL/dp| (values) or of |dL/dz|, z the logit of the true class. Where a loss returns no
    finite number the curve has a gap, and a `CurveWarning` says where. A loss of the kind that the
    scenario does not feed is left out, with a `CurveWarning`.

    Args:
        scenario: one of `dense_imb.curves`, or a caller's own.
        losses: Modules, called as loss(prediction, target), or a mapping {name: Module}. A loss of
            the caller's may say what it takes in an attribute `feeds_on`, "values" or "logits".

    Example:
        >>> table = sweep(SignalSize(frame=(10, 10)), {"MSE": torch.nn.MSELoss()})
        >>> table["MSE"][0], table["MSE"][-1]
        (100.0, 5000.0)
    """
    fitting = []
    for subject in as_subjects(losses):
        if subject.feeds_on == scenario.feeds_on:
            fitting.append(subject)
        else:
            warn(
                f"skipped {subject.name}: it takes {subject.feeds_on}, {scenario.name} feeds "
                f"{scenario.feeds_on}"
            )
    if not fitting:
        raise ValueError(
            f"Expected a loss that takes {scenario.feeds_on} for {scenario.name}, got none."
        )
    curves = [column for subject in fitting for column in _curves(subject, scenario)]
    return Table(
        title=scenario.title,
        axis=Column(*scenario.axis, values=tuple(point.x for point in scenario)),
        curves=tuple(curves),
        caption=scenario.caption(),
        losses=tuple(subject.explained for subject in fitting),
        view=scenario.view,
    )


def _curves(subject: Subject, scenario: Scenario) -> list[Column]:
    """The columns of one loss."""
    rows: list[dict[str, float]] = []
    gaps: list[str] = []
    for point in scenario:
        place = f"{scenario.axis[0]} = {point.x:.4g}"
        try:
            row, problems = _measure(subject, scenario, point)
        except Exception as refusal:  # a loss of the caller's may refuse in any way
            raise ValueError(
                f"{subject.name} failed in {scenario.name} at {place}: "
                f"{' '.join(str(refusal).split())}"
            ) from refusal
        rows.append(row)
        if problems:
            gaps.append(f"{problems[0]} at {place}")
    if all(math.isnan(next(iter(row.values()))) for row in rows):
        raise ValueError(f"{subject.name} has no value in {scenario.name}: it returned {gaps[0]}.")
    if gaps:
        more = f" and at {len(gaps) - 1} more points" if len(gaps) > 1 else ""
        warn(f"a gap in {scenario.name}: {subject.name} returned {gaps[0]}{more}")
    units = {"loss": "a.u.", "gradient": f"a.u. per {scenario.feeds_on[:-1]}"}
    return [
        Column(
            subject.name,
            "1" if "share" in quantity else units[quantity.split()[0]],
            tuple(row[quantity] for row in rows),
            quantity,
        )
        for quantity in rows[0]
    ]


def _measure(
    subject: Subject, scenario: Scenario, point: Point
) -> tuple[dict[str, float], list[str]]:
    """The numbers of one point by quantity, the loss first, and what is wrong with them."""
    problems: list[str] = []
    prediction = point.prediction.clone().requires_grad_()
    with torch.enable_grad():
        value = subject(prediction, point.target)
        number = _scalar(value, problems)
        gradient = (
            torch.full_like(prediction, math.nan) if problems else _gradient(value, prediction)
        )
    if scenario.feeds_on == "logits":
        gradient = gradient.gather(1, point.target.unsqueeze(1))
    gradient = gradient.abs().double().flatten()
    total = float(gradient.sum())
    if not problems and not math.isfinite(total):
        problems.append(f"the gradient {total}")

    of = f" of {scenario.answer}" if scenario.answer else ""
    row = {f"loss{of}": number, f"gradient{of}": total}
    for position, class_name in enumerate(scenario.shares):
        part = float(gradient[(point.target.flatten() != 0) == bool(position)].sum())
        row[f"gradient share of {class_name}"] = part / total if total else math.nan
    with torch.no_grad():
        for name, answer in point.others.items():
            row[f"loss of {name}"] = (
                _scalar(subject(answer, point.target), problems)
                if isinstance(answer, Tensor)
                else _best(subject, answer, point.target)
            )
    return row, problems


def _scalar(value: Any, problems: list[str]) -> float:
    """The number of a scalar tensor; NaN, and one more problem, where it is none."""
    number = math.nan
    if not isinstance(value, Tensor):
        problems.append(f"a {type(value).__name__}, not a scalar tensor,")
    elif value.dim() > 0:
        problems.append(f"the shape {tuple(value.shape)}, not a scalar,")
    else:
        number = float(value.detach())
        if not math.isfinite(number):
            problems.append(str(number))
    return number if math.isfinite(number) else math.nan


def _gradient(value: Tensor, prediction: Tensor) -> Tensor:
    if not value.requires_grad:  # a loss that detaches its input trains nothing
        return torch.zeros_like(prediction)
    return torch.autograd.grad(value, prediction, allow_unused=True, materialize_grads=True)[0]


def _best(subject: Subject, constants: Constants, target: Tensor) -> float:
    """The lowest loss of the constant answers: a grid, then a golden section about its best."""

    def loss(part: float) -> float:
        number = _scalar(subject(constants(part), target), [])
        return math.inf if math.isnan(number) else number

    n_steps, ratio = 12, (math.sqrt(5) - 1) / 2
    grid = [loss(step / n_steps) for step in range(n_steps + 1)]
    best = min(grid)
    low, high = ((grid.index(best) + side) / n_steps for side in (-1, 1))
    low, high = max(low, 0.0), min(high, 1.0)
    for _ in range(10):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        left_loss, right_loss = loss(left), loss(right)
        best = min(best, left_loss, right_loss)
        low, high = (low, right) if left_loss <= right_loss else (left, high)
    return best if math.isfinite(best) else math.nan


def join(tables: Sequence[Table]) -> Table:
    """One table of several that share an axis."""
    first = tables[0]
    if any(table.axis != first.axis for table in tables):
        raise ValueError("Expected `tables` of one axis, got several.")
    return replace(
        first,
        curves=tuple(curve for table in tables for curve in table.curves),
        losses=tuple(loss for table in tables for loss in table.losses),
    )


def warn(message: str) -> None:
    """Tell the caller of a loss that was left out, or of a gap."""
    warnings.warn(message, CurveWarning, stacklevel=3)
