"""One row for each public loss: how to make it, what to feed it, and a value known from elsewhere.

The same promises run over every row, in test_every_loss.py and in processes.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dense_imb import losses
from dense_imb.losses import Balance, ValueBins

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "seed_values.json").read_text())


def reference(name: str, **args: Any) -> list[dict[str, Any]]:
    """The published implementations' cases of this name, with these arguments."""
    found = [
        case
        for case in REFERENCE["cases"]
        if case["name"] == name and all(case["args"].get(k) == v for k, v in args.items())
    ]
    assert found, f"no reference case {name} {args}"
    return found


def frames(
    n_images: int, seed: int = 0, hit_share: float = 0.2, size: int = 6
) -> dict[str, Tensor]:
    """Predictions and targets of almost empty frames, in double precision."""
    rng = torch.Generator().manual_seed(seed)
    shape = (n_images, 1, size, size + 1)
    is_hit = torch.rand(shape, generator=rng) < hit_share
    value = 0.1 + 0.9 * torch.rand(shape, generator=rng, dtype=torch.float64)
    prediction = torch.randn(shape, generator=rng, dtype=torch.float64)
    return {"prediction": prediction, "target": torch.where(is_hit, value, 0.0)}


def labelled_frames(n_images: int, seed: int = 0, **options: Any) -> dict[str, Tensor]:
    """The same with a class for each pixel."""
    inputs = frames(n_images, seed, **options)
    rng = torch.Generator().manual_seed(seed + 1)
    shape = inputs["target"].shape
    return {**inputs, "label": torch.randint(0, 3, shape, generator=rng)}


def labelled_logits(
    n_images: int, seed: int = 0, n_channels: int = 4, size: int = 6, **options: Any
) -> dict[str, Tensor]:
    """Logits of a few classes, and the class of each pixel, the first one the most frequent."""
    rng = torch.Generator().manual_seed(seed)
    shape = (n_images, n_channels, size, size + 1)
    logits = 2 * torch.randn(shape, generator=rng, dtype=torch.float64)
    high = max(n_channels, 2)
    label = torch.randint(0, 2 * high, (n_images, size, size + 1), generator=rng)
    return {"logits": logits, "target": torch.where(label < high, label, 0)}


def soft_logits(n_images: int, seed: int = 0, **options: Any) -> dict[str, Tensor]:
    """The same with a probability for each class."""
    inputs = labelled_logits(n_images, seed, **options)
    one_hot = nn.functional.one_hot(inputs["target"], inputs["logits"].shape[1])
    smooth = 0.9 * one_hot.movedim(-1, 1) + 0.1 / one_hot.shape[-1]
    return {**inputs, "target": smooth.to(torch.float64)}


def logits_of_instances(n_images: int, seed: int = 0, **options: Any) -> dict[str, Tensor]:
    """Labelled logits with the instance of each pixel, not always of one class."""
    inputs = labelled_logits(n_images, seed, **options)
    return {**inputs, "instance": _instances(inputs["target"], seed)}


def frames_of_instances(n_images: int, seed: int = 0, **options: Any) -> dict[str, Tensor]:
    """Almost empty frames with the instance of each pixel."""
    inputs = frames(n_images, seed, **options)
    return {**inputs, "instance": _instances(inputs["target"].squeeze(1), seed)}


def _instances(like: Tensor, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed + 2)
    return torch.randint(0, 4, like.shape, generator=rng)


def covered_frames(n_images: int, seed: int = 0, **options: Any) -> dict[str, Tensor]:
    """Almost empty frames with three masks that overlap, and leave pixels out."""
    inputs = frames(n_images, seed, **options)
    rng = torch.Generator().manual_seed(seed + 3)
    batch, _, *spatial = inputs["target"].shape
    return {**inputs, "label": torch.rand((batch, 3, *spatial), generator=rng) < 0.3}


