"""Sums of probabilities and penalties over cells of pixels, with one softmax for all of them.

Per class k, with p = softmax(z), the weight u of a pixel and its class y:

    P_k = sum_i u_i p_ik      H_k = sum_{y_i = k} u_i p_ik      L_k = sum_{y_i = k} u_i phi(log p_iy)

Instances have sums of their own in place of H. The gradient is written by hand: training keeps p
and p_y alone, and one pass over them serves every sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dense_imb.base.checks import check_n_entries, is_plain_eager, values_are_readable
from dense_imb.losses.core.balance import class_tensor, wide
from dense_imb.losses.core.cells import Cells, ClassCells
from dense_imb.losses.core.penalty import Penalty

_SMALLEST = 1e-30  # a float32 below it has lost digits, and its logarithm with them


class Request(NamedTuple):
    """Wanted sums of one call.

    owner: (B, S) class whose probability a pixel adds to its own cell.
    own: the cells of these sums.
    weight: (B, S) weights of the own sums; None for 1.
    area: (B, M, S) weights of the sums over whole images; None for one sum with the weight 1.
    classes: cells of the penalties' sums, by the class y of a pixel.
    penalties: phi; None is cross-entropy.
    error_weight: (B, S) weights of the penalties' sums; None for 1.
    """

    owner: Tensor
    own: Cells
    weight: Tensor | None
    area: Tensor | None
    classes: ClassCells
    penalties: tuple[Penalty | None, ...]
    error_weight: Tensor | None

    @property
    def owner_is_class(self) -> bool:
        """Whether a pixel's own cell is that of its class."""
        return self.own is self.classes


class Sums(NamedTuple):
    """Sums over the pixels of a batch in the wide type."""

    area: Tensor  # (B, C, M)
    own: Tensor  # (cells,)
    errors: tuple[Tensor, ...]  # (cells,) for each penalty


class _Kept(NamedTuple):
    """Sums, and the tensors that their gradient needs."""

    area: Tensor
    own: Tensor
    errors: list[Tensor]
    tensors: tuple[Tensor, ...]


def softmax_sums(z: Tensor, request: Request) -> Sums:
    """Return the sums of logits (B, C, S); one channel is the logit of the second of two classes.

    Sums in the logits' type run over one image, and are added in the wide type.
    """
    if is_plain_eager():
        results = (_TwoClasses if z.shape[1] <= 2 else _Classes).apply(z, request)
    else:
        results = plain_sums(z, request)
    return Sums(results[0], results[1], tuple(results[2:]))


def plain_sums(z: Tensor, request: Request) -> tuple[Tensor, ...]:
    """Return the sums in operations that torch differentiates, compiles and transforms."""
    if z.shape[1] == 1:
        z = torch.cat([torch.zeros_like(z), z], 1)
    p = z.softmax(1)
    own = p.gather(1, request.owner.unsqueeze(1)).squeeze(1)
    area = p.unsqueeze(2) if request.area is None else p.unsqueeze(2) * request.area.unsqueeze(1)
    results = [
        area.sum(-1).to(wide(z.device)),
        request.own.plain_sum(_times(own, request.weight)),
    ]
    if request.penalties:
        label = request.classes.label
        lp = z.log_softmax(1).gather(1, label.unsqueeze(1)).squeeze(1)
        for penalty in request.penalties:
            error = -lp if penalty is None else penalty(lp)
            results.append(request.classes.plain_sum(_times(error, request.error_weight)))
    return tuple(results)


def _in_full_precision(z: Tensor) -> AbstractContextManager[Any]:
    """Keep autocast from multiplying in 16 bits."""
    kind = z.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


