"""Page with every loss in one line, from the catalogue of losses."""

from __future__ import annotations

from dense_imb.losses.foreign.catalogue import CATALOGUE
from dense_imb.losses.foreign.short_names import SHORT_NAMES

_INTRODUCTION = """# Every loss in one line

`dense-imb losses` prints this list. z are logits, p a prediction or a probability, t or y the
target. A loss of *values* is called with `(prediction, target)`, a loss of *logits* with
`(logits, target)`, a loss of *features* with `(features, target)`. Which one to take:
[which loss](../guide/which_loss.md).
"""


def catalogue_page() -> str:
    """Return the page."""
    rows = [
        f"| `{one.name}` | {one.feeds_on} | ``{_cell(one.formula)}`` | {_cell(one.source)} |"
        for one in CATALOGUE
    ]
    table = "\n".join(["| loss | takes | formula | source |", "| --- | --- | --- | --- |", *rows])
    short = [f"| `{name}` | ``{_cell(text)}`` |" for name, text in SHORT_NAMES.items()]
    names = "\n".join(["| short name | loss |", "| --- | --- |", *short])
    return (
        f"{_INTRODUCTION}\n{table}\n\n## Short names\n\nAccepted wherever a loss is typed.\n\n"
        f"{names}\n"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
