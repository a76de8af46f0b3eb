"""A sum of losses, ours and other libraries', with a weight for each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from torch import Tensor, nn

from dense_imb.base.checks import check_at_least, is_exporting
from dense_imb.losses.core.balance import Parts
from dense_imb.losses.core.instances import check_instance_given
from dense_imb.losses.core.module import Loss
from dense_imb.losses.core.natural import Natural
from dense_imb.losses.core.one_softmax import share_a_softmax, values_of_parts, windows_of_parts
from dense_imb.losses.core.options import CallOptions, MeanOptions, check_options, shows_options
from dense_imb.losses.core.overlap_sums import WindowSums, check_window
from dense_imb.losses.core.region import RegionOptions
from dense_imb.losses.foreign.feeding import Intake, feed, intake_of, wants_cells

_FACTORS = ("lambda_", "weight_")  # of MONAI's and nnU-Net's sums
_LONGEST_VALUE = 40  # characters of an option that an error repeats


class SumCallOptions(CallOptions, total=False):
    """Options of a sum of losses at call time."""

    instance: Tensor | None
    window: WindowSums | None
    label: Tensor | None


class NoOptions(TypedDict):
    """Options of a sum at construction: it has none, its parts do."""


class CompoundLoss(Loss):
    """A sum of losses, ours and other libraries', with a weight for each.

        loss = sum over parts j of  w_j loss_j(z, y)

    For example a region loss (Dice, Tversky) and one of ours. Each part gets the label map in the
    form that its library expects: indices, one channel or one-hot. Options such as `ignore_index`
    belong to the parts. A loss of values in a sum with one of
    logits, like ACB-MSE, compares the probabilities with 0 and 1. `parts` holds the value of each
    part in the last call, before its weight and without gradient, for logging.

    Region losses and penalties of ours share one softmax.

    At call time: `mask`, `pixel_weight`, `class_count`, `instance`, `window`, `return_parts`. An
    option that one of the parts lacks is refused, except for `instance`, which goes to the parts
    whose `per` is "instance".

    Args:
        losses: a mapping from names to losses, or the first of several losses.
        more: the other losses. Losses without names are named after their classes.
        weights: w, by name or in the order of the losses; 1 by default.

    Example:
        >>> loss = CompoundLoss({"hard": HardMiningLoss(), "plain": torch.nn.CrossEntropyLoss()})
        >>> loss(torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.long))
        tensor(1.1344)
        >>> loss.parts
        {'hard': tensor(0.4413), 'plain': tensor(0.6931)}
    """

    shown = ("weights",)
    no_probability = "a sum of several losses has no inverse"

    @shows_options(NoOptions)
    def __init__(
        self,
        losses: Mapping[str, nn.Module] | nn.Module,
        *more: nn.Module,
        weights: Mapping[str, float] | Sequence[float] | None = None,
        **options: Unpack[NoOptions],
    ) -> None:
        _refuse_options(type(self), options)
        super().__init__()
        named = _named(losses, more)
        self.weights = _weights(weights, list(named))
        self._intakes = {name: intake_of(loss) for name, loss in named.items()}
        _check_ignored(self._intakes)
        kinds = {intake.feeds_on for intake in self._intakes.values()}
        # in a sum with a loss of logits, a loss of values is fed probabilities
        self.feeds_on = "values" if kinds == {"values"} else "logits"
        self.losses = nn.ModuleDict()
        for name, loss in named.items():
            try:
                self.losses[name] = loss
            except (KeyError, TypeError) as problem:
                raise ValueError(
                    f"Expected names that a torch.nn.ModuleDict takes, got {name!r}; no dot, and "
                    "no name of its methods."
                ) from problem
        self.parts: dict[str, Tensor] = {}

    @property
    def per(self) -> str:
        """Groups of the means: "instance" if a part wants an instance map, else "pixel"."""
        return "instance" if any(map(_wants_instances, self.losses.values())) else "pixel"

    @property
    def made_for(self) -> str:
        """Description of the loss in errors about windows."""
        return f"a sum of {', '.join(self.losses)}"

    @shows_options(SumCallOptions)
    def sums(self, logits: Tensor, target: Tensor, **options: Unpack[SumCallOptions]) -> WindowSums:
        """Return the sums of one call, which add up to the `window` of gradient accumulation.

        They are those of its region losses and penalties, see the method `sums` of `RegionLoss`.
        """
        check_options(type(self).__name__, options, SumCallOptions)
        losses = dict(self.losses.items())
        numbers = None
        if share_a_softmax(losses, options):
            numbers = windows_of_parts(losses, logits, target, options)
        if numbers is None:
            raise ValueError(self._no_window())
        return WindowSums(self.made_for, numbers)

    def _no_window(self) -> str:
        return (
            "Expected a region loss and penalties of hard targets for `window`, all of dense_imb "
            f"and with one `adjustment`, got {self.made_for}; call the losses apart."
        )

    @shows_options(SumCallOptions)
    def forward(self, logits: Tensor, target: Tensor, **options: Unpack[SumCallOptions]) -> Any:
        """Return the loss of logits (B, C, *spatial); see `pixel_loss` for targets and options."""
        check_options(type(self).__name__, options, SumCallOptions)
        check_instance_given(
            self.per, options.get("instance"), "`CompoundLoss`", 'give a part per="instance"'
        )
        results: dict[str, Any] | None = None
        if options.get("window") is not None:
            check_window(options["window"], self.made_for)
            if options.get("return_parts"):
                raise ValueError(
                    "A sum takes `window` or `return_parts`, not both; its attribute `parts` holds "
                    "the value of each loss."
                )
        losses = dict(self.losses.items())
        if share_a_softmax(losses, options):
            results = values_of_parts(losses, logits, target, options)
        if results is None:
            if options.get("window") is not None:
                raise ValueError(self._no_window())
            results = {
                name: self._value(name, loss, logits, target, options)
                for name, loss in losses.items()
            }
        if options.get("return_parts"):
            values = {name: parts.value for name, parts in results.items()}
            means = {name: parts.class_mean for name, parts in results.items()}
            counts = next(iter(results.values())).class_count
            return Parts(self._total(values), self._total(means), counts)
        return self._total(results)

    def probability(self, logits: Tensor, class_share: Any = None) -> Tensor:
        """Return the natural probabilities of the only part with a weight above 0.

        A sum of several losses has no inverse in general.
        """
        return self._only_part().probability(logits, class_share)

    def natural(self, n_classes: int, class_share: Any = None) -> Natural:
        """Return the map from logits to natural logits of the only part, see `probability`.

        Args:
            n_classes: number of classes.
            class_share: fraction of pixels of each class in training; a balance needs it.
        """
        return self._only_part().natural(n_classes, class_share)

    def _only_part(self) -> Loss:
        """Return the only part with a weight above 0; refuse others."""
        active = [name for name in self.losses if self.weights[name] > 0]
        part = self.losses[active[0]] if len(active) == 1 else None
        if isinstance(part, Loss) and self._intakes[active[0]].feeds_on == self.feeds_on:
            return part
        raise self.refuse_probability(self.no_probability)

    def _value(
        self, name: str, loss: nn.Module, logits: Tensor, target: Tensor, options: SumCallOptions
    ) -> Any:
        if "instance" in options and not _wants_instances(loss):
            options = options.copy()
            del options["instance"]
        if "label" in options and not wants_cells(loss):
            options = options.copy()
            options.pop("label")
        if self.feeds_on == "values":
            return loss(logits, target, **options)
        intake = self._intakes[name]
        if intake.feeds_on == "values":
            logits = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
        return feed(loss, intake, logits, target, options)

    def _total(self, values: Mapping[str, Tensor]) -> Tensor:
        if not is_exporting():  # an exported graph has nowhere to keep them
            self.parts = {name: value.detach() for name, value in values.items()}
        shapes = {name: tuple(value.shape) for name, value in values.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(
                f"Expected parts of one shape, got {shapes}; give all the same `reduction`, "
                '"mean" beside a region loss.'
            )
        total: Tensor | None = None
        for name, value in values.items():
            part = self.weights[name] * value
            total = part if total is None else total + part
        assert total is not None
        return total


def _refuse_options(cls: type[CompoundLoss], options: Mapping[str, object]) -> None:
    """Refuse options of a part, and other libraries' names of the weights."""
    for name, value in options.items():
        of_region, of_mean = (name in one.__annotations__ for one in (RegionOptions, MeanOptions))
        if of_region or of_mean:
            given = f"{name}={value!r}" if len(repr(value)) <= _LONGEST_VALUE else f"{name}=..."
            region, mean = given if of_region else "", given if of_mean else ""
            raise TypeError(
                f"`{cls.__name__}` takes no `{name}`; give it to each part that has it, such as "
                f"{cls.__name__}(DiceLoss({region}), CrossEntropyLoss({mean}))."
            )
        if name.startswith(_FACTORS):
            raise TypeError(
                f"`{cls.__name__}` takes no `{name}`; give the factors of all parts in their order "
                "as `weights`, such as weights=(0.7, 1)."
            )
    check_options(cls.__name__, options, NoOptions, also=cls)


