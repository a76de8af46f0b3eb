"""Recipes of networks that predict maps of values."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dense_imb.base.checks import check_at_least
from dense_imb.base.refusals import Refused, refusal
from dense_imb.config import ValuesConfig
from dense_imb.data.images.sources import are_names
from dense_imb.data.images.split import split_by_image
from dense_imb.data.values.cells import check_cells
from dense_imb.data.values.pairs import ValueImages, ValueTally, open_values
from dense_imb.losses import ValueBins
from dense_imb.losses.foreign.feeding import wants_cells, wants_instances
from dense_imb.losses.foreign.recommended import Recommendation, recommended_for_values
from dense_imb.models import build_model
from dense_imb.tasks.base import TrainingData
from dense_imb.tasks.pixels import default_patch
from dense_imb.tasks.recipe import ParsedLoss, Recipe, check_share
from dense_imb.tasks.values.task import (
    ValuesOptions,
    ValuesReading,
    ValuesTask,
    check_cells_of_loss,
    check_every_pixel_in_a_cell,
    check_takes_values,
    ignores_rest,
)
from dense_imb.tasks.values.trained import TrainedValues

HDF5 = (".h5", ".hdf5")  # endings of files
_SPLIT = 0  # seed of the splits: runs of any seed see the same images
_HIDDEN = 1  # seed of the choice of images whose maps are used
_BINS = 4  # of the lit values, in scores


@dataclass(frozen=True)
class OpenedValues:
    """Images of a run, and the statistics of those it learns from.

    Args:
        train: training images whose maps are used.
        validation: validation images.
        tally: statistics of `train`.
        level: value above which a pixel is lit.
        content: (n_images, n_classes) pixels of each cell in each image of `train`; without cells,
            empty and lit pixels.
    """

    train: ValueImages
    validation: ValueImages
    tally: ValueTally
    level: float
    content: NDArray[np.int64]

    @property
    def class_counts(self) -> tuple[int, int]:
        """Training values that are 0, and others."""
        return self.tally.n_values - self.tally.n_nonzero, self.tally.n_nonzero


@dataclass(frozen=True)
class ValuesRecipe(Recipe):
    """The recipe of a network that predicts maps of values.

    Args:
        opened: the images, if they were opened to choose the loss.
    """

    opened: OpenedValues | None = field(default=None, compare=False, repr=False)

    def check(self) -> None:
        """Refuse options of values that cannot be trained."""
        config, values = self.config, self.config.values
        if config.is_semi_supervised:
            raise refusal(
                "Runs on maps of values take no images without maps: a teacher's values have no "
                "confidence; drop {unlabelled.train} and {unlabelled.rest}."
            )
        if config.feature_loss is not None:
            raise refusal(
                "{feature_loss} compares features of classes, and values have none; drop it."
            )
        if config.calibrate:
            raise refusal(
                "{calibrate} fits probabilities, and values have none: their read-out is fitted "
                "anyway ({values.read_out}); drop it."
            )
        _check_options(values)  # before the images are opened for the default loss
        check_takes_values(self.checked_loss)
        if wants_instances(self.checked_loss):
            raise refusal('Maps of values have no instances; take a loss without per="instance".')
        if wants_cells(self.checked_loss) and values.cells is None:
            check_cells_of_loss(self.checked_loss, None)

    def recommend(self, class_counts: Sequence[int]) -> Recommendation:
        """Return the loss that `dense-imb inspect` recommends for values of which so many are 0.

        Before the images are opened, to check a configuration, it has no bins.
        """
        edges = self.opened.train.bin_edges(self.opened.tally) if self.opened else ()
        return recommended_for_values(class_counts, edges)

    def choose_loss(self) -> tuple[Self, str]:
        """Return the recipe with the loss that its maps recommend, and a sentence on it.

        The images are opened once for all stages.
        """
        opened = self.open()
        recommended = replace(self, opened=opened).recommend(opened.class_counts)
        chosen = self.with_loss(recommended.loss)
        if isinstance(second := chosen.second, ValuesRecipe):
            second = replace(second, opened=opened)
        return replace(chosen, second=second, opened=opened), recommended.sentence()

    def loss(self, class_counts: Sequence[int], n_cells: int | None = None) -> nn.Module:
        """Build the training loss; one over cells gets their number.

        Args:
            class_counts: training values that are 0, and others.
            n_cells: number of cells; None while it is unknown.
        """
        if self.given_loss is not None or self.config.loss == "auto":
            return super().loss(class_counts)
        n_cells = n_cells or len(self.config.values.cell_names or ()) or 2
        parsed: ParsedLoss = self.parsed_loss.with_cells(n_cells)
        return parsed.build(class_counts)

    def open(self) -> OpenedValues:
        """Open the images, and read those with maps once."""
        values = self.config.values
        train, validation = open_images(values)
        if self.config.labelled_share < 1:
            kept, _ = split_by_image(len(train), 1 - self.config.labelled_share, _HIDDEN)
            train = train.subset(kept)
        tally = train.tally(show_progress=False)
        level = tally.level if values.level is None else values.level
        content = train.content(level) if tally.cell_content is None else tally.cell_content
        _check_lit(values, level, train, validation)
        if train.cells is not None:
            _check_seen(train.cells.names, content)
        return OpenedValues(train, validation, tally, level, content)

    def labelled_task(self) -> ValuesTask:
        """Open the images and build the network and its loss."""
        if self.opened is None:
            return replace(self, opened=self.open()).labelled_task()
        values, opened = self.config.values, self.opened
        train, tally = opened.train, opened.tally
        scale = tally.largest if values.scale is None else values.scale
        cells = train.cells
        loss = self.loss(opened.class_counts, None if cells is None else cells.n)
        n_pixels = tally.n_values // train.n_targets
        check_every_pixel_in_a_cell(loss, tally.n_outside, n_pixels)
        _check_bins(loss, train)
        scale_bins(loss, scale)
        names = values.names or train.channel_names
        if names is not None and len(names) != train.n_targets:
            raise ValueError(
                f"Expected `names` with a name for each of the {train.n_targets} channels of the "
                f"maps, got {list(names)}."
            )
        reading = ValuesReading(
            n_targets=train.n_targets,
            mean=tally.mean,
            std=tuple(deviation or 1.0 for deviation in tally.std),
            patch=default_patch(values.patch, train.spatial_dims, tally.sizes, "values"),
            scale=scale,
            level=opened.level,
            edges=_edges(opened.level, tally.high),
            target_mean=tally.target_mean,
            names=None if names is None else tuple(names),
            cell_names=None if cells is None else cells.names,
            cell_kind=values.cell_kind,
            only_cells=ignores_rest(loss, cells),
        )
        options = ValuesOptions(
            **self.shared_options(opened.content, len(train) * values.patches),
            patches=values.patches,
            foreground=values.foreground,
            flips=values.flips,
            seed=self.config.seed,
            read_out=values.read_out,
        )
        data = TrainingData(train, opened.validation, opened.class_counts, opened.content)
        return ValuesTask(self.network(network_sizes(reading)), loss, data, reading, options)

    def initial_network(self, sizes: Mapping[str, Any]) -> nn.Module:
        """Build the network."""
        model = self.config.model
        return build_model(model.name, **sizes, **model.options)

    def trained(self, name: str, content: Mapping[str, Any], device: Any) -> TrainedValues:
        """Build the trained network."""
        reading = ValuesReading.from_text(content["setup"]["values"])
        network = self.trained_network(network_sizes(reading), content["network"])
        return TrainedValues(name, network, reading, device)


def network_sizes(reading: ValuesReading) -> dict[str, Any]:
    """Return the sizes of a network's input and output."""
    return {
        "in_channels": reading.in_channels,
        "out_channels": reading.out_channels,
        "frame": reading.patch,
        "spatial_dims": len(reading.patch),
    }