@dataclass(frozen=True)
class Case:
    """One loss. `make(**options)` builds the Module, `function` is the formula below it."""

    id: str
    make: Callable[..., nn.Module]
    function: Callable[..., Any]
    inputs: Callable[..., dict[str, Tensor]]
    pinned: tuple[tuple[dict[str, Tensor], float], ...]  # (inputs, value) of make()
    n_classes: int = 2
    fill: tuple[float, float] = (0.0, 1.0)  # target values of an all-empty and an all-full frame
    is_regression: bool = True
    is_sum: bool = False  # of other losses, which have the options of a mean
    is_region: bool = False  # a formula of sums: no map of contributions, a window of its own
    is_cover: bool = False  # its cells overlap: their counts add up to more than the pixels
    has_windows: bool = True  # takes `class_count`
    n_sums: tuple[int, int] = (2, 3)  # numbers of a class between processes, without, with weights
    n_groups: int = 0  # of which each finds its hardest pixels

    def collectives(self, is_weighted: bool) -> list[int]:
        """Numbers that go through each collective."""
        # one collective for each loss, of a few numbers for each class
        reduction = [self.n_sums[is_weighted] * self.n_classes] * (2 if self.is_sum else 1)
        if self.is_region and self.is_sum:
            reduction[1] = 2 * self.n_classes
        if not self.n_groups:
            return reduction
        bits = (11, 11, 11, 11, 11, 9)  # of a float64
        masses = self.n_groups * (2 if is_weighted else 1)
        return [*(self.n_groups << n for n in bits), masses, *reduction]

    @property
    def name(self) -> str:
        return self.make().__class__.__name__


def _published(name: str, **args: Any) -> tuple[tuple[dict[str, Tensor], float], ...]:
    return tuple(
        ({k: torch.tensor(v) for k, v in case["inputs"].items()}, case["value"])
        for case in reference(name, **args)
    )


def _acb(**options: Any) -> nn.Module:
    return losses.ACBMSELoss(**options)


_BY_HAND = {
    "prediction": torch.tensor([[1.0, 0.0, 3.0, 0.0, 4.0, 2.0]]),
    "target": torch.tensor([[0.0, 0.0, 1.0, 1.0, 5.0, 5.0]]),
}
_OUTCOME = {
    "tp_weight": 1.5, "fp_weight": 0.7, "fn_weight": 2.0, "tn_weight": 0.5, "frame_weight": 0.01
}  # fmt: skip


def _balanced(
    error: Any,
    partition: Any,
    *,
    scope: str = "batch",
    reduction: str = "mean",
    per: Any = "pixel",
    max_instances: int | None = None,
    spread: Any = None,
    **balance: Any,
) -> nn.Module:
    return losses.BalancedRegressionLoss(
        error,
        partition,
        Balance(scope=scope, **balance),
        per=per,
        max_instances=max_instances,
        spread=spread,
        reduction=reduction,
    )


def _balanced_function(
    error: Any,
    partition: Any,
    per: Any = "pixel",
    max_instances: int | None = None,
    spread: Any = None,
    **balance: Any,
) -> Callable[..., Any]:
    def call(*args: Tensor, scope: str = "batch", **options: Any) -> Any:
        return losses.balanced_regression_loss(
            *args, error=error, partition=partition, balance=Balance(scope=scope, **balance),
            per=per, max_instances=max_instances, spread=spread, **options,
        )  # fmt: skip

    return call


def _outcome(**options: Any) -> nn.Module:
    return losses.OutcomeBalancedMSELoss(**_OUTCOME, **options)


def _huber(prediction: Tensor, target: Tensor) -> Tensor:
    return nn.functional.huber_loss(prediction, target, reduction="none")


def _sign(prediction: Tensor, target: Tensor) -> Tensor:
    return (target > 0).long() + (target > 0.5).long()


BALANCED = Balance()


def _classifier(
    name: str, *args: Any, balance: Balance | None = BALANCED, **fixed: Any
) -> Callable[..., nn.Module]:
    """Makes the Module of that name; `scope` goes into its balance."""

    def make(scope: str = "batch", reduction: str = "mean") -> nn.Module:
        scoped = None if balance is None else replace(balance, scope=scope)
        return getattr(losses, name)(*args, balance=scoped, reduction=reduction, **fixed)

    return make


