"""Sums of probabilities and penalties over cells of pixels, by the fastest way there is."""

from __future__ import annotations

from torch import Tensor

from dense_imb.base.checks import is_plain_eager, trains_eagerly
from dense_imb.losses.core.compiled_sums import compiled_sums, is_one_operation
from dense_imb.losses.core.hand_sums import hand_sums_of
from dense_imb.losses.core.plain_sums import Request, Sums, plain_sums


def softmax_sums(z: Tensor, request: Request) -> Sums:
    """Return the sums of logits (B, C, S); one channel is the logit of the second of two classes.

    Sums in the logits' type run over one image, and are added in the wide type.
    """
    weights = [weight for weight in (*request.areas, request.weight) if weight is not None]
    if any(trains_eagerly(weight) for weight in weights):  # by hand only z has a gradient
        results = plain_sums(z, request)
    elif is_plain_eager():
        results = hand_sums_of(z.shape[1]).apply(z, request)
    elif is_one_operation(z, request):
        results = compiled_sums(z, request)
    else:
        results = plain_sums(z, request)
    return Sums(results[0], results[1], tuple(results[2:]))
