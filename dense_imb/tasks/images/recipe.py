"""Recipes of networks that segment images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dense_imb.base.checks import check_at_least
from dense_imb.base.refusals import Refused, refusal
from dense_imb.config import ImagesConfig
from dense_imb.data.images.labelled import (
    LabelledImages,
    LabelTally,
    check_names,
    open_labelled,
)
from dense_imb.data.images.split import split_by_image
from dense_imb.data.images.unlabelled import open_unlabelled
from dense_imb.losses.foreign.feeding import can_ignore, takes_logits, wants_instances
from dense_imb.losses.foreign.recommended import Recommendation, recommended_for_pixels
from dense_imb.models import build_model
from dense_imb.tasks.base import TrainingData
from dense_imb.tasks.images.evaluate import few_pixels
from dense_imb.tasks.images.pseudo_labels import Images, ImagesPseudoLabels
from dense_imb.tasks.images.task import ImagesOptions, ImagesReading, ImagesTask
from dense_imb.tasks.images.trained import TrainedImages
from dense_imb.tasks.instances import check_instances_not_mixed
from dense_imb.tasks.pixels import PatchWarning as PatchWarning
from dense_imb.tasks.pixels import default_patch
from dense_imb.tasks.recipe import Recipe, check_share
from dense_imb.tasks.unlabelled import naming_the_option, single_place, warn_held_out

_SPLIT = 0  # seed of the splits: runs of any seed see the same images
_HIDDEN = 1  # seed of the choice of images whose labels are used
_LOOKED_AT = 8  # images, for their channels


class FewPixelsWarning(UserWarning):
    """Classes with too few validation pixels for a score."""


@dataclass(frozen=True)
class OpenedImages:
    """Images of a run, and the statistics of those it learns from.

    Args:
        train: training images whose labels are used.
        validation: validation images.
        rest: other training images; None if there are none.
        tally: statistics of `train`.
    """

    train: LabelledImages
    validation: LabelledImages
    rest: LabelledImages | None
    tally: LabelTally


@dataclass(frozen=True)
class ImagesRecipe(Recipe):
    """The recipe of a network that segments images.

    Args:
        opened: the images, if they were opened to choose the loss.
    """

    opened: OpenedImages | None = field(default=None, compare=False, repr=False)

    def check(self) -> None:
        """Refuse options of images that cannot be trained."""
        self.checked_loss  # noqa: B018  # refuses what is no loss
        images = self.config.images
        check_share("validation_share", images.validation_share)
        check_names(images.names)
        held_out = images.validation
        if held_out and images.validation_masks is None and Path(held_out).is_dir():
            raise Refused(
                f"`validation_masks`, the folder of the masks of {held_out}",
                "none",
                "add {images.validation_masks=FOLDER}",
            )
        check_at_least("patches", images.patches, 1)
        for side in images.patch or []:
            check_at_least("patch", side, 1)
        if not 0 <= images.test_share < 1:
            raise ValueError(f"Expected `test_share` from 0 to below 1, got {images.test_share}.")
        ImagesOptions(patches=images.patches, foreground=images.foreground)
        if wants_instances(self.checked_loss):
            check_instances_not_mixed(self.mixing)

    def check_stages(self) -> None:
        """Refuse instance maps that no stage's loss takes."""
        stages = [self] if self.second is None else [self, self.second]
        is_used = any(wants_instances(stage.checked_loss) for stage in stages)
        if self.config.images.instances is not None and not is_used:
            raise refusal(
                "{images.instances} changes nothing without a loss per instance; add "
                '{loss=CrossEntropyLoss(per="instance")}.'
            )

    def recommend(self, class_counts: Sequence[int]) -> Recommendation:
        """Return the loss that `dense-imb inspect` recommends for these class counts."""
        return recommended_for_pixels(class_counts)

    def choose_loss(self) -> tuple[Self, str]:
        """Return the recipe with the loss that its images recommend, and a sentence on it.

        The images are opened once for all stages.
        """
        opened = self.open()
        recommended = self.recommend(opened.tally.class_counts)
        chosen = self.with_loss(recommended.loss)
        if isinstance(second := chosen.second, ImagesRecipe):
            second = replace(second, opened=opened)
        return replace(chosen, second=second, opened=opened), recommended.sentence()

    def open(self) -> OpenedImages:
        """Open the images, and read the labelled ones once."""
        train, validation = open_images(self.config.images)
        train, rest = split_labelled_images(train, self.config.labelled_share)
        if self.config.images.instances is not None:
            train = train.with_instances(self.config.images.instances)
        tally = train.tally(show_progress=False)
        _check_foreground(self.config.images, tally, validation)
        return OpenedImages(train, validation, rest, tally)

    def labelled_task(self) -> ImagesTask:
        """Open the images and build the network and its loss."""
        images, opened = self.config.images, self.opened or self.open()
        train, validation, tally = opened.train, opened.validation, opened.tally
        loss = self.loss(tally.class_counts)
        patch = default_patch(images.patch, train.spatial_dims, tally.sizes, "images")
        if not can_ignore(loss):
            _check_nothing_ignored(loss, patch, tally)
        reading = ImagesReading(
            n_classes=train.n_classes,
            mean=tally.mean,
            std=tuple(deviation or 1.0 for deviation in tally.std),
            patch=patch,
            is_logit=takes_logits(loss),
            labels=None if images.labels is None else tuple(images.labels),
            names=train.class_names if train.has_class_names else None,
        )
        options = ImagesOptions(
            **self.shared_options(tally, len(train) * images.patches),
            patches=images.patches,
            foreground=images.foreground,
            flips=images.flips,
            seed=self.config.seed,
        )
        data = TrainingData(train, validation, tally.class_counts, tally.class_content, opened.rest)
        return ImagesTask(self.network(network_sizes(reading)), loss, data, reading, options)

    def initial_network(self, sizes: Mapping[str, Any]) -> nn.Module:
        """Build the network."""
        model = self.config.model
        return build_model(model.name, **sizes, **model.options)

    def pseudo_labels(self, task: ImagesTask) -> ImagesPseudoLabels:
        """Open the unlabelled images; validation and test images among them are left out."""
        wanted = self.config.unlabelled
        return ImagesPseudoLabels(
            task.data.rest if wanted.rest else self._unlabelled_images(task),
            task,
            self.pseudo_label_loss(task.class_counts),
            self.strong_views,
            wanted.threshold,
        )

    def _unlabelled_images(self, task: ImagesTask) -> Images:
        place, reading = single_place(self.config.unlabelled), task.reading
        held_out = [task.validation]
        if self.config.images.test_share > 0:
            held_out.append(open_test_images(self.config.images, reading.n_classes))
        with naming_the_option():
            images = open_unlabelled(
                place, n_channels=reading.in_channels, spatial_dims=len(reading.patch)
            )
            left = images.without(held_out)
            warn_held_out(len(left), len(images), place)
            for i in range(min(_LOOKED_AT, len(left))):
                left.image(i)  # refused here, with the option's name, rather than in training
        return left

    def trained(self, name: str, content: Mapping[str, Any], device: Any) -> TrainedImages:
        """Build the trained network."""
        reading = ImagesReading.from_setup(content["setup"])
        labels = self.config.images.labels
        if reading.labels != (None if labels is None else tuple(labels)):
            raise Refused(
                f"labels as in the checkpoint, {reading.labels}",
                f"{labels} in config.yaml, which was edited",
                "bring its {images.labels} back",
            )
        network = self.trained_network(network_sizes(reading), content["network"])
        return TrainedImages(name, network, reading, device)


