"""The images, the loss and the network of a config that trains a classifier."""

from __future__ import annotations

from dense_imb.config import TrainConfig
from dense_imb.data.labels.cifar import open_cifar
from dense_imb.data.labels.classified import ClassifiedImages, split_by_class
from dense_imb.data.labels.tables import FilePictures, open_table, read_table
from dense_imb.losses import Margin
from dense_imb.tasks.labels.task import Classifier, ClassReading
from dense_imb.tasks.recipe import (
    build_feature_loss,
    build_loss,
    build_mixer,
    build_network,
    build_sampling,
    of_classes,
)

_SPLIT = 0  # seed of the splits and of the long tails: runs of any seed see the same images
_HIDDEN = 1  # seed of who has labels


def build_classifier(config: TrainConfig) -> Classifier:
    """The network, the loss and the images of a config."""
    train, validation = open_classified(config)
    train, rest = labelled_images(train, config.labelled_share)
    train.check_every_class("training")
    used = config.cifar if config.table.train is None else config.table
    loss = build_loss(config.loss, class_counts=train.class_counts)
    adjustment = getattr(loss, "adjustment", None)
    mean, std = train.moments()
    reading = ClassReading(
        class_names=train.class_names,
        train_counts=train.class_counts,
        mean=mean,
        std=tuple(deviation or 1.0 for deviation in std),
        size=train.size,
        many=float(used.many),  # a YAML file may hold 100 where the default is 100.0
        few=float(used.few),
        scale=adjustment.scale if isinstance(adjustment, Margin) else 1.0,
    )
    task = Classifier(
        build_network(config, of_classes(reading)),
        loss,
        train,
        validation,
        reading=reading,
        padding=min(train.size) // 8 if used.padding is None else used.padding,
        flips=used.flips,
        seed=config.seed,
        sampling=build_sampling(config, train.labels, len(train)),
        mixer=build_mixer(config, train.labels),
        feature_loss=build_feature_loss(config),
    )
    task.rest = rest
    return task


def labelled_images(
    images: ClassifiedImages, share: float
) -> tuple[ClassifiedImages, ClassifiedImages | None]:
    """The images whose labels are used, a share of each class, and the others, None for none."""
    if share == 1:
        return images, None
    kept, left_out = split_by_class(images.labels, 1 - share, _HIDDEN)
    return images.subset(kept), images.subset(left_out)


def open_classified(config: TrainConfig) -> tuple[ClassifiedImages, ClassifiedImages]:
    """The images to train on, and those to validate on."""
    if config.table.train is None:
        train, test = _open_cifar(config)
        share = config.cifar.validation_share
        if share == 0:
            return train, test
        kept, held_out = split_by_class(train.labels, share, _SPLIT)
        return train.subset(kept), train.subset(held_out)
    table = config.table
    found = open_test_table(config, table.train or "", table.images)
    if table.validation is not None:
        folder = table.validation_images or table.images
        classes = found.class_names if table.classes is None else None
        other = open_test_table(config, table.validation, folder, classes)
        _refuse_shared(found, other)
        return found, other
    groups = None
    if table.group_column is not None:
        groups = read_table(table.train or "").column(table.group_column, 0)
    kept, held_out = split_by_class(found.labels, table.validation_share, _SPLIT, groups)
    return found.subset(kept), found.subset(held_out)


def open_test_table(
    config: TrainConfig,
    path: str,
    images: str | None = None,
    classes: tuple[str, ...] | None = None,
) -> ClassifiedImages:
    """A CSV file with the columns, the classes and the size of image of a config.

    Args:
        config: of a run on a table.
        path: of the CSV file.
        images: the folder of its images.
        classes: of the run, where the config names none.
    """
    table = config.table
    return open_table(
        path,
        images,
        name_column=table.name_column,
        label_column=table.label_column,
        classes=table.classes or classes,
        size=table.size,
    )


def open_cifar_test(config: TrainConfig, path: str | None = None) -> ClassifiedImages:
    """The test images of the archive of a config, or of another one."""
    return _open_cifar(config, path)[1]


def _open_cifar(
    config: TrainConfig, path: str | None = None
) -> tuple[ClassifiedImages, ClassifiedImages]:
    cifar = config.cifar
    return open_cifar(
        path or cifar.path or "", imb_ratio=cifar.imb_ratio, profile=cifar.profile, seed=_SPLIT
    )


def _refuse_shared(train: ClassifiedImages, validation: ClassifiedImages) -> None:
    """Images that are trained on say nothing about others."""
    assert isinstance(train.source, FilePictures)
    assert isinstance(validation.source, FilePictures)
    seen = {path.resolve() for path in train.source.paths}
    shared = [path.name for path in validation.source.paths if path.resolve() in seen]
    if shared:
        more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
        raise ValueError(
            f"Expected validation images that are not trained on, got {', '.join(shared[:3])}"
            f"{more} in {train.source.where} and {validation.source.where}."
        )
