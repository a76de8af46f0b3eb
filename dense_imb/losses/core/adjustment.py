"""Adjustments: changes of the logits that depend on the number of pixels of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from dense_imb.base.checks import check_n_entries
from dense_imb.losses.core.counts import class_counts_of
from dense_imb.losses.core.groups import class_tensor


@dataclass(frozen=True)
class Adjustment:
    """Base class of adjustments. Called with logits and labels, it returns adjusted logits.

    Args:
        class_counts: pixels of each class in the training data (or their shares), a sequence or a
            `ClassStatistics`.
    """

    class_counts: Any

    takes_soft_targets: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_counts", class_counts_of(self.class_counts))

    def per_class(self, values: Sequence[float], logits: Tensor) -> Tensor:
        """Return one number for each class in a shape that broadcasts against the logits."""
        check_n_entries("class_counts", values, logits.shape[1])
        shape = (1, -1) + (1,) * (logits.dim() - 2)
        return class_tensor(values, logits).to(logits.dtype).view(shape)

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """Adjust logits (B, C, *spatial) with labels (B, *spatial)."""
        raise NotImplementedError

    def per_class_terms(self) -> dict[str, tuple[float, ...]]:
        """Return `scale`, `shift` and `margin` of each class, as far as they are used.

            adjusted logit of class k = scale_k z_k + shift_k - [k = y] margin_k

        Natural probabilities need them; an adjustment without them has none.
        """
        raise NotImplementedError


def check_adjustment(adjustment: object) -> None:
    """Refuse an object that is not an adjustment; None leaves the logits alone."""
    if adjustment is not None and not isinstance(adjustment, Adjustment):
        raise TypeError(
            "Expected `adjustment` to be LogPrior, Temperature or Margin, "
            f"got {type(adjustment).__name__}."
        )


def adjust_logits(adjustment: Adjustment | None, logits: Tensor, label: Tensor) -> Tensor:
    """Return the adjusted logits, or the logits themselves without an adjustment."""
    if adjustment is None:
        return logits
    # by name: torch 2.10 hashes what it calls, before the object has its fields
    return adjustment.__call__(logits, label)


def refuses_soft(adjustment: Adjustment | None) -> str | None:
    """Return the adjustment's name if it refuses soft targets, else None."""
    if adjustment is None or adjustment.takes_soft_targets:
        return None
    return type(adjustment).__name__
