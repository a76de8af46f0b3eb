"""Classification losses of pixels: an adjustment of the logits, a penalty, and a mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from dense_imb.base.checks import (
    check_choice,
    check_ignore_index,
    check_n_entries,
    class_numbers,
)
from dense_imb.losses.core.adjustment import (
    Adjustment,
    adjust_logits,
    check_adjustment,
    refuses_soft,
)
from dense_imb.losses.core.balance import (
    Balance,
    Parts,
    check_balance,
    check_groups,
    check_reduction,
    class_sums,
    reduce_balanced,
)
from dense_imb.losses.core.groups import class_tensor, slot_table
from dense_imb.losses.core.instances import (
    Per,
    check_instance_given,
    check_per,
    instance_map,
)
from dense_imb.losses.core.module import Loss
from dense_imb.losses.core.natural import (
    Natural,
    balance_weights,
    check_channels,
    check_weights,
    class_shares,
    no_weight_of,
)
from dense_imb.losses.core.options import (
    CallOptions,
    MeanOptions,
    PixelOptions,
    check_options,
    shows_options,
)
from dense_imb.losses.core.penalty import CrossEntropy, Penalty, check_penalty, factor_of_penalty
from dense_imb.losses.core.spread import Spread, check_spread, check_spreads_classes, spread_errors
from dense_imb.losses.core.target import PixelTarget, check_are_logits, pixel_target

ErrorOfPixels = Callable[[PixelTarget], Tensor]


@shows_options(PixelOptions)
def pixel_loss(
    logits: Tensor,
    target: Tensor,
    *,
    penalty: Penalty | None = None,
    adjustment: Adjustment | None = None,
    **options: Unpack[PixelOptions],
) -> Any:
    """Mean over pixels of a penalty of the true class, on adjusted logits.

        loss = mean_i phi(log softmax(adjust(z))_{y_i})

    Args:
        logits: z, (B, C, *spatial) with any number of spatial dimensions; C = 1 is binary.
        target: y, class indices (B, *spatial) or (B, 1, *spatial), or one number for each class,
            (B, C, *spatial): one-hot or probabilities t, whose error is sum_k t_k phi(lp_k). With
            C = 1, floats are the foreground's probability.
        penalty: phi, `Focal(gamma)`, `HardMining(...)` or your own; by default cross-entropy, -lp.
        adjustment: `LogPrior(counts)`, `Temperature(counts)`, `Margin(counts)` or none.
        class_weight: a, one number for each class; the mean is sum a_y e / sum a_y, as in torch.
        ignore_index: label of ignored pixels.
        balance: rule by which class means combine, instead of `class_weight`; see `Balance`. By
            default none: each pixel counts the same.
        per: "pixel", or "instance" for class means over instances, of which each counts the same:
            mean over the instances of a class of the mean over their pixels. Without a `balance`
            it has the default Balance().
        max_instances: with per="instance", bound of the numbers in `instance`; larger ones count
            as 0, with a warning. By default the map's maximum, which is read in each call;
            torch.compile needs a bound.
        instance: with per="instance", the object of each pixel, integers, (B, *spatial) or
            (B, 1, *spatial); 0 for none. The pixels of one class in one instance are averaged
            first, and so are those of a class in no instance, in each image.
        spread: `Hardest(share)` or `WorstNeighbour(size)`, by which pixels share their errors
            before the mean; none by default.
        mask: nonzero where a pixel counts. Others are ignored, even if they hold NaN.
        pixel_weight: weight of each pixel, at least 0.
        class_count: with a balance, the pixels of each class in a whole window of accumulation.
        reduction: "mean", "sum" or "none", as in torch; with a balance "mean", or "none" for the
            map of contributions whose sum is the loss.
        return_parts: return `Parts` (value, class_mean, class_count) instead of the value.
        validate: refuse logits that look like probabilities, in eager mode on the CPU only. Labels
            and shapes are always checked.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
        >>> pixel_loss(logits, torch.tensor([0, 1]))
        tensor(0.4100)
    """
    check_penalty(penalty)
    check_adjustment(adjustment)

    def error(pixels: PixelTarget) -> Tensor:
        return penalty_of(penalty, adjustment, pixels)

    return mean_of_pixels(error, logits, target, soft_for=refuses_soft(adjustment), **options)


def penalty_of(
    penalty: Penalty | None, adjustment: Adjustment | None, pixels: PixelTarget
) -> Tensor:
    """Return the penalty of each pixel on its adjusted logits, (B, *spatial)."""
    logits = adjust_logits(adjustment, pixels.logits, pixels.label)
    lp = torch.log_softmax(logits, 1)
    factor = factor_of_penalty(penalty, pixels.n_classes, logits)
    if pixels.probability is None:
        lp = lp.gather(1, pixels.label.unsqueeze(1)).squeeze(1)
        error = -lp if penalty is None else penalty(lp)
        if factor is not None:
            error = error * factor.index_select(0, pixels.label.reshape(-1)).view_as(error)
        return error
    share = pixels.probability
    if factor is not None:
        share = share * factor.view((1, -1) + (1,) * (share.dim() - 2))
    return (share * (-lp if penalty is None else penalty(lp))).sum(1)


def mean_of_pixels(
    error: ErrorOfPixels,
    logits: Tensor,
    target: Tensor,
    *,
    soft_for: str | None = None,
    **options: Unpack[PixelOptions],
) -> Any:
    """Check logits and target, take the error of each pixel, and reduce it.

    Args:
        error: returns the error of each pixel, (B, *spatial).
        logits, target: see `pixel_loss`, also for the other options.
        soft_for: name of the loss, if it refuses soft targets.
    """
    check_options("the loss", options, PixelOptions)
    return _mean_of_pixels(error, logits, target, soft_for, **options)


def _mean_of_pixels(
    error: ErrorOfPixels,
    logits: Tensor,
    target: Tensor,
    soft_for: str | None,
    *,
    class_weight: Sequence[float] | Tensor | None = None,
    ignore_index: int | None = None,
    balance: Balance | None = None,
    per: Per = "pixel",
    max_instances: int | None = None,
    spread: Spread | None = None,
    reduction: str = "mean",
    mask: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    class_count: Tensor | Sequence[float] | None = None,
    instance: Tensor | None = None,
    return_parts: bool = False,
    validate: bool = False,
) -> Any:
    if validate:
        check_are_logits(logits)
    check_per(per, max_instances)
    if per == "instance":
        balance = Balance() if balance is None else balance
        soft_for = soft_for or 'per="instance"'
    check_mean(class_weight, balance, reduction)
    check_groups(None, per, class_count, None)
    check_spread(spread)
    check_spreads_classes(spread, None, per)
    if class_count is not None and balance is None:
        raise ValueError("Expected a `balance` with `class_count`, got none.")
    pixels = pixel_target(
        logits,
        target,
        ignore_index=ignore_index,
        mask=mask,
        pixel_weight=pixel_weight,
        soft_for=soft_for,
    )
    check_instance_given(per, instance)
    instances = None
    if instance is not None:
        instances = instance_map(
            instance, pixels.label, max_instances=max_instances, valid=pixels.valid
        )
    error_map = error(pixels)
    if balance is not None:
        if spread is not None:
            error_map = spread_errors(
                spread,
                error_map,
                pixels.slot,
                pixels.n_classes,
                valid=pixels.valid,
                weight=pixels.pixel_weight,
                scope=balance.scope,
                class_count=class_count,
            )
        return reduce_balanced(
            error_map,
            pixels.slot,
            pixels.n_classes,
            valid=pixels.valid,
            instances=instances,
            balance=balance,
            pixel_weight=pixels.pixel_weight,
            class_count=class_count,
            reduction=reduction,
            return_parts=return_parts,
            is_clean=True,
        )
    return _plain_mean(error_map, pixels, class_weight, spread, reduction, return_parts)


def _plain_mean(
    error: Tensor,
    pixels: PixelTarget,
    class_weight: Sequence[float] | Tensor | None,
    spread: Spread | None,
    reduction: str,
    return_parts: bool,
) -> Any:
    """Return torch's own mean: sum u a_y e / sum u a_y."""
    share: Tensor | None = None
    if class_weight is not None or pixels.slot is not pixels.label:
        table = torch.ones(pixels.n_classes, dtype=error.dtype, device=error.device)
        if class_weight is not None:
            table = weights_of_class(class_weight, pixels.n_classes, error)
        share = slot_table(table).index_select(0, pixels.slot.reshape(-1)).view_as(error)
    if pixels.pixel_weight is not None:
        assert share is not None
        assert pixels.valid is not None
        share = share * torch.where(pixels.valid, pixels.pixel_weight.to(error.dtype), 0.0)
    if spread is not None:
        error = spread_errors(
            spread, error, pixels.slot, pixels.n_classes, valid=pixels.valid, weight=share
        )
    contribution = error if share is None else error * share
    if reduction == "none":
        value = contribution
    else:
        value = contribution.sum()
        if reduction == "mean":
            if share is None:
                value = value / max(error.numel(), 1)
            else:
                total = share.sum()
                value = value / torch.where(total == 0, 1.0, total)
    if not return_parts:
        return value
    count, mass, total = class_sums(
        error.detach(), pixels.slot, pixels.n_classes, pixels.valid, pixels.pixel_weight
    )
    return Parts(value, torch.where(count > 0, total / mass, torch.nan), count)


