"""Losses as text."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from dense_imb.losses.foreign.catalogue import OUR_INPUTS
from dense_imb.tasks.recipe import ParsedLoss
from tests.fuzz.format import Format
from tests.fuzz.mutate import NUMBERS, TEXTS, any_value, mutated_text

_TEXTS = (
    "FocalLoss(gamma=2.0)",
    "FocalLoss + 0.5 * monai.losses:DiceLoss(sigmoid=True)",
    "RegionLoss(Matthews(), balance=Balance(scope='image'))",
    "torch.nn:CrossEntropyLoss(label_smoothing=0.1)",
    "FocalLoss(class_weight='inverse')",
    "HardMiningLoss(balance={}, spread={'hardest': 0.1})",
    "ACBMSELoss(hit_weight=2.0) + 1e+3 * torch.nn:HuberLoss(delta=2.0)",
    "segmentation_models_pytorch.losses:TverskyLoss(mode='binary', alpha=0.3)",
    "flg2a50",
    "CBFLossg05",
    "hmld10000000g05a75",
    "LDAM-RW",
    "dice",
)
_CALLS = ("Balance", "Hardest", "Dice", "Focal", "ValueBins", "Cover", "Kernel", "LogPrior")


def make_losses(folder: Path) -> None:
    for k, text in enumerate(_TEXTS):
        (folder / f"{k}.txt").write_text(text)


def read_loss(path: Path) -> Any:
    """Build a loss as `train` does."""
    loss = ParsedLoss(path.read_bytes().decode("utf-8", "surrogatepass")).build((100, 5))
    return repr(loss)


def change_loss(rng: random.Random, path: Path) -> bool:
    """Change the text of a loss."""
    path.write_bytes(mutated_text(rng, path.read_text()).encode("utf-8", "surrogatepass"))
    return False


def change_options(rng: random.Random, path: Path) -> bool:
    """Give a loss options of other types, losses as options, long sums, deep nesting."""
    name = rng.choice(sorted(OUR_INPUTS))
    options = ("gamma", "balance", "class_weight", "n_classes", "partition", "error", "spread")
    change = rng.randrange(5)
    if change == 0:
        text = f"{name}({rng.choice(options)}={any_value(rng)!r})"
    elif change == 1:
        call = rng.choice(_CALLS)
        text = f"{name}({call}({rng.choice(NUMBERS)}), {rng.choice(options)}={call}())"
    elif change == 2:
        text = rng.choice(("+", " + ", "+2*")).join([name] * rng.choice((2, 30, 20_000)))
    elif change == 3:
        mark = rng.choice(("(", "[", "{1:", "-", "~", "not ", "1+", "1 if 1 else ", "a.", "Dice("))
        text = f"{name}(gamma={mark * rng.choice((20, 200, 100_000))}"
    else:
        number, blanks = rng.choice(NUMBERS), " " * rng.choice((1, 100_000))
        text = f"{number}{blanks}*{blanks}{name}{blanks}{rng.choice(TEXTS)}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return False


FORMATS = {"loss": Format(make_losses, (read_loss,), (change_loss, change_options))}
