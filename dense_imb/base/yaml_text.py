"""YAML of unknown origin: plain values only, of a bounded size."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

LARGEST = 1 << 20  # characters of a file
_DEEPEST = 50  # brackets around a value


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Loader of plain values.

    Aliases are refused, since nested ones grow a few lines to any size, and names that are there
    twice, since one would hide the other.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            name = self.peek_event().anchor
            raise yaml.YAMLError(f"the alias *{name}, where only plain values are read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(names)) < len(names):
            twice, _ = Counter(names).most_common(1)[0]
            raise yaml.YAMLError(f"the name {twice!r} twice, of which one would be ignored")
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Parse YAML without aliases and without objects.

    Raises:
        yaml.YAMLError: the text is something else.

    Example:
        >>> parse_yaml("loss: FocalLoss\\nsteps: 200")
        {'loss': 'FocalLoss', 'steps': 200}
    """
    if _depth(text) > _DEEPEST:  # the time to read them grows with the square
        raise yaml.YAMLError(f"values in more than {_DEEPEST} brackets")
    try:
        return yaml.load(text, _PlainLoader)
    except RecursionError:
        raise yaml.YAMLError("values nested too deeply") from None


def _depth(text: str) -> int:
    """Return the largest number of brackets that are open at once, those in texts included."""
    steps = {"[": 1, "{": 1, "]": -1, "}": -1}
    return max(accumulate(steps[mark] for mark in text if mark in steps), default=0)


def read_yaml_file(path: Path) -> Any:
    """Read a YAML file, see `parse_yaml`; refuse a large one before it is read whole."""
    with path.open() as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise yaml.YAMLError(f"more than {LARGEST:,} characters")
    return parse_yaml(text)
