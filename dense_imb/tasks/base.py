"""Parts that all tasks share: training data, options, sampling, mixing and the loss of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.base.random import epoch_order
from dense_imb.data.epochs.mixing import Mixer, describe_samples
from dense_imb.data.epochs.samplers import ClassSampling
from dense_imb.engine.gradients import gradient_shares
from dense_imb.losses.core.natural import Natural
from dense_imb.models import HitInput, padded_frame
from dense_imb.tasks.feature_loss import FeatureTerm, check_not_mixed

Reading = TypeVar("Reading")


class ShownBatch(Protocol):
    """A batch of any task."""

    @property
    def shown(self) -> Any:
        """Input of the network: (B, channels, *spatial), or a `HitInput`."""


def n_outputs(shown: Tensor | HitInput) -> int:
    """Return the number of outputs for an input: one a sample, or one a hit."""
    return len(shown.coordinate) if isinstance(shown, HitInput) else len(shown)


def joined(first: Any, second: Any) -> Any:
    """Return two inputs of a network as one batch, the first one's samples first."""
    if not isinstance(first, HitInput):
        return torch.cat([first, second])
    return HitInput(
        torch.cat([first.coordinate, second.coordinate]),
        torch.cat([first.feature, second.feature]),
        torch.cat([first.offset, second.offset[1:] + first.offset[-1]]),
    )


@dataclass(frozen=True)
class TrainingData:
    """Training and validation samples of a task, and their class statistics.

    Args:
        train: training samples, by number.
        validation: validation samples, by number.
        class_counts: training pixels (hits, images) of each class; () if unknown.
        class_content: (n_images, n_classes) the same for each image; None if unknown.
        rest: training samples whose labels are not used; None without any.

    Example:
        >>> from dense_imb.tasks import TrainingData
        >>> data = TrainingData(train=range(80), validation=range(20), class_counts=(9000, 1000))
        >>> len(data.train), data.class_counts
        (80, (9000, 1000))
    """

    train: Any
    validation: Any
    class_counts: Sequence[int] = ()
    class_content: NDArray[np.int64] | None = None
    rest: Any = None


@dataclass(frozen=True)
class TaskOptions:
    """Options of every task.

    Args:
        sampling: class-balanced sampling of an epoch; None shows each sample once.
        mixer: mixes samples and their targets; None mixes nothing.
        feature_loss: loss of the features that enter the last layer, see `FeatureTerm`.

    Example:
        >>> from dense_imb.losses import RangeLoss
        >>> from dense_imb.tasks import TaskOptions
        >>> TaskOptions(feature_loss=RangeLoss()).sampling is None  # each sample once
        True
    """

    sampling: ClassSampling | None = None
    mixer: Mixer | None = None
    feature_loss: nn.Module | None = None


