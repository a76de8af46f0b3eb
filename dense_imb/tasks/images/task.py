"""The task of segmenting images, 2-D or 3-D."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.data.epochs.mixing import Mixing, mix, mix_labels
from dense_imb.data.epochs.patches import patch_rng, place_patch
from dense_imb.data.images.instances import COMPONENTS
from dense_imb.data.images.labelled import IGNORED
from dense_imb.engine.task import CLASS_NAMES
from dense_imb.losses.core.natural import Natural
from dense_imb.losses.foreign.feeding import can_ignore, feed, intake_of, wants_instances
from dense_imb.losses.foreign.soft_feeding import check_takes_soft, feed_soft
from dense_imb.metrics import SegmentationScores
from dense_imb.metrics.score_table import mean_of_known
from dense_imb.tasks.base import (
    SampledTask,
    TrainingData,
    as_logits,
)
from dense_imb.tasks.instances import check_instances_not_mixed
from dense_imb.tasks.pixels import CropOptions, PixelReading, rarest_first

_PARTNERS = 1 << 62  # sample numbers from here on are the partners in mixing


@dataclass(frozen=True)
class ImagesReading(PixelReading):
    """Preparation of a network's input, and meaning of its output.

    Args:
        n_classes: number of classes; with two, the output has one channel, the second's logit.
        mean, std: mean and deviation of each channel over the pixels of the training images.
        patch: size of the training crops, and of the windows of inference.
        is_logit: whether the output holds logits; otherwise 0 means "not this class" and 1 "this
            class".
        labels: mask value of each class.
        names: names of the classes, if known.
        natural: map to the logits of natural probabilities; None leaves them as trained.

    Example:
        >>> from dense_imb.tasks import ImagesReading
        >>> reading = ImagesReading(n_classes=2, mean=(90.0,), std=(12.0,), patch=(128, 128))
        >>> reading.out_channels, reading.in_channels
        (1, 1)
    """

    n_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch: tuple[int, ...]
    is_logit: bool = True
    labels: tuple[int, ...] | None = None
    names: tuple[str, ...] | None = None
    natural: Natural | None = None  # not in the text: a trained run has it in a file of its own

    @property
    def out_channels(self) -> int:
        """Number of channels of the network's output."""
        return 1 if self.n_classes == 2 else self.n_classes

    def logits(self, network: nn.Module, shown: Tensor) -> Tensor:
        """Return the logits (B, 1 or C, *spatial) of images (B, channels, *spatial) of any size.

        Images larger than a patch are processed in overlapping windows, by MONAI.
        """
        return self.as_logits(self.output(network, shown))

    def as_logits(self, output: Tensor) -> Tensor:
        """Return the output as logits."""
        return as_logits(output, is_logit=self.is_logit, natural=self.natural)

    def as_text(self) -> str:
        """Return the text of the description in checkpoints."""
        stored = asdict(self)
        del stored["natural"]
        if self.names is None:
            del stored["names"]  # as in checkpoints without names
        return json.dumps(stored)

    @classmethod
    def from_text(cls, text: str) -> ImagesReading:
        """Parse the result of `as_text`."""
        stored = json.loads(text)
        lists = {name: tuple(v) for name, v in stored.items() if isinstance(v, list)}
        return cls(**{**stored, **lists})

    @classmethod
    def from_setup(cls, setup: Mapping[str, str]) -> ImagesReading:
        """Parse the setup in a checkpoint; older ones have no class names."""
        names = json.loads(setup.get(CLASS_NAMES, "null"))
        return replace(cls.from_text(setup["images"]), names=None if names is None else (*names,))


@dataclass(frozen=True)
class ImagesBatch:
    """Crops with the class of each pixel.

    Args:
        shown: network input, (B, C, *spatial).
        label: classes, (B, *spatial); `IGNORED` without one.
        has_ignored: whether any pixel is ignored.
        probability: probabilities of mixed crops, (B, out_channels, *spatial). `label` is then the
            class with the larger share, and `IGNORED` if it is in either crop.
        instance: number of the instance of each pixel, (B, *spatial) int32, 0 for none; None if
            the loss wants no instances.

    Example:
        >>> import torch
        >>> from dense_imb.tasks import ImagesBatch
        >>> label = torch.zeros(4, 32, 32, dtype=torch.long)
        >>> batch = ImagesBatch(torch.zeros(4, 1, 32, 32), label, has_ignored=False)
        >>> batch.shown.shape, batch.label.shape
        (torch.Size([4, 1, 32, 32]), torch.Size([4, 32, 32]))
    """

    shown: Tensor
    label: Tensor
    has_ignored: bool
    probability: Tensor | None = None
    instance: Tensor | None = None

    def to(self, device: torch.device) -> ImagesBatch:
        """Return the batch on a device."""
        return ImagesBatch(
            self.shown.to(device),
            self.label.to(device),
            self.has_ignored,
            None if self.probability is None else self.probability.to(device),
            None if self.instance is None else self.instance.to(device),
        )


