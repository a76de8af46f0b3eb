"""Balanced MSE (Ren et al., 2022, arXiv 2203.16427), in its batch Monte-Carlo form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import (
    bare,
    check_at_least,
    check_choice,
    check_devices,
    check_floating,
    check_same_shape,
    expand_pixels,
    trains_eagerly,
    values_are_readable,
    widen_half,
)
from dense_imb.losses.core.gradient import in_full_precision, with_gradient
from dense_imb.losses.core.groups import wide
from dense_imb.losses.core.module import Loss
from dense_imb.losses.core.pixels import valid_pixels
from dense_imb.losses.core.target import check_not_swapped

_CHUNK = 2**18  # pairs of values at a time: their matrix stays in the cache
_WORD = 2**32 - 1


def balanced_mse_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    noise_sigma: float = 1.0,
    n_samples: int = 1024,
    seed: int = 0,
    call: int | Tensor = 0,
    mask: Tensor | None = None,
    pixel_weight: Tensor | None = None,
) -> Tensor:
    """Squared error of a prediction to its target, relative to the other targets of the batch.

        loss = mean_{i in S} (p_i - t_i)^2 + 2 s^2 log sum_{j in S} exp(-(p_i - t_j)^2 / 2 s^2)

    The logarithm takes back the prior of the targets, so that the best output answers for a world
    in which all values are equally common. S is a sample of the pixels, one from each of
    `n_samples` equal parts of the batch, or all pixels if they are no more. Pixels rarer than
    1 / n_samples are missing from most samples. Time and memory do not depend on the image.

    Each number of a map is a value of its own, also in several channels. A pixel weight u counts a
    pixel u times, in both sums. The processes of a distributed run have samples of their own.

    Args:
        prediction: p, any shape, floating point; the first dimension counts the images.
        target: t, same shape.
        noise_sigma: s, standard deviation of the errors that remain, in the unit of the target.
        n_samples: number of pixels in a sample. The time grows with its square.
        seed: random seed of the samples.
        call: number of the sample. The same seed and number draw the same pixels.
        mask: nonzero where a pixel counts. Others are ignored, even if they hold NaN.
        pixel_weight: u, at least 0.

    Example:
        >>> p, t = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 2.0])
        >>> balanced_mse_loss(p, t)  # (2 log(1 + e^-2) + 1 + 2 log(2 e^-0.5)) / 2
        tensor(0.8201)
    """
    _check_arguments(noise_sigma, n_samples)
    prediction, target = bare(prediction), bare(target)
    mask, pixel_weight = bare(mask), bare(pixel_weight)
    check_not_swapped("prediction", prediction, target)
    check_floating("prediction", prediction)
    check_same_shape("target", target, "prediction", prediction)
    check_devices("prediction", prediction, target=target, mask=mask, pixel_weight=pixel_weight)
    valid = valid_pixels(prediction, "prediction", mask, pixel_weight)
    weight = None
    if pixel_weight is not None:
        weight = expand_pixels("pixel_weight", pixel_weight, prediction, "prediction")
    if prediction.numel() == 0:
        return widen_half(prediction).sum()

    place, is_drawn = _draw(prediction, valid, n_samples, seed, call)
    p = widen_half(_taken(prediction, place))
    t = _taken(target, place).to(p.dtype)
    u = None if weight is None else _taken(weight, place).to(p.dtype)
    if is_drawn is not None:
        p, t = torch.where(is_drawn, p, 0.0), torch.where(is_drawn, t, 0.0)
        u = is_drawn.to(p.dtype) if u is None else torch.where(is_drawn, u, 0.0)
    error = _errors(p, t, u, 2 * noise_sigma**2)
    if u is None:
        return error.mean()
    total = u.sum()
    return (u * error).sum() / torch.where(total == 0, 1.0, total)


def _check_arguments(noise_sigma: float, n_samples: int) -> None:
    check_at_least("noise_sigma", noise_sigma, 0)
    if noise_sigma == 0:
        raise ValueError("Expected `noise_sigma` above 0, got 0.")
    if isinstance(n_samples, bool) or not isinstance(n_samples, int):
        raise TypeError(f"Expected `n_samples` to be a whole number, got {n_samples!r}.")
    check_at_least("n_samples", n_samples, 2)


def _taken(value: Tensor, place: Tensor | None) -> Tensor:
    flat = value.reshape(-1)
    return flat if place is None else flat.index_select(0, place)


def _draw(
    prediction: Tensor, valid: Tensor | None, n_samples: int, seed: int, call: int | Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Return the places of the sample, and which of them count; None for all.

    The shapes do not depend on the mask, so nothing waits for an accelerator.
    """
    n_pixels, device = prediction.numel(), prediction.device
    if n_pixels <= n_samples:
        return None, None if valid is None else valid.reshape(-1)
    index = torch.arange(n_samples + 1, device=device)
    random = _uniform(index, seed, call)
    if valid is None:
        return _one_of_each_part(index, random, torch.tensor(n_pixels)), None
    n_before = valid.reshape(-1).cumsum(0)  # with the pixel itself
    n_valid = n_before[-1]
    rank = torch.where(n_valid > n_samples, _one_of_each_part(index, random, n_valid), index[:-1])
    place = torch.searchsorted(n_before, rank + 1).clamp(max=n_pixels - 1)
    if values_are_readable(n_valid) and n_valid >= n_samples:
        return place, None
    return place, index[:-1] < n_valid


