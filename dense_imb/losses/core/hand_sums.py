"""The sums of `plain_sums` with a gradient written by hand.

Training keeps p and p_y alone, and one pass over them serves every sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import values_are_readable
from dense_imb.losses.core.cells import ClassCells, class_masks
from dense_imb.losses.core.gradient import in_full_precision
from dense_imb.losses.core.groups import wide
from dense_imb.losses.core.plain_sums import Request, Sums, plain_sums, times

_SMALLEST = 1e-30  # a float32 below it has lost digits, and its logarithm with them


class HandSums(torch.autograd.Function):
    """Sums whose second derivative, where it is wanted, comes from plain operations."""

    @classmethod
    def forward(cls, ctx: Any, z: Tensor, request: Request) -> tuple[Tensor, ...]:
        ctx.request = request
        with in_full_precision(z):
            sums, kept = cls.sums(z, request)
        ctx.save_for_backward(z, *kept)
        return sums.area, sums.own, *sums.errors

    @classmethod
    def backward(cls, ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        z, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            results = plain_sums(z, ctx.request)
            (gradient,) = torch.autograd.grad(results, z, upstream, create_graph=True)
            return gradient, None
        area, own, *errors = (part.to(z.dtype) for part in upstream)
        with in_full_precision(z):
            return cls.gradient(z, ctx.request, kept, Sums(area, own, tuple(errors))), None

    @staticmethod
    def sums(z: Tensor, request: Request) -> tuple[Sums, tuple[Tensor, ...]]:
        """Return the sums, and the tensors that their gradient needs."""
        raise NotImplementedError

    @staticmethod
    def gradient(z: Tensor, request: Request, kept: Sequence[Tensor], by: Sums) -> Tensor:
        """Return the gradient of the loss by the logits, from that by the sums."""
        raise NotImplementedError


class ManyClasses(HandSums):
    """Three classes or more.

    dz_ik = p_ik (g_ik - r_i),   r_i = sum_j g_ij p_ij,   g_ik = area'_k + [k = owner] own'
    """

    @staticmethod
    def sums(z: Tensor, request: Request) -> tuple[Sums, tuple[Tensor, ...]]:
        p = z.softmax(1)
        areas = [
            p.sum(-1) if w is None else torch.bmm(p, w.unsqueeze(2)).squeeze(2)
            for w in request.areas
        ]
        own, total = _own_sums(p, request)
        slopes: tuple[Tensor, ...] = ()
        errors: tuple[Tensor, ...] = ()
        if request.penalties:
            errors, slopes = _penalised(_log_probability(z, p, own, request), request)
        return Sums(_stacked(areas), total, errors), (p, own, *slopes)

    @staticmethod
    def gradient(z: Tensor, request: Request, kept: Sequence[Tensor], by: Sums) -> Tensor:
        p, p_own, *slopes = kept
        mine = request.own.spread(by.own).mul_(p_own)
        if request.weight is not None:
            mine.mul_(request.weight)
        error = _slope_of_errors(slopes, request, by.errors)
        if error is not None and request.owner_is_class():
            mine.add_(error)
            error = None
        r = mine if error is None else mine + error  # (B, S)
        r = r.unsqueeze(1)
        parts = [by.area[:, :, m : m + 1] for m in range(len(request.areas))]  # (B, C, 1) each
        for part, w in zip(parts, request.areas, strict=True):
            mean = torch.bmm(part.transpose(1, 2), p)  # (B, 1, S)
            r = mean.add_(r) if w is None else torch.addcmul(r, mean, w.unsqueeze(1))
        everywhere = [part for part, w in zip(parts, request.areas, strict=True) if w is None]
        gradient = everywhere[0] - r if everywhere else -r.expand_as(p)
        del r, mean  # before the masks take their place
        for part, w in zip(parts, request.areas, strict=True):
            if w is not None:
                gradient.addcmul_(part, w.unsqueeze(1))
        gradient.mul_(p)
        _add_at(gradient, request.owner, mine, request.classes, _owner_masks(request))
        if error is not None:
            label = request.classes.label
            _add_at(gradient, label, error, request.classes, request.classes.masks())
        return gradient


def _stacked(areas: Sequence[Tensor]) -> Tensor:
    """Return (B, C, M) sums in the wide type from M of (B, C)."""
    return torch.stack(list(areas), -1).to(wide(areas[0].device))


def _own_sums(p: Tensor, request: Request) -> tuple[Tensor, Tensor]:
    """Return the probability of each pixel's owner, 0 for an owner of class 0, and its sums."""
    owner = request.owner
    assert owner is not None
    if not request.classes.are_few:
        own = p.gather(1, owner.long().unsqueeze(1)).squeeze(1)
        return own, request.own.sums([times(own, request.weight)])[0]
    own = torch.zeros_like(p[:, 0])
    mine = torch.empty_like(own)
    of_class = []
    for k, mask in _owner_masks(request):
        torch.mul(p[:, k], mask, out=mine)
        own.add_(mine)
        if request.owner_is_class():
            of_class.append((mine if request.weight is None else mine.mul_(request.weight)).sum(-1))
    if request.owner_is_class():
        return own, request.classes.in_rows(torch.stack(of_class, 1))
    return own, request.own.sums([times(own, request.weight)])[0]


def _owner_masks(request: Request) -> Iterator[tuple[int, Tensor]]:
    """Yield the classes that own pixels, and 1.0 at these."""
    if request.owner_is_class():
        return request.classes.masks()
    assert request.owner is not None
    classes = range(1, request.classes.n_classes)
    return class_masks(request.owner, classes, request.classes.dtype)


