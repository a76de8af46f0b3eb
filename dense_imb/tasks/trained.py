"""What a trained network of images is, whatever its task."""

from __future__ import annotations

from typing import Generic, TypeVar

import torch
from torch import nn

Reading = TypeVar("Reading")


class TrainedNetwork(Generic[Reading]):
    """A trained network with all it takes to use it.

    Args:
        name: what tables call it.
        network: with its weights.
        reading: what it is shown, and what its output means.
        device: where it runs.
    """

    def __init__(
        self, name: str, network: nn.Module, reading: Reading, device: str | torch.device = "cpu"
    ) -> None:
        self.name, self.reading, self.device = name, reading, torch.device(device)
        self.network = network.eval().to(device)
