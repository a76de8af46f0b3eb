"""Region losses: 1 - index of each class or instance, combined by the balance of all losses."""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from dense_imb.base.checks import check_at_least, check_choice, check_ignore_index
from dense_imb.losses.core.adjustment import (
    Adjustment,
    adjust_logits,
    check_adjustment,
    refuses_soft,
)
from dense_imb.losses.core.balance import Balance, Parts, Scope
from dense_imb.losses.core.cells import KeyedCells
from dense_imb.losses.core.instance_overlap import InstanceNumbers, instance_overlap_sums
from dense_imb.losses.core.instances import (
    check_instance_given,
    check_max_instances,
    instance_map,
)
from dense_imb.losses.core.module import Loss
from dense_imb.losses.core.options import check_options, shows_options
from dense_imb.losses.core.overlap import Dice, Overlap, check_index
from dense_imb.losses.core.overlap_sums import (
    ClassNumbers,
    WindowSums,
    check_window,
    class_overlap_sums,
    flat,
)
from dense_imb.losses.core.overlap_values import (
    ClassValues,
    Formula,
    IndexFunction,
    combine_classes,
)
from dense_imb.losses.core.penalty import Penalty
from dense_imb.losses.core.processes import all_processes, exchange
from dense_imb.losses.core.target import PixelTarget, check_are_logits, pixel_target

Numbers = ClassNumbers | InstanceNumbers
Penalties = tuple[Penalty | None, ...]
PER = ("class", "instance")

REGION_DEFAULTS: dict[str, object] = {
    "include_background": False,
    "gamma": 1.0,
    "per": "class",
    "validate": False,
    "return_parts": False,
}


class RegionOptions(TypedDict, total=False):
    """Options of every region loss at construction."""

    balance: Balance | None
    include_background: bool
    gamma: float
    per: str
    max_instances: int | None
    adjustment: Adjustment | None
    ignore_index: int | None
    validate: bool


class RegionCallOptions(TypedDict, total=False):
    """Options of every region loss at call time."""

    mask: Tensor | None
    pixel_weight: Tensor | None
    instance: Tensor | None
    window: WindowSums | None
    return_parts: bool


class _AllOptions(RegionOptions, RegionCallOptions, total=False):
    """Options of the functional region loss."""


def overlap(
    logits: Tensor,
    target: Tensor,
    *,
    scope: Scope = "batch",
    adjustment: Adjustment | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    pixel_weight: Tensor | None = None,
) -> Overlap:
    """Return the soft counts of each class, the core of every region loss.

        tp_k = sum_{y_i = k} p_ik     fp_k = sum_{y_i != k} p_ik     p = softmax(z)
        fn_k = sum_{y_i = k} 1 - p_ik     tn_k = sum_{y_i != k} 1 - p_ik

    A formula of these counts has an exact gradient in several processes with scope "global". A
    class without pixels has tp = fn = 0: its 0 / 0 is yours to decide.

    Args:
        logits, target, adjustment, ignore_index, mask, pixel_weight: see `pixel_loss`. Binary
            logits have two classes, too.
        scope: pixels that are counted together: "image" for counts (B, C), "batch" for (1, C),
            "global" for (1, C) of all processes.

    Example:
        >>> o = overlap(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]]))
        >>> 1 - (2 * o.tp / (2 * o.tp + o.fp + o.fn))[:, 1:].mean()  # Dice loss of class 1
        tensor(0.6667, dtype=torch.float64)
    """
    balance = Balance(scope=scope)
    check_adjustment(adjustment)
    pixels = region_pixels(
        logits,
        target,
        adjustment=adjustment,
        ignore_index=ignore_index,
        mask=mask,
        pixel_weight=pixel_weight,
    )
    numbers = class_overlap_sums(pixels, by_image=scope == "image")
    if scope != "image":
        sums = torch.stack(numbers.without_errors())
        numbers = ClassNumbers.of(tuple(exchange(sums, balance)))
    return numbers.overlap()


