"""Scenarios: series of (prediction, target) pairs along a named axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.curves.table import View

MAX_POINTS = 200
EPS = 1e-7  # distance of the sweep from 0 and 1, which have no finite logits

Constants = Callable[[float], Tensor]  # the constant answers, from one end (0) to the other (1)


class Point(NamedTuple):
    """One step of a scenario; `others` are further predictions for the same target.

    Example:
        >>> from dense_imb.curves import SignalSize
        >>> first, *_ = SignalSize(frame=(10, 10))  # each is a Point
        >>> first.x, first.target.sum().item(), first.prediction.sum().item()
        (0.02, 200.0, 100.0)
    """

    x: float
    prediction: Tensor  # values (1, 1, H, W) or log-probabilities (B, C, H, W)
    target: Tensor  # values (1, 1, H, W) or class indices (B, H, W)
    others: Mapping[str, Tensor | Constants] = {}
    cells: Tensor | None = None  # masks (1, n_cells, H, W) that overlap


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A series of (prediction, target) pairs, with the name and unit of its axis.

    Example:
        >>> from dense_imb.curves import SCENARIOS, Scenario
        >>> isinstance(SCENARIOS["recovery"], Scenario), SCENARIOS["recovery"].axis
        (True, ('returned pixels', 'half frames'))
    """

    points: int = MAX_POINTS

    name: ClassVar[str]
    title: ClassVar[str]
    axis: ClassVar[tuple[str, str]]  # name, unit
    feeds_on: ClassVar[str]  # "values" or "logits"
    view: ClassVar[View]
    n_classes: ClassVar[int] = 2
    n_cells: ClassVar[int] = 0  # masks of a point
    answer: ClassVar[str] = ""  # name of `prediction` where a point has `others`
    shares: ClassVar[tuple[str, ...]] = ()  # names of the classes whose gradients are separate

    def __post_init__(self) -> None:
        if not 3 <= self.points <= MAX_POINTS:
            raise ValueError(f"Expected `points` between 3 and {MAX_POINTS}, got {self.points}.")

    def __iter__(self) -> Iterator[Point]:
        raise NotImplementedError

    def caption(self) -> str:
        """Return a description of the sweep, one or two sentences."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class _Frames(Scenario):
    """Scenarios of frames with a given size and hit value."""

    frame: tuple[int, int] = (128, 88)
    value: float = 100.0

    feeds_on: ClassVar[str] = "values"

    def __post_init__(self) -> None:
        super().__post_init__()
        height, width = self.frame
        if height < 1 or width < 1 or self.n_pixels < 6:
            raise ValueError(f"Expected `frame` of at least 6 pixels, got {height}x{width}.")
        check_at_least("value", self.value, 0)
        if self.value == 0:
            raise ValueError("Expected `value` above 0, got 0: empty pixels are 0.")

    @property
    def n_pixels(self) -> int:
        return self.frame[0] * self.frame[1]

    @property
    def _size(self) -> str:
        return f"{self.frame[0]} x {self.frame[1]} pixels"

    def _filled(self, n_pixels: int, value: float | None = None) -> Tensor:
        """Return a frame whose first pixels are hits."""
        frame = torch.zeros(self.n_pixels, dtype=torch.double)
        frame[:n_pixels] = self.value if value is None else value
        return frame.view(1, 1, *self.frame)


@dataclass(frozen=True, kw_only=True)
class SignalSize(_Frames):
    """Hits of one value fill the frame in two-pixel steps; a fixed part is recovered.

    Example:
        >>> import torch
        >>> from dense_imb.curves import SignalSize, sweep
        >>> table = sweep(SignalSize(frame=(10, 10), points=3), {"MSE": torch.nn.MSELoss()})
        >>> table.axis.values, table["MSE"]  # half of the hits, of value 100, are missed
        ((0.02, 0.52, 1.0), (100.0, 2600.0, 5000.0))
    """

    recovered: float = 0.5

    name = "signal-size"
    title = "Response to the size of the signal class"
    axis = ("signal size", "fraction of the frame")
    view = View(y_scale="log")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_part("recovered", self.recovered)

    def __iter__(self) -> Iterator[Point]:
        for n_hits in _counts(2, self.n_pixels // 2 * 2, self.points, step=2):
            prediction = self._filled(round(self.recovered * n_hits))
            yield Point(n_hits / self.n_pixels, prediction, self._filled(n_hits))

    def caption(self) -> str:
        return (
            f"Hits of value {self.value:g} fill a frame of {self._size}, in steps of two pixels or "
            f"a multiple; {self.recovered:.0%} of them are recovered at their value, the others "
            "are missed, and every empty pixel is left empty."
        )


@dataclass(frozen=True, kw_only=True)
class Recovery(_Frames):
    """A signal is returned pixel by pixel, then background pixels are, up to the full frame.

    Example:
        >>> import torch
        >>> from dense_imb.curves import Recovery, sweep
        >>> scenario = Recovery(frame=(10, 10), points=3, signal=0.5)
        >>> table = sweep(scenario, {"MAE": torch.nn.L1Loss()})
        >>> table.axis.values, table["MAE"]  # missed, complete, and all background lit
        ((0.0, 1.0, 2.0), (50.0, 0.0, 50.0))
    """

    signal: float = 1 / 6

    name = "recovery"
    title = "Response to signal recovery and overshoot"
    axis = ("returned pixels", "half frames")
    view = View(y_scale="symlog")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_part("signal", self.signal)

    def __iter__(self) -> Iterator[Point]:
        target = self._filled(self.n_signal)
        for returned in _counts(0, self.n_pixels, self.points, through=[self.n_signal]):
            yield Point(2 * returned / self.n_pixels, self._filled(returned), target)

    @property
    def n_signal(self) -> int:
        return max(1, round(self.signal * self.n_pixels))

    def caption(self) -> str:
        return (
            f"A signal of {self.n_signal} pixels of value {self.value:g} in a frame of "
            f"{self._size} is returned from none to all; from there on background pixels are "
            f"returned wrongly, up to the full frame. The perfect answer is at "
            f"{2 * self.n_signal / self.n_pixels:.4g} half frames."
        )


@dataclass(frozen=True, kw_only=True)
class ValueResidual(_Frames):
    """Every hit is recovered in its pixel, with a growing error of its value.

    Example:
        >>> import torch
        >>> from dense_imb.curves import ValueResidual, sweep
        >>> scenario = ValueResidual(frame=(10, 10), points=3, n_hits=10)
        >>> table = sweep(scenario, {"MSE": torch.nn.MSELoss()})
        >>> table.axis.values, table["MSE"]
        ((0.0, 50.0, 100.0), (0.0, 250.0, 1000.0))
    """

    n_hits: int = 30

    name = "value-error"
    title = "Response to the error of a recovered value"
    axis = ("residual of a hit's value", "value")
    view = View(y_scale="symlog")

    def __iter__(self) -> Iterator[Point]:
        n_hits = min(self.n_hits, self.n_pixels)
        target = self._filled(n_hits)
        for residual in np.linspace(0, self.value, self.points):
            yield Point(float(residual), self._filled(n_hits, self.value + residual), target)

    def caption(self) -> str:
        return (
            f"All of {min(self.n_hits, self.n_pixels)} hits of value {self.value:g} in a frame of "
            f"{self._size} are recovered in their pixels, each too large by the residual (a "
            "time-of-flight residual, in the unit of the value); every empty pixel is left empty."
        )


@dataclass(frozen=True, kw_only=True)
class OverlappingCells(_Frames):
    """Two cells of equal size slide over each other; the pixels that they share are missed.

    Example:
        >>> from dense_imb.curves import OverlappingCells
        >>> points = list(OverlappingCells(frame=(16, 16), points=3))
        >>> [point.x for point in points], points[0].cells.shape
        ([0.0, 0.5, 1.0], torch.Size([1, 2, 16, 16]))
    """

    points: int = 41
    cell: float = 1 / 16

    name = "overlap"
    title = "Response to missed pixels that two cells share"
    axis = ("overlap of two cells", "fraction of a cell")
    view = View(y_scale="symlog")
    n_cells = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.cell <= 0.5:
            raise ValueError(f"Expected `cell` above 0 and at most 1/2, got {self.cell}.")

    def __iter__(self) -> Iterator[Point]:
        pixel = torch.arange(self.n_pixels).view(1, *self.frame)
        first = pixel < self.n_cell
        for n_shared in _counts(0, self.n_cell, self.points):
            start = self.n_cell - n_shared
            second = (pixel >= start) & (pixel < start + self.n_cell)
            value = torch.tensor(self.value, dtype=torch.double)
            target = torch.where(first | second, value, 0.0)
            prediction = torch.where(first & second, 0.0, target)
            cells = torch.stack([first, second], 1)
            x = n_shared / self.n_cell
            yield Point(x, prediction.unsqueeze(1), target.unsqueeze(1), cells=cells)

    @property
    def n_cell(self) -> int:
        return max(2, round(self.cell * self.n_pixels))

    def caption(self) -> str:
        return (
            f"Two cells of {self.n_cell} pixels of value {self.value:g} in a frame of {self._size} "
            "slide over each other. The pixels in both are missed, all others are right. A loss "
            "with a cover counts a shared pixel in both cells, and the rest of the frame as a cell "
            "of its own; the other losses see the values alone."
        )


@dataclass(frozen=True, kw_only=True)
class Probability(Scenario):
    """One pixel whose true class has the probability p; the others share the rest.

    Example:
        >>> import math
        >>> from dense_imb.curves import Probability, sweep
        >>> from dense_imb.losses import CrossEntropyLoss
        >>> table = sweep(Probability(points=5), {"cross-entropy": CrossEntropyLoss()})
        >>> [round(p, 2) for p in table.axis.values]
        [0.0, 0.01, 0.5, 0.9, 1.0]
        >>> [round(math.exp(-loss), 2) for loss in table["cross-entropy"]]
        [0.0, 0.01, 0.5, 0.9, 1.0]
    """

    name = "probability"
    title = "Response to the probability of the true class"
    axis = ("probability of the true class", "1")
    feeds_on = "logits"
    view = View(y_scale="symlog")

    def __iter__(self) -> Iterator[Point]:
        # most points lie below 0.1, where the losses differ, and some close to 1
        low = np.geomspace(1e-5, 0.1, self.points // 2)
        rest = np.geomspace(0.1, 1e-3, max(self.points // 8, 1))[1:]
        near_one = 1 - np.append(rest, EPS)
        middle = np.linspace(0.1, 0.9, self.points - low.size - near_one.size)[1:]
        grid = _through(np.concatenate([[EPS], low, middle, near_one]), [0.01, 0.5, 0.9])
        target = torch.ones(1, 1, 1, dtype=torch.long)
        for probability in grid.tolist():
            yield Point(probability, log_probabilities(target, probability, 2), target)

    def caption(self) -> str:
        return (
            "One pixel of two classes; the logits are log-probabilities that give the true class "
            f"the probability p exactly. The sweep runs from p = {EPS:g} to p = 1 - {EPS:g}: 0 and "
            "1 themselves have no finite logits."
        )


@dataclass(frozen=True, kw_only=True)
class ClassFrequency(_Frames):
    """One rare class grows from a pixel to half the frame, with one error rate in every class.

    Example:
        >>> from dense_imb.curves import ClassFrequency, sweep
        >>> from dense_imb.losses import Balance, CrossEntropyLoss
        >>> scenario = ClassFrequency(frame=(8, 8), points=5)
        >>> table = sweep(scenario, {"balanced": CrossEntropyLoss(balance=Balance())})
        >>> len(set(round(value, 6) for value in table["balanced"]))  # frequency does not matter
        1
    """

    points: int = 40
    error_rate: float = 0.25
    confidence: float = 0.9

    name = "class-frequency"
    title = "Response to the frequency of a rare class"
    axis = ("frequency of the rare class", "fraction of the frame")
    feeds_on = "logits"
    view = View(x_scale="log", y_scale="log")
    n_classes = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_part("error_rate", self.error_rate)
        _check_part("confidence", self.confidence)
        if abs(self._rate - Fraction(self.error_rate)) > 1e-9:
            raise ValueError(
                f"Expected `error_rate` to be a fraction with a denominator up to 20, got "
                f"{self.error_rate}."
            )

    @property
    def _rate(self) -> Fraction:
        return Fraction(self.error_rate).limit_denominator(20)

    def __iter__(self) -> Iterator[Point]:
        wrong, n_frames = self._rate.as_integer_ratio()
        n_common = self.n_classes - 1
        # each pixel is wrong in `wrong` of the frames: a single rare pixel has the exact rate
        turn = torch.arange(n_frames).view(-1, 1)
        for n_rare in _counts(1, self.n_pixels // 2, self.points, spread=np.geomspace):
            common = torch.arange(self.n_pixels - n_rare)
            label = torch.cat([torch.full((n_rare,), n_common), common % n_common])
            place = torch.cat([torch.arange(n_rare), common // n_common])
            is_wrong = (place + turn) % n_frames < wrong
            chosen = torch.where(is_wrong, (label + 1) % self.n_classes, label)
            yield Point(
                n_rare / self.n_pixels,
                log_probabilities(chosen.view(-1, *self.frame), self.confidence, self.n_classes),
                label.expand(n_frames, -1).reshape(-1, *self.frame),
            )

    def caption(self) -> str:
        return (
            f"One of {self.n_classes} classes grows from one pixel to half of a frame of "
            f"{self._size}, the others share the rest evenly. In a batch of "
            f"{self._rate.denominator} frames {self.error_rate:.0%} of the pixels of every class "
            f"are called the next class; each answer has the probability {self.confidence:g}."
        )


@dataclass(frozen=True, kw_only=True)
class _TwoClasses(_Frames):
    """Scenarios of one rare class against the rest, for values and for logits."""

    points: int = 20
    feeds: Literal["values", "logits"] = "values"

    axis = ("frequency of the rare class", "fraction of the frame")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("feeds", self.feeds, ("values", "logits"))
        if self.feeds == "logits":  # class variables of other scenarios
            object.__setattr__(self, "name", f"{self.name}-logits")
            object.__setattr__(self, "title", f"{self.title} (classification)")
        object.__setattr__(self, "feeds_on", self.feeds)

    def _targets(self) -> Iterator[tuple[float, Tensor]]:
        for n_rare in _counts(1, self.n_pixels // 2, self.points, spread=np.geomspace):
            yield n_rare / self.n_pixels, self._filled(n_rare)

    @property
    def _hits(self) -> str:
        return f"hits of value {self.value:g}" if self.feeds_on == "values" else "the rare class"


@dataclass(frozen=True, kw_only=True)
class Collapse(_TwoClasses):
    """Losses of a blank frame, of the best constant and of a perfect answer.

    Example:
        >>> import torch
        >>> from dense_imb.curves import Collapse, sweep
        >>> from dense_imb.losses import ACBMSELoss
        >>> losses = {"MSE": torch.nn.MSELoss(), "ACB-MSE": ACBMSELoss()}
        >>> table = sweep(Collapse(frame=(10, 10), points=4), losses)
        >>> blank = [one for one in table.curves if one.quantity == "loss of a blank frame"]
        >>> [(one.name, round(one.values[0])) for one in blank]  # with one hit in 100 pixels
        [('MSE', 100), ('ACB-MSE', 10000)]
    """

    confidence: float = 0.999

    name = "collapse"
    title = "What a blank frame scores: the depth of the trap"
    answer = "a blank frame"
    view = View(
        quantities=("loss of a blank frame", "loss of the best constant"),
        x_scale="log",
        y_scale="log",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_part("confidence", self.confidence)

    def __iter__(self) -> Iterator[Point]:
        for x, hits in self._targets():
            if self.feeds_on == "values":
                constants = self._constant_value
                blank, perfect, target = torch.zeros_like(hits), hits, hits
            else:
                constants = self._constant_logits
                target = (hits[:, 0] != 0).long()
                blank = log_probabilities(torch.zeros_like(target), self.confidence, 2)
                perfect = log_probabilities(target, self.confidence, 2)
            others: dict[str, Tensor | Constants] = {
                "the best constant": constants,
                "a perfect answer": perfect,
            }
            yield Point(x, blank, target, others)

    def _constant_value(self, part: float) -> Tensor:
        return self._filled(self.n_pixels, part * self.value)

    def _constant_logits(self, part: float) -> Tensor:
        # the odds of the rare class against the rest go from e^-12 to e^12
        log_odds = np.array([12 - 24 * part, 24 * part - 12])
        logits = torch.from_numpy(-np.log1p(np.exp(-log_odds)))
        return logits.view(1, 2, 1, 1).expand(1, 2, *self.frame)

    def caption(self) -> str:
        sure = f" A blank and a perfect answer are {self.confidence:.1%} sure of themselves."
        return (
            f"The share of {self._hits} in a frame of {self._size} grows from one pixel to half. "
            "A blank frame, the best of all constant answers and a perfect answer are scored. "
            "Where the blank frame is as good as the best constant and close to perfect, a network "
            "has little to gain by leaving it." + (sure if self.feeds_on == "logits" else "")
        )


@dataclass(frozen=True, kw_only=True)
class GradientShare(_TwoClasses):
    """Share of the total gradient that each class receives, against its frequency.

    Example:
        >>> import torch
        >>> from dense_imb.curves import GradientShare, sweep
        >>> table = sweep(GradientShare(frame=(10, 10), points=4), {"MSE": torch.nn.MSELoss()})
        >>> share = next(one for one in table.curves if one.quantity.endswith("the rare class"))
        >>> table.axis.values[0], round(share.values[0], 3)
        (0.01, 0.083)
    """

    given: float = 0.1

    name = "gradient-share"
    title = "Share of the gradient that the rare class receives"
    shares = ("the background", "the rare class")
    view = View(
        quantities=("gradient share of the rare class",),
        x_scale="log",
        y_scale="log",
        diagonal="share = frequency",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_part("given", self.given)

    def __iter__(self) -> Iterator[Point]:
        for x, hits in self._targets():
            if self.feeds_on == "values":
                yield Point(x, self._filled(self.n_pixels, self.given * self.value), hits)
            else:
                target = (hits[:, 0] != 0).long()
                rare = torch.ones_like(target)
                yield Point(x, log_probabilities(rare, self.given, 2), target)

    def caption(self) -> str:
        everywhere = (
            f"the constant {self.given * self.value:g}"
            if self.feeds_on == "values"
            else f"the probability {self.given:g} for the rare class"
        )
        return (
            f"The share of {self._hits} in a frame of {self._size} grows from one pixel to half; "
            f"the answer is {everywhere} at every pixel. The gradient's magnitude is summed over "
            "the pixels of a class and divided by the sum over all."
        )


def log_probabilities(label: Tensor, probability: float, n_classes: int) -> Tensor:
    """Return logits (B, C, *spatial) with exactly `probability` for class `label` (B, *spatial)."""
    rest = np.log1p(-probability) - np.log(n_classes - 1)
    shape = (label.shape[0], n_classes, *label.shape[1:])
    logits = torch.full(shape, float(rest), dtype=torch.double)
    return logits.scatter_(1, label.unsqueeze(1), float(np.log(probability)))


def _counts(
    first: int,
    last: int,
    points: int,
    *,
    step: int = 1,
    spread: Any = np.linspace,
    through: Sequence[int] = (),
) -> list[int]:
    """Return at most `points` multiples of `step` from first to last, with the numbers wanted."""
    grid = np.round(spread(first, last, points) / step).astype(int) * step
    return [int(count) for count in _through(np.unique(grid), through)]


def _through(grid: Any, wanted: Sequence[float]) -> Any:
    """Move the nearest inner points of a grid to the numbers wanted."""
    for number in wanted:
        if len(grid) > 2 and number not in grid:
            grid[1 + np.abs(grid[1:-1] - number).argmin()] = number
    return grid


def _check_part(name: str, part: float) -> None:
    if not 0 < part < 1:
        raise ValueError(f"Expected `{name}` between 0 and 1, got {part}.")


# series of predictions that `dense-imb curves` draws, by name
SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        SignalSize(),
        Recovery(),
        Probability(),
        ClassFrequency(),
        ValueResidual(),
        OverlappingCells(),
        Collapse(),
        Collapse(feeds="logits"),
        GradientShare(),
        GradientShare(feeds="logits"),
    )
}
