"""A kind of data, and all that depends on it: hits, images with masks, whole images, or values.

Each kind is a folder of this room with a module `kind`, which holds its `KIND`. A room above that
treats kinds differently has one module a kind with the same name, for example `report/images.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dense_imb.base.refusals import Refused, refusal
from dense_imb.config import KINDS, TrainConfig

if TYPE_CHECKING:
    from dense_imb.metrics import ScoreHistogram
    from dense_imb.tasks.recipe import Recipe

_WAYS = {
    "hits": "{hits.train=FILE}",
    "images": "{images.train=FOLDER} with {images.masks=FOLDER}",
    "labels": "{labels.train=CSV}",
    "values": "{values.train=FOLDER} with {values.targets=FOLDER}",
}


class Kind(Protocol):
    """One kind of data."""

    name: str  # section of a configuration, folder and command
    description: str  # the training data, in messages
    samples: str  # "events" or "images"
    scored: str  # the parts of a sample that are scored: "hits", "pixels" or "images"
    watched: Sequence[str]  # validation scores to show while a network is trained

    @property
    def recipe(self) -> type[Recipe]:
        """Class of its recipes."""

    def load_scores(self, path: Path) -> Any:
        """Load the validation scores that a run keeps."""

    def foreground(self, scores: Any) -> Sequence[ScoreHistogram]:
        """Return the histogram of each foreground class, of which probabilities are fitted."""

    def headline(self, best: Mapping[str, Any], scores: Any) -> str:
        """Format the best validation scores in one line.

        Args:
            best: scores of the best validation, by name.
            scores: see `load_scores`; None if a run has none.
        """


def kind_of(config: TrainConfig) -> Kind:
    """Return the kind of data of a configuration; refuse none and several."""
    kinds = config.kinds
    if not kinds:
        ways = ", or ".join(_WAYS[kind] for kind in KINDS)
        raise Refused("training data", "none", f"give hits, images, whole images or values: {ways}")
    if len(kinds) > 1:
        given = " and ".join(f"{kind}.train" for kind in kinds)
        raise Refused("one kind of training data", given, "drop all but one")
    return kind_named(kinds[0])


def kind_named(name: str) -> Kind:
    """Return the kind with a name of `KINDS`."""
    kind: Kind = import_module(f"dense_imb.tasks.{name}.kind").KIND
    return kind


def has_report(kind: Kind) -> bool:
    """Whether runs on a kind of data have a report."""
    return find_spec(f"dense_imb.report.{kind.name}") is not None


def module_of_kind(room: str, kind: Kind, what: str) -> Any:
    """Import the module of a kind in a room; without one, the kind has no such thing.

    Args:
        room: dotted path of the room.
        kind: kind of data.
        what: name of the thing, for the refusal.
    """
    name = f"{room}.{kind.name}"
    if find_spec(name) is None:
        raise refusal(f"Runs on {kind.description} have no {what}.")
    return import_module(name)