def weights_of_class(
    class_weight: Sequence[float] | Tensor, n_classes: int, like: Tensor
) -> Tensor:
    """Return `class_weight` as a tensor on the device of `like`."""
    if isinstance(class_weight, Tensor) and class_weight.device == like.device:
        weight = class_weight.detach().to(like.dtype)  # unread values: it may be on an accelerator
        if weight.dim() != 1:
            raise ValueError(
                "Expected `class_weight` with one entry for each class, got the shape "
                f"{tuple(weight.shape)}."
            )
    else:
        weight = class_tensor(class_numbers("class_weight", class_weight), like).to(like.dtype)
    check_n_entries("class_weight", weight, n_classes)
    return weight


def check_mean(class_weight: object, balance: Balance | None, reduction: str) -> None:
    """Refuse combinations of options for which no mean is defined."""
    if balance is None:
        check_choice("reduction", reduction, ("mean", "sum", "none"))
        return
    check_balance(balance)
    check_reduction(reduction)
    if class_weight is not None:
        raise ValueError(
            "A loss takes `class_weight` or `balance`, not both; use Balance(weight=...)."
        )


class ClassificationLoss(Loss):
    """Base class of classification losses: a Module with the options of a mean over pixels."""

    shown: tuple[str, ...] = ("class_weight", "ignore_index", "balance", "spread", "reduction")
    validate = False
    per: Per = "pixel"  # of a subclass with an __init__ of its own
    max_instances: int | None = None
    spread: Spread | None = None

    @shows_options(MeanOptions)
    def __init__(self, **options: Unpack[MeanOptions]) -> None:
        check_options(type(self).__name__, options, MeanOptions, also=type(self))
        super().__init__(options.get("reduction", "mean"))
        class_weight = options.get("class_weight")
        self.balance = options.get("balance")
        self.per = options.get("per", "pixel")
        self.max_instances = options.get("max_instances")
        check_per(self.per, self.max_instances)
        if self.per == "instance":
            self.balance = Balance() if self.balance is None else self.balance
            self.shown = (*self.shown, "per", "max_instances")
        check_mean(class_weight, self.balance, self.reduction)
        self.spread = options.get("spread")
        check_spread(self.spread)
        check_spreads_classes(self.spread, None, self.per)
        # Python numbers, not buffers: no .half() can turn 1e7 into inf, no device to forget
        self.class_weight = (
            None if class_weight is None else class_numbers("class_weight", class_weight)
        )
        self.ignore_index = options.get("ignore_index")
        check_ignore_index(self.ignore_index)
        self.validate = options.get("validate", False)

    def error(self, pixels: PixelTarget) -> Tensor:
        """Return the error of each pixel, (B, *spatial)."""
        raise NotImplementedError

    @property
    def soft_for(self) -> str | None:
        """Name of this loss if it refuses soft targets, else None."""
        return None

    def probability(self, logits: Tensor, class_share: Any = None) -> Tensor:
        """Return the natural probabilities of logits that were trained with this loss.

            P(k|x)  ~  q_k / (a_k |phi'(log q_k)|),   q = softmax(adjust(z))

        a_k is the class weight, or w_k / class_share_k with a balance. The balance and the weights
        move the threshold of a flexible model, not its ranking: this moves it back to 1/2.

        Args:
            logits: z, (B, C, *spatial). The result has the same shape; C = 1 gives the probability
                of the foreground.
            class_share: fraction of pixels of each class in training, or their counts; for C = 1
                of background and foreground. Only a balance needs it.

        Example:
            >>> loss = CrossEntropyLoss(balance=Balance())
            >>> loss.probability(torch.zeros(1, 1), class_share=(0.99, 0.01))
            tensor([[0.0100]])
        """
        reason = no_weight_of(self.balance, self.per)
        if reason is not None:
            raise self.refuse_probability(reason)
        check_channels(logits)
        return self.natural(max(logits.shape[1], 2), class_share).probability(logits)

    def _pixel_weights(
        self, n_classes: int, class_share: Any, factor: Sequence[float] | None
    ) -> tuple[float, ...]:
        """Return a_k, with the factors of a penalty."""
        weight: Sequence[float] = (1.0,) * n_classes
        if class_share is not None or self.balance is not None:
            share = class_shares(class_share, n_classes, f"the balance of {type(self).__name__}")
            if self.balance is not None:
                weight = balance_weights(self.balance, share)
        if self.class_weight is not None:
            check_n_entries("class_weight", self.class_weight, n_classes)
            weight = self.class_weight
        if factor is not None:
            check_n_entries("alpha", factor, n_classes)
            weight = [w * f for w, f in zip(weight, factor, strict=True)]
        return check_weights(weight, type(self).__name__)

    def _natural(
        self,
        n_classes: int,
        class_share: Any,
        penalty: Penalty | None,
        adjustment: Adjustment | None,
        plain: float = 0.0,
    ) -> Natural:
        """Return the map of a penalty on adjusted logits, see `Natural`."""
        if isinstance(penalty, CrossEntropy):
            penalty = None
        if self.spread is not None:
            raise self.refuse_probability("the weight of a pixel depends on the other pixels")
        if penalty is not None and penalty.no_inverse is not None:
            raise self.refuse_probability(penalty.no_inverse)
        terms = {}
        if adjustment is not None:
            if type(adjustment).per_class_terms is Adjustment.per_class_terms:
                name = type(adjustment).__name__
                raise self.refuse_probability(f"its adjustment {name} has no `per_class_terms`")
            check_n_entries("class_counts", adjustment.class_counts, n_classes)
            terms = adjustment.per_class_terms()
        factor = None if penalty is None else penalty.factor_of_class
        weight = self._pixel_weights(n_classes, class_share, factor)
        return Natural(weight, penalty, **terms, plain=plain)

    @shows_options(CallOptions)
    def forward(self, logits: Tensor, target: Tensor, **options: Unpack[CallOptions]) -> Any:
        """Return the loss of logits (B, C, *spatial); see `pixel_loss` for targets and options."""
        check_options(type(self).__name__, options, CallOptions)
        return _mean_of_pixels(
            self.error,
            logits,
            target,
            self.soft_for,
            class_weight=self.class_weight,
            ignore_index=self.ignore_index,
            balance=self.balance,
            per=self.per,
            max_instances=self.max_instances,
            spread=self.spread,
            reduction=self.reduction,
            validate=self.validate,
            **options,
        )


