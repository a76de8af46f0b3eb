"""The losses that compete, by their texts in a config; the most important ones come first."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from dense_imb.base.checks import check_choice
from dense_imb.losses.foreign.catalogue import CATALOGUE
from dense_imb.losses.foreign.codes import is_code
from dense_imb.losses.foreign.recommended import value_bins_loss
from dense_imb.losses.foreign.short_names import SHORT_NAMES, full_text

PLAIN = "cross-entropy"  # the loss that the others are compared with
PLAIN_OF_VALUES = "MSE"


class Contestant(NamedTuple):
    """A loss that competes.

    Args:
        name: name in tables.
        loss: text as `dense-imb train --loss` takes it, or a Module.
        is_ours: whether it is a loss of this library.

    Example:
        >>> from dense_imb.compare import Contestant
        >>> mine = Contestant("mild focal", "FocalLoss(gamma=1.0)")
        >>> mine.text, mine.folder
        ('FocalLoss(gamma=1.0)', 'mild-focal')
    """

    name: str
    loss: str | nn.Module
    is_ours: bool = True

    @property
    def text(self) -> str:
        """Text of the loss, with the import path of a Module."""
        if isinstance(self.loss, str):
            return self.loss
        return f"{type(self.loss).__module__}:{' '.join(repr(self.loss).split())}"

    @property
    def module(self) -> nn.Module | None:
        """The loss, if it is a Module."""
        return None if isinstance(self.loss, str) else self.loss

    @property
    def is_plain(self) -> bool:
        """Whether it is the cross-entropy that others are compared with."""
        path, name = self._class
        plain = ("CrossEntropyLoss", "BCEWithLogitsLoss") if path else ("CrossEntropyLoss",)
        return name in plain and path in ("", "torch.nn")

    @property
    def is_plain_of_values(self) -> bool:
        """Whether it is the mean squared error that losses of values are compared with."""
        return self._class == ("torch.nn", "MSELoss")

    @property
    def _class(self) -> tuple[str, str]:
        """Package and class of a text without options; ("", "") for a Module."""
        if not isinstance(self.loss, str):
            return "", ""
        text = full_text(self.loss) or self.loss
        path, _, name = text.removesuffix("()").rpartition(":")
        return path, name

    @property
    def folder(self) -> str:
        """Folder name made from the name; different names have different folders.

        Example:
            >>> Contestant("hard mining", "").folder, Contestant("f = -1", "").folder
            ('hard-mining', 'f-1-10acb7')
        """
        part = re.sub(r"[^A-Za-z0-9_.]+", "-", self.name).strip("-.")
        is_same = part.replace("-", " ") == self.name.replace("-", " ")
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:6]
        return part if is_same else f"{part}-{digest}".lstrip("-")


_THEIRS = (
    PLAIN, "Dice", "DiceCE", "focal", "weighted cross-entropy", "Tversky", PLAIN_OF_VALUES, "MAE",
)  # fmt: skip
_CELLS, _BINS, _ROOT_BINS = "balanced cells", "value bins", "value bins of power 1/2"
N_FIRST = 6  # losses of each kind that a small budget keeps
_OF_PIXELS = (
    PLAIN, "balanced cross-entropy", "Dice", "balanced softmax", "DiceCE", "ACB-MSE",
    "focal", "weighted cross-entropy", "Tversky", "balanced hard mining",
    "balanced complement cross-entropy",
)  # fmt: skip
ORDER: dict[str, tuple[str, ...]] = {
    "hits": _OF_PIXELS,
    "images": _OF_PIXELS,
    "labels": (
        PLAIN, "balanced softmax", "LDAM", "weighted cross-entropy", "focal",
        "balanced cross-entropy",
        "hard mining", "balanced hard mining", "class-dependent temperature",
        "complement cross-entropy",
    ),
    "values": (PLAIN_OF_VALUES, _CELLS, _ROOT_BINS, "ACB-MSE", _BINS, "MAE"),
}  # fmt: skip


def contestants(
    kind: str,
    *,
    n_classes: int = 2,
    edges: Sequence[float] = (),
    cells: tuple[str, int] | None = None,
) -> list[Contestant]:
    """Return all losses of a kind of data, in the order in which a small budget keeps them.

    Args:
        kind: name of the kind, see `dense_imb.config.KINDS`.
        n_classes: number of classes; with two, complement cross-entropy is cross-entropy.
        edges: for maps of values: edges of value bins; no loss has bins without.
        cells: for maps of values: partition of the cells, "labels" or "masks", and their number;
            no loss has cells without.

    Example:
        >>> from dense_imb.compare import contestants
        >>> [one.name for one in contestants("hits")][:4]
        ['cross-entropy', 'balanced cross-entropy', 'Dice', 'balanced softmax']
    """
    texts = {**SHORT_NAMES, **_texts_of_values(edges, cells)}
    chosen = [
        Contestant(name, texts[name], name not in _THEIRS)
        for name in ORDER[kind]
        if name in texts and (n_classes > 2 or "complement" not in name)
    ]
    if kind != "images":
        return chosen
    with_dice = [
        Contestant(f"{one.name} + Dice", f"{one.loss} + {SHORT_NAMES['Dice']}")
        for one in chosen
        if one.is_ours
    ]
    return [*chosen, *with_dice]


def _texts_of_values(edges: Sequence[float], cells: tuple[str, int] | None) -> dict[str, str]:
    """Return the losses of values that depend on the data, by name."""
    texts = {}
    if edges:
        texts[_BINS] = value_bins_loss(edges)
        texts[_ROOT_BINS] = value_bins_loss(edges, power=0.5)
    if cells is not None:
        partition, n = cells
        texts[_CELLS] = f'BalancedRegressionLoss("l1", "{partition}", n_classes={n})'
    return texts


def parse_contestant(text: str, known: Sequence[Contestant]) -> Contestant:
    """Return the contestant that was typed: a known name, NAME=LOSS, or a loss.

    Example:
        >>> parse_contestant("mine=FocalLoss(gamma=1.0)", [])
        Contestant(name='mine', loss='FocalLoss(gamma=1.0)', is_ours=True)
    """
    for one in known:
        if one.name.lower() == text.strip().lower():
            return one
    text = text.strip()
    is_name = re.fullmatch(r"[\w -]+", text) is not None
    if is_name and full_text(text) is None and not is_code(text):
        names = [*(one.name for one in known), *SHORT_NAMES]
        names += [entry.name for entry in CATALOGUE if entry.feeds_on != "features"]
        check_choice("loss", text, dict.fromkeys(names))
    named = re.match(r"\s*([\w ./+-]+?)\s*=\s*(?=[A-Za-z_])([^=].*)$", text)
    if named and "(" not in named[1]:
        return Contestant(named[1], named[2].strip())
    return Contestant(text.strip(), text.strip())
