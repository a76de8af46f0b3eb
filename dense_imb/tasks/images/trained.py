"""A trained network that segments images."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.tasks.base import TrainedNetwork
from dense_imb.tasks.images.task import ImagesReading, probability_of


class TrainedImages(TrainedNetwork[ImagesReading]):
    """A trained network that segments images, see `TrainedNetwork`.

    Example:
        >>> import numpy as np, torch
        >>> from dense_imb.tasks import ImagesReading, TrainedImages
        >>> reading = ImagesReading(n_classes=2, mean=(90.0,), std=(12.0,), patch=(32, 32))
        >>> network = TrainedImages("tiny", torch.nn.Conv2d(1, 1, 3, padding=1), reading)
        >>> probability = network.probability(np.zeros((1, 32, 32), np.uint8))
        >>> probability.shape  # a row for each class
        torch.Size([2, 32, 32])
    """

    @property
    def is_natural(self) -> bool:
        """Whether its logits are those of natural probabilities."""
        return self.reading.natural is not None

    @torch.no_grad()
    def logits(self, image: NDArray[Any]) -> Tensor:
        """Return the logits (1, 1 or C, *spatial) of one image (channels, *spatial)."""
        shown = torch.from_numpy(self.reading.shown(image))[None].to(self.device)
        return self.reading.logits(self.network, shown).cpu()

    def probability(self, image: NDArray[Any]) -> Tensor:
        """Return the class probabilities (n_classes, *spatial) of one image."""
        return probability_of(self.logits(image))[0]