def region_pixels(
    logits: Tensor,
    target: Tensor,
    *,
    adjustment: Adjustment | None,
    soft_for: str | None = None,
    **options: Any,
) -> PixelTarget:
    """Apply the contract and the adjustment; binary logits keep their one channel if they can."""
    soft_for = soft_for or refuses_soft(adjustment)
    pixels = pixel_target(
        logits, target, soft_for=soft_for, keep_binary=adjustment is None, **options
    )
    if adjustment is None:
        return pixels
    return pixels._replace(logits=adjust_logits(adjustment, pixels.logits, pixels.label))


# options of a mean of errors
_OF_MEANS = {
    "reduction": "it has no map of contributions; drop it",
    "class_weight": "its weights are Balance(weight=...)",
    "weight": "its weights are Balance(weight=...), with an entry for class 0",
}


def _check_balance(balance: object) -> None:
    if not isinstance(balance, Balance):
        raise TypeError(
            f"Expected `balance` to be a Balance, got {type(balance).__name__}; write Balance()."
        )
    for name, default in (("frame_weight", 0.0), ("min_count", 1)):
        if getattr(balance, name) != default:
            raise ValueError(
                f"A region loss takes no `{name}` in its balance, got {getattr(balance, name)}; "
                "it counts pixels, and has no mean over them."
            )


@shows_options(_AllOptions, REGION_DEFAULTS)
def region_loss(
    logits: Tensor, target: Tensor, *, index: IndexFunction | None = None, **options: Any
) -> Any:
    """1 - index of each class, from sums of probabilities, combined like class means.

        loss = sum_k  w_k / K  (1 - index(tp_k, fp_k, fn_k, tn_k))^gamma,   p = softmax(z)

    Args:
        logits, target, adjustment, ignore_index, mask, pixel_weight, validate: see `pixel_loss`.
            Soft targets t are best met by p = t.
        index: `Dice()` by default, `Jaccard()`, `Tversky()`, `Matthews()`, `GeneralizedDice()` or
            any function of an `Overlap` that returns one number for each class.
        balance: rule by which the classes combine; by default Balance(scope="batch",
            absent="rate"), the mean over the classes of the whole batch, in which a class without
            pixels adds its mean probability. See `docs/region_losses.md`.
        include_background: count class 0, too. Its Dice is near 1, and dilutes the others.
        gamma: power of 1 - index; focal Tversky has 0.75.
        per: "class", or "instance": the index of each instance of the call's `instance` map, then
            the mean over the instances of a class.
        max_instances: bound of the instances of an image, which keeps shapes static on an
            accelerator; instances beyond it are left out.
        instance: integer map (B, *spatial) with per="instance", 0 for no instance. Background
            pixels of instance 0 are false alarms of all instances (blob loss); those of another
            number are that instance's alone (CC loss, with the nearest component everywhere).
        window: sum of `loss.sums(...)` over a window of gradient accumulation. The value is the
            window's in each call, and the gradients add up to its own: don't divide them.
        return_parts: return `Parts` (value, class_mean, class_count); class_mean holds each
            class's (1 - index)^gamma, its mean over the images with scope "image".

    Example:
        >>> region_loss(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]]))
        tensor(0.6667)
    """
    check_options("the loss", options, _AllOptions)
    at_call = {name: options.pop(name) for name in _AT_CALL if name in options}
    return RegionLoss(index, **options)(logits, target, **at_call)


_AT_CALL = tuple(RegionCallOptions.__annotations__)