class PixelLoss(ClassificationLoss):
    """Any penalty on any adjustment of the logits.

        loss = mean_i phi(log softmax(adjust(z))_{y_i})

    See `pixel_loss` for the arguments. At call time: `mask`, `pixel_weight`, `class_count`,
    `instance`, `return_parts`.

    Example:
        >>> loss = PixelLoss(Focal(2.0), LogPrior([900, 100]), balance=Balance())
        >>> loss(torch.zeros(2, 2, 3, 3), torch.zeros(2, 3, 3, dtype=torch.long))
        tensor(0.0011)
    """

    shown = ("penalty", "adjustment", *ClassificationLoss.shown)

    @shows_options(MeanOptions)
    def __init__(
        self,
        penalty: Penalty | None = None,
        adjustment: Adjustment | None = None,
        **options: Unpack[MeanOptions],
    ) -> None:
        super().__init__(**options)
        check_penalty(penalty)
        check_adjustment(adjustment)
        self.penalty = penalty
        self.adjustment = adjustment

    @property
    def soft_for(self) -> str | None:
        return refuses_soft(self.adjustment)

    def error(self, pixels: PixelTarget) -> Tensor:
        return penalty_of(self.penalty, self.adjustment, pixels)

    def natural(self, n_classes: int, class_share: Any = None) -> Natural:
        return self._natural(n_classes, class_share, self.penalty, self.adjustment)

    def weight_like(self, like: Tensor) -> Tensor:
        """Return the class weights on the device of (..., C), 1 without any."""
        if self.class_weight is None:
            return torch.ones(like.shape[-1], dtype=like.dtype, device=like.device)
        return weights_of_class(self.class_weight, like.shape[-1], like)
