"""Losses, comparisons and tasks of `balance_options.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from option_images import BRIGHT, EVEN, FAINT, RARE, Data, cracks, discs, kinds, lines
from torch import Tensor, nn

from dense_imb.losses import (
    Balance,
    BalancedSoftmaxLoss,
    CompoundLoss,
    CrossEntropyLoss,
    DiceLoss,
    Hardest,
    Linear,
    PixelLoss,
    WorstNeighbour,
)


class WithRecall(nn.Module):
    """A loss plus the linear recall of a skeleton, or of the whole foreground.

    Args:
        loss: the loss without the option.
        of: pixels whose recall is added, "skeleton" or "foreground".
    """

    def __init__(self, loss: nn.Module, of: str = "skeleton") -> None:
        super().__init__()
        self.loss, self.of = loss, of
        self.recall = PixelLoss(Linear(), balance=Balance())

    def forward(self, logits: Tensor, target: Tensor, skeleton: Tensor) -> Tensor:
        mask = skeleton if self.of == "skeleton" else target > 0
        return self.loss(logits, target) + self.recall(logits, target, mask=mask)


def _cross_entropy(**options: Any) -> nn.Module:
    return CrossEntropyLoss(**options)


def _with_dice(power: float = 1, **options: Any) -> nn.Module:
    return CompoundLoss(DiceLoss(balance=Balance(power=power)), CrossEntropyLoss(**options))


def _balanced(spread: Any = None, **options: Any) -> nn.Module:
    return CrossEntropyLoss(balance=Balance(**options), spread=spread)


# a loss is made for the pixels of each class in the training data
LOSSES: dict[str, Callable[[list[int]], nn.Module]] = {
    "CE": lambda n: _cross_entropy(),
    "CE, hardest 1/2": lambda n: _cross_entropy(spread=Hardest(0.5)),
    "CE, hardest 1/10": lambda n: _cross_entropy(spread=Hardest(0.1)),
    "CE, worst neighbour": lambda n: _cross_entropy(spread=WorstNeighbour(3)),
    "CE + skeleton recall": lambda n: WithRecall(_cross_entropy()),
    "Dice + CE": lambda n: _with_dice(),
    "Dice + CE, hardest 1/10": lambda n: _with_dice(spread=Hardest(0.1)),
    "Dice + CE, worst neighbour": lambda n: _with_dice(spread=WorstNeighbour(3)),
    "Dice + CE + skeleton recall": lambda n: WithRecall(_with_dice()),
    "Dice + CE + recall": lambda n: WithRecall(_with_dice(), "foreground"),
    "Dice + CE, power 2": lambda n: _with_dice(power=2),
    "balanced CE": lambda n: _balanced(),
    "balanced CE, hardest 1/10": lambda n: _balanced(Hardest(0.1)),
    "balanced CE, hardest 1/2": lambda n: _balanced(Hardest(0.5)),
    "balanced CE, worst neighbour": lambda n: _balanced(WorstNeighbour(3)),
    "balanced CE, power 2": lambda n: _balanced(power=2),
    "balanced CE, power inf": lambda n: _balanced(power="inf"),
    "balanced CE, count power 1/4": lambda n: _balanced(count_power=0.25),
    "balanced CE, count power 1/2": lambda n: _balanced(count_power=0.5),
    "balanced CE, count power 3/4": lambda n: _balanced(count_power=0.75),
    "balanced softmax": BalancedSoftmaxLoss,
}


class Pair(NamedTuple):
    """A loss with an option, the loss without it, and the scores that the option is for."""

    option: str
    one: str
    other: str
    scores: tuple[str, ...]


def _pairs(option: str, losses: Sequence[str], endings: Sequence[str], *scores: str) -> list[Pair]:
    return [
        Pair(option, f"{loss}{ending}", loss, ("AP", *scores))
        for loss in losses
        for ending in endings
    ]


_BOTH, _OVERLAP = ("CE", "balanced CE"), ("CE", "Dice + CE")
_THIN_SCORES = ("skeleton", "clDice")
_KINDS_SCORES = ("worst AP", "worst recall")
_POWER = [
    *_pairs("power", ["balanced CE"], (", power 2", ", power inf"), *_KINDS_SCORES),
    *_pairs("power", ["Dice + CE"], [", power 2"], *_KINDS_SCORES),
]
_COUNT = [
    Pair("count_power", f"balanced CE, count power {g}", other, ("AP", "rarest AP", "F1 likeliest"))
    for g in ("1/2", "1/4", "3/4")
    for other in _BOTH
]
_HARDEST = _pairs("Hardest", _BOTH, (", hardest 1/2", ", hardest 1/10"), "F1")
_WORST = _pairs("WorstNeighbour", _BOTH, [", worst neighbour"], "F1")
_THIN = [
    *_pairs("Linear", _OVERLAP, [" + skeleton recall"], *_THIN_SCORES),
    *_pairs("Linear", ["Dice + CE"], [" + recall"], *_THIN_SCORES),
    Pair("Linear", "Dice + CE + skeleton recall", "Dice + CE + recall", ("AP", *_THIN_SCORES)),
    *_pairs("WorstNeighbour", _OVERLAP, [", worst neighbour"], *_THIN_SCORES),
    *_pairs("Hardest", ["Dice + CE"], [", hardest 1/10"], "F1"),
]


@dataclass(frozen=True)
class Task:
    """Images and the options that they test.

    Args:
        data: makes the images; its argument is the seed.
        pairs: the comparisons.
        references: further losses of the table.
        side: side of the crops, in pixels.
        batch_size: crops of a step.
        steps: steps of a training.
    """

    data: Callable[[int], Data]
    pairs: Sequence[Pair]
    references: tuple[str, ...] = ()
    side: int = 32
    batch_size: int = 8
    steps: int = 300

    def losses(self) -> list[str]:
        """Return the names of the losses in the order of LOSSES."""
        names = {name for pair in self.pairs for name in (pair.one, pair.other)} | {
            *self.references
        }
        return [name for name in LOSSES if name in names]

    def is_thin(self) -> bool:
        """Return whether skeletons are scored."""
        return any(pair.option == "Linear" for pair in self.pairs)


_RARE = partial(kinds, frequency=RARE, contrast=BRIGHT)
TASKS = {
    "rare": Task(_RARE, [*_POWER[:2], *_COUNT], ("balanced softmax",), side=48),
    "longer": Task(_RARE, [_POWER[0], _POWER[2], *_COUNT[:2]], side=48, batch_size=4, steps=1200),
    "faint": Task(partial(kinds, frequency=EVEN, contrast=FAINT), _POWER, ("CE",), side=48),
    "easy": Task(partial(discs, side=64), _HARDEST[:3], side=64, batch_size=4),
    "flipped": Task(partial(discs, flipped=0.05), [*_HARDEST, *_WORST]),
    "shifted": Task(partial(discs, shift=1), _WORST),
    "lines": Task(lines, _THIN, side=64, batch_size=4, steps=400),
    "cracks": Task(cracks, [*_THIN, _HARDEST[1]], side=96, batch_size=4, steps=250),
}