class _WithSums(torch.autograd.Function):
    """Sums whose second derivative, where it is wanted, comes from plain operations."""

    @classmethod
    def forward(cls, ctx: Any, z: Tensor, request: Request) -> tuple[Tensor, ...]:
        ctx.request = request
        with _in_full_precision(z):
            kept = cls.sums(z, request)
        ctx.save_for_backward(z, *kept.tensors)
        return kept.area, kept.own, *kept.errors

    @classmethod
    def backward(cls, ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        z, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            results = plain_sums(z, ctx.request)
            (gradient,) = torch.autograd.grad(results, z, upstream, create_graph=True)
            return gradient, None
        area, own, *errors = (part.to(z.dtype) for part in upstream)
        with _in_full_precision(z):
            return cls.gradient(z, ctx.request, kept, area, own, errors), None

    @staticmethod
    def sums(z: Tensor, request: Request) -> _Kept:
        """Return the sums, and what is kept for their gradient."""
        raise NotImplementedError

    @staticmethod
    def gradient(
        z: Tensor,
        request: Request,
        kept: Sequence[Tensor],
        area: Tensor,
        own: Tensor,
        errors: Sequence[Tensor],
    ) -> Tensor:
        """Return the gradient of the logits from those of the sums."""
        raise NotImplementedError


class _Classes(_WithSums):
    """Three classes or more.

    dz_ik = p_ik (g_ik - r_i),   r_i = sum_j g_ij p_ij,   g_ik = area'_k + [k = owner] own'
    """

    @staticmethod
    def sums(z: Tensor, request: Request) -> _Kept:
        p = z.softmax(1)
        if request.area is None:
            area = p.sum(-1, keepdim=True)
        else:
            area = torch.bmm(p, request.area.to(p.dtype).transpose(1, 2))
        if request.owner_is_class and request.classes.are_few:
            own, total = _own_of_classes(p, request)
        else:
            own = p.gather(1, request.owner.unsqueeze(1)).squeeze(1)
            (total,) = request.own.sums([_times(own, request.weight)], p.dtype)
        slopes: list[Tensor] = []
        errors: list[Tensor] = []
        if request.penalties:
            errors, slopes = _penalised(_log_probability(z, p, own, request), request)
        return _Kept(area.to(wide(z.device)), total, errors, (p, own, *slopes))

    @staticmethod
    def gradient(
        z: Tensor,
        request: Request,
        kept: Sequence[Tensor],
        area: Tensor,
        own: Tensor,
        errors: Sequence[Tensor],
    ) -> Tensor:
        p, p_own, *slopes = kept
        by_area = torch.bmm(area.transpose(1, 2), p)  # (B, M, S)
        if request.area is None:
            gradient: Tensor = area
        else:
            weights = request.area.to(p.dtype)
            by_area = by_area.mul_(weights).sum(1, keepdim=True)
            gradient = torch.bmm(area, weights)
        mine = request.own.spread(own).mul_(p_own)
        if request.weight is not None:
            mine.mul_(request.weight)
        error = _slope_of_errors(slopes, request, errors)
        if error is not None and request.owner_is_class:
            mine.add_(error)
            error = None
        r = by_area.add_(mine.unsqueeze(1))
        if error is not None:
            r.add_(error.unsqueeze(1))
        gradient = torch.sub(gradient, r).mul_(p)
        _add_at(gradient, request.owner, mine, request)
        if error is not None:
            _add_at(gradient, request.classes.label, error, request)
        return gradient


def _own_of_classes(p: Tensor, request: Request) -> tuple[Tensor, Tensor]:
    """Return p_y of each pixel and its sum over each class, one class at a time."""
    own = torch.zeros_like(p[:, 0])
    of_class = []
    for k, mask in enumerate(request.classes.masks(p.dtype)):
        mine = torch.mul(p[:, k], mask)
        own.add_(mine)
        if request.weight is not None:
            mine.mul_(request.weight)
        of_class.append(mine.sum(-1))
    return own, request.classes.in_rows(torch.stack(of_class, 1))


def _log_probability(z: Tensor, p: Tensor, own: Tensor, request: Request) -> Tensor:
    """Return log p_y of each pixel, from p_y itself where that has its digits."""
    if request.owner_is_class and _has_digits(own):
        return own.log()
    lp = z.gather(1, request.classes.label.unsqueeze(1)).squeeze(1)
    return lp.sub_(z.amax(1)).add_(p.amax(1).log_())  # log of at least 1 / C


def _has_digits(p: Tensor) -> bool:
    """Whether no probability is too small for an exact logarithm, where that can be read."""
    return values_are_readable(p) and p.numel() > 0 and not float(p.amin()) < _SMALLEST


def _add_at(gradient: Tensor, channel: Tensor, pixel: Tensor, request: Request) -> None:
    """Add a map (B, S) to the channel that each pixel names."""
    if channel is request.classes.label and request.classes.are_few:
        for k, mask in enumerate(request.classes.masks(gradient.dtype)):
            gradient[:, k].addcmul_(pixel, mask)
    else:
        gradient.scatter_add_(1, channel.unsqueeze(1), pixel.unsqueeze(1))


class _TwoClasses(_WithSums):
    """Two classes: all follows from p = sigmoid(z_1 - z_0), or sigmoid(z) of one channel.

    dd_i = p_i (1 - p_i) (area'_1 - area'_0 + (2 owner - 1) own') + error' (y - p)
    """

    @staticmethod
    def sums(z: Tensor, request: Request) -> _Kept:
        d = z[:, 0] if z.shape[1] == 1 else z[:, 1] - z[:, 0]  # (B, S)
        p, q = d.sigmoid(), torch.neg(d).sigmoid_()
        if request.area is None:
            area = torch.stack([q.sum(-1), p.sum(-1)], 1).unsqueeze(2)
        else:
            weights = request.area.to(p.dtype)
            area = torch.stack([(pair.unsqueeze(1) * weights).sum(-1) for pair in (q, p)], 1)
        own = _chosen(p, q, request.owner)
        (total,) = request.own.sums([_times(own, request.weight)], p.dtype)
        slopes: list[Tensor] = []
        errors: list[Tensor] = []
        if request.penalties:
            mine = own if request.owner_is_class else _chosen(p, q, request.classes.label)
            if _has_digits(mine):
                lp = mine.log_()
            else:  # -log(1 + exp(-x)) = min(x, 0) - log(max(p, q)), x = +-d
                sign = request.classes.label.to(d.dtype).mul_(2).sub_(1)
                lp = sign.mul_(d).clamp_(max=0).add_(torch.maximum(p, q).log_())
            errors, slopes = _penalised(lp, request)
        return _Kept(area.to(wide(z.device)), total, errors, (p, q, *slopes))

    @staticmethod
    def gradient(
        z: Tensor,
        request: Request,
        kept: Sequence[Tensor],
        area: Tensor,
        own: Tensor,
        errors: Sequence[Tensor],
    ) -> Tensor:
        p, q, *slopes = kept
        by_area = (area[:, 1] - area[:, 0]).unsqueeze(-1)  # (B, M, 1)
        if request.area is None:
            base: Tensor = by_area[:, 0]
        else:
            base = (by_area * request.area.to(p.dtype)).sum(1)
        mine = request.own.spread(own)
        if request.weight is not None:
            mine.mul_(request.weight)
        mine.mul_(request.owner.to(p.dtype).mul_(2).sub_(1))
        gradient = mine.add_(base).mul_(p).mul_(q)
        error = _slope_of_errors(slopes, request, errors)
        if error is not None:  # d log p_y / dd = y - p
            gradient.addcmul_(error, request.classes.label.to(p.dtype).sub_(p))
        if z.shape[1] == 1:
            return gradient.unsqueeze(1)
        return torch.stack([-gradient, gradient], 1)


def _chosen(p: Tensor, q: Tensor, is_one: Tensor) -> Tensor:
    """Return p where a map of 0 and 1 is 1, else q; a where() takes ten times as long."""
    return torch.lerp(q, p, is_one.to(p.dtype))


def _penalised(lp: Tensor, request: Request) -> tuple[list[Tensor], list[Tensor]]:
    """Return the sums of each penalty, and the slopes of those that are not cross-entropy."""
    maps: list[Tensor] = []
    slopes: list[Tensor] = []
    for penalty in request.penalties:
        if penalty is None:
            error = -lp
        else:
            with torch.enable_grad():
                leaf = lp.detach().requires_grad_()
                value = penalty(leaf)
                (slope,) = torch.autograd.grad(value.sum(), leaf)
            error = value.detach()
            slopes.append(slope)
        maps.append(_times(error, request.error_weight))
    return request.classes.sums(maps, lp.dtype), slopes


def _slope_of_errors(
    slopes: Sequence[Tensor], request: Request, errors: Sequence[Tensor]
) -> Tensor | None:
    """Return the derivative of the loss by log p_y of each pixel through the penalties."""
    total: Tensor | None = None
    remaining = iter(slopes)
    for penalty, upstream in zip(request.penalties, errors, strict=True):
        part = request.classes.spread(-upstream if penalty is None else upstream)
        if penalty is not None:
            part.mul_(next(remaining))
        total = part if total is None else total.add_(part)
    if total is None or request.error_weight is None:
        return total
    return total.mul_(request.error_weight)


def _times(pixel: Tensor, weight: Tensor | None) -> Tensor:
    return pixel if weight is None else pixel * weight


def factor_of_penalty(penalty: Penalty | None, n_classes: int, like: Tensor) -> Tensor | None:
    """Return the penalty's factor of each class, (C,); None without one."""
    if penalty is None or penalty.factor_of_class is None:
        return None
    check_n_entries("alpha", penalty.factor_of_class, n_classes)
    return class_tensor(penalty.factor_of_class, like)
