"""Penalties: the error of a pixel as a formula phi of the log-probability lp of its class."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


class Penalty:
    """Base class of penalties, phi(lp). A penalty is a value: it compares, pickles and prints.

    Example:
        >>> class Squared(Penalty):  # (1 - p)^2
        ...     def __call__(self, lp):
        ...         return torch.expm1(lp) ** 2
        >>> PixelLoss(Squared())(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.2500)
    """

    @property
    def factor_of_class(self) -> tuple[float, ...] | None:
        """One factor for each class, where the penalty has them."""
        return None

    def __call__(self, lp: Tensor) -> Tensor:
        """Return phi of log-probabilities of any shape."""
        raise NotImplementedError


@dataclass(frozen=True)
class CrossEntropy(Penalty):
    """phi = -lp."""

    def __call__(self, lp: Tensor) -> Tensor:
        return -lp


def check_penalty(penalty: object) -> None:
    """Refuse an object that is not a penalty; None is cross-entropy."""
    if penalty is not None and not isinstance(penalty, Penalty):
        raise TypeError(
            "Expected `penalty` to be CrossEntropy(), Focal() or HardMining(), "
            f"got {type(penalty).__name__}."
        )