def _one_of_each_part(index: Tensor, random: Tensor, n: Tensor) -> Tensor:
    """Divide a circle of n places into parts, turn it, and return one place of each part.

    No place comes twice, and each is equally likely.
    """
    edge = index * n // (len(index) - 1)
    width = edge[1:] - edge[:-1]
    inside = torch.minimum((random[:-1] * width).long(), width - 1)
    return (edge[:-1] + inside + (random[-1] * n).long()) % n.clamp(min=1)


def _uniform(index: Tensor, seed: int, call: int | Tensor) -> Tensor:
    """Return numbers in 0 .. 1, a pure function of their index, the seed and the call.

    Unlike a generator's they are the same on every device, compile, and make no device wait.
    """
    key = _hash((call + _hash(seed & _WORD)) & _WORD)
    word: Tensor = _hash(_hash((index + key) & _WORD))
    return word.to(wide(index.device)) / (_WORD + 1)


def _hash(x: Any) -> Any:
    """Mix 32 bits, of an int or of each entry of an int64 tensor (lowbias32, public domain)."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _WORD
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _WORD
    return x ^ (x >> 16)


def _errors(p: Tensor, t: Tensor, u: Tensor | None, scale: float) -> Tensor:
    """Return the loss of each pixel of a sample; u are their weights, `scale` is 2 s^2."""
    # -(p - t_j)^2 / 2 s^2 less its part of p alone, which cancels: exact for distant predictions
    centre = t.mean()  # any constant: it keeps the numbers small
    p, half, slope = p - centre, (t - centre) / 2, (t - centre) * (2 / scale)
    log_weight = None
    if u is not None:
        log_weight = torch.where(u.sum() == 0, 1.0, u).log()

    def errors(p: Tensor) -> Tensor:
        pairs = (p.unsqueeze(1) - half) * slope
        if log_weight is not None:
            pairs = pairs + log_weight
        return scale * (pairs.logsumexp(1) - (p - half) * slope)

    def with_slopes(p: Tensor) -> tuple[Tensor, Tensor]:
        sums = torch.stack([torch.ones_like(slope), slope], 1)
        logs, means = [], []
        with in_full_precision(p):
            for part in torch.split(p, max(1, _CHUNK // len(p))):
                pairs = torch.sub(part.unsqueeze(1), half).mul_(slope)
                if log_weight is not None:
                    pairs.add_(log_weight)
                highest = pairs.amax(1, keepdim=True)
                total, moment = (pairs.sub_(highest).exp_() @ sums).unbind(1)
                logs.append(total.log().add_(highest.squeeze(1)))
                means.append(moment / total)
        value = scale * (torch.cat(logs) - (p - half) * slope)
        return value, scale * (torch.cat(means) - slope)

    if trains_eagerly(t) or (u is not None and trains_eagerly(u)):
        return errors(p)  # by hand only p has a gradient
    return with_gradient(p, errors, with_slopes)


class BalancedMSELoss(Loss):
    """Squared error of a prediction to its target, relative to the other targets of the batch.

        loss = mean_{i in S} (p_i - t_i)^2 + 2 s^2 log sum_{j in S} exp(-(p_i - t_j)^2 / 2 s^2)

    Each call draws another sample S, from `seed` and the number of calls, which is in
    `state_dict`. See `balanced_mse_loss` for the arguments. At call time: `mask`, `pixel_weight`.

    Example:
        >>> BalancedMSELoss()(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 2.0]))
        tensor(0.8201)
    """

    shown = ("noise_sigma", "n_samples", "seed")
    no_probability = "its outputs are values, not logits"
    n_calls: Tensor

    def __init__(
        self,
        noise_sigma: float = 1.0,
        n_samples: int = 1024,
        *,
        seed: int = 0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        check_choice("reduction", reduction, ("mean",))
        _check_arguments(noise_sigma, n_samples)
        self.noise_sigma = noise_sigma
        self.n_samples = n_samples
        self.seed = seed
        self.register_buffer("n_calls", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        mask: Tensor | None = None,
        pixel_weight: Tensor | None = None,
    ) -> Any:
        """Return the loss of values; see `balanced_mse_loss` for shapes and options."""
        call = self.n_calls.clone()
        self.n_calls.add_(1)
        return balanced_mse_loss(
            prediction,
            target,
            noise_sigma=self.noise_sigma,
            n_samples=self.n_samples,
            seed=self.seed,
            call=call,
            mask=mask,
            pixel_weight=pixel_weight,
        )
