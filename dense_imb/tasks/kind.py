"""A kind of data, and all that depends on it: hits, images with masks, or whole images.

Each kind is a folder of this room, with a module `kind` that holds a `KIND`. Rooms above that treat
kinds differently have one module a kind, of the same name: `report/hits.py`, `export/images.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from dense_imb.base.refusals import Refused, refusal
from dense_imb.config import KINDS, TrainConfig

if TYPE_CHECKING:
    from dense_imb.tasks.mean_teacher import Unlabelled
    from dense_imb.tasks.recipe import Recipe

_TRAIN = {
    "hits": "{hits.train=FILE}",
    "images": "{images.train=FOLDER} and {images.masks=FOLDER}",
    "labels": "{labels.train=CSV}",
}


class Kind(Protocol):
    """One kind of data."""

    name: str  # of the section of a configuration, the folder and the command
    description: str  # of the training data, for messages
    samples: str  # "events" or "images"
    scored: str  # parts of a sample that have a label: "hits", "pixels" or "images"

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe that cannot be trained."""

    def check_losses(self, recipe: Recipe) -> None:
        """Refuse losses that do not fit; builds them."""

    def build_task(self, recipe: Recipe) -> Any:
        """Open the data and build the network and its losses."""

    def pseudo_labels(self, recipe: Recipe, task: Any) -> Unlabelled:
        """Open the unlabelled samples of a recipe."""

    def trained(
        self, recipe: Recipe, name: str, content: Mapping[str, Any], device: str | torch.device
    ) -> Any:
        """Build the trained network from the content of a checkpoint."""

    def load_scores(self, path: Path) -> Any:
        """Load the validation scores that a run keeps."""

    def headline(self, best: Mapping[str, Any], scores: Any) -> str:
        """Format the best validation scores in a line."""

    def network_options(self, recipe: Recipe, content: Mapping[str, Any]) -> dict[str, Any]:
        """Sizes of a network's input and output from the setup in a checkpoint."""


def kind_of(config: TrainConfig) -> Kind:
    """Return the kind of data of a configuration; refuse none and several."""
    kinds = config.kinds
    if not kinds:
        ways = ", or ".join(_TRAIN[kind] for kind in KINDS)
        raise Refused("training data", "none", f"give hits, images or whole images: {ways}")
    if len(kinds) > 1:
        given = " and ".join(f"{{{kind}.train}}" for kind in kinds)
        raise Refused("one kind of training data", given, "drop all but one")
    return kind_named(kinds[0])


def kind_named(name: str) -> Kind:
    """Return the kind with a name of `KINDS`."""
    kind: Kind = import_module(f"dense_imb.tasks.{name}.kind").KIND
    return kind


def module_of_kind(room: str, kind: Kind, what: str) -> Any:
    """Import a room's module of a kind; its absence means that the kind has no such thing.

    Args:
        room: dotted path of the room.
        kind: kind of data.
        what: name of the thing, for the refusal.
    """
    name = f"{room}.{kind.name}"
    if find_spec(name) is None:
        raise refusal(f"Runs on {kind.description} have no {what}.")
    return import_module(name)


