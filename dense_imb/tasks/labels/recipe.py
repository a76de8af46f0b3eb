"""Recipes of networks that classify whole images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from dense_imb.base.checks import check_at_least
from dense_imb.base.refusals import Refused, refusal
from dense_imb.config import LabelsConfig
from dense_imb.data.images.unlabelled import find_copies
from dense_imb.data.labels.cifar import open_cifar
from dense_imb.data.labels.classified import ClassifiedImages, WholeImages, split_by_class
from dense_imb.data.labels.long_tail import long_tail_counts
from dense_imb.data.labels.tables import (
    FileImages,
    open_table,
    open_whole_images,
    read_table,
)
from dense_imb.losses import Margin
from dense_imb.metrics import class_groups
from dense_imb.models import CLASSIFIERS, build_classifier_network
from dense_imb.tasks.base import TrainingData
from dense_imb.tasks.instances import check_per_class
from dense_imb.tasks.labels.pseudo_labels import LabelsPseudoLabels
from dense_imb.tasks.labels.task import LabelsOptions, LabelsReading, LabelsTask
from dense_imb.tasks.labels.trained import TrainedLabels
from dense_imb.tasks.recipe import Recipe
from dense_imb.tasks.unlabelled import naming_the_option, single_place, warn_held_out

_SPLIT = 0  # seed of the splits and of the long tails: runs of any seed see the same images
_HIDDEN = 1  # seed of the choice of images whose labels are used
_SHARE = 0.2  # of a CSV file held out
_CIFAR_PADDING = 4  # pixels, as published recipes have it


@dataclass(frozen=True)
class LabelsRecipe(Recipe):
    """The recipe of a network that classifies whole images."""

    def check(self) -> None:
        """Refuse options of whole images that cannot be trained."""
        loss, labels, model = self.checked_loss, self.config.labels, self.config.model
        if not self.is_logit:
            raise Refused(
                "a loss of logits to classify with",
                f"{self.config.loss}, which is fed values",
                "for example {loss=CrossEntropyLoss}",
            )
        check_per_class(
            loss,
            "a loss of whole images",
            "an image with one label has no instances",
            "for example {loss=CrossEntropyLoss}",
        )
        if not model.name.startswith((*CLASSIFIERS[:1], "timm:")):
            raise Refused(
                f"a network of whole images ({', '.join(CLASSIFIERS)})",
                model.name,
                "for example {model.name=resnet32}",
            )
        wants_cosines = isinstance(getattr(loss, "adjustment", None), Margin)
        if wants_cosines and model.options.get("head") != "cosine":
            raise Refused(
                f"a cosine head with {self.config.loss}, whose margins are of cosines",
                model.options.get("head", "linear"),
                'give {model.options} \'{"head": "cosine"}\'',
            )
        share = validation_share(labels)
        if not (0 < share < 1 or (share == 0 and not labels.is_table)):
            raise ValueError(f"Expected `validation_share` between 0 and 1, got {share}.")
        if labels.padding is not None:
            check_at_least("padding", labels.padding, 0)
        class_groups((), labels.many, labels.few)
        for side in labels.size or []:
            check_at_least("size", side, 1)
        _check_source(labels)

    def labelled_task(self) -> LabelsTask:
        """Open the images and build the network and its loss."""
        labels = self.config.labels
        train, validation = open_classified(labels)
        train, rest = split_labelled(train, self.config.labelled_share)
        train.check_every_class("training")
        loss = self.loss(train.class_counts)
        adjustment = getattr(loss, "adjustment", None)
        mean, std = train.moments()
        reading = LabelsReading(
            class_names=train.class_names,
            train_counts=train.class_counts,
            mean=mean,
            std=tuple(deviation or 1.0 for deviation in std),
            size=train.size,
            many=float(labels.many),
            few=float(labels.few),
            scale=adjustment.scale if isinstance(adjustment, Margin) else 1.0,
        )
        options = LabelsOptions(
            **self.shared_options(train.labels, len(train)),
            padding=_padding(labels, train.size),
            flips=labels.flips,
            seed=self.config.seed,
        )
        data = TrainingData(train, validation, train.class_counts, rest=rest)
        return LabelsTask(self.network(network_sizes(reading)), loss, data, reading, options)

    def initial_network(self, sizes: Mapping[str, Any]) -> nn.Module:
        """Build the network."""
        model = self.config.model
        return build_classifier_network(model.name, **sizes, **model.options)

    def pseudo_labels(self, task: LabelsTask) -> LabelsPseudoLabels:
        """Open the unlabelled images; validation images among them are left out."""
        rest = self.config.unlabelled.rest
        return LabelsPseudoLabels(
            task,
            task.data.rest if rest else self._unlabelled_pictures(task),
            self.pseudo_label_loss(task.class_counts),
            self.strong_views,
        )

    def _unlabelled_pictures(self, task: LabelsTask) -> WholeImages:
        place = single_place(self.config.unlabelled)
        with naming_the_option():
            pictures = open_whole_images(
                place, task.reading.size, name_column=self.config.labels.name_column
            )
            source, validated = pictures.source, task.validation.source
            if not isinstance(source, FileImages) or not isinstance(validated, FileImages):
                return pictures  # images of CIFAR are no files
            held_out = [validated.paths[i] for i in task.validation.numbers]
            copies = set(find_copies(source.paths, held_out))
            left = [i for i in pictures.numbers if i not in copies]
            warn_held_out(len(left), len(pictures), place)
            return WholeImages(source, left)

    def trained(self, name: str, content: Mapping[str, Any], device: Any) -> TrainedLabels:
        """Build the trained network."""
        reading = LabelsReading.from_text(content["setup"]["classes"])
        network = self.trained_network(network_sizes(reading), content["network"])
        return TrainedLabels(name, network, reading, device)


def network_sizes(reading: LabelsReading) -> dict[str, Any]:
    """Return the sizes of a network's input and output."""
    return {"in_channels": len(reading.mean), "n_classes": reading.n_classes}


