"""The task of classifying whole images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.data.epochs.mixing import describe_samples, mix, mix_labels
from dense_imb.data.labels.classified import FLIPS, vary
from dense_imb.engine.gradients import gradient_shares
from dense_imb.losses.foreign.feeding import feed, intake_of, takes_logits
from dense_imb.losses.foreign.soft_feeding import check_takes_soft, feed_soft
from dense_imb.metrics import ClassificationScores, class_groups
from dense_imb.metrics.classification import FEW, MANY
from dense_imb.tasks.base import SampledTask, TaskOptions, TrainingData

_PARTNERS = 1 << 31  # samples from here on are views that others are mixed with
_LISTED = 20  # classes; of more, head, middle and tail are told


@dataclass(frozen=True)
class LabelsReading:
    """How images become a network's input, and what its output means.

    Args:
        class_names: of each class, in the order of the logits.
        train_counts: training images of each class.
        mean, std: of each channel, over the pixels of the training images.
        size: height and width of the images.
        many, few: training images of head and tail classes, see `class_groups`.
        scale: of the network's output to logits: LDAM's, whose network gives cosines.
    """

    class_names: tuple[str, ...]
    train_counts: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    many: float = MANY
    few: float = FEW
    scale: float = 1.0

    @property
    def n_classes(self) -> int:
        """As many logits."""
        return len(self.class_names)

    def shown(self, images: NDArray[np.uint8], device: torch.device) -> Tensor:
        """(B, 3, height, width) pixels of mean 0 and deviation 1 over the training images."""
        if images.shape[1:] != (3, *self.size):
            raise ValueError(
                f"Expected images (B, 3, {self.size[0]}, {self.size[1]}), as the network was "
                f"trained on, got {images.shape}."
            )
        mean, std = (
            torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (self.mean, self.std)
        )
        pixels = torch.from_numpy(images).to(device)  # bytes: a quarter of the way
        return ((pixels.float() - mean) / std).to(memory_format=torch.channels_last)

    def logits(self, network: nn.Module, images: NDArray[np.uint8], device: torch.device) -> Tensor:
        """(B, n_classes) on the CPU, of images (B, 3, height, width)."""
        output: Tensor = network(self.shown(images, device))
        return self.scale * output.float().cpu()

    def no_scores(self) -> ClassificationScores:
        """Scores that have seen nothing, with the head and the tail of the training images."""
        return ClassificationScores(
            self.n_classes, train_counts=self.train_counts, many=self.many, few=self.few
        )

    def as_text(self) -> str:
        """For a checkpoint, which holds texts."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> LabelsReading:
        """What `as_text` was made from."""
        stored = json.loads(text)
        lists = {name: tuple(v) for name, v in stored.items() if isinstance(v, list)}
        return cls(**{**stored, **lists})


@dataclass(frozen=True)
class LabelsBatch:
    """Images with the class of each.

    Args:
        shown: (B, 3, height, width) the input.
        label: (B,) classes; of mixed images that of the larger share.
        probability: (B, n_classes) of mixed images.
    """

    shown: Tensor
    label: Tensor
    probability: Tensor | None = None


@dataclass(frozen=True)
class LabelsOptions(TaskOptions):
    """Options of the task of classifying whole images, beside those of `TaskOptions`.

    Args:
        padding: largest shift of a training image, in pixels, see `vary`.
        flips: mirroring of training images, see `vary`.
        seed: random seed of shifts and flips.
        batch_size: number of images validated together.
    """

    padding: int = 4
    flips: str = "horizontal"
    seed: int = 0
    batch_size: int = 128

    def __post_init__(self) -> None:
        check_at_least("padding", self.padding, 0)
        check_choice("flips", self.flips, FLIPS)


