"""Class-dependent temperatures (Ye et al., 2020, arXiv 2001.01385) of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

from torch import Tensor

from dense_imb.base.checks import check_finite
from dense_imb.losses.core.adjustment import Adjustment
from dense_imb.losses.core.options import MeanOptions, PixelOptions, shows_options
from dense_imb.losses.core.penalty import CrossEntropy, Penalty
from dense_imb.losses.core.pixel_loss import PixelLoss, pixel_loss


@dataclass(frozen=True)
class Temperature(Adjustment):
    """z_k / n_k^power: a class-dependent temperature.

    Args:
        class_counts: n_k of the training data.
        power: 0.5 in the published code.

    Example:
        >>> import torch
        >>> from dense_imb.losses import Temperature
        >>> Temperature((10_000, 100))(torch.ones(1, 2), torch.tensor([0]))  # 1 / sqrt(n)
        tensor([[0.0100, 0.1000]])
    """

    power: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("power", self.power)

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        return logits * self.per_class(self.per_class_terms()["scale"], logits)

    def per_class_terms(self) -> dict[str, tuple[float, ...]]:
        return {"scale": tuple(n**-self.power for n in self.class_counts)}


@shows_options(PixelOptions)
def class_dependent_temperature_loss(
    logits: Tensor,
    target: Tensor,
    *,
    class_counts: Any,
    power: float = 0.5,
    penalty: Penalty | None = None,
    **options: Unpack[PixelOptions],
) -> Any:
    """Cross-entropy of logits divided by a power of each class's frequency.

        loss = mean_i -log softmax(z / n^power)_{y_i}

    Args:
        logits, target, penalty: see `pixel_loss`, also for the other options.
        class_counts: n_k, pixels of each class in the training data, or a `ClassStatistics`.
        power: 0.5 in the published code. Pixel counts run into millions, and 1 / sqrt(n) then
            needs logits in the thousands: pass frequencies (n / n.sum()) or a smaller power.

    Example:
        >>> logits, target = torch.tensor([[1.0, 1.0]]), torch.tensor([1])
        >>> class_dependent_temperature_loss(logits, target, class_counts=[100, 1])
        tensor(0.3412)
    """
    return pixel_loss(
        logits, target, penalty=penalty, adjustment=Temperature(class_counts, power), **options
    )


class ClassDependentTemperatureLoss(PixelLoss):
    """Cross-entropy of logits divided by a power of each class's frequency.

        loss = mean_i -log softmax(z / n^power)_{y_i}

    See `class_dependent_temperature_loss` and `pixel_loss` for the arguments. At call time: `mask`,
    `pixel_weight`, `class_count`, `instance`, `return_parts`.

    Args:
        class_counts: n_k, pixels of each class in the training data, or a `ClassStatistics`.
        power: exponent of n_k.

    Example:
        >>> loss = ClassDependentTemperatureLoss([100, 1])
        >>> loss(torch.tensor([[1.0, 1.0]]), torch.tensor([1]))
        tensor(0.3412)
    """

    @shows_options(MeanOptions)
    def __init__(
        self,
        class_counts: Any,
        power: float = 0.5,
        *,
        penalty: Penalty | None = None,
        **options: Unpack[MeanOptions],
    ) -> None:
        super().__init__(penalty or CrossEntropy(), Temperature(class_counts, power), **options)
