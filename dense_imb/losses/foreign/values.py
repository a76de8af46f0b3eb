"""Values in the text of a loss, such as Balance(scope="image"), Hardest(0.1) or Matthews()."""

from __future__ import annotations

import ast
import importlib
import math
from typing import Any, NamedTuple

# names of `dense_imb.losses` whose objects a text may hold: all are built of literals alone
VALUES = (
    "Balance", "Hardest", "WorstNeighbour",
    "Dice", "Jaccard", "Tversky", "Matthews", "GeneralizedDice",
    "CrossEntropy", "Focal", "HardMining", "Linear",
    "LogPrior", "Margin", "Temperature",
    "Cover", "Kernel", "ValueBins",
)  # fmt: skip


class Value(NamedTuple):
    """An object of a text that is not built yet: its name and its literal options."""

    name: str
    positional: tuple[Any, ...]
    options: dict[str, Any]

    def build(self) -> Any:
        """Build the object."""
        value_class = getattr(importlib.import_module("dense_imb.losses"), self.name)
        return value_class(*self.positional, **self.options)


def read_value(node: ast.expr) -> Any:
    """Return the literal, or the `Value`, of a parsed option; nothing is evaluated.

    Raises:
        ValueError: the option is neither.
    """
    if ast.unparse(node) == "math.inf":
        return math.inf
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in VALUES:
        options = {str(one.arg): read_value(one.value) for one in node.keywords if one.arg}
        if len(options) == len(node.keywords):
            return Value(node.func.id, tuple(map(read_value, node.args)), options)
    return ast.literal_eval(node)


def built(option: Any) -> Any:
    """Return an option with its object built, if it is a `Value`."""
    return option.build() if isinstance(option, Value) else option