def validation_share(labels: LabelsConfig) -> float:
    """Return the fraction of each class that is held out for validation."""
    if labels.validation_share is not None:
        return labels.validation_share
    return _SHARE if labels.is_table else 0.0


def split_labelled(
    images: ClassifiedImages, share: float
) -> tuple[ClassifiedImages, ClassifiedImages | None]:
    """Split off a fraction of each class, whose labels are used; the others are None if none."""
    if share == 1:
        return images, None
    kept, left_out = split_by_class(images.labels, 1 - share, _HIDDEN)
    return images.subset(kept), images.subset(left_out)


def open_classified(labels: LabelsConfig) -> tuple[ClassifiedImages, ClassifiedImages]:
    """Open the training and the validation images."""
    share = validation_share(labels)
    if not labels.is_table:
        train, test = _open_cifar(labels)
        if share == 0:
            return train, test
        kept, held_out = split_by_class(train.labels, share, _SPLIT)
        return train.subset(kept), train.subset(held_out)
    path = labels.train or ""
    opened = open_test_table(labels, path, labels.images)
    if labels.validation is not None:
        folder = labels.validation_images or labels.images
        classes = opened.class_names if labels.classes is None else None
        other = open_test_table(labels, labels.validation, folder, classes)
        _refuse_shared(opened, other)
        return opened, other
    groups = None
    if labels.group_column is not None:
        groups = read_table(path).column(labels.group_column, 0)
    kept, held_out = split_by_class(opened.labels, share, _SPLIT, groups)
    return opened.subset(kept), opened.subset(held_out)


def open_test_table(
    labels: LabelsConfig,
    path: str,
    images: str | None = None,
    classes: tuple[str, ...] | None = None,
) -> ClassifiedImages:
    """Open a CSV file with the columns, the classes and the image size of a run.

    Args:
        labels: configuration of the run's training images.
        path: the CSV file.
        images: folder of its images.
        classes: class names of the run, if the configuration has none.
    """
    return open_table(
        path,
        images,
        name_column=labels.name_column,
        label_column=labels.label_column,
        classes=labels.classes or classes,
        size=labels.size,
    )


def open_cifar_test(labels: LabelsConfig, path: str | None = None) -> ClassifiedImages:
    """Open the test images of the CIFAR archive of a run, or of another one."""
    return _open_cifar(labels, path)[1]


def _open_cifar(
    labels: LabelsConfig, path: str | None = None
) -> tuple[ClassifiedImages, ClassifiedImages]:
    return open_cifar(
        path or labels.train or "",
        imb_ratio=labels.imb_ratio,
        profile=labels.profile,
        seed=_SPLIT,
    )


def _padding(labels: LabelsConfig, size: tuple[int, int]) -> int:
    if labels.padding is not None:
        return labels.padding
    return min(size) // 8 if labels.is_table else _CIFAR_PADDING


def _check_source(labels: LabelsConfig) -> None:
    """Refuse options of CSV files with CIFAR, and the other way round."""
    if not labels.is_table:
        long_tail_counts(2, 10**9, labels.imb_ratio)  # a ratio that is too large is refused later
    plain = LabelsConfig()
    only = (
        ("imb_ratio", "profile")
        if labels.is_table
        else (
            "images",
            "validation",
            "validation_images",
            "name_column",
            "label_column",
            "group_column",
            "classes",
            "size",
        )
    )
    other, this = ("CIFAR", "a CSV file") if labels.is_table else ("CSV files", "CIFAR")
    for name in only:
        if getattr(labels, name) != getattr(plain, name):
            raise refusal(
                f"{{labels.{name}}} is an option of {other}, but {{labels.train}} is {this} "
                f"({labels.train}); drop it."
            )


def _refuse_shared(train: ClassifiedImages, validation: ClassifiedImages) -> None:
    """Refuse validation images that are trained on."""
    assert isinstance(train.source, FileImages)
    assert isinstance(validation.source, FileImages)
    seen = {path.resolve() for path in train.source.paths}
    shared = [path.name for path in validation.source.paths if path.resolve() in seen]
    if shared:
        more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
        raise ValueError(
            f"Expected validation images that are not trained on, got {', '.join(shared[:3])}"
            f"{more} in {train.source.where} and {validation.source.where}."
        )