class RegionLoss(Loss):
    """1 - index of each class, from sums of probabilities, combined like class means.

        loss = sum_k  w_k / K  (1 - index(tp_k, fp_k, fn_k, tn_k))^gamma,   p = softmax(z)

    See `region_loss` for the arguments and the default balance. At call time: `mask`,
    `pixel_weight`, `instance`, `window`, `return_parts`.

    Example:
        >>> loss = RegionLoss(Tversky(0.3, 0.7), gamma=0.75)
        >>> loss(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]]))
        tensor(0.6948)
    """

    shown = (
        "index", "balance", "include_background", "gamma", "per", "max_instances", "adjustment",
        "ignore_index",
    )  # fmt: skip
    no_probability = "the best outputs of a region loss are 0 or 1, whatever the probability"

    @shows_options(RegionOptions, REGION_DEFAULTS)
    def __init__(
        self, index: IndexFunction | None = None, **options: Unpack[RegionOptions]
    ) -> None:
        for name, why in _OF_MEANS.items():
            if name in options:
                raise TypeError(f"`{type(self).__name__}` takes no `{name}`: {why}.")
        check_options(type(self).__name__, options, RegionOptions, also=type(self))
        super().__init__("mean")
        self.index = Dice() if index is None else index
        balance = options.get("balance")
        self.balance = Balance() if balance is None else balance
        self.include_background = bool(options.get("include_background", False))
        self.gamma = options.get("gamma", 1.0)
        self.per = options.get("per", "class")
        self.max_instances = options.get("max_instances")
        self.adjustment = options.get("adjustment")
        self.ignore_index = options.get("ignore_index")
        self.validate = options.get("validate", False)
        # the value of a class or an instance
        absent = getattr(self.balance, "absent", None) or "rate"
        first = 0 if self.include_background else 1
        self.formula = Formula(self.index, self.gamma, absent, first)
        check_adjustment(self.adjustment)
        check_ignore_index(self.ignore_index)
        self._check()

    def _check(self) -> None:
        check_index(self.index)
        check_at_least("gamma", self.gamma, 0)
        if self.gamma == 0:
            raise ValueError("Expected `gamma` above 0, got 0, which leaves nothing to train.")
        check_choice("per", self.per, PER)
        check_max_instances(self.max_instances)
        if self.per == "class" and self.max_instances is not None:
            raise ValueError('Expected `max_instances` with per="instance", got it without.')
        if self.per == "instance" and (self.include_background or self.is_joint):
            wrong = repr(self.index) if self.is_joint else "include_background=True"
            raise ValueError(
                f'Expected an index of each class and no background with per="instance", got '
                f"{wrong}; the background has no instances."
            )
        _check_balance(self.balance)
        for name in ("weight", "count_power"):
            value = getattr(self.balance, name)
            if self.is_joint and value:
                raise ValueError(
                    f"Expected a balance without `{name}` for {self.index!r}, which weighs the "
                    f"classes itself, got {value}; drop it."
                )
        if self.is_joint and not isinstance(self.balance.combine, str):
            raise ValueError(
                f'Expected `combine` to be "mean" or "sum" for {self.index!r}, one number for '
                f"all classes, got {self.balance.combine}."
            )

    @property
    def by_image(self) -> bool:
        """Whether the classes of each image are combined on their own."""
        return self.balance.scope == "image"

    @property
    def made_for(self) -> str:
        """Description of the loss in errors about windows."""
        return f"{self.index!r} per {self.per} with scope {self.balance.scope!r}"

    @property
    def is_joint(self) -> bool:
        """Whether the index is one number for all classes."""
        return self.formula.is_joint

    @shows_options(RegionCallOptions)
    def forward(self, logits: Tensor, target: Tensor, **options: Unpack[RegionCallOptions]) -> Any:
        """Return the loss of logits (B, C, *spatial); see `region_loss` for targets and options."""
        check_options(type(self).__name__, options, RegionCallOptions)
        window = options.get("window")
        if window is not None:
            check_window(window, self.made_for)
        pixels = self._pixels(logits, target, options)
        numbers = self.numbers(pixels, options.get("instance"))
        value, values = self.value_of(numbers, None if window is None else window.numbers[0])
        value = value.to(pixels.logits.dtype)
        return self._parts(value, values, pixels) if options.get("return_parts") else value

    @shows_options(RegionCallOptions)
    def sums(
        self, logits: Tensor, target: Tensor, **options: Unpack[RegionCallOptions]
    ) -> WindowSums:
        """Return the sums of one call, which add up to the `window` of gradient accumulation.

        With scope "global" they are those of all processes. The calls of both passes must see the
        same random numbers, as of dropout.

        Example:
            >>> loss, y = RegionLoss(), torch.tensor([[0, 1]])
            >>> window = sum(loss.sums(z, y) for z in (torch.zeros(1, 2, 2), torch.ones(1, 2, 2)))
            >>> loss(torch.zeros(1, 2, 2), y, window=window)
            tensor(0.5000)
        """
        check_options(type(self).__name__, options, RegionCallOptions)
        with torch.no_grad():
            numbers = self.numbers(self._pixels(logits, target, options), options.get("instance"))
            return WindowSums(self.made_for, (self.window_of(numbers),))

    def numbers(
        self,
        pixels: PixelTarget,
        instance: Tensor | None,
        penalties: Penalties = (),
        *,
        by_image: bool | None = None,
    ) -> Numbers:
        """Return the sums of the pixels that this loss is a formula of.

        Args:
            pixels: logits and target after the contract.
            instance: map of the call, needed with per="instance".
            penalties: phi of wanted sums of errors; None is cross-entropy.
            by_image: whether class sums have a row for each image; by default as the scope says.
        """
        by_image = self.by_image if by_image is None else by_image
        check_instance_given(self.per, instance, f"`{type(self).__name__}`")
        if instance is None:
            return class_overlap_sums(pixels, by_image=by_image, penalties=penalties)
        checked = instance_map(
            instance, pixels.label, max_instances=self.max_instances, valid=pixels.valid
        )
        return instance_overlap_sums(pixels, checked, penalties)

    def value_of(
        self, numbers: Numbers, window: Tensor | None = None
    ) -> tuple[Tensor, ClassValues]:
        """Return the loss and the values of the classes from the sums of the pixels.

        Args:
            numbers: sums of this call.
            window: those of a window of accumulation, see `window_of`.
        """
        values = self._values(numbers, None if self.by_image else window)
        total = combine_classes(values, self.balance, self.formula.first)
        if self.by_image and window is not None:
            total = exchange(total, self.balance, window)
        loss = total[0] / total[1].clamp(min=1)
        # shows a NaN of a class that does not count, and connects an empty batch
        return loss + 0.0 * numbers.checksum, values

    def window_of(self, numbers: Numbers) -> Tensor:
        """Return the sums that add up to those of a window, without gradient."""
        if self.by_image:
            values = self._values(numbers, None)
            return combine_classes(values, self.balance, self.formula.first).detach()
        return all_processes(self._batch_sums(numbers), self.balance)

    def _batch_sums(self, numbers: Numbers) -> Tensor:
        """Return the sums that batches, processes and windows add up."""
        if isinstance(numbers, InstanceNumbers):
            parts = self.formula.instance_sums(numbers)
            return torch.stack([part.sum(0, keepdim=True) for part in parts])
        return torch.stack(numbers.as_one_row().without_errors())

    def _values(self, numbers: Numbers, window: Tensor | None) -> ClassValues:
        """Return the values of the classes, of each image or of the batch and its window."""
        self.balance.check_n_classes(numbers.mass.shape[-1])
        sums = None if self.by_image else exchange(self._batch_sums(numbers), self.balance, window)
        if isinstance(numbers, ClassNumbers):
            if sums is not None:
                numbers = ClassNumbers.of(tuple(sums))
            return self.formula.class_values(numbers)
        value, n = self.formula.instance_sums(numbers) if sums is None else sums
        is_present = n > 0
        is_entry = torch.ones_like(is_present) if self.balance.absent == "zero" else is_present
        return ClassValues(value / n.clamp(min=1), is_present, is_entry, n)

    def _pixels(self, logits: Tensor, target: Tensor, options: RegionCallOptions) -> PixelTarget:
        if self.validate:
            check_are_logits(logits)
        return region_pixels(
            logits,
            target,
            adjustment=self.adjustment,
            ignore_index=self.ignore_index,
            mask=options.get("mask"),
            pixel_weight=options.get("pixel_weight"),
            soft_for='a loss with per="instance"' if self.per == "instance" else None,
        )

    def _parts(self, value: Tensor, values: ClassValues, pixels: PixelTarget) -> Parts:
        """Return the parts of all classes, NaN for those that are absent or do not count."""
        is_present = values.is_present
        total = torch.where(is_present, values.value, 0.0).detach().sum(0)
        mean = total / is_present.sum(0)  # 0 / 0 is NaN
        if self.is_joint:
            mean = mean.expand(pixels.n_classes)
        else:
            mean = F.pad(mean, (pixels.n_classes - len(mean), 0), value=torch.nan)
        slots = KeyedCells(flat(pixels.slot), pixels.n_classes + 2)
        count = slots.sums([None])[0][: pixels.n_classes].long()
        count = all_processes(count, self.balance)
        return Parts(value, mean.to(value.dtype), count)
