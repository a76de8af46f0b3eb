"""Adjustments of the logits that tell a loss how often each class occurs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from dense_imb.base.checks import (
    check_at_least,
    check_finite,
    check_n_entries,
    trains_eagerly,
)
from dense_imb.losses.core.balance import class_tensor
from dense_imb.losses.core.counts import class_counts_of


@dataclass(frozen=True)
class Adjustment:
    """Logits (B, C, *spatial) and labels (B, *spatial) to logits.

    Args:
        class_counts: pixels of each class in the training data (or their shares), a sequence or a
            `ClassStatistics`.
    """

    class_counts: Any

    takes_soft_targets: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_counts", class_counts_of(self.class_counts))

    def of_class(self, values: Sequence[float], logits: Tensor) -> Tensor:
        """One number for each class, shaped to meet the logits."""
        check_n_entries("class_counts", values, logits.shape[1])
        shape = (1, -1) + (1,) * (logits.dim() - 2)
        return class_tensor(values, logits).to(logits.dtype).view(shape)

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class LogPrior(Adjustment):
    """z_k + tau (log prior_k - log test prior_k), prior_k = n_k / sum n.

    Args:
        class_counts: n_k of the training data.
        tau: strength.
        test_counts: the same of the data to come; all classes alike by default.
    """

    tau: float = 1.0
    test_counts: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("tau", self.tau)
        if self.test_counts is not None:
            counts = class_counts_of(self.test_counts, "test_counts")
            check_n_entries("test_counts", counts, len(self.class_counts))
            object.__setattr__(self, "test_counts", counts)

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        shift = _log_shares(self.class_counts)
        if self.test_counts is not None:
            shift = [s - t for s, t in zip(shift, _log_shares(self.test_counts), strict=True)]
        return logits + self.of_class([self.tau * s for s in shift], logits)


@dataclass(frozen=True)
class Temperature(Adjustment):
    """z_k / n_k^power: a class-dependent temperature.

    Args:
        class_counts: n_k of the training data.
        power: 0.5 in the published code.
    """

    power: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("power", self.power)

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        return logits * self.of_class([n**-self.power for n in self.class_counts], logits)


@dataclass(frozen=True)
class Margin(Adjustment):
    """s (z_k - [k = y] m_y), m_k = max_margin (n_min / n_k)^(1/4): rare classes get wide margins.

    Args:
        class_counts: n_k of the training data.
        max_margin: the margin of the rarest class.
        scale: s.
    """

    max_margin: float = 0.5
    scale: float = 30.0

    takes_soft_targets: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("max_margin", self.max_margin, 0)
        check_at_least("scale", self.scale, 0)

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        least = min(self.class_counts)
        margins = [self.scale * self.max_margin * (least / n) ** 0.25 for n in self.class_counts]
        of_class = self.of_class(margins, logits).flatten()
        margin = of_class.index_select(0, label.reshape(-1)).view_as(label).unsqueeze(1)
        scaled = self.scale * logits
        # taken from the logit, not from the log-probability: near p = 1 that has no digits left
        if trains_eagerly(logits):
            return scaled.scatter_add_(1, label.unsqueeze(1), -margin)
        return scaled.scatter_add(1, label.unsqueeze(1), -margin)


def _log_shares(counts: Sequence[float]) -> list[float]:
    total = math.fsum(counts)
    return [math.log(count / total) for count in counts]


def check_adjustment(adjustment: object) -> None:
    """Refuse what is not an adjustment."""
    if adjustment is not None and not isinstance(adjustment, Adjustment):
        raise TypeError(
            "Expected `adjustment` to be LogPrior, Temperature or Margin, "
            f"got {type(adjustment).__name__}."
        )


def adjusted(adjustment: Adjustment | None, logits: Tensor, label: Tensor) -> Tensor:
    """The logits, adjusted if there is anything to adjust by."""
    return logits if adjustment is None else adjustment(logits, label)
