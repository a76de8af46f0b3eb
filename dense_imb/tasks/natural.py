"""Natural probabilities of a trained network: the inverse of its loss, and a fit on validation.

The weights of a balance follow from the class counts of the data. What else moves the priors of
training (crops centred on the foreground, class-balanced sampling, mixing, pseudo-labels, weights
of images or events) has no formula: one bias a class, fitted on the validation data, undoes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from dense_imb.config import TrainConfig
from dense_imb.losses.core.module import Loss
from dense_imb.losses.core.natural import Natural, NoInverseError


class CalibrationWarning(UserWarning):
    """Probabilities that could not be fitted on the validation data."""


def natural_of(loss: nn.Module, n_classes: int, class_counts: Sequence[int]) -> Natural:
    """Return the map to natural logits of a training loss; raise `NoInverseError` without one.

    Args:
        loss: training loss, with its state at the end of the training.
        n_classes: number of classes.
        class_counts: training pixels (hits) of each class.
    """
    if not isinstance(loss, Loss):
        raise NoInverseError(
            f"`{type(loss).__name__}` gives no probabilities: it is a loss of another library."
        )
    return loss.natural(n_classes, [max(count, 1) for count in class_counts])


def is_plain_sample(config: TrainConfig, loss: nn.Module) -> bool:
    """Return whether training sees pixels as they come, so that no prior is moved but the loss's.

    A balanced mean over few pixels is no such case: a class is missing from some of its batches.
    """
    balances = [getattr(part, "balance", None) for part in loss.modules()]
    return not (
        any(balance is not None for balance in balances)
        or config.is_semi_supervised
        or config.sampling.kind != "instance"
        or config.mixing.kind != "none"
        or (config.images.train is not None and config.images.foreground > 0)
        or config.hits.balance_over != "hits"
    )
