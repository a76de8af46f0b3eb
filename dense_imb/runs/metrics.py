"""Reading `metrics.json`: what summaries, reports and cards rely on is checked once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dense_imb.base.files import decoding


def read_metrics(path: Path) -> dict[str, Any]:
    """Read the metrics of a run; refuse a file without the entries that every run writes.

    Args:
        path: the file `metrics.json`.
    """
    with decoding(f"the metrics of a run in {path}"):
        stored = json.loads(path.read_text())
        if not isinstance(stored, dict):
            raise ValueError(f"a {type(stored).__name__}")
        for name, (is_right, wanted) in _ENTRIES.items():
            is_there = name in stored or name not in _ALWAYS
            if not is_there or not is_right(stored.get(name)):
                got = repr(stored[name])[:60] if name in stored else "none"
                raise ValueError(f"{got} as `{name}`, which is {wanted}")
        for name in ("last", "first"):
            if stored.get(name) is not None and not _is_row(stored[name]):
                raise ValueError(f"{repr(stored[name])[:60]} as `{name}`, which is a row of scores")
    return stored


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_row(value: Any) -> bool:
    """Whether a value is a row of scores; those that are not finite are None."""
    return isinstance(value, dict) and all(one is None or _is_number(one) for one in value.values())


def _is_best(value: Any) -> bool:
    return value == {} or (_is_row(value) and value.get("step") is not None)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 63


def _are_counts(value: Any) -> bool:
    if value is None:  # of an older version
        return True
    is_whole = isinstance(value, dict) and {"train", "validation"} <= set(value)
    return is_whole and all(map(_is_count, value.values()))


_ALWAYS = ("monitor", "best", "steps", "seconds", "parameters", "stopped")
_ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "monitor": (lambda value: isinstance(value, str), "the name of a score"),
    "best": (_is_best, "a row of scores"),
    "steps": (_is_count, "a whole number"),
    "seconds": (_is_number, "a number"),
    "parameters": (_is_count, "a whole number"),
    "stopped": (lambda value: value is None or isinstance(value, str), "a sentence or null"),
    "samples": (_are_counts, "the numbers of samples"),
    "first_steps": (lambda value: value is None or _is_count(value), "a whole number"),
    "first_seconds": (lambda value: value is None or _is_number(value), "a number"),
}
