"""Natural probabilities by a fit: slope and bias of the largest likelihood on labelled data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from dense_imb.base.checks import readable
from dense_imb.base.refusals import Refused
from dense_imb.losses.core.natural import Natural
from dense_imb.losses.core.target import pixel_target
from dense_imb.metrics.histogram import LIMIT, ScoreHistogram

_LEAST = 20  # pixels of a class, to fit a bias: fewer give a worse one than the formula
_MOST = 8192  # pixels of a class in a fit of more than two classes

Counted = tuple[Tensor, Tensor]  # logits (n, channels), and how many pixels of each class have them


def fit_probability(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
) -> Natural:
    """Fit natural probabilities on validation data, for the outputs of any loss.

        log P_k = slope_k log q_k + bias_k,   q = softmax(z);   logit P = slope z + bias of binary z

    The data must have the class frequencies of those to predict, and must not have trained the
    network. `fit_probability(...).probability(logits)` are the probabilities of other logits.

    Args:
        logits: z, (B, C, *spatial) or (pixels, C) of many images together; C = 1 is binary.
        target: class of each pixel, at least 20 pixels of each class; see `pixel_loss`.
        ignore_index: label of ignored pixels.
        mask: nonzero where a pixel counts.

    Example:
        >>> z, label = torch.tensor([[-1.0], [1.0]]).repeat(100, 1), torch.zeros(200).long()
        >>> label[1:120:2] = 1  # 60 of the 100 pixels of the logit 1
        >>> label[0:40:2] = 1  # 20 of the 100 pixels of the logit -1
        >>> fit_probability(z, label).probability(torch.tensor([[-1.0], [1.0]])).flatten()
        tensor([0.1964, 0.6049])
    """
    logits, target, mask = readable(logits=logits, target=target, mask=mask)
    pixels = pixel_target(
        logits,
        target,
        ignore_index=ignore_index,
        mask=mask,
        soft_for="a fit of probabilities",
        keep_binary=True,
    )
    z, label = pixels.logits.detach().movedim(1, -1), pixels.label
    if pixels.valid is not None:
        z, label = z[pixels.valid], label[pixels.valid]
    z, label = z.reshape(-1, z.shape[-1]).cpu(), label.reshape(-1).cpu()
    if not bool(z.isfinite().all()):
        raise ValueError(
            "Expected `logits` to be finite, got "
            f"{float(z[~z.isfinite()][0])}; look for it in the network."
        )
    n_classes = pixels.n_classes
    if n_classes > 2:
        counted = counted_pixels([(z, label)], n_classes, 1)
    else:
        histogram = ScoreHistogram(scale="logit")
        histogram.update(z[:, -1] - z[:, 0] if z.shape[1] == 2 else z[:, 0], label > 0)
        counted = counted_bins(histogram)
    return fitted(Natural((1.0,) * n_classes), counted, affine=True)


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
