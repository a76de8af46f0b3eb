"""What the tasks have in common: samples drawn by class and mixed, and the loss of a batch."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.data.mixing import Mixer
from dense_imb.data.samplers import ClassSampling, epoch_order


class ShownBatch(Protocol):
    """A batch of any task."""

    @property
    def shown(self) -> Tensor:
        """(B, channels, *spatial), the network's input."""


class SampledTask:
    """A task whose epochs show samples by `sampling`, mixed by `mixer`.

    Sample s is image, or event, s % n_images.

    Args:
        network: gives an output of `batch.shown`.
        loss: with all the state there is.
        n_images: of the training set.
        n_samples: of an epoch.
        sampling: which images an epoch shows; None shows each alike.
        mixer: mixes samples and their targets.
        what: what messages call an image.
    """

    rest: Any = None  # samples of the training set whose labels are not used

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        *,
        n_images: int,
        n_samples: int,
        sampling: ClassSampling | None,
        mixer: Mixer | None,
        what: str = "images",
    ) -> None:
        if sampling is not None and sampling.n_images != n_images:
            raise ValueError(
                f"Expected `sampling` of the {n_images} training {what}, got one of "
                f"{sampling.n_images}."
            )
        self.network, self.loss = network, loss
        self.n_samples, self.sampling, self.mixer = n_samples, sampling, mixer

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The samples of an epoch."""
        if self.sampling is None:
            return epoch_order(self.n_samples, seed, epoch)
        return self.sampling.order(seed, epoch, self.n_samples)

    def cost(self, network: nn.Module, batch: Any) -> Tensor:
        """The loss of a batch."""
        # losses sum over more pixels than bf16 can count
        return self.cost_of(network(batch.shown).float(), batch)

    def cost_of(self, output: Tensor, batch: Any) -> Tensor:
        """The loss of an output for a batch."""
        raise NotImplementedError
