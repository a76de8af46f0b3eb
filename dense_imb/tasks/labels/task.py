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
from dense_imb.data.epochs.mixing import mix, mix_labels
from dense_imb.data.labels.classified import FLIPS, vary
from dense_imb.losses.foreign.feeding import feed, intake_of, takes_logits
from dense_imb.losses.foreign.soft_feeding import check_takes_soft, feed_soft
from dense_imb.metrics import ClassificationScores, class_groups
from dense_imb.metrics.classification import FEW, MANY
from dense_imb.tasks.base import SampledTask, TaskOptions, TrainingData

_PARTNERS = 1 << 31  # samples from here on are views that others are mixed with
_LISTED = 20  # classes; with more, head, middle and tail are logged


@dataclass(frozen=True)
class LabelsReading:
    """Preparation of a network's input, and meaning of its output.

    Args:
        class_names: class names, in the order of the logits.
        train_counts: number of training images of each class.
        mean, std: mean and deviation of each channel over the pixels of the training images.
        size: height and width of the images.
        many, few: training images of head and tail classes, see `class_groups`.
        scale: factor from outputs to logits; LDAM's for a network of cosines.

    Example:
        >>> from dense_imb.tasks import LabelsReading
        >>> reading = LabelsReading(("sound", "cracked"), (900, 10), (0.5,) * 3, (0.2,) * 3, (8, 8))
        >>> reading.n_classes, reading.many, reading.few
        (2, 100.0, 20.0)
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
        """Number of classes."""
        return len(self.class_names)

    def shown(self, images: NDArray[np.uint8], device: torch.device) -> Tensor:
        """Return normalised images, (B, 3, height, width): mean 0, deviation 1 in training."""
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
        """Return the logits (B, n_classes), on the CPU, of images (B, 3, height, width)."""
        output: Tensor = network(self.shown(images, device))
        return self.scale * output.float().cpu()

    def no_scores(self) -> ClassificationScores:
        """Return empty scores, with head and tail defined by the training images."""
        return ClassificationScores(
            self.n_classes, train_counts=self.train_counts, many=self.many, few=self.few
        )

    def as_text(self) -> str:
        """Return the text of the description in checkpoints."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> LabelsReading:
        """Parse the result of `as_text`."""
        stored = json.loads(text)
        lists = {name: tuple(v) for name, v in stored.items() if isinstance(v, list)}
        return cls(**{**stored, **lists})


@dataclass(frozen=True)
class LabelsBatch:
    """Images with the class of each.

    Args:
        shown: network input, (B, 3, height, width).
        label: classes, (B,); for mixed images the one with the larger share.
        probability: class probabilities of mixed images, (B, n_classes).

    Example:
        >>> import torch
        >>> from dense_imb.tasks import LabelsBatch
        >>> batch = LabelsBatch(torch.zeros(4, 3, 32, 32), torch.tensor([0, 0, 1, 0]))
        >>> batch.label.bincount()
        tensor([3, 1])
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

    Example:
        >>> from dense_imb.tasks import LabelsOptions
        >>> options = LabelsOptions(padding=2, flips="both")
        >>> options.batch_size
        128
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
        loss: loss of logits, see `dense_imb.losses.foreign.feeding`.
        data: training and validation images; its class counts are those of the images.
        reading: preparation of the input, and meaning of the output.
        options: shifts, flips, sampling, mixing.

    Example:
        >>> import numpy as np, torch
        >>> from dense_imb.data.labels.classified import ArrayImages, ClassifiedImages
        >>> from dense_imb.tasks import LabelsReading, LabelsTask, TrainingData
        >>> pixels = np.zeros((8, 3, 8, 8), np.uint8)
        >>> images = ClassifiedImages(ArrayImages(pixels), [0] * 6 + [1] * 2, ["sound", "cracked"])
        >>> reading = LabelsReading(("sound", "cracked"), (6, 2), (0.0,) * 3, (1.0,) * 3, (8, 8))
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
        >>> data = TrainingData(images, images, class_counts=(6, 2))
        >>> task = LabelsTask(network, torch.nn.CrossEntropyLoss(), data, reading)
        >>> task.batch(np.arange(4, 8), 0, torch.device("cpu")).label
        tensor([0, 0, 1, 1])
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

    def describe_input(self) -> Mapping[str, str]:
        """Describe classes and views."""
        return {
            "classes": self.reading.as_text(),
            "views": f"padding {self.padding}, flips {self.flips}, seed {self.seed}",
        }

    def batch(self, samples: NDArray[np.int64], epoch: int, device: torch.device) -> LabelsBatch:
        """Return the varied images of these samples; sample s is image s % n_images."""
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
        """Return the inputs of the images at some places, and their labels.

        The sample decides how an image varies: two samples of one image differ.
        """
        views = self.varied(self.train.images(places.tolist()), samples, epoch)
        label = torch.from_numpy(self.train.labels[places]).to(device)
        return self.reading.shown(views, device), label

    def varied(
        self, images: NDArray[np.uint8], samples: NDArray[np.int64], epoch: int
    ) -> NDArray[np.uint8]:
        """Return images with the shifts and flips of their samples in an epoch."""
        return vary(
            images, samples, seed=self.seed, epoch=epoch, padding=self.padding, flips=self.flips
        )

    def cost_of(self, output: Tensor, batch: LabelsBatch) -> Tensor:
        """Return the loss of an output for a batch."""
        if batch.probability is not None:
            mixed: Tensor = feed_soft(self.output_loss, self._intake, output, batch.probability, {})
            return mixed
        cost: Tensor = feed(self.output_loss, self._intake, output, batch.label, {})
        return cost

    def feature_label(self, batch: LabelsBatch) -> Tensor:
        """Return the class of each image, (B,)."""
        return batch.label

    @torch.no_grad()
    def validate(
        self, network: nn.Module, device: torch.device, process: int, n_processes: int
    ) -> dict[str, float]:
        """Return the accuracy of all classes, of head, middle and tail, and the other scores."""
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
        """Write the counts of the last validation."""
        self.scores.save(path)

    def pixels_by_class(self, batch: LabelsBatch) -> Mapping[str, Tensor]:
        """Return a mask of the images of each class; of many classes, of head, middle and tail."""
        label = batch.label
        if self.reading.n_classes <= _LISTED:
            return {f"class_{k}": label == k for k in range(self.reading.n_classes)}
        groups = class_groups(self.class_counts, self.reading.many, self.reading.few)
        return {
            name: torch.isin(label, torch.tensor(members, dtype=torch.long, device=label.device))
            for name, members in groups.items()
        }