class SampledTask:
    """A task whose epochs are sampled by class and mixed.

    Sample s is image, or event, s % n_images.

    Args:
        network: its input is `batch.shown`.
        loss: loss of its output.
        data: training and validation samples.
        options: sampling, mixing and loss of features.
        n_samples: samples of an epoch.

    Attributes:
        loss: `loss` and `options.feature_loss`, with all their state.
        output_loss: `loss` as given.
    """

    sample_name = "images"  # in messages

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        data: TrainingData,
        options: TaskOptions,
        n_samples: int,
    ) -> None:
        sampling, mixer, n_images = options.sampling, options.mixer, len(data.train)
        if sampling is not None and sampling.n_images != n_images:
            raise ValueError(
                f"Expected `sampling` of the {n_images} training {self.sample_name}, got one of "
                f"{sampling.n_images}."
            )
        self.features: FeatureTerm | None = None
        self.network, self.loss, self.output_loss = network, loss, loss
        if options.feature_loss is not None:
            if mixer is not None:
                check_not_mixed(mixer.mixing)
            self.features = FeatureTerm(network, options.feature_loss, data.class_counts)
            self.loss = nn.ModuleDict({"output": loss, "features": self.features})
        self.data, self.train, self.validation = data, data.train, data.validation
        self.class_counts = tuple(data.class_counts)
        self.n_samples, self.sampling, self.mixer = n_samples, sampling, mixer

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the samples of an epoch."""
        if self.sampling is None:
            return epoch_order(self.n_samples, seed, epoch)
        return self.sampling.order(seed, epoch, self.n_samples)

    def cost(self, network: nn.Module, batch: Any) -> Tensor:
        """Return the loss of a batch."""
        # losses sum over more pixels than bf16 can count
        cost = self.cost_of(network(batch.shown).float(), batch)
        feature_cost = self.feature_cost(batch, n_outputs(batch.shown))
        return cost if feature_cost is None else cost + feature_cost

    def cost_of(self, output: Tensor, batch: Any) -> Tensor:
        """Return the loss of an output for a batch."""
        raise NotImplementedError

    def feature_cost(self, batch: Any, n: int) -> Tensor | None:
        """Return the loss of the features of the first n samples of the last forward pass.

        None without such a loss, and if no layer before the last one is trained.

        Args:
            batch: these n samples.
            n: number of samples.
        """
        if self.features is None:
            return None
        label = self.feature_label(batch)
        frame = label.shape[1:]
        return self.features.cost(label, n, padded_frame(self.network, frame) if frame else ())

    def feature_label(self, batch: Any) -> Tensor:
        """Return classes (B,) or (B, *spatial), `IGNORED` where features are left out."""
        raise NotImplementedError

    def pixels_by_class(self, batch: Any) -> Mapping[str, Tensor]:
        """Return bool masks of the pixels (hits, images) of each class, by name."""
        raise NotImplementedError

    def gradient_shares(self, network: nn.Module, batch: Any) -> dict[str, float]:
        """Return the share of the loss's gradient that each class gets."""
        return gradient_shares(
            network,
            batch.shown,
            self.loss,
            lambda output: self.cost_of(output, batch),
            self.pixels_by_class(batch),
        )

    def describe(self) -> Mapping[str, str]:
        """Describe network, loss and data in words, for a checkpoint."""
        n_parameters = sum(parameter.numel() for parameter in self.network.parameters())
        features = {} if self.features is None else {"feature loss": _line(self.features.loss)}
        return {
            "network": f"{type(self.network).__name__}, {n_parameters} parameters",
            "loss": _line(self.described_loss),
            **self.describe_input(),
            "data": self.train.fingerprint(),
            "validation data": self.validation.fingerprint(),
            **describe_samples(self.sampling, self.mixer),
            **features,
        }

    @property
    def described_loss(self) -> object:
        """Loss in `describe`."""
        return self.output_loss

    def describe_input(self) -> Mapping[str, str]:
        """Return the entries of `describe` of the task's own kind."""
        raise NotImplementedError


class TrainedNetwork(Generic[Reading]):
    """A trained network, ready to use.

    Args:
        name: name in tables.
        network: network with its weights.
        reading: preparation of its input, and meaning of its output.
        device: device it runs on.

    Example:
        >>> import torch
        >>> from dense_imb.tasks import TrainedNetwork
        >>> TrainedNetwork("line", torch.nn.Linear(1, 1), reading=None)
        TrainedNetwork('line', Linear of 2 parameters, on cpu)
    """

    def __init__(
        self, name: str, network: nn.Module, reading: Reading, device: str | torch.device = "cpu"
    ) -> None:
        self.name, self.reading, self.device = name, reading, torch.device(device)
        self.network = network.eval().to(device)

    def __repr__(self) -> str:
        n_parameters = sum(parameter.numel() for parameter in self.network.parameters())
        return (
            f"{type(self).__name__}({self.name!r}, {type(self.network).__name__} of "
            f"{n_parameters:,} parameters, on {self.device})"
        )


def _line(loss: object) -> str:
    """Return the description of a loss in one line."""
    return " ".join(repr(loss).split())


def as_logits(
    output: Tensor, *, is_logit: bool, natural: Natural | None = None, dim: int = 1
) -> Tensor:
    """Return an output as logits: 8 z - 4 if its middle is 1/2.

    Args:
        output: output of a network.
        is_logit: whether it is trained with a loss of logits; otherwise 0 and 1 are its targets.
        natural: map to the logits of natural probabilities; None leaves them as trained.
        dim: dimension of the channels, for `natural`.
    """
    logits = output if is_logit else 8 * output - 4
    return logits if natural is None else natural.logits(logits, dim)
