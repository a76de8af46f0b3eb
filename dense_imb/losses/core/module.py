"""Base class of the loss Modules."""

from __future__ import annotations

from torch.nn.modules.loss import _Loss


class Loss(_Loss):
    """A loss that prints its arguments. Like MONAI's and torch's losses it is a `_Loss`.

    `shown` names the attributes that are printed.
    """

    shown: tuple[str, ...] = ()

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.shown)
