"""Options of an operating point: a retention, a number of fakes or a purity."""

from __future__ import annotations

from typing import Any

from dense_imb.base.refusals import Refused
from dense_imb.cli._parser import Namespace

_NAMES = ("retention", "fakes", "purity")


def add_aims(group: Any, default: str) -> None:
    """Add the options `--retention`, `--fakes` and `--purity`.

    Args:
        group: options of the command.
        default: text of the default retention.
    """
    group.add_argument(
        "--retention",
        type=float | None,
        help=f"fraction of the signal to keep (signal efficiency); by default {default}",
    )
    group.add_argument(
        "--fakes",
        type=float | None,
        help="number of noise hits kept per noise-only event, instead of a retention; the events "
        "to choose on must hold events without signal",
    )
    group.add_argument(
        "--purity",
        type=float | None,
        help="fraction of signal among the kept hits, instead of a retention",
    )


def aims_of(options: Namespace) -> dict[str, float]:
    """Return the given one of the options as an argument; {} for the default retention."""
    given = {name: getattr(options, name) for name in _NAMES}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise Refused("one of {retention}, {fakes} and {purity}", " and ".join(given), "drop one")
    return given
