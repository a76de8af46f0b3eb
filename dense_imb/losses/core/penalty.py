"""Penalties: the error of a pixel as a formula phi of the log-probability lp of its class."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dense_imb.base.checks import check_n_entries
from dense_imb.losses.core.groups import class_tensor


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

    def log_slope(self, lp: Tensor, rest: Tensor) -> Tensor:
        """Return log |dphi/dlp|, for natural probabilities; only penalties with an inverse have it.

        Args:
            lp: log p.
            rest: log(1 - p), exact where p is nearly 1.
        """
        raise NotImplementedError

    @property
    def no_inverse(self) -> str | None:
        """Reason why the outputs give no probability; None if they do."""
        has_slope = type(self).log_slope is not Penalty.log_slope
        return None if has_slope else f"its penalty {type(self).__name__} has no `log_slope`"


@dataclass(frozen=True)
class CrossEntropy(Penalty):
    """phi = -lp.

    Example:
        >>> import torch
        >>> from dense_imb.losses import CrossEntropy
        >>> CrossEntropy()(torch.tensor([-1.0, -2.0]))  # of log-probabilities
        tensor([1., 2.])
    """

    def __call__(self, lp: Tensor) -> Tensor:
        return -lp


def factor_of_penalty(penalty: Penalty | None, n_classes: int, like: Tensor) -> Tensor | None:
    """Return the penalty's factor of each class, (C,); None without one."""
    if penalty is None or penalty.factor_of_class is None:
        return None
    check_n_entries("alpha", penalty.factor_of_class, n_classes)
    return class_tensor(penalty.factor_of_class, like).to(like.dtype)


def check_penalty(penalty: object) -> None:
    """Refuse an object that is not a penalty; None is cross-entropy."""
    if penalty is not None and not isinstance(penalty, Penalty):
        raise TypeError(
            "Expected `penalty` to be CrossEntropy(), Focal(), HardMining() or Linear(), "
            f"got {type(penalty).__name__}."
        )
