"""The task of a config: its network, its losses and its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dense_imb.config import ImagesConfig, TrainConfig
from dense_imb.data.images.split import split_by_image
from dense_imb.data.events.virtual import VirtualEvents
from dense_imb.data.images.labelled import IGNORED, LabelledImages, LabelTally, open_labelled
from dense_imb.hits import open_hits
from dense_imb.losses.foreign.feeding import takes_logits
from dense_imb.tasks.hits.task import Denoiser, Pixels, is_signal, is_visible
from dense_imb.tasks.images.task import ImageReading, Segmenter
from dense_imb.tasks.labels.recipe import build_classifier
from dense_imb.tasks.labels.task import Classifier
from dense_imb.tasks.mean_teacher import SemiSupervised
from dense_imb.tasks.recipe import (
    build_degradation,
    build_feature_loss,
    build_loss,
    build_mixer,
    build_network,
    build_reading,
    build_sampling,
    needs_content,
    of_hits,
    of_images,
)
from dense_imb.tasks.unlabelled import build_semi_supervised

_SPLIT = 0  # seed of the splits: runs of any seed see the same images
_HIDDEN = 1  # seed of who has labels
_COUNTED = 256  # events
_PATCH = {2: 128, 3: 64}  # largest side of a crop, unless the config says another


def build_task(config: TrainConfig) -> Denoiser | Segmenter | Classifier | SemiSupervised:
    """The network, the losses and the data of a config."""
    task: Denoiser | Segmenter | Classifier
    if config.trains_on_classes:
        task = build_classifier(config)
    else:
        task = build_segmenter(config) if config.trains_on_images else build_denoiser(config)
    if not config.is_semi_supervised:
        return task
    return build_semi_supervised(config, task, _images_held_out(config, task))


def build_denoiser(config: TrainConfig) -> Denoiser:
    """The network, the losses and the hits of a config."""
    data = config.data
    degradation = build_degradation(data)
    source = open_hits(data.train)
    if data.validation:
        train_events = VirtualEvents(source, degradation, config.seed)
        held_out = VirtualEvents(
            open_hits(data.validation), degradation, config.seed, count=data.validation_events
        )
    else:
        n_held_out = max(round(data.validation_share * len(source)), 1)
        cut = len(source) - n_held_out
        if cut < 1:
            raise ValueError(
                f"Expected at least two events to train and validate on, got {len(source)}."
            )
        train_events = VirtualEvents(source, degradation, config.seed, count=cut)
        held_out = VirtualEvents(
            source, degradation, config.seed, first=cut, count=data.validation_events
        )
    train_events, rest = labelled_events(train_events, config.labelled_share)
    class_counts = count_pixels(train_events, config.pixels)
    loss = build_loss(config.loss, class_counts=class_counts)
    content = train_events.class_content() if needs_content(config) else None
    task = Denoiser(
        build_network(config, of_hits(config, source.geometry)),
        loss,
        train_events,
        held_out,
        reading=build_reading(config),
        target=config.target,
        pixels=config.pixels,
        value_loss=build_loss(config.value_loss) if config.model.output == "both" else None,
        retention=config.retention,
        batch_size=config.batch_size,
        class_counts=class_counts,
        sampling=build_sampling(config, content, len(train_events)),
        mixer=build_mixer(config, content),
        feature_loss=build_feature_loss(config),
    )
    task.rest = rest
    return task


def labelled_events(
    events: VirtualEvents, share: float
) -> tuple[VirtualEvents, VirtualEvents | None]:
    """The first events, whose labels are used, and the others, None where there are none."""
    if share == 1:
        return events, None
    n = len(events)
    if n < 2:
        raise ValueError(f"Expected two events or more with a `labelled_share`, got {n}.")
    cut = min(max(round(share * n), 1), n - 1)
    rest = replace(events, first=events.first + cut, count=n - cut)
    return replace(events, count=cut), rest


def count_pixels(events: VirtualEvents, pixels: Pixels) -> tuple[int, int]:
    """Pixels that a loss sees as background and as signal, in the first events of an epoch."""
    shown = events.degraded(np.arange(min(_COUNTED, len(events))), 0).torch()
    shown = shown.select(is_visible(shown))
    n_signal = int(is_signal(shown).sum())
    frame = shown.geometry
    n_pixels = shown.n_hits if pixels == "lit" else len(shown) * frame.width * frame.height
    return max(n_pixels - n_signal, 1), max(n_signal, 1)


def build_segmenter(config: TrainConfig) -> Segmenter:
    """The network, the loss and the images of a config."""
    train, validation = open_images(config.images)
    train, rest = labelled_part(train, config.labelled_share)
    tally = train.tally(show_progress=False)
    images = config.images
    place = images.masks or images.train
    other = images.validation_masks or images.validation or place
    has_any = any(_has_foreground(validation.label(i)) for i in range(len(validation)))
    for what, is_there, where in (
        ("train", sum(tally.class_counts[1:]) > 0, place),
        ("validate", has_any, other),
    ):
        if not is_there:
            raise ValueError(
                f"Expected images to {what} on with a pixel of another class than 0, got none in "
                f"{where}; check which mask value is which class (--images.labels), or use more "
                "images."
            )
    loss = build_loss(config.loss, class_counts=tally.class_counts)
    reading = ImageReading(
        n_classes=train.n_classes,
        mean=tally.mean,
        std=tuple(deviation or 1.0 for deviation in tally.std),
        patch=_patch(config.images.patch, train.spatial_dims, tally),
        is_logit=takes_logits(loss),
        labels=None if config.images.labels is None else tuple(config.images.labels),
        names=train.class_names if train.has_class_names else None,
    )
    task = Segmenter(
        build_network(config, of_images(reading)),
        loss,
        train,
        validation,
        reading=reading,
        patches=config.images.patches,
        foreground=config.images.foreground,
        flips=config.images.flips,
        seed=config.seed,
        class_counts=tally.class_counts,
        class_content=tally.class_content,
        sampling=build_sampling(config, tally, len(train) * config.images.patches),
        mixer=build_mixer(config, tally),
        feature_loss=build_feature_loss(config),
    )
    task.rest = rest
    return task


def labelled_part(
    images: LabelledImages, share: float
) -> tuple[LabelledImages, LabelledImages | None]:
    """The images whose labels are used, and the others, None where there are none."""
    if share == 1:
        return images, None
    kept, left_out = split_by_image(len(images), 1 - share, _HIDDEN)
    return images.subset(kept), images.subset(left_out)


def open_images(images: ImagesConfig) -> tuple[LabelledImages, LabelledImages]:
    """The images to train on, and those to validate on."""
    found, _ = _train_and_test(images)
    if images.validation is None:
        kept, held_out = split_by_image(len(found), images.validation_share, _SPLIT)
        return found.subset(kept), found.subset(held_out)
    return found, _open(images, images.validation, images.validation_masks, found.n_classes)


def open_validation_images(images: ImagesConfig, n_classes: int) -> LabelledImages:
    """The images to validate on, of a run whose classes are known.

    Where they are files of their own, those to train on are not needed, and may be gone.
    """
    images = replace(images, n_classes=n_classes)  # who knows has no need to count them again
    if images.validation is None:
        return open_images(images)[1]
    return _open(images, images.validation, images.validation_masks, n_classes)


def open_test_images(images: ImagesConfig, n_classes: int | None = None) -> LabelledImages:
    """The images of `test_share`, which no run of the config has seen."""
    _, test = _train_and_test(replace(images, n_classes=n_classes or images.n_classes))
    if test is None:
        raise ValueError("Expected `test_share` above 0 to have images for tests, got 0.")
    return test


def _images_held_out(
    config: TrainConfig, task: Denoiser | Segmenter | Classifier
) -> list[LabelledImages]:
    """The images with masks that images without masks must not be."""
    if not isinstance(task, Segmenter) or not config.unlabelled.train:
        return []
    if config.images.test_share == 0:
        return [task.validation]
    return [task.validation, open_test_images(config.images, task.reading.n_classes)]


def _train_and_test(images: ImagesConfig) -> tuple[LabelledImages, LabelledImages | None]:
    assert images.train is not None
    found = _open(images, images.train, images.masks, images.n_classes)
    if images.test_share == 0:
        return found, None
    kept, held_out = split_by_image(len(found), images.test_share, _SPLIT)
    return found.subset(kept), found.subset(held_out)


def _open(
    images: ImagesConfig, folder: str, masks: str | None, n_classes: int | None
) -> LabelledImages:
    return open_labelled(
        folder,
        masks,
        n_classes=n_classes,
        labels=images.labels,
        ignore_index=images.ignore_index,
        names=images.names,
    )


def _has_foreground(label: NDArray[np.uint8]) -> bool:
    return bool(((label > 0) & (label != IGNORED)).any())


def _patch(wanted: Sequence[int] | None, spatial_dims: int, tally: LabelTally) -> tuple[int, ...]:
    if wanted is None:
        largest = (max(sides) for sides in zip(*tally.sizes, strict=True))
        return tuple(min(side, _PATCH[spatial_dims]) for side in largest)
    if len(wanted) != spatial_dims:
        raise ValueError(
            f"Expected `patch` with a number for each of the {spatial_dims} dimensions of the "
            f"images, got {list(wanted)}."
        )
    return tuple(wanted)