class LabelsTask(SampledTask):
    """The task of classifying whole images, see `dense_imb.engine.task.Task`.

    Args:
        network: takes (B, 3, height, width), returns (B, n_classes).
        loss: a loss of logits, ours or another library's, see `dense_imb.losses.foreign.feeding`.
        data: training and validation images; its class counts are those of the images.
        reading: preparation of the input, and meaning of the output.
        options: shifts, flips, sampling, mixing.
    """

    monitor = "balanced_accuracy"

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        data: TrainingData,
        reading: LabelsReading,
        options: LabelsOptions | None = None,
    ) -> None:
        options = options or LabelsOptions()
        if not takes_logits(loss):
            raise ValueError(
                f"Expected a loss of logits to classify with, got {type(loss).__name__}, which is "
                "fed values; CrossEntropyLoss is one."
            )
        train = data.train
        for what, images in (("training", train), ("validation", data.validation)):
            if images.class_names != reading.class_names or images.size != reading.size:
                raise ValueError(
                    f"Expected {what} images of {reading.size} pixels and {reading.n_classes} "
                    f"classes, got {images!r}."
                )
        train.check_every_class("training")
        data = replace(data, class_counts=train.class_counts)
        super().__init__(network, loss, data, options, len(train))
        self._intake = intake_of(loss)
        self.reading = reading
        self.padding, self.flips, self.seed = options.padding, options.flips, options.seed
        self.batch_size = options.batch_size
        if self.mixer is not None:
            check_takes_soft(loss, reading.n_classes, 0)
        self.scores = reading.no_scores()  # of the last validation

    def describe(self) -> Mapping[str, str]:
        """Network, loss and data, in words."""
        return {
            "network": self.describe_network(),
            "loss": " ".join(repr(self.output_loss).split()),
            "classes": self.reading.as_text(),
            "views": f"padding {self.padding}, flips {self.flips}, seed {self.seed}",
            "data": self.train.fingerprint(),
            "validation data": self.validation.fingerprint(),
            **describe_samples(self.sampling, self.mixer),
            **self.describe_features(),
        }

    def batch(self, samples: NDArray[np.int64], epoch: int, device: torch.device) -> LabelsBatch:
        """The images, as the epoch shows them; sample s is image s % n_images."""
        shown, label = self._views(samples, samples % len(self.train), epoch, device)
        if self.mixer is None:
            return LabelsBatch(shown, label)
        n_classes = self.reading.n_classes
        is_present = self.train.labels[samples % len(self.train), None] == np.arange(n_classes)
        plan = self.mixer.plan(samples, epoch, is_present)
        if self.mixer.draws_images:
            other, other_label = self._views(samples + _PARTNERS, plan.partner, epoch, device)
        else:
            partner = torch.from_numpy(plan.partner).to(device)
            other, other_label = shown[partner], label[partner]
        share = torch.from_numpy(plan.share).float().to(device)
        probability, _ = mix_labels(label, other_label, share, n_classes)
        larger = torch.where(share >= 0.5, label, other_label)
        return LabelsBatch(mix(shown, other, share), larger, probability)

    def _views(
        self,
        samples: NDArray[np.int64],
        places: NDArray[np.int64],
        epoch: int,
        device: torch.device,
    ) -> tuple[Tensor, Tensor]:
        """What the network is shown of the images at some places, and their labels.

        The sample says how an image varies: two samples of one image look different.
        """
        views = self.varied(self.train.images(places.tolist()), samples, epoch)
        label = torch.from_numpy(self.train.labels[places]).to(device)
        return self.reading.shown(views, device), label

    def varied(
        self, images: NDArray[np.uint8], samples: NDArray[np.int64], epoch: int
    ) -> NDArray[np.uint8]:
        """Images as their samples show them in an epoch."""
        return vary(
            images, samples, seed=self.seed, epoch=epoch, padding=self.padding, flips=self.flips
        )

    def cost_of(self, output: Tensor, batch: LabelsBatch) -> Tensor:
        """The loss of an output for a batch."""
        if batch.probability is not None:
            mixed: Tensor = feed_soft(self.output_loss, self._intake, output, batch.probability, {})
            return mixed
        cost: Tensor = feed(self.output_loss, self._intake, output, batch.label, {})
        return cost

    def feature_label(self, batch: LabelsBatch) -> Tensor:
        """(B,) the class of each image."""
        return batch.label

    @torch.no_grad()
    def validate(
        self, network: nn.Module, device: torch.device, process: int, n_processes: int
    ) -> dict[str, float]:
        """Accuracy of all, of head, middle and tail, and the other scores of `scores()`."""
        scores = self.reading.no_scores()
        starts = range(0, len(self.validation), self.batch_size)
        for start in starts[process::n_processes]:
            places = range(start, min(start + self.batch_size, len(self.validation)))
            logits = self.reading.logits(network, self.validation.images(places), device)
            label = torch.from_numpy(self.validation.labels[places.start : places.stop])
            scores.update(logits, label)
        self.scores = scores.reduce_over_processes()
        return self.scores.scores()

    def save_scores(self, path: Path) -> None:
        """The counts of the last validation."""
        self.scores.save(path)

    def gradient_shares(self, network: nn.Module, batch: LabelsBatch) -> dict[str, float]:
        """Which classes the loss pulls at; of many classes, the head, the middle and the tail."""
        label = batch.label
        if self.reading.n_classes <= _LISTED:
            kinds = {f"class_{k}": label == k for k in range(self.reading.n_classes)}
        else:
            groups = class_groups(self.class_counts, self.reading.many, self.reading.few)
            kinds = {
                name: torch.isin(
                    label, torch.tensor(members, dtype=torch.long, device=label.device)
                )
                for name, members in groups.items()
            }
        return gradient_shares(
            network, batch.shown, self.loss, lambda output: self.cost_of(output, batch), kinds
        )
