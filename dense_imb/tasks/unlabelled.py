"""What is learnt from without labels, from a config."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dense_imb.config import TrainConfig, UnlabelledConfig
from dense_imb.data.events.virtual import VirtualEvents
from dense_imb.data.images.labelled import LabelledImages
from dense_imb.data.images.unlabelled import find_copies, open_unlabelled
from dense_imb.data.labels.classified import WholeImages
from dense_imb.data.labels.tables import FileImages, open_whole_images
from dense_imb.hits import HitsFile, HitsFiles, open_hits
from dense_imb.tasks.hits.pseudo_labels import UnlabelledHits
from dense_imb.tasks.hits.task import Denoiser
from dense_imb.tasks.images.pseudo_labels import Images, UnlabelledCrops
from dense_imb.tasks.images.task import Segmenter
from dense_imb.tasks.labels.pseudo_labels import UnlabelledClassImages
from dense_imb.tasks.labels.task import Classifier
from dense_imb.tasks.mean_teacher import SemiSupervised, Unlabelled
from dense_imb.tasks.recipe import build_loss

_REST = "use --labelled_share 0.1 --unlabelled.rest true in place of --unlabelled.train"
_LOOKED_AT = 8  # images, for their channels
_HITS = ("/event/offset", "/hit/x", "/hit/y", "/hit/t")


class HeldOutWarning(UserWarning):
    """Images to learn from without labels are among those of a validation or a test."""


def build_semi_supervised(
    config: TrainConfig,
    task: Denoiser | Segmenter | Classifier,
    held_out: Sequence[LabelledImages] = (),
) -> SemiSupervised:
    """A task with the samples without labels of a config.

    Those that are validated or tested on are left out, with a `HeldOutWarning`; hits are refused.

    Args:
        config: of the run.
        task: what learns from labels.
        held_out: of a segmenter, the images to validate and to test on.
    """
    wanted = config.unlabelled
    return SemiSupervised(
        task,
        _unlabelled(config, task, held_out),
        ratio=wanted.ratio,
        weight=wanted.weight,
        ramp_steps=round(wanted.ramp * config.steps),
        threshold=wanted.threshold,
        decay=wanted.decay,
        sampling=wanted.sampling,
        seed=config.seed,
    )


def _unlabelled(
    config: TrainConfig,
    task: Denoiser | Segmenter | Classifier,
    held_out: Sequence[LabelledImages],
) -> Unlabelled:
    wanted = config.unlabelled
    options: dict[str, Any] = {
        "strong": wanted.strong,
        "operations": wanted.operations,
        "magnitude": wanted.magnitude,
    }
    if wanted.loss is not None:
        options["loss"] = build_loss(wanted.loss, task.class_counts)
    if isinstance(task, Segmenter):
        images = _images(wanted, task, held_out)
        return UnlabelledCrops(images, task, threshold=wanted.threshold, **options)
    if isinstance(task, Classifier):
        pictures = task.rest if wanted.rest else _pictures(config, task)
        return UnlabelledClassImages(task, pictures, **options)
    del options["operations"], options["magnitude"]
    events = task.rest if wanted.rest else _events(config, task)
    return UnlabelledHits(task, events, **options)


def _pictures(config: TrainConfig, task: Classifier) -> WholeImages:
    place = one_place(config.unlabelled)
    with _about_the_option():
        found = open_whole_images(place, task.reading.size, name_column=config.table.name_column)
        source, validated = found.source, task.validation.source
        if not isinstance(source, FileImages) or not isinstance(validated, FileImages):
            return found  # images of CIFAR are no files
        held_out = [validated.paths[i] for i in task.validation.numbers]
        copies = set(find_copies(source.paths, held_out))
        left = [i for i in found.numbers if i not in copies]
        _tell(len(left), len(found), place)
        return WholeImages(source, left)


def _events(config: TrainConfig, task: Denoiser) -> VirtualEvents:
    paths = config.unlabelled.train
    assert paths is not None
    with _about_the_option():
        source = open_hits(paths)
        if config.data.validation:
            why = "data.validation, which are validated on"
            _refuse_shared(source, task.validation.source, why)
            why = "data.train, which are learnt from already"
        else:
            why = "data.train, whose last events are validated on"
        _refuse_shared(source, task.train.source, why)
    return VirtualEvents(source, None, config.seed)


def _refuse_shared(source: HitsFile | HitsFiles, others: HitsFile | HitsFiles, why: str) -> None:
    """Refuse hits files that are among others, or copies of them, with labels or without."""
    seen = {file.path.resolve() for file in _files(others)}
    hits = {_hits_of(file) for file in _files(others)} - {None}
    for file in _files(source):
        if file.path.resolve() in seen or _hits_of(file) in hits:
            raise ValueError(
                f"Expected other hits files than those of {why}, got the hits of {file.path}; to "
                f"learn from events of data.train without their labels, {_REST}."
            )


def _files(source: HitsFile | HitsFiles) -> list[HitsFile]:
    return source.files if isinstance(source, HitsFiles) else [source]


def _hits_of(file: HitsFile) -> tuple[str, ...] | None:
    """The stored digests of the hits, without labels; None where the file has none."""
    try:
        stored = json.loads(str(file.attributes["content_hash"]))
        return tuple(str(stored[name]) for name in _HITS)
    except (KeyError, ValueError, TypeError):
        return None


def _images(
    wanted: UnlabelledConfig, task: Segmenter, held_out: Sequence[LabelledImages]
) -> Images:
    if wanted.rest:
        images: Images = task.rest
        return images
    reading, place = task.reading, one_place(wanted)
    with _about_the_option():
        found = open_unlabelled(
            place, n_channels=reading.in_channels, spatial_dims=len(reading.patch)
        )
        left = found.without(held_out)
        _tell(len(left), len(found), place)
        for i in range(min(_LOOKED_AT, len(left))):
            left.image(i)  # refused now, in words that name the option, rather than in training
    return left


def _tell(n_left: int, n_found: int, place: str) -> None:
    """Say how many images are left out; refuse where none are left."""
    if not n_left and n_found:
        raise ValueError(
            f"Expected images in {place} that are neither validated nor tested on, got none of "
            f"{n_found}; give others, or, to learn from training images without their labels, "
            f"{_REST}."
        )
    if n_left < n_found:
        warnings.warn(
            f"unlabelled.train: {n_found - n_left} of {n_found} images in {place} are left out, "
            "as a validation or a test must not be learnt from",
            HeldOutWarning,
            stacklevel=2,
        )


@contextmanager
def _about_the_option() -> Iterator[None]:
    """Errors about the files say which option named them."""
    try:
        yield
    except OSError as problem:
        told = str(problem)
        if problem.filename is not None:
            told = f"Expected a file at {problem.filename}, got: {problem.strerror}."
        raise ValueError(f"unlabelled.train: {told}") from problem
    except ValueError as problem:
        raise ValueError(f"unlabelled.train: {problem}") from problem


def one_place(wanted: UnlabelledConfig) -> str:
    """The folder or file of images; of hits there may be several."""
    places = [wanted.train] if isinstance(wanted.train, str) else wanted.train or []
    if len(places) != 1:
        raise ValueError(
            f"Expected `unlabelled.train` as one folder or file of images, got {len(places)}."
        )
    return places[0]
