"""The losses that compete, as a config names them; the first matter most."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from dense_imb.base.checks import check_choice
from dense_imb.losses.foreign.catalogue import CATALOGUE

PLAIN = "cross-entropy"  # what the others are compared with
_DICE = "monai.losses:DiceLoss(softmax=True, to_onehot_y=True, include_background=False)"


class Contestant(NamedTuple):
    """A loss that competes.

    Args:
        name: in tables.
        loss: as `dense-imb train --loss` takes it; $inverse stands for class weights.
        is_ours: a loss of this library.
    """

    name: str
    loss: str
    is_ours: bool = True

    @property
    def is_plain(self) -> bool:
        """Whether it is the cross-entropy that others are compared with."""
        path, _, name = self.loss.removesuffix("()").rpartition(":")
        plain = ("CrossEntropyLoss", "BCEWithLogitsLoss") if path else ("CrossEntropyLoss",)
        return name in plain and path in ("", "torch.nn")

    @property
    def folder(self) -> str:
        """The name as a part of a path; names that differ have parts that do.

        Example:
            >>> Contestant("hard mining", "").folder, Contestant("f = -1", "").folder
            ('hard-mining', 'f-1-10acb7')
        """
        part = re.sub(r"[^A-Za-z0-9_.]+", "-", self.name).strip("-.")
        is_same = part.replace("-", " ") == self.name.replace("-", " ")
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:6]
        return part if is_same else f"{part}-{digest}".lstrip("-")


_OURS = {
    "balanced cross-entropy": "CrossEntropyLoss(balance={})",
    "balanced softmax": "BalancedSoftmaxLoss",
    "balanced hard mining": "HardMiningLoss(balance={})",
    "ACB-MSE": "ACBMSELoss",
    "balanced complement cross-entropy": "ComplementCrossEntropyLoss(balance={})",
}
_THEIRS = {
    PLAIN: "CrossEntropyLoss",
    "Dice": _DICE,
    "DiceCE": _DICE.replace("DiceLoss", "DiceCELoss"),
    "focal": "FocalLoss(gamma=2.0)",
    "weighted cross-entropy": "CrossEntropyLoss(class_weight=$inverse)",
    "Tversky": _DICE.replace("DiceLoss(", "TverskyLoss(alpha=0.3, beta=0.7, "),
}
# those that matter most
FIRST = (PLAIN, "balanced cross-entropy", "Dice", "balanced softmax", "DiceCE", "ACB-MSE")


def contestants(*, of_hits: bool = False, n_classes: int = 2) -> list[Contestant]:
    """Everybody, in the order in which a small budget leaves them out last.

    Args:
        of_hits: for the pixels of hit frames, where two classes are nearly balanced.
        n_classes: complement cross-entropy is cross-entropy where there are two.
    """
    known = {name: Contestant(name, loss, False) for name, loss in _THEIRS.items()}
    known |= {name: Contestant(name, loss) for name, loss in _OURS.items()}
    if n_classes == 2:
        del known["balanced complement cross-entropy"]
    order = [*FIRST, *(name for name in known if name not in FIRST)]
    found = [known[name] for name in order]
    if of_hits:
        return found
    with_dice = [
        Contestant(f"{one.name} + Dice", f"{one.loss} + {_DICE}") for one in found if one.is_ours
    ]
    return [*found, *with_dice]


def parse_contestant(text: str, known: Sequence[Contestant]) -> Contestant:
    """One that was typed: a name of those known, or NAME=LOSS, or a loss.

    Example:
        >>> parse_contestant("mine=FocalLoss(gamma=1.0)", [])
        Contestant(name='mine', loss='FocalLoss(gamma=1.0)', is_ours=True)
    """
    for one in known:
        if one.name.lower() == text.strip().lower():
            return one
    if re.fullmatch(r"[\w -]+", text.strip()):
        names = [entry.name for entry in CATALOGUE if entry.feeds_on != "features"]
        check_choice("loss", text.strip(), [*(one.name for one in known), *names])
    named = re.match(r"\s*([\w .+-]+?)\s*=\s*(?=[A-Za-z_])([^=].*)$", text)
    if named and "(" not in named[1]:
        return Contestant(named[1], named[2].strip())
    return Contestant(text.strip(), text.strip())