def open_images(values: ValuesConfig) -> tuple[ValueImages, ValueImages]:
    """Open the training and the validation images."""
    train, _ = _train_and_test(values)
    if values.validation is None:
        kept, held_out = split_by_image(len(train), values.validation_share, _SPLIT)
        return train.subset(kept), train.subset(held_out)
    return train, open_validation_images(values, None if train.cells is None else train.cells.names)


def open_validation_images(values: ValuesConfig, cells: Sequence[str] | None = None) -> ValueImages:
    """Open the validation images of a run whose cells are known.

    If they are files of their own, the training images are not needed, and may be gone.
    """
    if values.validation is None:
        return open_images(values)[1]
    places = default_places(values, values.validation)
    own = Places(
        values.validation_targets or places.targets,
        values.validation_cells or places.cells,
        values.validation_counted or places.counted,
    )
    return _open(values, values.validation, own, cells)


class Places(NamedTuple):
    """Folders of the maps of some images, or names of their data sets; None for the default.

    Args:
        targets: maps of values.
        cells: maps of cells.
        counted: maps of the pixels that count.
    """

    targets: str | None = None
    cells: str | None = None
    counted: str | None = None


def default_places(values: ValuesConfig, images: str | os.PathLike[str]) -> Places:
    """Return the data sets that hold the maps of an HDF5 file: those of the training file.

    A folder has none, and the folders of a run that was trained on folders are no data sets.

    Args:
        values: configuration of the run.
        images: folder of images, or HDF5 file.
    """
    is_file = values.train is not None and Path(values.train).suffix in HDF5
    is_file = is_file or Path(values.train or "").is_file()
    if Path(images).is_dir() or not is_file:
        return Places()
    return Places(values.targets, values.cells, values.counted)


