"""Networks of hits that come with the package, ready to use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetensors.torch import load_file

from dense_imb.base.files import decoding
from dense_imb.base.refusals import refusal, suggest
from dense_imb.runs.read import Run

if TYPE_CHECKING:  # the package must not wait for matplotlib
    from matplotlib.axes import Axes

SETUP = "setup.json"  # geometry and reading, as in the checkpoint of a run
CARD = "README.md"
_FOLDER = Path(__file__).parent / "weights"


class Pretrained(Run):
    """A trained network of the package, used like the run that it came from.

    Its folder holds the weights, the validation scores that thresholds are chosen from, and a card
    that says what it was trained on. Nothing is downloaded.
    """

    def __repr__(self) -> str:
        return f"Pretrained({self.folder.name!r}, {self.kind.name}, {self.config.model.name})"

    def _repr_html_(self) -> str:
        from dense_imb.runs import show

        return show.card_of_pretrained(self)

    def plot(self, ax: Axes | None = None, columns: str | Sequence[str] | None = None) -> Axes:
        """Refuse: a network of the package has no history."""
        raise refusal(
            "Networks of the package come without the history of their training; `card()` has "
            "their scores."
        )

    def checkpoint(self, which: Literal["best", "last"] = "best") -> dict[str, Any]:
        """Load weights and setup; there is one checkpoint."""
        path = self.folder / "best.safetensors"
        with decoding(f"the weights of a network in {path}"):
            weights = load_file(path)
        return {
            "network": {name: value.float() for name, value in weights.items()},
            "setup": json.loads((self.folder / SETUP).read_text()),
        }

    def require_natural(self) -> None:
        """Refuse: the scores of a network of the package are as trained."""
        raise refusal(
            "Networks of the package take no {threshold=auto}, which needs natural probabilities; "
            "take {retention=0.97}."
        )

    def card(self) -> str:
        """Return the card: training data, scores, limits."""
        return (self.folder / CARD).read_text()


def pretrained_names() -> list[str]:
    """Return the names of the networks that come with the package."""
    return sorted(path.parent.name for path in _FOLDER.glob(f"*/{SETUP}"))


def pretrained(name: str) -> Pretrained:
    """Return a network that comes with the package.

    Args:
        name: a name of `pretrained_names()`.

    Example:
        >>> import dense_imb
        >>> dense_imb.pretrained("arc").trained(device="cpu").trained_on.size_text()
        '88 x 128 x 1000'
    """
    names = pretrained_names()
    if name not in names:
        raise ValueError(
            f"Expected the name of a pretrained network, {', '.join(names)}, got "
            f"{name!r}.{suggest(name, names)}"
        )
    return Pretrained(_FOLDER / name)