def _wants_instances(loss: nn.Module) -> bool:
    return getattr(loss, "per", "pixel") == "instance"


def _named(
    losses: Mapping[str, nn.Module] | nn.Module, more: Sequence[nn.Module]
) -> dict[str, nn.Module]:
    if isinstance(losses, Mapping):
        if more:
            raise TypeError("Expected a mapping of names to losses, or losses; got both.")
        if not losses:
            raise ValueError("Expected at least one loss, got none.")
        return dict(losses)
    if isinstance(losses, (list, tuple)):
        kind = type(losses).__name__
        raise TypeError(
            f"Expected losses one by one, got a {kind}; pass CompoundLoss(a, b) or a mapping of "
            "names to losses."
        )
    named: dict[str, nn.Module] = {}
    for loss in (losses, *more):
        name = type(loss).__name__
        taken = sum(
            re.fullmatch(rf"{re.escape(name)}(_\d+)?", other) is not None for other in named
        )
        named[f"{name}_{taken + 1}" if taken else name] = loss
    return named


def _weights(
    weights: Mapping[str, float] | Sequence[float] | None, names: Sequence[str]
) -> dict[str, float]:
    if weights is None:
        weights = {}
    if not isinstance(weights, Mapping):
        if len(weights) != len(names):
            raise ValueError(
                f"Expected `weights` with one entry for each of the {len(names)} losses, "
                f"got {len(weights)}."
            )
        weights = dict(zip(names, weights, strict=True))
    for name, weight in weights.items():
        if name not in names:
            raise ValueError(f"Expected `weights` of {', '.join(names)}, got {name!r}.")
        check_at_least("weights", weight, 0)
    return {name: float(weights.get(name, 1.0)) for name in names}


def _check_ignored(intakes: Mapping[str, Intake]) -> None:
    """Refuse a part that would count pixels which another part ignores."""
    for first, intake in intakes.items():
        ignored = intake.ignore_index
        if not intake.is_ours or ignored is None:
            continue
        for name, other in intakes.items():
            if other.ignore_index != ignored:
                theirs = other.ignore_index if other.ignore_index is not None else "none"
                raise ValueError(
                    f"Expected one `ignore_index` in every part, got {ignored} in {first!r} and "
                    f"{theirs} in {name!r} ({other.name}), which would count such pixels."
                )
