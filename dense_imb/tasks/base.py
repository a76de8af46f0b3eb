"""What the tasks have in common: samples drawn by class and mixed, and the loss of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.base.random import epoch_order
from dense_imb.data.epochs.mixing import Mixer
from dense_imb.data.epochs.samplers import ClassSampling
from dense_imb.models import padded_frame
from dense_imb.tasks.feature_loss import FeatureTerm, check_not_mixed


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
        loss: of its output.
        n_images: of the training set.
        n_samples: of an epoch.
        sampling: which images an epoch shows; None shows each alike.
        mixer: mixes samples and their targets.
        what: what messages call an image.
        feature_loss: of what the last layer of the network is fed, beside `loss`; see
            `FeatureTerm`.
        class_counts: of the training set, which say what is rare.

    Attributes:
        loss: with all the state there is, that of `feature_loss` too.
        output_loss: `loss` as it was given.
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
        feature_loss: nn.Module | None = None,
        class_counts: Sequence[int] = (),
    ) -> None:
        if sampling is not None and sampling.n_images != n_images:
            raise ValueError(
                f"Expected `sampling` of the {n_images} training {what}, got one of "
                f"{sampling.n_images}."
            )
        self.features: FeatureTerm | None = None
        self.network, self.loss, self.output_loss = network, loss, loss
        if feature_loss is not None:
            if mixer is not None:
                check_not_mixed(mixer.mixing)
            self.features = FeatureTerm(network, feature_loss, class_counts)
            self.loss = nn.ModuleDict({"output": loss, "features": self.features})
        self.n_samples, self.sampling, self.mixer = n_samples, sampling, mixer

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The samples of an epoch."""
        if self.sampling is None:
            return epoch_order(self.n_samples, seed, epoch)
        return self.sampling.order(seed, epoch, self.n_samples)

    def cost(self, network: nn.Module, batch: Any) -> Tensor:
        """The loss of a batch."""
        # losses sum over more pixels than bf16 can count
        cost = self.cost_of(network(batch.shown).float(), batch)
        of_features = self.feature_cost(batch, len(batch.shown))
        return cost if of_features is None else cost + of_features

    def cost_of(self, output: Tensor, batch: Any) -> Tensor:
        """The loss of an output for a batch."""
        raise NotImplementedError

    def feature_cost(self, batch: Any, n: int) -> Tensor | None:
        """The loss of the features of the first n samples that the network was last shown.

        None where there is no such loss, or nothing before the last layer learns.

        Args:
            batch: these n samples.
            n: how many.
        """
        if self.features is None:
            return None
        label = self.feature_label(batch)
        frame = label.shape[1:]
        return self.features.cost(label, n, padded_frame(self.network, frame) if frame else ())

    def feature_label(self, batch: Any) -> Tensor:
        """(B,) or (B, *spatial) classes of a batch, `IGNORED` where the features are left out."""
        raise NotImplementedError

    def features_told(self) -> Mapping[str, str]:
        """For `describe`; nothing without a loss of features."""
        if self.features is None:
            return {}
        return {"feature loss": " ".join(repr(self.features.loss).split())}
