"""Overlap indices: Dice, Jaccard, Tversky, Matthews and generalised Dice of soft counts."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least


class Overlap(NamedTuple):
    """Soft counts of each class or instance: sums of probabilities over its pixels.

    All four have one shape, with the classes last; they are float64 (float32 on Apple's GPUs).

    Example:
        >>> import torch
        >>> from dense_imb.losses import Overlap, overlap
        >>> probability = torch.tensor([[[0.8, 0.5], [0.2, 0.5]]])  # (B, C, n_pixels)
        >>> sums = overlap(probability.log(), torch.tensor([[0, 1]]))  # an Overlap
        >>> [[round(n, 3) for n in one[0].tolist()] for one in (sums.tp, sums.fn)]
        [[0.8, 0.5], [0.2, 0.5]]
    """

    tp: Tensor  # sum of p over the pixels of the class
    fp: Tensor  # sum of p over the other pixels
    fn: Tensor  # sum of 1 - p over the pixels of the class
    tn: Tensor  # sum of 1 - p over the other pixels


class Index:
    """Base class of overlap indices: 1 for a perfect prediction. An index compares and pickles.

    Any function of an `Overlap` serves as an index, too.

    Example:
        >>> f2 = lambda o: 5 * o.tp / (5 * o.tp + 4 * o.fn + o.fp)
        >>> RegionLoss(f2)(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]]))
        tensor(0.5833)
        >>> isinstance(Dice(), Index)
        True
    """

    is_joint: ClassVar[bool] = False  # one number for all classes, not one for each

    def __call__(self, overlap: Overlap) -> Tensor:
        """Return one number for each class, or one for all with `is_joint`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Dice(Index):
    """(2 tp + s) / (2 tp + fp + fn + s), the F1 score.

    Args:
        smooth: s, added above and below. A large one may train a blank network.

    Example:
        >>> Dice()(Overlap(*torch.tensor([3.0, 1.0, 1.0, 5.0])))
        tensor(0.7500)
    """

    smooth: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("smooth", self.smooth, 0)

    def __call__(self, overlap: Overlap) -> Tensor:
        tp, fp, fn, _ = overlap
        return (2 * tp + self.smooth) / (2 * tp + fp + fn + self.smooth)


@dataclass(frozen=True)
class Jaccard(Index):
    """(tp + s) / (tp + fp + fn + s), the intersection over union.

    Args:
        smooth: s, added above and below.

    Example:
        >>> Jaccard()(Overlap(*torch.tensor([3.0, 1.0, 1.0, 5.0])))
        tensor(0.6000)
    """

    smooth: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("smooth", self.smooth, 0)

    def __call__(self, overlap: Overlap) -> Tensor:
        tp, fp, fn, _ = overlap
        return (tp + self.smooth) / (tp + fp + fn + self.smooth)


@dataclass(frozen=True)
class Tversky(Index):
    """(tp + s) / (tp + alpha fp + beta fn + s) (Salehi et al., 2017, arXiv 1706.05721).

    Args:
        alpha: cost of a false positive.
        beta: cost of a false negative. alpha = beta = 1/2 is Dice, 1 is Jaccard.
        smooth: s, added above and below.

    Example:
        >>> Tversky(0.3, 0.7)(Overlap(*torch.tensor([3.0, 0.0, 1.0, 5.0])))
        tensor(0.8108)
    """

    alpha: float = 0.5
    beta: float = 0.5
    smooth: float = 0.0

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "smooth"):
            check_at_least(name, getattr(self, name), 0)
        if self.alpha == self.beta == 0:
            raise ValueError("Expected `alpha` or `beta` above 0, got 0 for both: no pixel costs.")

    def __call__(self, overlap: Overlap) -> Tensor:
        tp, fp, fn, _ = overlap
        return (tp + self.smooth) / (tp + self.alpha * fp + self.beta * fn + self.smooth)


@dataclass(frozen=True)
class Matthews(Index):
    """Matthews correlation of prediction and class, from -1 to 1.

        (tp tn - fp fn + s) / sqrt((tp + fp) (tp + fn) (tn + fp) (tn + fn) + s)

    Args:
        smooth: s. 0 gives NaN for a class that fills the frame.

    Example:
        >>> Matthews()(Overlap(*torch.tensor([3.0, 1.0, 1.0, 5.0])))
        tensor(0.5833)
    """

    smooth: float = 1e-5

    def __post_init__(self) -> None:
        check_at_least("smooth", self.smooth, 0)

    def __call__(self, overlap: Overlap) -> Tensor:
        tp, fp, fn, tn = overlap
        product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        return (tp * tn - fp * fn + self.smooth) / (product + self.smooth).sqrt()


@dataclass(frozen=True)
class GeneralizedDice(Index):
    """2 sum_k w_k tp_k / sum_k w_k (2 tp_k + fp_k + fn_k), w_k = 1 / n_k^power, of all classes.

    From Sudre et al., 2017, arXiv 1707.03237. A class without pixels gets the largest weight of
    the others.

    Args:
        power: 2 as published; 1 and 0 are MONAI's "simple" and "uniform".
        smooth: added above and below.

    Example:
        >>> GeneralizedDice(0, 0)(Overlap(*torch.tensor([3.0, 1.0, 1.0, 5.0]).unsqueeze(1)))
        tensor(0.7500)
    """

    power: float = 2.0
    smooth: float = 1e-5

    is_joint: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_at_least("power", self.power, 0)
        check_at_least("smooth", self.smooth, 0)

    def __call__(self, overlap: Overlap) -> Tensor:
        tp, fp, fn, _ = overlap
        size = tp + fn  # of the class, a constant
        is_present = size > 0
        weight = torch.where(is_present, size, 1.0).detach() ** -self.power
        weight = torch.where(is_present, weight, 0.0)
        weight = torch.where(is_present, weight, weight.amax(-1, keepdim=True))
        above = 2 * (weight * tp).sum(-1) + self.smooth
        return above / ((weight * (2 * tp + fp + fn)).sum(-1) + self.smooth)


def check_index(index: object) -> None:
    """Refuse an index that is no function of an `Overlap`."""
    wanted = (
        "Expected `index` to be Dice(), Jaccard(), Tversky(), Matthews(), GeneralizedDice() or a "
        "function of an Overlap"
    )
    if isinstance(index, type):
        raise TypeError(f"{wanted}, got the class {index.__name__}; write {index.__name__}().")
    if not callable(index):
        raise TypeError(f"{wanted}, got {index!r}.")
    try:
        signature = inspect.signature(index)
    except ValueError:  # of a function without one
        return
    try:
        signature.bind(None)
    except TypeError:
        raise TypeError(
            f"{wanted}, got one of {signature}; an index takes one Overlap, whose fields are the "
            "four counts: lambda o: o.tp / (o.tp + o.fp + o.fn)."
        ) from None