def _log_probability(z: Tensor, p: Tensor, own: Tensor, request: Request) -> Tensor:
    """Return log p_y of each pixel, from p_y itself where that has its digits."""
    if request.owner_is_class() and _has_digits(own):
        return own.log()
    lp = z.gather(1, request.classes.label.unsqueeze(1)).squeeze(1)
    return lp.sub_(z.amax(1)).add_(p.amax(1).log_())  # log of at least 1 / C


def _has_digits(p: Tensor) -> bool:
    """Whether no probability is too small for an exact logarithm, where that can be read."""
    return values_are_readable(p) and p.numel() > 0 and not float(p.amin()) < _SMALLEST


def _add_at(
    gradient: Tensor,
    channel: Tensor | None,
    pixel: Tensor,
    classes: ClassCells,
    masks: Iterator[tuple[int, Tensor]],
) -> None:
    """Add a map (B, S) to the channel that each pixel names."""
    if classes.are_few:
        for k, mask in masks:
            gradient[:, k].addcmul_(pixel, mask)
    else:
        assert channel is not None
        gradient.scatter_add_(1, channel.long().unsqueeze(1), pixel.unsqueeze(1))


class TwoClasses(HandSums):
    """Two classes: all follows from p = sigmoid(z_1 - z_0), or sigmoid(z) of one channel.

    dd_i = p_i (1 - p_i) (area'_1 - area'_0 + (2 owner - 1) own') + error' (y - p)
    """

    @staticmethod
    def sums(z: Tensor, request: Request) -> tuple[Sums, tuple[Tensor, ...]]:
        d = _difference(z)
        p = d.sigmoid()
        q: Tensor | None = None  # 1 - p with its digits
        if request.owner_is_class() or request.penalties:
            q = (-d if z.shape[1] == 1 else d.neg_()).sigmoid_()
        areas = []
        for w in request.areas:
            foreground = times(p, w).sum(-1)
            background = torch.zeros_like(foreground) if q is None else times(q, w).sum(-1)
            areas.append(torch.stack([background, foreground], 1))
        mine = None if q is None else torch.lerp(q, p, request.classes.is_one)  # p_y
        own = p if mine is None or not request.owner_is_class() else mine
        (total,) = request.own.sums([times(own, request.weight)])
        slopes: tuple[Tensor, ...] = ()
        errors: tuple[Tensor, ...] = ()
        if request.penalties:
            assert mine is not None
            assert q is not None
            if _has_digits(mine):
                lp = mine.log_()
            else:  # -log(1 + exp(-x)) = min(x, 0) + log(max(p, q)), x = +-d
                sign = 2 * request.classes.is_one - 1
                lp = sign.mul_(_difference(z)).clamp_(max=0).add_(torch.maximum(p, q).log_())
            errors, slopes = _penalised(lp, request)
        return Sums(_stacked(areas), total, errors), (p, *slopes)

    @staticmethod
    def gradient(z: Tensor, request: Request, kept: Sequence[Tensor], by: Sums) -> Tensor:
        p, *slopes = kept
        own = by.own
        if request.owner_is_class():  # p_y falls with d for class 0
            own = torch.stack([-own[0::2], own[1::2]], 1).view(-1)
        mine = request.own.spread(own)
        if request.weight is not None:
            mine.mul_(request.weight)
        by_area = by.area[:, 1] - by.area[:, 0]  # (B, M)
        for m, w in enumerate(request.areas):
            part = by_area[:, m : m + 1]
            mine = mine.add_(part) if w is None else mine.addcmul_(part, w)
        mine.mul_(p)
        result = torch.empty_like(z, memory_format=torch.contiguous_format)
        gradient = torch.addcmul(mine, mine, p, value=-1, out=result[:, -1])
        del mine  # before the errors take its place
        error = _slope_of_errors(slopes, request, by.errors)
        if error is not None:  # d log p_y / dd = y - p
            gradient.addcmul_(error, request.classes.is_one).addcmul_(error, p, value=-1)
        if z.shape[1] == 2:
            torch.neg(gradient, out=result[:, 0])
        return result


def _difference(z: Tensor) -> Tensor:
    """Return z_1 - z_0, (B, S)."""
    return z[:, 0] if z.shape[1] == 1 else z[:, 1] - z[:, 0]


def _penalised(lp: Tensor, request: Request) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the sums of each penalty, and the slopes of those that are not cross-entropy."""
    maps: list[Tensor] = []
    slopes: list[Tensor] = []
    for penalty in request.penalties:
        error = lp  # of cross-entropy, with the other sign
        if penalty is not None:
            with torch.enable_grad():
                leaf = lp.detach().requires_grad_()
                value = penalty(leaf)
                (slope,) = torch.autograd.grad(value.sum(), leaf)
            error = value.detach()
            slopes.append(slope)
        maps.append(times(error, request.weight))
    totals = zip(request.penalties, request.classes.sums(maps), strict=True)
    errors = tuple(-total if penalty is None else total for penalty, total in totals)
    return errors, tuple(slopes)


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
    if total is None or request.weight is None:
        return total
    return total.mul_(request.weight)


def hand_sums_of(n_channels: int) -> type[HandSums]:
    """Return the form for logits of so many channels."""
    return TwoClasses if n_channels <= 2 else ManyClasses
