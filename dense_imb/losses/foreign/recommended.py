"""The loss to begin with: `dense-imb inspect` recommends it, `dense-imb train` takes it.

The choices are measured: experiments/README.md and experiments/which_loss/README.md have the
tables. Each one is a text as in the configuration of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MOSTLY_EMPTY = 0.1  # fraction of values other than 0, below which maps are mostly empty
MILD = 10.0  # pixels of the largest class over those of the smallest


class Recommendation(NamedTuple):
    """A loss for a data set.

    Args:
        loss: text of the loss, as `--loss` takes it.
        reason: what the loss is for, "a foreground of 0.14 %".
    """

    loss: str
    reason: str

    def sentence(self) -> str:
        """Return the line that `train` prints; the option is in braces.

        Example:
            >>> print(recommended_for_pixels([9986, 14]).sentence())
            loss: BalancedSoftmaxLoss, as `dense-imb inspect` recommends for a foreground of \
0.14 %; {loss} overrides
        """
        return (
            f"loss: {self.loss}, as `dense-imb inspect` recommends for {self.reason}; "
            "{loss} overrides"
        )


def recommended_for_pixels(class_counts: Sequence[int]) -> Recommendation:
    """Recommend a loss for the segmentation of images.

    Args:
        class_counts: pixels of each class, background first.

    Example:
        >>> recommended_for_pixels([9986, 14])
        Recommendation(loss='BalancedSoftmaxLoss', reason='a foreground of 0.14 %')
        >>> recommended_for_pixels([600, 400]).loss, recommended_for_pixels([900, 9, 1]).loss
        ('CrossEntropyLoss', 'CrossEntropyLoss')
    """
    present = [count for count in class_counts if count > 0]
    if len(present) < 2:
        return Recommendation("CrossEntropyLoss", "a single class")
    if len(class_counts) > 2:
        return Recommendation("CrossEntropyLoss", f"{len(class_counts)} classes")
    share = f"a foreground of {100 * class_counts[1] / sum(class_counts):.2g} %"
    is_mild = max(present) <= MILD * min(present)
    return Recommendation("CrossEntropyLoss" if is_mild else "BalancedSoftmaxLoss", share)


def recommended_for_values(class_counts: Sequence[int], edges: Sequence[float]) -> Recommendation:
    """Recommend a loss for maps of values.

    Args:
        class_counts: values that are 0, and others.
        edges: edges of value bins, none of them empty.

    Example:
        >>> print(recommended_for_values([990, 10], [0.1, 0.5]).loss)
        BalancedRegressionLoss("mse", ValueBins([0.1, 0.5], power=0.5))
        >>> recommended_for_values([1, 1], [0.1, 0.5])
        Recommendation(loss='torch.nn:MSELoss', reason='maps in which 50 % of the values are not 0')
    """
    share = class_counts[1] / max(sum(class_counts), 1)
    reason = f"maps in which {100 * share:.2g} % of the values are not 0"
    if not edges or share >= MOSTLY_EMPTY:
        return Recommendation("torch.nn:MSELoss", reason)
    return Recommendation(value_bins_loss(edges, power=0.5), reason)


def value_bins_loss(edges: Sequence[float], power: float = 1.0) -> str:
    """Return the text of the mean squared error over value bins.

    Args:
        edges: edges of the bins.
        power: power of the bins, see `ValueBins`.

    Example:
        >>> print(value_bins_loss([0.1, 0.5]))
        BalancedRegressionLoss("mse", ValueBins([0.1, 0.5]))
    """
    options = "" if power == 1 else f", power={power:g}"
    return f'BalancedRegressionLoss("mse", ValueBins({[*edges]}{options}))'


def recommended_for_hits() -> Recommendation:
    """Recommend a loss for networks of hits, whatever the share of the noise."""
    return Recommendation("CrossEntropyLoss", "networks of hits")


def recommended_for_frames(*, is_value: bool = False) -> Recommendation:
    """Recommend a loss for networks of frames.

    Args:
        is_value: the network predicts values, not scores.
    """
    if is_value:
        return Recommendation("ACBMSELoss", "frames of values")
    return Recommendation("BalancedSoftmaxLoss", "networks of frames")
