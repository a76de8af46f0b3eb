"""A trained network that classifies whole images, and the baseline it has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.tasks.base import TrainedNetwork
from dense_imb.tasks.labels.task import LabelsReading


class TrainedLabels(TrainedNetwork[LabelsReading]):
    """A trained network that classifies whole images, see `TrainedNetwork`.

    Example:
        >>> import numpy as np, torch
        >>> from dense_imb.tasks import LabelsReading, TrainedLabels
        >>> reading = LabelsReading(("sound", "cracked"), (6, 2), (0.0,) * 3, (1.0,) * 3, (8, 8))
        >>> layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
        >>> network = TrainedLabels("linear", layers, reading)
        >>> network.probability(np.zeros((5, 3, 8, 8), np.uint8)).shape
        torch.Size([5, 2])
    """

    @torch.no_grad()
    def logits(self, images: NDArray[np.uint8]) -> Tensor:
        """Return the logits (B, n_classes) of images (B, 3, height, width)."""
        return self.reading.logits(self.network, images, self.device)

    def probability(self, images: NDArray[np.uint8]) -> Tensor:
        """Return the class probabilities (B, n_classes) of images (B, 3, height, width)."""
        return self.logits(images).softmax(1)


class Commonest:
    """Baseline: every image belongs to the class with the most training images.

    Args:
        train_counts: number of training images of each class.

    Example:
        >>> import numpy as np
        >>> from dense_imb.tasks import Commonest
        >>> Commonest((75, 25)).logits(np.zeros((1, 3, 8, 8), np.uint8)).exp()
        tensor([[0.7500, 0.2500]])
    """

    name = "commonest"

    def __init__(self, train_counts: Sequence[int]) -> None:
        self.train_counts = tuple(train_counts)

    def logits(self, images: NDArray[np.uint8]) -> Tensor:
        """Return the logarithm of the fraction of each class in the training images."""
        counts = torch.tensor(self.train_counts, dtype=torch.float64)
        return (counts / counts.sum()).log().float().expand(len(images), -1)