def _classifying(
    name: str, *, balance: Balance | None = BALANCED, **fixed: Any
) -> Callable[..., Any]:
    """Calls the function of that name; `scope` goes into its balance."""

    def call(logits: Tensor, target: Tensor, scope: str = "batch", **options: Any) -> Any:
        scoped = None if balance is None else replace(balance, scope=scope)
        return getattr(losses, name)(logits, target, balance=scoped, **fixed, **options)

    return call


def _sum_of_two(**options: Any) -> nn.Module:
    parts = {
        "hard": _classifier("HardMiningLoss", 0.75)(**options),
        "plain": _classifier("CrossEntropyLoss")(**options),
    }
    return losses.CompoundLoss(parts, weights={"plain": 0.5})


def _summing_two(*args: Tensor, **options: Any) -> Tensor:
    hard = _classifying("hard_mining_loss", alpha=0.75)(*args, **options)
    return hard + 0.5 * _classifying("cross_entropy_loss")(*args, **options)


def _region(
    name: str, *args: Any, balance: Balance = BALANCED, parts: Any = None, **fixed: Any
) -> Callable[..., nn.Module]:
    """Makes the region loss of that name; `scope` goes into its balance."""

    def make(scope: str = "batch", reduction: str = "mean") -> nn.Module:
        _without_reduction(reduction)
        scoped = replace(balance, scope=scope)
        return getattr(losses, name)(*args, balance=scoped, **fixed)

    return make


def _without_reduction(reduction: str) -> None:
    """The region losses have none; the sentence is that of the others."""
    if reduction != "mean":
        losses.DiceLoss(reduction=reduction)


def _region_function(
    index: Any, *, balance: Balance = BALANCED, **fixed: Any
) -> Callable[..., Any]:
    def call(logits: Tensor, target: Tensor, scope: str = "batch", **options: Any) -> Any:
        scoped = replace(balance, scope=scope)
        return losses.region_loss(logits, target, index=index, balance=scoped, **fixed, **options)

    return call


def _dice_and_cross_entropy(scope: str = "batch", reduction: str = "mean") -> nn.Module:
    _without_reduction(reduction)
    return losses.CompoundLoss(
        losses.DiceLoss(balance=Balance(scope=scope)),
        losses.CrossEntropyLoss(balance=Balance(scope=scope)),
        weights=(1.0, 0.5),
    )


def _dice_and_cross_entropy_function(
    logits: Tensor, target: Tensor, scope: str = "batch", **options: Any
) -> Tensor:
    return _dice_and_cross_entropy(scope)(logits, target, **options)


def logits_with_instances(n_images: int, seed: int = 0, **options: Any) -> dict[str, Tensor]:
    """Logits, classes, and the numbers of instances of one class each, with neighbourhoods."""
    inputs = labelled_logits(n_images, seed, **options)
    target = inputs["target"]
    rng = torch.Generator().manual_seed(seed + 2)
    near = torch.randint(0, 9, target.shape, generator=rng)
    mine = 3 * (target - 1) + near % 3 + 1
    return {**inputs, "instance": torch.where(target > 0, mine, near)}


