"""What the Modules of this library share."""

from __future__ import annotations

from torch.nn.modules.loss import _Loss


class Loss(_Loss):
    """A loss that says its arguments when printed, as MONAI's and torch's losses are: a `_Loss`."""

    shown: tuple[str, ...] = ()

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.shown)
