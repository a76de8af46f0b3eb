"""Natural probabilities: the class probabilities of the data, from the outputs of a network.

A loss that weighs classes, or adjusts the logits, trains outputs that answer for other class
frequencies than those of the data. With the weight a_k of a pixel of class k, the penalty phi and
q = softmax(adjust(z)), the minimum of sum_k a_k P(k|x) phi(log q_k) lies where
P(k|x) a_k phi'(log q_k) / q_k is the same for every class. Hence

    P(k|x)  ~  q_k / (a_k |phi'(log q_k)|)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import check_floating, check_n_entries, class_numbers, widen_half
from dense_imb.losses.core.balance import Balance
from dense_imb.losses.core.groups import class_tensor
from dense_imb.losses.core.penalty import Penalty

_SMALL = 1e-3  # below it, -log(1 - r) / r is its series


class NoInverseError(ValueError):
    """The outputs of a loss cannot be turned into probabilities; a fit on data can."""

    @property
    def reason(self) -> str:
        """The sentence without its cure and full stop."""
        return str(self.args[0]).rstrip(".")

    def __str__(self) -> str:
        cure = (
            "fit them on validation data with dense_imb.metrics.fit_probability(logits, target), "
            "or train a run with calibrate=True (--calibrate true)"
        )
        return f"{self.reason}; {cure}."


@dataclass(frozen=True)
class Natural:
    """Map from the logits of a network to those of natural probabilities.

        q = softmax(scale z + shift),   o_k = log-probability of class k as its own loss sees it
        log P_k = log q_k + d_k - log |phi'(o_k)| - log a_k
        d_k = log(1 - q_k + q_k exp(-margin_k)),   o_k = log q_k - margin_k - d_k

    Without a margin d is 0. An optional fit on validation data follows: slope_k log P_k + bias_k.

    Args:
        weight: a_k, weight of a pixel of each class.
        penalty: phi; None is cross-entropy.
        scale, shift, margin: adjustment of the logits, a number for each class; () is none.
        plain: fraction of the loss on logits without the adjustment, for cross-entropy only.
        slope, bias: fit on validation data, a number for each class; () is none.

    Example:
        >>> Natural((1.0, 9.0)).probability(torch.tensor([[0.0, 2.1972]]))
        tensor([[0.5000, 0.5000]])
    """

    weight: tuple[float, ...]
    penalty: Penalty | None = None
    scale: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()
    margin: tuple[float, ...] = ()
    plain: float = 0.0
    slope: tuple[float, ...] = ()
    bias: tuple[float, ...] = ()

    @property
    def is_identity(self) -> bool:
        """Whether outputs are natural as they are."""
        given = (self.scale, self.shift, self.margin, self.slope, self.bias)
        return self.penalty is None and not any(given) and len({*self.weight}) == 1

    def logits(self, z: Tensor, dim: int = 1) -> Tensor:
        """Return natural logits in the shape of z: log-odds of one channel, else log P.

        Args:
            z: logits with one channel, or one for each class.
            dim: dimension of the channels.
        """
        check_channels(z)
        z = widen_half(z).movedim(dim, 1)
        is_binary = z.shape[1] == 1
        if is_binary:
            z = torch.cat([torch.zeros_like(z), z], 1)
        check_n_entries("class_share", self.weight, z.shape[1])
        natural = self._fitted(self._inverted(z))
        odds = natural[:, 1:] - natural[:, :1] if is_binary else torch.log_softmax(natural, 1)
        return odds.movedim(1, dim)

    def probability(self, z: Tensor, dim: int = 1) -> Tensor:
        """Return natural probabilities in the shape of z; of one channel, the foreground's."""
        natural = self.logits(z, dim)
        return natural.sigmoid() if z.shape[dim] == 1 else natural.exp()

    def _inverted(self, z: Tensor) -> Tensor:
        adjusted = z * _per_class(self.scale, z) if self.scale else z
        adjusted = adjusted + _per_class(self.shift, z) if self.shift else adjusted
        lq = torch.log_softmax(adjusted, 1)
        if 0 < self.plain < 1:
            parts = torch.log_softmax(z, 1), lq
            shares = [math.log(self.plain), math.log(1 - self.plain)]
            lq = torch.logaddexp(parts[0] + shares[0], parts[1] + shares[1])
        natural = lq - _per_class([math.log(weight) for weight in self.weight], z)
        if self.penalty is None and not self.margin:
            return natural
        own, rest = lq, log_complement(lq)
        if self.margin:
            margin = _per_class(self.margin, z)
            d = torch.logaddexp(rest, lq - margin)
            own, rest, natural = lq - margin - d, rest - d, natural + d
        return natural if self.penalty is None else natural - self.penalty.log_slope(own, rest)

    def _fitted(self, natural: Tensor) -> Tensor:
        if self.slope:
            natural = torch.log_softmax(natural, 1) * _per_class(self.slope, natural)
        return natural + _per_class(self.bias, natural) if self.bias else natural


def check_channels(z: Tensor) -> None:
    """Refuse logits without a dimension of channels, or of integers."""
    check_floating("logits", z)
    if z.dim() < 2:
        raise ValueError(
            f"Expected `logits` of the shape (B, C, *spatial), got {tuple(z.shape)}; "
            "unsqueeze their dimension of images or channels."
        )