COUNTS = (500, 120, 30, 7)
# two pixels, four classes: by hand, the classes' means are averaged
_TWO_PIXELS = {
    "logits": torch.tensor([[[0.0, 2.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]]),
    "target": torch.tensor([[0, 0]]),
}
_P = math.exp(2) / (math.exp(2) + 3)  # of the second pixel; the first has 1/4
# the same two, and one more like the first; the instances average before they count
_THREE_PIXELS = {
    "logits": _TWO_PIXELS["logits"][..., [0, 0, 1]],
    "target": torch.tensor([[0, 0, 0]]),
    "instance": torch.tensor([[1, 1, 2]]),
}
_MASKS = torch.tensor([[[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]]]).bool()
_POWER = {"power": 2, "count_power": 0.5}
_PER = {"per": "instance", "max_instances": 4}
BINS = ValueBins((0.05, 0.4, 0.7))
SMOOTH_BINS = ValueBins(BINS.edges, power=0.5, kernel=losses.Kernel("triang", 7))
_V_0, _V_3 = 2 / (2**0.5 + 0.25 * 2), 4 / (2 + 0.25 * 2**0.5)  # of 2 and 4 pixels, 3 bins apart
LABEL_WEIGHT = (1.0, 2.0, 0.5)

CASES: tuple[Case, ...] = (
    Case(
        "acb_mse",
        _acb,
        losses.acb_mse_loss,
        frames,
        _published("acb_mse", empty_weight=1, hit_weight=1),
    ),
    Case(
        "acb_mse mean of present",
        partial(_acb, hit_weight=2.0, combine="mean"),
        partial(losses.acb_mse_loss, hit_weight=2.0, combine="mean"),
        frames,
        _published("acb_mse_mean_of_present"),
    ),
    Case(
        "acb_mse full frame",
        partial(_acb, frame_weight=0.25),
        partial(losses.acb_mse_loss, frame_weight=0.25),
        frames,
        _published("acb_mse_full_frame"),
    ),
    Case(
        "outcome mean",
        _outcome,
        partial(losses.outcome_balanced_mse_loss, **_OUTCOME),
        frames,
        _published("outcome_balanced_mse_mean"),
        n_classes=4,
    ),
    Case(
        "outcome sum",
        partial(_outcome, combine="sum"),
        partial(losses.outcome_balanced_mse_loss, **_OUTCOME, combine="sum"),
        frames,
        _published("outcome_balanced_mse_sum"),
        n_classes=4,
    ),
    Case(
        "outcome carrot stick",
        partial(_outcome, combine="carrot_stick"),
        partial(losses.outcome_balanced_mse_loss, **_OUTCOME, combine="carrot_stick"),
        frames,
        _published("outcome_balanced_mse_carrot_stick"),
        n_classes=4,
    ),
    Case(
        "l1, value bins",
        partial(_balanced, "l1", BINS),
        _balanced_function("l1", BINS),
        frames,
        # classes of _BY_HAND: {1, 0}, {}, {}, {2, 1, 1, 3} -> (0.5 + 1.75) / 2
        ((_BY_HAND, 1.125),),
        n_classes=4,
    ),
    Case(
        "l1, smoothed value bins",
        partial(_balanced, "l1", SMOOTH_BINS),
        _balanced_function("l1", SMOOTH_BINS),
        frames,
        ((_BY_HAND, (0.5 * _V_0 + 1.75 * _V_3) / (_V_0 + _V_3)),),
        n_classes=4,
    ),
    Case(
        "huber, hits",
        partial(_balanced, "huber", "hits", combine="sum"),
        _balanced_function("huber", "hits", combine="sum"),
        frames,
        # empty: {0.5, 0}; hits: {1.5, 0.5, 0.5, 2.5} -> 0.25 + 1.25
        ((_BY_HAND, 1.5),),
    ),
    Case(
        "huber, hits, hardest pixels",
        partial(_balanced, "huber", "hits", spread=losses.Hardest(0.5)),
        _balanced_function("huber", "hits", spread=losses.Hardest(0.5)),
        frames,
        # empty: {0.5, 0}; hits: {1.5, 0.5, 0.5, 2.5} -> (0.5 + 2) / 2
        ((_BY_HAND, 1.25),),
        has_windows=False,
        n_groups=3,
    ),
    Case(
        "l1, hits, worst neighbours",
        partial(_balanced, "l1", "hits", spread=losses.WorstNeighbour(3)),
        _balanced_function("l1", "hits", spread=losses.WorstNeighbour(3)),
        frames,
        # empty: {1, 0}; hits: {2, 1, 1, 3} -> {1, 1}, {2, 2, 3, 3}
        ((_BY_HAND, 1.75),),
    ),
    Case(
        "mse, labels",
        partial(_balanced, "mse", "labels", weight=LABEL_WEIGHT, absent="zero"),
        _balanced_function("mse", "labels", weight=LABEL_WEIGHT, absent="zero"),
        labelled_frames,
        # errors 1 0 4 1 1 9; class 0: 0.5, class 1: 3, class 2 absent -> (0.5 + 2 * 3) / 3
        (({**_BY_HAND, "label": torch.tensor([[0, 0, 1, 1, 0, 1]])}, (2 / 3 + 28 / 3) / 3),),
        n_classes=3,
    ),
    Case(
        "callables",
        partial(_balanced, _huber, _sign, weight=LABEL_WEIGHT, min_count=3),
        _balanced_function(_huber, _sign, weight=LABEL_WEIGHT, min_count=3),
        frames,
        # class 0: (0.5 + 0) / 3; class 1 absent; class 2: 0.5 * 5 / 4 -> mean over two
        ((_BY_HAND, (0.5 / 3 + 0.5 * 5 / 4) / 2),),
        n_classes=3,
    ),
    Case(
        "cross entropy",
        _classifier("CrossEntropyLoss"),
        _classifying("cross_entropy_loss"),
        labelled_logits,
        ((_TWO_PIXELS, (math.log(4) - math.log(_P)) / 2),),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
    ),
    Case(
        "cross entropy, binary, weighted",
        _classifier("CrossEntropyLoss", balance=Balance(weight=(1.0, 3.0), combine="sum")),
        _classifying("cross_entropy_loss", balance=Balance(weight=(1.0, 3.0), combine="sum")),
        partial(labelled_logits, n_channels=1),
        # background: softplus(1); foreground: softplus(-2), three times
        (
            (
                {"logits": torch.tensor([[1.0], [2.0]]), "target": torch.tensor([0, 1])},
                math.log1p(math.e) + 3 * math.log1p(math.exp(-2)),
            ),
        ),
        is_regression=False,
    ),
    Case(
        "focal, soft targets",
        _classifier("FocalLoss", (1.0, 2.0, 0.5, 1.5), 0.5),
        _classifying("focal_loss", alpha=(1.0, 2.0, 0.5, 1.5), gamma=0.5),
        soft_logits,
        ((_TWO_PIXELS, (0.75**0.5 * math.log(4) - (1 - _P) ** 0.5 * math.log(_P)) / 2),),
        n_classes=4,
        fill=(0.25, 0.25),
        is_regression=False,
    ),
    Case(
        "hard mining",
        _classifier("HardMiningLoss", 0.75, 1.0, 1e7),
        _classifying("hard_mining_loss", alpha=0.75, gamma=1.0, delta=1e7),
        labelled_logits,
        # h(1/4) = sin(pi/4) / (pi/4)
        (
            (
                {name: tensor[..., :1] for name, tensor in _TWO_PIXELS.items()},
                0.75 * math.sin(math.pi / 4) / (math.pi / 4) * math.log(4),
            ),
        ),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
    ),
    Case(
        "complement cross entropy",
        _classifier("ComplementCrossEntropyLoss", -1.0),
        _classifying("complement_cross_entropy_loss", balancing_factor=-1.0),
        labelled_logits,
        # three wrong classes alike: entropy log 3
        ((_TWO_PIXELS, (math.log(4) - math.log(_P)) / 2 - math.log(3) / 4),),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
    ),
    Case(
        "balanced softmax",
        _classifier("BalancedSoftmaxLoss", COUNTS),
        _classifying("balanced_softmax_loss", class_counts=COUNTS),
        labelled_logits,
        ((_TWO_PIXELS, (math.log(657 / 500) + math.log1p(157 / 500 / math.exp(2))) / 2),),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
    ),
    Case(
        "class-dependent temperature",
        _classifier("ClassDependentTemperatureLoss", (4.0, 1.0, 1.0, 1.0)),
        _classifying("class_dependent_temperature_loss", class_counts=(4.0, 1.0, 1.0, 1.0)),
        labelled_logits,
        ((_TWO_PIXELS, (math.log(4) + math.log1p(3 / math.e)) / 2),),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
    ),
    Case(
        "bias compensated",
        _classifier("BiasCompensatedLoss", COUNTS),
        _classifying("bias_compensated_loss", class_counts=COUNTS),
        labelled_logits,
        ((_TWO_PIXELS, (math.log(657 / 500) + math.log1p(157 / 500 / math.exp(2))) / 2),),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
    ),
    Case(
        "LDAM",
        _classifier("LDAMLoss", (1.0, 16.0, 16.0, 16.0), 0.5, 2.0),
        _classifying("ldam_loss", class_counts=(1.0, 16.0, 16.0, 16.0), scale=2.0),
        labelled_logits,
        # margin 0.5 of the rarest class, scale 2
        ((_TWO_PIXELS, (math.log1p(3 * math.e) + math.log1p(3 * math.exp(-3))) / 2),),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
    ),
    Case(
        "hard mining on balanced softmax",
        _classifier("PixelLoss", losses.HardMining(delta=110.0), losses.LogPrior(COUNTS, 0.5)),
        _classifying(
            "pixel_loss",
            penalty=losses.HardMining(delta=110.0),
            adjustment=losses.LogPrior(COUNTS, 0.5),
        ),
        labelled_logits,
        (),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
    ),
    Case(
        "cross entropy, hardest pixels",
        _classifier("CrossEntropyLoss", spread=losses.Hardest(0.5)),
        _classifying("cross_entropy_loss", spread=losses.Hardest(0.5)),
        labelled_logits,
        ((_TWO_PIXELS, math.log(4)),),  # one of the two pixels
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
        has_windows=False,
        n_groups=5,  # with that of the ignored pixels
    ),
    Case(
        "focal, worst neighbours, soft targets",
        _classifier("FocalLoss", 1.0, 1.0, spread=losses.WorstNeighbour(3)),
        _classifying("focal_loss", gamma=1.0, spread=losses.WorstNeighbour(3)),
        soft_logits,
        ((_TWO_PIXELS, 0.75 * math.log(4)),),  # of the first pixel, also at the second
        n_classes=4,
        fill=(0.25, 0.25),
        is_regression=False,
    ),
    Case(
        "linear",
        _classifier("PixelLoss", losses.Linear()),
        _classifying("pixel_loss", penalty=losses.Linear()),
        labelled_logits,
        ((_TWO_PIXELS, 1 - (1 / 4 + _P) / 2),),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
    ),
    Case(
        "compound",
        _sum_of_two,
        _summing_two,
        labelled_logits,
        # hard mining as above, and half of cross-entropy
        (
            (
                {name: tensor[..., :1] for name, tensor in _TWO_PIXELS.items()},
                (0.75 * math.sin(math.pi / 4) / (math.pi / 4) + 0.5) * math.log(4),
            ),
        ),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
        is_sum=True,
    ),
    Case(
        "dice",
        _region("DiceLoss"),
        _region_function(losses.Dice()),
        labelled_logits,
        # p of class 0: 1/4, _P; of the others 1/4, (1 - _P) / 3; they are absent: their mean p
        ((_TWO_PIXELS, (1 / 4 + (1 - _P) / 3) / 2),),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
        is_region=True,
        n_sums=(3, 3),
    ),
    Case(
        "focal tversky, binary",
        _region("TverskyLoss", 0.3, 0.7, gamma=0.75),
        _region_function(losses.Tversky(0.3, 0.7), gamma=0.75),
        partial(labelled_logits, n_channels=1),
        # p = 1/2 at a background and a foreground pixel: tp = fp = fn = 1/2
        (
            (
                {"logits": torch.zeros(2, 1), "target": torch.tensor([0, 1])},
                0.5**0.75,
            ),
        ),
        fill=(0, 1),
        is_regression=False,
        is_region=True,
        n_sums=(3, 3),
    ),
    Case(
        "matthews with background",
        _region("RegionLoss", losses.Matthews(), include_background=True),
        _region_function(losses.Matthews(), include_background=True),
        labelled_logits,
        (),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
        is_region=True,
        n_sums=(3, 3),
    ),
    Case(
        "generalized dice",
        _region("RegionLoss", losses.GeneralizedDice()),
        _region_function(losses.GeneralizedDice()),
        labelled_logits,
        (),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
        is_region=True,
        n_sums=(3, 3),
    ),
    Case(
        "jaccard, soft targets, weighted",
        _region("RegionLoss", losses.Jaccard(1.0), balance=Balance(weight=COUNTS, absent="index")),
        _region_function(losses.Jaccard(1.0), balance=Balance(weight=COUNTS, absent="index")),
        soft_logits,
        (),
        n_classes=4,
        fill=(0.25, 0.25),
        is_regression=False,
        is_region=True,
        n_sums=(4, 4),
    ),
    Case(
        "dice per instance",
        _region("DiceLoss", per="instance", max_instances=12),
        _region_function(losses.Dice(), per="instance", max_instances=12),
        logits_with_instances,
        (),
        n_classes=3,  # that count: their values and numbers of instances
        fill=(0, 3),
        is_regression=False,
        is_region=True,
        n_sums=(2, 2),
    ),
    Case(
        "dice and cross entropy",
        _dice_and_cross_entropy,
        _dice_and_cross_entropy_function,
        labelled_logits,
        ((_TWO_PIXELS, (1 / 4 + (1 - _P) / 3) / 2 + (math.log(4) - math.log(_P)) / 4),),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
        is_sum=True,
        is_region=True,
        n_sums=(3, 3),
    ),
    Case(
        "huber, power mean",
        partial(_balanced, "huber", "hits", **_POWER),
        _balanced_function("huber", "hits", **_POWER),
        frames,
        # means 0.25 of two pixels and 1.25 of four: 2^(1/2) and 4^(1/2) weigh their squares
        ((_BY_HAND, math.sqrt((2**0.5 * 0.25**2 + 2 * 1.25**2) / (2**0.5 + 2))),),
        has_windows=False,
    ),
    Case(
        "cross entropy, worst class",
        _classifier("CrossEntropyLoss", balance=Balance(power=math.inf)),
        _classifying("cross_entropy_loss", balance=Balance(power=math.inf)),
        labelled_logits,
        (({**_TWO_PIXELS, "target": torch.tensor([[0, 1]])}, 2 - math.log(_P)),),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
        has_windows=False,
    ),
    Case(
        "focal, power mean with a frame",
        _classifier("FocalLoss", balance=Balance(power=1.5, frame_weight=0.5)),
        _classifying("focal_loss", balance=Balance(power=1.5, frame_weight=0.5)),
        labelled_logits,
        (),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
        has_windows=False,
    ),
    Case(
        "cross entropy, count power",
        _classifier("CrossEntropyLoss", balance=Balance(count_power=1)),
        _classifying("cross_entropy_loss", balance=Balance(count_power=1)),
        labelled_logits,
        (
            (
                {**_TWO_PIXELS, "target": torch.tensor([[0, 1]])},
                (math.log(4) + 2 - math.log(_P)) / 2,
            ),
        ),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
    ),
    Case(
        "cross entropy of instances",
        _classifier("CrossEntropyLoss", **_PER),
        _classifying("cross_entropy_loss", **_PER),
        logits_of_instances,
        ((_THREE_PIXELS, (math.log(4) - math.log(_P)) / 2),),
        n_classes=4,
        fill=(0, 3),
        is_regression=False,
        has_windows=False,
        n_sums=(3, 3),
    ),
    Case(
        "mse of instances, power mean with a frame",
        partial(_balanced, "mse", "hits", power=3, frame_weight=0.5, min_count=2, **_PER),
        _balanced_function("mse", "hits", power=3, frame_weight=0.5, min_count=2, **_PER),
        frames_of_instances,
        (),
        has_windows=False,
        n_sums=(5, 5),
    ),
    Case(
        "mse, cover",
        partial(_balanced, "mse", losses.Cover(3, rest="cell")),
        _balanced_function("mse", losses.Cover(3, rest="cell")),
        covered_frames,
        # errors 1 0 4 1 1 9: 5/3 and 5/2 in the cells, nothing in the third, 5 in the rest
        (({**_BY_HAND, "label": _MASKS}, (5 / 3 + 5 / 2 + 5) / 3),),
        n_classes=4,
        is_cover=True,
    ),
    Case(
        "l1, cover with a frame",
        partial(_balanced, "l1", losses.Cover(3), frame_weight=0.5, combine="sum"),
        _balanced_function("l1", losses.Cover(3), frame_weight=0.5, combine="sum"),
        covered_frames,
        (),
        n_classes=3,
        is_cover=True,
        has_windows=False,
        n_sums=(4, 5),
    ),
)