def open_test_images(values: ValuesConfig) -> ValueImages:
    """Open the images of `test_share`, which no run of the configuration has seen."""
    _, test = _train_and_test(values)
    if test is None:
        raise ValueError("Expected `test_share` above 0 to have images for tests, got 0.")
    return test


def scale_bins(loss: nn.Module, scale: float) -> None:
    """Divide lengths on the axis of values by the scale, as outputs and targets are.

    These are the edges of value bins, and the spread of errors of Balanced MSE.
    """
    for part in loss.modules():
        if hasattr(part, "noise_sigma"):
            part.noise_sigma = float(part.noise_sigma) / scale  # type: ignore[arg-type,assignment]
        partition: Any = getattr(part, "partition", None)
        if isinstance(partition, ValueBins):
            edges = [edge / scale for edge in partition.edges]
            part.partition = replace(partition, edges=edges)  # type: ignore[assignment]


def _train_and_test(values: ValuesConfig) -> tuple[ValueImages, ValueImages | None]:
    assert values.train is not None
    places = Places(values.targets, values.cells, values.counted)
    opened = _open(values, values.train, places, values.cell_names)
    if values.test_share == 0:
        return opened, None
    kept, held_out = split_by_image(len(opened), values.test_share, _SPLIT)
    return opened.subset(kept), opened.subset(held_out)


def _open(
    values: ValuesConfig,
    images: str,
    places: Places,
    names: Sequence[str] | None,
) -> ValueImages:
    return open_values(
        images,
        places.targets,
        cells=places.cells,
        counted=places.counted,
        cell_kind=values.cell_kind,
        cell_names=names,
        spatial_dims=values.spatial_dims,
    )


def _check_options(values: ValuesConfig) -> None:
    check_share("validation_share", values.validation_share)
    check_cells(values.cell_kind, values.cell_names)
    if values.names is not None and not are_names(values.names):
        raise ValueError(
            f"Expected `names` with a short name for each channel, all different, got "
            f"{values.names}."
        )
    if values.validation and Path(values.validation).is_dir():
        for name, needed in (
            ("targets", True),
            ("cells", values.cells is not None),
            ("counted", values.counted is not None),
        ):
            if needed and getattr(values, f"validation_{name}") is None:
                raise Refused(
                    f"`validation_{name}`, the folder of the {name} of {values.validation}",
                    "none",
                    f"add {{values.validation_{name}=FOLDER}}",
                )
    check_at_least("patches", values.patches, 1)
    for side in values.patch or []:
        check_at_least("patch", side, 1)
    if not 0 <= values.test_share < 1:
        raise ValueError(f"Expected `test_share` from 0 to below 1, got {values.test_share}.")
    if values.scale is not None and not values.scale > 0:
        raise ValueError(f"Expected `scale` above 0, got {values.scale}.")
    ValuesOptions(patches=values.patches, foreground=values.foreground)


def _check_lit(
    values: ValuesConfig, level: float, train: ValueImages, validation: ValueImages
) -> None:
    """Refuse training or validation images without a lit pixel."""
    for what, images in (("train", train), ("validate", validation)):
        if not any(images.pixels_above(i, level) for i in range(len(images))):
            targets = values.validation_targets if what == "validate" else values.targets
            raise Refused(
                f"images to {what} on with a value above the level {level:g}",
                f"none in {targets or values.train}",
                "choose another {values.level}, or use more images",
            )


def _check_seen(names: Sequence[str], content: NDArray[np.int64]) -> None:
    """Refuse cells that no training image has: nothing is learnt about them."""
    absent = [name for name, n in zip(names, content.sum(0), strict=True) if not n]
    if absent:
        raise Refused(
            f"training images with a pixel of each of the {len(names)} cells",
            f"none with {', '.join(absent)}",
            "drop them from the maps and from {values.cell_names}, or use more images",
        )


def _check_bins(loss: nn.Module, train: ValueImages) -> None:
    """Refuse bins of a loss that no training value lies in."""
    for part in loss.modules():
        bins: Any = getattr(part, "partition", None)
        if not isinstance(bins, ValueBins):
            continue
        counts = torch.zeros(bins.n_classes, dtype=torch.long)
        for i in range(len(train)):
            target = torch.from_numpy(train.counted_values(i).copy())
            counts += torch.bincount(bins(target, target).flatten(), minlength=bins.n_classes)
        empty = [k for k, n in enumerate(counts.tolist()) if not n]
        if empty:
            low, high = (-torch.inf, *bins.edges)[empty[0]], (*bins.edges, torch.inf)[empty[0]]
            raise Refused(
                f"training values in each of the {bins.n_classes} bins of {type(part).__name__}",
                f"none from {low:g} to {high:g}",
                "move the edges of its ValueBins",
            )


def _edges(level: float, high: float) -> tuple[float, ...]:
    """Return the edges of equally wide bins from the level to the largest value."""
    step = (high - level) / _BINS
    return tuple(level + k * step for k in range(_BINS)) if step > 0 else (level,)
