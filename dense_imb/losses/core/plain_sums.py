"""Sums of probabilities and penalties over cells of pixels, in operations that torch knows.

Per class k, with p = softmax(z), the weight u of a pixel and its class y:

    P_k = sum_i u_i p_ik     H_k = sum_{y_i = k} u_i p_ik     L_k = sum_{y_i = k} u_i phi(log p_iy)

Instances have sums of their own in place of H.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dense_imb.losses.core.cells import Cells, ClassCells
from dense_imb.losses.core.groups import wide
from dense_imb.losses.core.penalty import Penalty


class Request(NamedTuple):
    """Wanted sums of one call.

    owner: (B, S) class whose probability a pixel adds to its own cell, of any integer type; None
        for the second of two classes.
    own: the cells of these sums. Unless they are `classes`, the loss must not use those of pixels
        with an owner of class 0, whose gradient is left out.
    areas: M weights (B, S) of sums over whole images; None for 1.
    classes: cells of the penalties' sums, by the class y of a pixel.
    penalties: phi; None is cross-entropy.
    weight: (B, S) weights of the own sums and the penalties'; None for 1.
    """

    owner: Tensor | None
    own: Cells
    areas: tuple[Tensor | None, ...]
    classes: ClassCells
    penalties: tuple[Penalty | None, ...]
    weight: Tensor | None

    def owner_is_class(self) -> bool:  # torch 2.10 cannot trace a property of a NamedTuple
        """Whether a pixel's own cell is that of its class."""
        return self.own is self.classes


class Sums(NamedTuple):
    """Sums over the pixels of a batch in the wide type, or the gradient of the loss by them."""

    area: Tensor  # (B, C, M)
    own: Tensor  # (cells,)
    errors: tuple[Tensor, ...]  # (cells,) for each penalty


def plain_sums(z: Tensor, request: Request) -> tuple[Tensor, ...]:
    """Return the sums in operations that torch differentiates, compiles and transforms."""
    if z.shape[1] == 1:
        z = torch.cat([torch.zeros_like(z), z], 1)
    p = z.softmax(1)
    own = p[:, 1] if request.owner is None else _at(p, request.owner)
    areas = [(p if w is None else p * w.unsqueeze(1)).sum(-1) for w in request.areas]
    results = [
        torch.stack(areas, -1).to(wide(z.device)),
        request.own.plain_sum(times(own, request.weight)),
    ]
    if request.penalties:
        lp = _at(z.log_softmax(1), request.classes.label)
        for penalty in request.penalties:
            error = -lp if penalty is None else penalty(lp)
            results.append(request.classes.plain_sum(times(error, request.weight)))
    return tuple(results)


def _at(value: Tensor, channel: Tensor) -> Tensor:
    """Return the entry (B, S) of (B, C, S) at each pixel's channel."""
    return value.gather(1, channel.long().unsqueeze(1)).squeeze(1)


def times(pixel: Tensor, weight: Tensor | None) -> Tensor:
    """Return a map with its weights, where it has some."""
    return pixel if weight is None else pixel * weight