def network_sizes(reading: ImagesReading) -> dict[str, Any]:
    """Return the sizes of a network's input and output."""
    return {
        "in_channels": reading.in_channels,
        "out_channels": reading.out_channels,
        "frame": reading.patch,
        "spatial_dims": len(reading.patch),
    }


def split_labelled_images(
    images: LabelledImages, share: float
) -> tuple[LabelledImages, LabelledImages | None]:
    """Split off the images whose labels are used; the others are None if there are none."""
    if share == 1:
        return images, None
    kept, left_out = split_by_image(len(images), 1 - share, _HIDDEN)
    return images.subset(kept), images.subset(left_out)


def open_images(images: ImagesConfig) -> tuple[LabelledImages, LabelledImages]:
    """Open the training and the validation images."""
    train, _ = _train_and_test(images)
    if images.validation is None:
        kept, held_out = split_by_image(len(train), images.validation_share, _SPLIT)
        return train.subset(kept), train.subset(held_out)
    return train, _open(images, images.validation, images.validation_masks, train.n_classes)


def open_validation_images(images: ImagesConfig, n_classes: int) -> LabelledImages:
    """Open the validation images of a run whose classes are known.

    If they are files of their own, the training images are not needed, and may be gone.
    """
    images = replace(images, n_classes=n_classes)  # no need to count the classes again
    if images.validation is None:
        return open_images(images)[1]
    return _open(images, images.validation, images.validation_masks, n_classes)


