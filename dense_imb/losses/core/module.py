"""Base class of the loss Modules."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.nn.modules.loss import _Loss

from dense_imb.losses.core.natural import Natural, NoInverseError


class Loss(_Loss):
    """A loss that prints its arguments. Like MONAI's and torch's losses it is a `_Loss`.

    `shown` names the attributes that are printed, `no_probability` the reason why outputs trained
    with this loss give no probabilities.
    """

    shown: tuple[str, ...] = ()
    no_probability: ClassVar[str] = (
        "its best outputs do not depend on the class probabilities alone"
    )

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)

    def probability(self, logits: Tensor, class_share: Any = None) -> Tensor:
        """Return the natural probabilities of outputs trained with this loss.

        They are those of data with the class frequencies of the training data. A loss without an
        inverse refuses, with its reason.

        Args:
            logits: outputs of the network.
            class_share: fraction of pixels of each class in training; a balance needs it.
        """
        raise self.refuse_probability(self.no_probability)

    def natural(self, n_classes: int, class_share: Any = None) -> Natural:
        """Return the map from logits to natural logits, see `probability`.

        Args:
            n_classes: number of classes.
            class_share: see `probability`.
        """
        raise self.refuse_probability(self.no_probability)

    def refuse_probability(self, reason: str) -> NoInverseError:
        """Return the error of a loss without an inverse."""
        return NoInverseError(f"`{type(self).__name__}` gives no probabilities: {reason}.")

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.shown)
