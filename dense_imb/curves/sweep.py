"""Sweeps: values and gradients of losses along a scenario, as a table."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dense_imb.curves.scenarios import Constants, Point, Scenario
from dense_imb.curves.subjects import Subject, as_subjects
from dense_imb.curves.table import Column, Table


class CurveWarning(UserWarning):
    """A loss that a sweep omits, or a gap in its curve.

    Example:
        >>> import warnings
        >>> from dense_imb.curves import CurveWarning, SignalSize, sweep
        >>> from dense_imb.losses import ACBMSELoss, FocalLoss
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always", CurveWarning)
        ...     _ = sweep(SignalSize(frame=(10, 10), points=3), [ACBMSELoss(), FocalLoss()])
        >>> [str(one.message) for one in caught]
        ['skipped FocalLoss: it takes logits, signal-size feeds values']
    """


def sweep(
    scenario: Scenario, losses: Mapping[str, nn.Module] | Iterable[nn.Module | Subject]
) -> Table:
    """Evaluate losses along a scenario.

    The table holds the value of each loss and the magnitude of its gradient: the sum over the
    pixels of |dL/dp| (values) or of |dL/dz|, z the logit of the true class. Where a loss returns no
    finite number, the curve has a gap, with a `CurveWarning`. A loss with another kind of input
    than the scenario's is omitted, with a `CurveWarning`.

    Args:
        scenario: one of `dense_imb.curves`, or your own.
        losses: modules, called as loss(prediction, target), or a mapping {name: module}. The
            attribute `feeds_on` of your own loss may name its input, "values" or "logits".

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
    table, refusals = survey(scenario, fitting)
    for refusal in refusals.values():
        raise refusal
    return table


def survey(scenario: Scenario, subjects: Sequence[Subject]) -> tuple[Table, dict[str, ValueError]]:
    """Return the table of the losses that work, and the refusals of the others, by name."""
    places: list[float] = []
    rows: dict[str, list[dict[str, float]]] = {subject.name: [] for subject in subjects}
    gaps: dict[str, list[str]] = {subject.name: [] for subject in subjects}
    refusals: dict[str, ValueError] = {}
    for point in scenario:
        places.append(point.x)
        place = f"{scenario.axis[0]} = {point.x:.4g}"
        for subject in subjects:
            name = subject.name
            if name in refusals:
                continue
            try:
                row, problems = _measure(subject, scenario, point)
            except Exception as problem:  # losses may refuse in any way
                said = " ".join(str(problem).split()).rstrip(".")
                refusals[name] = ValueError(f"{name} failed in {scenario.name} at {place}: {said}")
                refusals[name].__cause__ = problem
            else:
                rows[name].append(row)
                gaps[name] += [f"{problem} at {place}" for problem in problems[:1]]

    curves: list[Column] = []
    for name in (subject.name for subject in subjects if subject.name not in refusals):
        columns = [
            Column(
                name,
                _unit(quantity, scenario),
                tuple(row[quantity] for row in rows[name]),
                quantity,
            )
            for quantity in rows[name][0]
        ]
        if all(map(math.isnan, columns[0].values)):
            said = f"{name} has no value in {scenario.name}: it returned {gaps[name][0]}."
            refusals[name] = ValueError(said)
            continue
        if gaps[name]:
            more = f" and at {len(gaps[name]) - 1} more points" if len(gaps[name]) > 1 else ""
            warn(f"a gap in {scenario.name}: {name} returned {gaps[name][0]}{more}")
        curves += columns
    table = Table(
        title=scenario.title,
        axis=Column(*scenario.axis, values=tuple(places)),
        curves=tuple(curves),
        caption=scenario.caption(),
        losses=tuple(one.explained for one in subjects if one.name not in refusals),
        view=scenario.view,
    )
    return table, refusals


def _unit(quantity: str, scenario: Scenario) -> str:
    if "share" in quantity:
        return "1"
    return f"a.u. per {scenario.feeds_on[:-1]}" if "gradient" in quantity else "a.u."


def _measure(
    subject: Subject, scenario: Scenario, point: Point
) -> tuple[dict[str, float], list[str]]:
    """Return the numbers of a point by quantity, the loss first, and their problems."""
    problems: list[str] = []
    prediction = point.prediction.clone().requires_grad_()
    with torch.enable_grad():
        value = subject(prediction, point.target, point.cells)
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

    suffix = f" of {scenario.answer}" if scenario.answer else ""
    row = {f"loss{suffix}": number, f"gradient{suffix}": total}
    for position, class_name in enumerate(scenario.shares):
        part = float(gradient[(point.target.flatten() != 0) == bool(position)].sum())
        row[f"gradient share of {class_name}"] = part / total if total else math.nan
    with torch.no_grad():
        for name, answer in point.others.items():
            row[f"loss of {name}"] = (
                _scalar(subject(answer, point.target, point.cells), problems)
                if isinstance(answer, Tensor)
                else _best(subject, answer, point.target)
            )
    return row, problems


def _scalar(value: Any, problems: list[str]) -> float:
    """Return the number of a scalar tensor; otherwise NaN, and add a problem."""
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
    if not value.requires_grad:  # a detached input gets no gradient
        return torch.zeros_like(prediction)
    return torch.autograd.grad(value, prediction, allow_unused=True, materialize_grads=True)[0]


def _best(subject: Subject, constants: Constants, target: Tensor) -> float:
    """Return the lowest loss of constant predictions, by a grid and then a golden section."""

    def loss(part: float) -> float:
        number = _scalar(subject(constants(part), target), [])
        return math.inf if math.isnan(number) else number

    n_steps, ratio = 8, (math.sqrt(5) - 1) / 2
    grid = [loss(step / n_steps) for step in range(n_steps + 1)]
    best = grid.index(min(grid))
    low, high = max(best - 1, 0) / n_steps, min(best + 1, n_steps) / n_steps
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    left_loss, right_loss = loss(left), loss(right)
    losses = [*grid, left_loss, right_loss]
    for _ in range(10):
        if left_loss <= right_loss:
            high, right, right_loss = right, left, left_loss
            left = high - ratio * (high - low)
            left_loss = loss(left)
        else:
            low, left, left_loss = left, right, right_loss
            right = low + ratio * (high - low)
            right_loss = loss(right)
        losses += [left_loss, right_loss]
    return min(losses) if math.isfinite(min(losses)) else math.nan


def warn(message: str) -> None:
    """Warn of an omitted loss, or of a gap."""
    warnings.warn(message, CurveWarning, stacklevel=3)
