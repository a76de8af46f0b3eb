"""What is learnt from without labels, from a config."""

from __future__ import annotations

from typing import Any

from dense_imb.config import TrainConfig, UnlabelledConfig
from dense_imb.data.classified import Pictures
from dense_imb.data.tables import open_unlabelled_pictures
from dense_imb.data.unlabelled import open_unlabelled
from dense_imb.data.virtual import VirtualEvents
from dense_imb.hits import open_hits
from dense_imb.training.build import build_loss
from dense_imb.training.classifier import Classifier
from dense_imb.training.denoiser import Denoiser
from dense_imb.training.segmenter import Segmenter
from dense_imb.training.semi_supervised import SemiSupervised, Unlabelled
from dense_imb.training.unlabelled_classes import UnlabelledClassImages
from dense_imb.training.unlabelled_hits import UnlabelledHits
from dense_imb.training.unlabelled_images import Images, UnlabelledCrops


def build_semi_supervised(
    config: TrainConfig, task: Denoiser | Segmenter | Classifier
) -> SemiSupervised:
    """A task with the samples without labels of a config."""
    wanted = config.unlabelled
    return SemiSupervised(
        task,
        _unlabelled(config, task),
        ratio=wanted.ratio,
        weight=wanted.weight,
        ramp_steps=round(wanted.ramp * config.steps),
        threshold=wanted.threshold,
        decay=wanted.decay,
        sampling=wanted.sampling,
        seed=config.seed,
    )


def _unlabelled(config: TrainConfig, task: Denoiser | Segmenter | Classifier) -> Unlabelled:
    wanted = config.unlabelled
    options: dict[str, Any] = {
        "strong": wanted.strong,
        "operations": wanted.operations,
        "magnitude": wanted.magnitude,
    }
    if wanted.loss is not None:
        options["loss"] = build_loss(wanted.loss, task.class_counts)
    if isinstance(task, Segmenter):
        images = _images(wanted, task)
        return UnlabelledCrops(images, task, threshold=wanted.threshold, **options)
    if isinstance(task, Classifier):
        pictures = task.rest if wanted.rest else _pictures(config, task)
        return UnlabelledClassImages(task, pictures, **options)
    del options["operations"], options["magnitude"]
    events = task.rest if wanted.rest else _events(config)
    return UnlabelledHits(task, events, **options)


def _pictures(config: TrainConfig, task: Classifier) -> Pictures:
    return open_unlabelled_pictures(
        one_place(config.unlabelled), task.reading.size, name_column=config.table.name_column
    )


def _events(config: TrainConfig) -> VirtualEvents:
    paths = config.unlabelled.train
    assert paths is not None
    return VirtualEvents(open_hits(paths), None, config.seed)


def _images(wanted: UnlabelledConfig, task: Segmenter) -> Images:
    if wanted.rest:
        images: Images = task.rest
        return images
    reading = task.reading
    return open_unlabelled(
        one_place(wanted), n_channels=reading.in_channels, spatial_dims=len(reading.patch)
    )


def one_place(wanted: UnlabelledConfig) -> str:
    """The folder or file of images; of hits there may be several."""
    places = [wanted.train] if isinstance(wanted.train, str) else wanted.train or []
    if len(places) != 1:
        raise ValueError(
            f"Expected `unlabelled.train` as one folder or file of images, got {len(places)}."
        )
    return places[0]
