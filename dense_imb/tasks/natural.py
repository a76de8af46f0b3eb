"""Natural probabilities of a trained network: the inverse of its loss, and a fit on validation.

The weights of a balance follow from the class counts of the data. What else moves the priors of
training (crops centred on the foreground, class-balanced sampling, mixing, pseudo-labels, weights
of images or events) has no formula: one bias a class, fitted on the validation data, undoes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from dense_imb.base.refusals import Refused
from dense_imb.config import TrainConfig
from dense_imb.losses.core.module import Loss
from dense_imb.losses.core.natural import Natural, NoInverseError
from dense_imb.metrics import ScoreHistogram
from dense_imb.metrics.histogram import LIMIT

_LEAST = 20  # pixels of a class, to fit a bias: fewer give a worse one than the formula
_MOST = 8192  # pixels of a class in a fit of more than two classes


class CalibrationWarning(UserWarning):
    """Probabilities that could not be fitted on the validation data."""


Counted = tuple[Tensor, Tensor]  # logits (n, channels), and how many pixels of each class have them


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


def counted_bins(histogram: ScoreHistogram) -> Counted:
    """Return the middle logits of the bins of a histogram, and their counts of both classes."""
    n_bins = histogram.n_bins
    step = 2 * LIMIT / (n_bins - 2)
    middle = (torch.arange(n_bins, dtype=torch.float64) - (n_bins - 1) / 2) * step
    counts = histogram.counts.double().T
    return middle[:, None], counts


def counted_pixels(outputs: Iterable[tuple[Tensor, Tensor]], n_classes: int, n: int) -> Counted:
    """Return evenly spaced pixels of each class, each with the number that it stands for.

    Args:
        outputs: logits (pixels, n_classes) and classes (pixels,) of images or batches.
        n_classes: number of classes.
        n: number of images or batches.
    """
    most = max(_MOST // max(n, 1), 64)
    logits, counts = [torch.zeros(0, n_classes)], [torch.zeros(0, n_classes, dtype=torch.float64)]
    for z, label in outputs:
        for k in range(n_classes):
            place = (label == k).nonzero()[:, 0]
            chosen = place[:: max(-(-len(place) // most), 1)]
            count = torch.zeros(len(chosen), n_classes, dtype=torch.float64)
            count[:, k] = len(place) / max(len(chosen), 1)
            logits.append(z[chosen])
            counts.append(count)
    return torch.cat(logits).double(), torch.cat(counts)


def fitted(natural: Natural, counted: Counted, *, affine: bool) -> Natural:
    """Return natural logits with the bias, or slope and bias, of the largest likelihood.

        log P'_k = slope_k log P_k + bias_k,   slope_k > 0

    Args:
        natural: map to natural logits, without a fit.
        counted: logits of the network, and the pixels of each class that have them.
        affine: whether to fit slopes too; of two classes it is one.
    """
    z, count = counted
    few = [k for k, n in enumerate(count.sum(0).tolist()) if n < _LEAST]
    if few:
        raise Refused(
            f"at least {_LEAST} validation pixels or hits of every class to fit probabilities on",
            f"fewer of class {', '.join(map(str, few))}",
            "use more validation data",
        )
    log_p = natural.logits(z)
    n_classes = count.shape[1]
    is_binary = log_p.shape[1] == 1
    if is_binary:
        log_p = nn.functional.logsigmoid(torch.cat([-log_p, log_p], 1))
    free = torch.zeros(2, n_classes, dtype=torch.float64, requires_grad=True)  # slope, bias
    total = count.sum()

    def terms() -> tuple[Tensor, Tensor]:
        slope = free[0, :1].expand(n_classes) if is_binary else free[0]
        return slope.exp() if affine else torch.ones_like(slope), free[1] - free[1, 0]

    optimizer = torch.optim.LBFGS(
        [free],
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        slope, bias = terms()
        likelihood = (count * torch.log_softmax(slope * log_p + bias, 1)).sum()
        # as much as one pixel: slopes of separated classes stay finite
        cost = (free[0].square().sum() - likelihood) / total
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    slope, bias = (tuple(term.tolist()) for term in terms())
    return replace(natural, slope=slope if affine else (), bias=bias)