class ImagesOptions(CropOptions):
    """Options of the task of segmenting images, see `CropOptions`.

    Example:
        >>> from dense_imb.tasks import ImagesOptions
        >>> options = ImagesOptions(patches=8, foreground=0.9)
        >>> options.patches, options.flips
        (8, True)
    """


class ImagesTask(SampledTask):
    """The task of segmenting images, see `dense_imb.engine.task.Task`.

    Args:
        network: takes (B, channels, *spatial), returns (B, out_channels of `reading`, *spatial).
        loss: loss of dense_imb or of another library, see `dense_imb.losses.foreign.feeding`.
        data: training and validation images.
        reading: preparation of the input, and meaning of the output.
        options: crops, sampling, mixing.

    Example:
        >>> import h5py, numpy as np, tempfile
        >>> from dense_imb import ImagesConfig, TrainConfig
        >>> from dense_imb.tasks import ImagesTask, build_task
        >>> path, mask = tempfile.mkdtemp() + "/lines.h5", np.eye(16, dtype=np.uint8)
        >>> with h5py.File(path, "w") as file:
        ...     file["image"], file["mask"] = np.stack([[mask * 200]] * 4), np.stack([mask] * 4)
        >>> task = build_task(TrainConfig(images=ImagesConfig(path)))
        >>> isinstance(task, ImagesTask), task.class_counts  # of three training images
        (True, (720, 48))
    """

    monitor = "average_precision"

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        data: TrainingData,
        reading: ImagesReading,
        options: ImagesOptions | None = None,
    ) -> None:
        options = options or ImagesOptions()
        train, validation = data.train, data.validation
        for what in ("spatial_dims", "n_channels"):
            mine, theirs = getattr(train, what), getattr(validation, what)
            if mine != theirs:
                raise ValueError(
                    f"Expected validation images with {what} {mine}, as the training images "
                    f"have, got {theirs}."
                )
        self.wants_instances = wants_instances(loss)
        if self.wants_instances:
            check_instances_not_mixed(options.mixer.mixing if options.mixer else Mixing())
            if not train.has_instances:
                train = train.with_instances(COMPONENTS)
            data = replace(data, train=train)
        super().__init__(network, loss, data, options, len(train) * options.patches)
        self._intake = intake_of(loss)
        self.pads_labels = not can_ignore(loss)  # of crops larger than their image
        self.reading = reading
        self.patches, self.foreground = options.patches, options.foreground
        self.flips, self.seed = options.flips, options.seed
        if self.mixer is not None:
            check_takes_soft(loss, reading.out_channels, len(reading.patch))
        self.scores = self._no_scores()  # of the last validation

    def describe_input(self) -> Mapping[str, str]:
        """Describe classes, crops and instance maps."""
        instances = self.train.describe_instances() if self.wants_instances else ""
        return {
            "images": replace(self.reading, names=None).as_text(),
            CLASS_NAMES: json.dumps(self.reading.names),
            "crops": f"{self.patches} an image, foreground {self.foreground:g}, "
            f"flips {self.flips}, seed {self.seed}",
            **({"instances": instances} if instances else {}),
        }

    def batch(self, samples: NDArray[np.int64], epoch: int, device: torch.device) -> ImagesBatch:
        """Return the crops of these samples, mixed if there is a mixer."""
        crops = self._crops(samples, samples % len(self.train), epoch)
        if self.mixer is None:
            crops = crops.to(device)
            instance = None if crops.instance is None else crops.instance.int()
            return replace(crops, label=crops.label.long(), instance=instance)
        plan = self.mixer.plan(samples, epoch, self._is_present(crops.label))
        crops = crops.to(device)
        label, has_ignored = crops.label, crops.has_ignored
        if self.mixer.draws_images:
            others = self._crops(samples + _PARTNERS, plan.partner, epoch).to(device)
            other, other_label = others.shown, others.label
            has_ignored |= others.has_ignored
        else:
            partner = torch.from_numpy(plan.partner).to(device)
            other, other_label = crops.shown[partner], label[partner]
        share = torch.from_numpy(plan.share).float().to(device)
        ignore_index = IGNORED if has_ignored else None
        probability, is_known = mix_labels(
            label, other_label, share, self.reading.out_channels, ignore_index
        )
        is_first = (share >= 0.5).reshape(-1, *(1,) * (label.dim() - 1))
        larger = torch.where(is_first, label, other_label)
        if has_ignored:
            larger = larger.masked_fill(~is_known, IGNORED)
        return ImagesBatch(mix(crops.shown, other, share), larger.long(), has_ignored, probability)

    def _is_present(self, label: Tensor) -> NDArray[np.bool_] | None:
        """Return the classes in each crop, (B, n_classes); None if the mixer needs none."""
        if self.mixer is None or self.mixer.mixing.kind != "unimix":
            return None
        flat = label.flatten(1)
        return np.stack([(flat == k).any(1) for k in range(self.reading.n_classes)], 1)

    def _crops(
        self, samples: NDArray[np.int64], places: NDArray[np.int64], epoch: int
    ) -> ImagesBatch:
        """Return the crops of samples in images at some places, of the types of their maps."""
        images, labels, instances = [], [], []
        for sample, place in zip(samples.tolist(), places.tolist(), strict=True):
            label = self.train.label(place)
            patch = place_patch(
                label,
                self.reading.patch,
                patch_rng(self.seed, epoch, sample),
                foreground=self.foreground,
                flips=self.flips,
                pixels=self.train.pixels(place),
            )
            images.append(patch.image(self.train.image(place)))
            labels.append(patch.label(label, pads_labels=self.pads_labels))
            if self.wants_instances:
                instances.append(patch.instance(self.train.instance(place)))
        label = np.stack(labels)
        return ImagesBatch(
            self.reading.shown_crops(images),
            torch.from_numpy(label),
            bool(label.max() == IGNORED),
            instance=torch.from_numpy(np.stack(instances)) if instances else None,
        )

    def cost_of(self, output: Tensor, batch: ImagesBatch) -> Tensor:
        """Return the loss of an output for a batch."""
        label = batch.label
        options: dict[str, Tensor | None] = {"instance": batch.instance}
        if batch.probability is not None:
            if batch.has_ignored:
                options["mask"] = label != IGNORED
            mixed: Tensor = feed_soft(
                self.output_loss, self._intake, output, batch.probability, options
            )
            return mixed
        if batch.has_ignored:
            is_labelled = label != IGNORED
            if "mask" in self._intake.takes:
                options["mask"] = is_labelled
                label = label.masked_fill(~is_labelled, 0)
            elif self._intake.ignore_index is not None:
                label = label.masked_fill(~is_labelled, self._intake.ignore_index)
        cost: Tensor = feed(self.output_loss, self._intake, output, label, options)
        return cost

    def feature_label(self, batch: ImagesBatch) -> Tensor:
        """Return the class of each pixel, (B, *spatial)."""
        return batch.label

    @torch.no_grad()
    def validate(
        self, network: nn.Module, device: torch.device, process: int, n_processes: int
    ) -> dict[str, float]:
        """Return average precision, IoU and Dice over whole images, and scores of a collapse."""
        scores = self._no_scores()
        for i in range(process, len(self.validation), n_processes):
            shown = torch.from_numpy(self.reading.shown(self.validation.image(i)))[None]
            label = torch.from_numpy(self.validation.label(i).astype(np.int64))[None].to(device)
            scores.update(self.reading.logits(network, shown.to(device)), label)
        self.scores = scores.reduce_over_processes()
        return validation_scores(self.scores)

    @torch.no_grad()
    def labelled_outputs(
        self, network: nn.Module, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the logits (n, C) and the classes (n,) of the labelled validation pixels."""
        for i in range(len(self.validation)):
            shown = torch.from_numpy(self.reading.shown(self.validation.image(i)))[None]
            logits = self.reading.logits(network, shown.to(device))[0].flatten(1).T.cpu()
            label = torch.from_numpy(self.validation.label(i).astype(np.int64)).flatten()
            yield logits[label != IGNORED], label[label != IGNORED]

    def save_scores(self, path: Path) -> None:
        """Write the counts of the last validation, to choose thresholds from."""
        self.scores.save(path)

    def probe(self, n: int) -> NDArray[np.int64]:
        """Return samples for `gradient_shares`: images with each class, the rarest first."""
        content = self.data.class_content
        if content is None:
            return np.arange(min(n, self.n_samples))
        return rarest_first(content[:, 1:], n)

    def pixels_by_class(self, batch: ImagesBatch) -> Mapping[str, Tensor]:
        """Return a mask of the pixels of each class."""
        return {f"class_{k}": batch.label == k for k in range(self.reading.n_classes)}

    def _no_scores(self) -> SegmentationScores:
        return SegmentationScores(self.reading.n_classes, ignore_index=IGNORED)


def validation_scores(scores: SegmentationScores) -> dict[str, float]:
    """Return the validation scores of counts; means run over the foreground classes.

    IoU and Dice are those of the likeliest classes, `best_f1` is Dice at the best threshold.
    """
    foreground = range(1, scores.n_classes)
    by_class = {
        "average_precision": scores.average_precision(),
        "iou": scores.iou(),
        "dice": scores.dice(),
        "best_f1": tuple(f1 for f1, _ in scores.best_f1()),  # dice at the threshold of a run
        "auc": tuple(histogram.auc() for histogram in scores.histograms),
        "recall_at_half": scores.recall(),
    }
    means = {
        name: mean_of_known([values[k] for k in foreground]) for name, values in by_class.items()
    }
    confusion = scores.confusion.double()
    means["lit_at_half"] = 1 - float(confusion[:, 0].sum() / confusion.sum())
    if scores.n_classes > 2:
        means |= {f"average_precision_{k}": by_class["average_precision"][k] for k in foreground}
    return means


def probability_of(logits: Tensor) -> Tensor:
    """Return the probabilities (B, n_classes, *spatial) of logits (B, 1 or C, *spatial)."""
    if logits.shape[1] > 1:
        return logits.softmax(1)
    second = logits.sigmoid()
    return torch.cat([1 - second, second], 1)