def open_test_images(images: ImagesConfig, n_classes: int | None = None) -> LabelledImages:
    """Open the images of `test_share`, which no run of the configuration has seen."""
    _, test = _train_and_test(replace(images, n_classes=n_classes or images.n_classes))
    if test is None:
        raise ValueError("Expected `test_share` above 0 to have images for tests, got 0.")
    return test


def _train_and_test(images: ImagesConfig) -> tuple[LabelledImages, LabelledImages | None]:
    assert images.train is not None
    opened = _open(images, images.train, images.masks, images.n_classes)
    if images.test_share == 0:
        return opened, None
    kept, held_out = split_by_image(len(opened), images.test_share, _SPLIT)
    return opened.subset(kept), opened.subset(held_out)


def _open(
    images: ImagesConfig, folder: str, masks: str | None, n_classes: int | None
) -> LabelledImages:
    return open_labelled(
        folder,
        masks,
        n_classes=n_classes,
        labels=images.labels,
        above=images.above,
        ignore_index=images.ignore_index,
        names=images.names,
    )


def _check_foreground(images: ImagesConfig, tally: LabelTally, validation: LabelledImages) -> None:
    """Refuse training or validation images without any foreground."""
    place = images.masks or images.train
    other = images.validation_masks or images.validation or place
    content = np.array([_class_counts(validation.label(i), tally.n_classes)
                        for i in range(len(validation))])  # fmt: skip
    for what, is_there, where in (
        ("train", sum(tally.class_counts[1:]) > 0, place),
        ("validate", bool(content[:, 1:].any()), other),
    ):
        if not is_there:
            raise Refused(
                f"images to {what} on with a pixel of another class than 0",
                f"none in {where}",
                "check which mask value is which class ({images.labels}), or use more images",
            )
    _warn_of_few(content, validation.class_names)


def _check_nothing_ignored(loss: nn.Module, patch: tuple[int, ...], tally: LabelTally) -> None:
    """Refuse ignored pixels, and warn of small images, for a loss that can ignore no pixel."""
    name = type(loss).__name__
    n_pixels = sum(math.prod(size) * count for size, count in tally.sizes.items())
    if n_ignored := n_pixels - sum(tally.class_counts):
        raise refusal(
            f"`{name}` can ignore no pixel, but the masks leave out {n_ignored:,} training pixels "
            "({images.ignore_index}); use a loss of dense_imb, or make them a class."
        )
    n_small = sum(
        count
        for size, count in tally.sizes.items()
        if any(side < wanted for side, wanted in zip(size, patch, strict=True))
    )
    if n_small:
        warnings.warn(
            f"{name} can ignore no pixel, so crops of the {n_small} images smaller than "
            f"{' x '.join(map(str, patch))} repeat their outermost pixels and labels",
            PatchWarning,
            stacklevel=2,
        )


def _class_counts(label: NDArray[np.uint8], n_classes: int) -> NDArray[np.int64]:
    """Return the number of pixels of each class."""
    return np.bincount(label.ravel(), minlength=256)[:n_classes]


def _warn_of_few(content: NDArray[np.int64], names: Sequence[str]) -> None:
    """Warn of classes with too few validation pixels, if the score is a mean over several.

    Args:
        content: (n_images, n_classes) pixels of each class in each validation image.
        names: names of the classes.
    """
    clauses = [
        few_pixels(names[k], int(content[:, k].sum()), int((content[:, k] > 0).sum()))
        for k in range(1, content.shape[1])
    ]
    few = [clause for clause in clauses if clause]
    n_averaged = int((content[:, 1:].sum(0) > 0).sum())
    if few and n_averaged > 1:
        warnings.warn(
            f"validation: {', '.join(few)}; average precision of so few is luck, and each class "
            f"is 1/{n_averaged} of the mean that chooses the checkpoint",
            FewPixelsWarning,
            stacklevel=2,
        )