def _per_class(values: Sequence[float], z: Tensor) -> Tensor:
    return class_tensor(values, z).to(z.dtype).view(1, -1, *(1,) * (z.dim() - 2))


def log_complement(lq: Tensor) -> Tensor:
    """Return log(1 - q) of log-probabilities (B, C, ...), exact also where q is nearly 1."""
    if lq.shape[1] == 2:
        return lq.flip(1)
    top = lq.argmax(1, keepdim=True)
    others = lq.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True)
    return torch.log1p(-lq.exp().clamp(max=0.5)).scatter(1, top, others)


def focal_log_slope(lp: Tensor, rest: Tensor, gamma: float) -> Tensor:
    """Return log |dphi/dlp| of phi = -(1 - p)^gamma lp.

        log |phi'| = gamma log(1 - p) + log(1 + gamma p (-lp) / (1 - p))

    Args:
        lp: log p.
        rest: log(1 - p).
        gamma: power of the modulation.
    """
    p, r = lp.exp(), rest.exp()
    some = r.clamp(_SMALL, 0.5)
    ratio = torch.where(r < 0.5, -torch.log1p(-some) / some, -lp / r.clamp(min=0.5))
    series = 1 + r * (1 / 2 + r * (1 / 3 + r * (1 / 4 + r / 5)))
    ratio = torch.where(r < _SMALL, series, ratio)
    return gamma * rest + torch.log1p(gamma * p * ratio)


def class_shares(class_share: Any, n_classes: int, needed_for: str) -> tuple[float, ...]:
    """Return the fractions of the classes, which sum to 1.

    Args:
        class_share: counts or fractions, a sequence, array, tensor or `ClassStatistics`.
        n_classes: number of classes.
        needed_for: what needs them, if `class_share` may be missing.
    """
    if class_share is None:
        raise ValueError(
            f"Expected `class_share`, the fraction of pixels of each class, for {needed_for}, "
            "got none."
        )
    if isinstance(class_share, (int, float)) and n_classes == 2 and 0 < class_share < 1:
        raise TypeError(
            f"Expected `class_share` to hold one number for each class, got {class_share}; write "
            f"({1 - class_share:.10g}, {class_share:.10g}), of background and foreground."
        )
    share = class_numbers("class_share", getattr(class_share, "class_counts", class_share))
    check_n_entries("class_share", share, n_classes)
    for k, value in enumerate(share):
        if value == 0:
            raise ValueError(
                f"Expected `class_share` above 0 for every class, got 0 for class {k}; a class "
                "without pixels has no natural probability."
            )
    return tuple(value / sum(share) for value in share)


def value_probability(prediction: Tensor, weight: Sequence[float]) -> Tensor:
    """Return the natural probability of values trained by squared errors from targets 0 and 1.

        P = f / a_1 / (f / a_1 + (1 - f) / a_0),   f the prediction, cut to [0, 1]

    Args:
        prediction: f, any shape.
        weight: a_0 and a_1, see `balance_weights`.
    """
    check_floating("prediction", prediction)
    value = widen_half(prediction).clamp(0, 1)
    one, zero = value / weight[1], (1 - value) / weight[0]
    return one / (one + zero)


def no_weight_of(balance: Balance | None, per: str) -> str | None:
    """Return the reason why the pixels of a class have no common weight; None if they do.

    Args:
        balance: rule of the mean; None without one.
        per: "pixel", or "instance" for means over instances.
    """
    if per == "instance":
        return 'with per="instance" the weight of a pixel depends on its instance'
    if balance is not None and balance.scope == "image":
        return 'with scope "image" the weight of a pixel depends on its image'
    if balance is not None and balance.power != 1:
        return "with a power the weights of the classes depend on their errors"
    return None


def balance_weights(balance: Balance, share: Sequence[float]) -> tuple[float, ...]:
    """Return the weight of a pixel of each class in a balanced mean.

        a_k = w_k / K * share_k^(g - 1) / mean over the classes of share^g  +  frame_weight / K

    Args:
        balance: rule of the mean, g its `count_power`; see `no_weight_of` for what is left out.
        share: fraction of the pixels of each class.
    """
    n_classes = len(share)
    balance.check_n_classes(n_classes)
    given = balance.combine
    combine = (given,) * n_classes if isinstance(given, str) else given
    n_entries = combine.count("mean") + (balance.frame_weight > 0)
    weight = balance.weight or (1.0,) * n_classes
    g = balance.count_power
    level = sum(s**g for s in share) / n_classes
    frame = balance.frame_weight / (1 if given == "sum" else n_entries)
    return tuple(
        w * s ** (g - 1) / (level * (n_entries if entry == "mean" else 1)) + frame
        for w, s, entry in zip(weight, share, combine, strict=True)
    )


def check_weights(weight: Sequence[float], loss: str) -> tuple[float, ...]:
    """Refuse a class of weight 0: its outputs are not trained."""
    for k, value in enumerate(weight):
        if value == 0:
            raise NoInverseError(
                f"`{loss}` gives no probabilities: class {k} has the weight 0, so the loss says "
                "nothing about it."
            )
    return tuple(weight)
