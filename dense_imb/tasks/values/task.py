"""The task of predicting maps of values, 2-D or 3-D."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.base.refusals import Refused, refusal
from dense_imb.data.epochs.mixing import mix
from dense_imb.data.epochs.patches import Patch, patch_rng, place_patch
from dense_imb.data.values.cells import CellKind, Cells
from dense_imb.data.values.pairs import LIT_EMPTY, ValueImages
from dense_imb.losses.core.cover import Cover
from dense_imb.losses.foreign.feeding import can_ignore, feeds_on, intake_of, wants_cells
from dense_imb.metrics.read_out import ReadOut, ReadOutTally
from dense_imb.tasks.base import SampledTask, TrainingData
from dense_imb.tasks.pixels import CropOptions, PixelReading, rarest_first
from dense_imb.tasks.values.scores import Validation, counted_pixels

_PARTNERS = 1 << 62  # sample numbers from here on are the partners in mixing


@dataclass(frozen=True)
class ValuesReading(PixelReading):
    """Preparation of a network's input, and meaning of its output.

    Args:
        n_targets: number of channels of the maps, and of the output.
        mean, std: mean and deviation of each channel over the pixels of the training images.
        patch: size of the training crops, and of the windows of inference.
        scale: factor of the output: a prediction is the output times this.
        level: value above which a pixel is lit.
        edges: edges of the bins of values in scores; the first one is the level.
        target_mean: mean of each channel of the maps over the training images.
        names: names of the channels of the maps, if known.
        cell_names: names of the cells; None without cells.
        cell_kind: form of the cells, see `Cells`.
        only_cells: whether pixels in no cell are left out of scores and read-out, as the loss
            leaves them out.
        read_out: map from predictions to mean values; None leaves them as trained.

    Example:
        >>> from dense_imb.tasks import ValuesReading
        >>> reading = ValuesReading(
        ...     n_targets=1, mean=(0.0,), std=(1.0,), patch=(64, 64, 64), scale=70.0, level=5.0,
        ... )
        >>> reading.out_channels, reading.class_names, reading.scale  # dose up to 70 Gy
        (1, ('empty', 'lit'), 70.0)
    """

    n_targets: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch: tuple[int, ...]
    scale: float = 1.0
    level: float = 0.0
    edges: tuple[float, ...] = (0.0,)
    target_mean: tuple[float, ...] | None = None
    names: tuple[str, ...] | None = None
    cell_names: tuple[str, ...] | None = None
    cell_kind: CellKind = "labels"
    only_cells: bool = False
    read_out: ReadOut | None = None  # not in the text: a trained run has it in a file of its own

    @property
    def out_channels(self) -> int:
        """Number of channels of the network's output."""
        return self.n_targets

    @property
    def cells(self) -> Cells | None:
        """Cells of the images; None without any."""
        return None if self.cell_names is None else Cells(self.cell_names, self.cell_kind)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the cells, or of empty and lit pixels."""
        return LIT_EMPTY if self.cell_names is None else self.cell_names

    def lit_levels(self, *, raw: bool = False) -> tuple[float, ...] | None:
        """Return the value of each channel above which a prediction is lit; None for `level`.

        With a read-out these values light as many validation pixels as the targets do.

        Args:
            raw: predictions are as trained, without the read-out.
        """
        if raw or self.read_out is None or not self.read_out.effect:
            return None
        matched = [one.matched_level for one in self.read_out.effect]
        return tuple(self.level if math.isnan(one) else one for one in matched)

    def values(self, network: nn.Module, shown: Tensor, *, raw: bool = False) -> Tensor:
        """Return the values (B, K, *spatial) that a network predicts for images of any size.

        Args:
            network: network.
            shown: normalised images (B, channels, *spatial).
            raw: leave predictions as trained, without the read-out.
        """
        values = self.scale * self.output(network, shown)
        if raw or self.read_out is None:
            return values
        return self.read_out.apply(values)

    def as_text(self) -> str:
        """Return the text of the description in checkpoints."""
        stored = asdict(replace(self, read_out=None))
        del stored["read_out"]
        return json.dumps(stored)

    @classmethod
    def from_text(cls, text: str) -> ValuesReading:
        """Parse the result of `as_text`."""
        stored = json.loads(text)
        lists = {name: tuple(v) for name, v in stored.items() if isinstance(v, list)}
        return cls(**{**stored, **lists})


@dataclass(frozen=True)
class ValuesBatch:
    """Crops with the values of each pixel.

    Args:
        shown: network input, (B, C, *spatial).
        target: values divided by the scale, (B, K, *spatial).
        cells: labels or bit fields, (B, *spatial); None if the loss wants none.
        mask: False where a pixel does not count, as around images that are smaller than a crop,
            (B, *spatial); None where all count.
        lit: (B, *spatial) whether a pixel counts and is lit.

    Example:
        >>> import torch
        >>> from dense_imb.tasks import ValuesBatch
        >>> target = torch.zeros(2, 1, 8, 8)
        >>> batch = ValuesBatch(target, target, cells=None, mask=None, lit=target[:, 0] > 0.5)
        >>> batch.target.shape, batch.lit.shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 8, 8]))
    """

    shown: Tensor
    target: Tensor
    cells: Tensor | None
    mask: Tensor | None
    lit: Tensor

    def to(self, device: torch.device) -> ValuesBatch:
        """Return the batch on a device."""
        return ValuesBatch(
            self.shown.to(device),
            self.target.to(device),
            None if self.cells is None else self.cells.to(device),
            None if self.mask is None else self.mask.to(device),
            self.lit.to(device),
        )


@dataclass(frozen=True)
class ValuesOptions(CropOptions):
    """Options of the task of predicting values, beside those of `CropOptions`.

    Args:
        read_out: whether to fit a read-out at the end of the training.

    Example:
        >>> from dense_imb.tasks import ValuesOptions
        >>> options = ValuesOptions(read_out=False)
        >>> options.read_out, options.patches
        (False, 4)
    """

    read_out: bool = True


class ValuesTask(SampledTask):
    """The task of predicting values, see `dense_imb.engine.task.Task`.

    Args:
        network: takes (B, channels, *spatial), returns (B, n_targets of `reading`, *spatial).
        loss: loss of values, of dense_imb or of another library, called with the output and the
            target divided by the scale; with `label=` if it has means over cells.
        data: training and validation images, see `ValueImages`.
        reading: preparation of the input, and meaning of the output.
        options: crops, sampling, mixing.

    Example:
        >>> import h5py, numpy as np, tempfile
        >>> from dense_imb import TrainConfig, ValuesConfig
        >>> from dense_imb.tasks import ValuesTask, build_task
        >>> path, image = tempfile.mkdtemp() + "/plans.h5", np.zeros((4, 1, 16, 16), np.float32)
        >>> with h5py.File(path, "w") as file:
        ...     file["image"], file["target"] = image, image + 60 * np.eye(16)
        >>> values = ValuesConfig(path, spatial_dims=2)
        >>> task = build_task(TrainConfig(values=values, loss="torch.nn:L1Loss"))
        >>> isinstance(task, ValuesTask), task.reading.scale  # largest dose, 60 Gy
        (True, 60.0)
    """

    monitor = "skill"

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        data: TrainingData,
        reading: ValuesReading,
        options: ValuesOptions | None = None,
    ) -> None:
        options = options or ValuesOptions()
        train, validation = data.train, data.validation
        for what in ("spatial_dims", "n_channels", "n_targets"):
            mine, theirs = getattr(train, what), getattr(validation, what)
            if mine != theirs:
                raise ValueError(
                    f"Expected validation images with {what} {mine}, as the training images "
                    f"have, got {theirs}."
                )
        check_takes_values(loss)
        self.wants_cells = wants_cells(loss)
        if self.wants_cells:
            check_cells_of_loss(loss, reading.cells)
            if options.mixer is not None:
                raise Refused(
                    "no mixing with a loss over cells",
                    f"{options.mixer.mixing.kind}, in which cells of two images share pixels",
                    "drop {mixing.kind}, or take a loss without cells",
                )
        super().__init__(network, loss, data, options, len(train) * options.patches)
        # of a sum, each part must take it
        self._passes_mask = "mask" in intake_of(loss).takes and can_ignore(loss)
        self._takes_mask = self._passes_mask or is_mean_of_pixels(loss)
        if train.has_counted and not self._takes_mask:
            raise Refused(
                "a loss that can leave pixels out, for {values.counted}",
                f"{type(loss).__name__}, which takes no mask",
                "take a loss of dense_imb, or MSELoss, L1Loss, SmoothL1Loss or HuberLoss of torch",
            )
        self.reading = reading
        self.patches, self.foreground = options.patches, options.foreground
        self.flips, self.seed = options.flips, options.seed
        self.fits_read_out = options.read_out
        self.scores = Validation(reading)  # of the last validation

    @property
    def balance_cure(self) -> str:
        """Return the cure of a network that ranks by chance, for `CollapseAlarm`."""
        for part in self.loss.modules():
            # Balanced MSE balances through the spread of its errors
            if getattr(part, "balance", None) is not None or hasattr(part, "noise_sigma"):
                return (
                    "the loss is balanced already: train for longer, or use another learning rate "
                    "or network"
                )
        return "use a balanced loss (BalancedRegressionLoss), or a lower learning rate"

    def describe_input(self) -> Mapping[str, str]:
        """Describe values, cells and crops."""
        return {
            "values": self.reading.as_text(),
            "crops": f"{self.patches} an image, foreground {self.foreground:g}, "
            f"flips {self.flips}, seed {self.seed}",
        }

    def batch(self, samples: NDArray[np.int64], epoch: int, device: torch.device) -> ValuesBatch:
        """Return the crops of these samples, mixed if there is a mixer."""
        crops = self._crops(samples, samples % len(self.train), epoch)
        if self.mixer is None:
            return crops.to(device)
        plan = self.mixer.plan(samples, epoch, self._is_present(crops))
        crops = crops.to(device)
        if self.mixer.draws_images:
            other = self._crops(samples + _PARTNERS, plan.partner, epoch).to(device)
            parts = (other.shown, other.target, other.mask)
        else:
            partner = torch.from_numpy(plan.partner).to(device)
            mask = None if crops.mask is None else crops.mask[partner]
            parts = (crops.shown[partner], crops.target[partner], mask)
        share = torch.from_numpy(plan.share).float().to(device)
        target = mix(crops.target, parts[1], share)
        mask = _both(crops.mask, parts[2])
        lit = (target > self.reading.level / self.reading.scale).any(1)
        lit = lit if mask is None else lit & mask
        return ValuesBatch(mix(crops.shown, parts[0], share), target, None, mask, lit)

    def _is_present(self, crops: ValuesBatch) -> NDArray[np.bool_] | None:
        """Return the classes in each crop, (B, n_classes); None if the mixer needs none."""
        if self.mixer is None or self.mixer.mixing.kind != "unimix":
            return None
        cells = self.reading.cells
        if cells is None or crops.cells is None:
            flat = crops.lit.flatten(1)
            return torch.stack([~flat.all(1), flat.any(1)], 1).numpy()
        maps = crops.cells.numpy()
        if crops.mask is None:
            return np.stack([cells.count(one) > 0 for one in maps])
        masks = crops.mask.numpy()
        return np.stack([cells.count(one[m]) > 0 for one, m in zip(maps, masks, strict=True)])

    def _crops(
        self, samples: NDArray[np.int64], places: NDArray[np.int64], epoch: int
    ) -> ValuesBatch:
        """Return the crops of samples in images at some places."""
        train: ValueImages = self.train
        images, targets, cells, masks = [], [], [], []
        for sample, place in zip(samples.tolist(), places.tolist(), strict=True):
            target = train.target(place)
            frame = np.broadcast_to(np.uint8(0), target.shape[1:])
            patch = place_patch(
                frame,
                self.reading.patch,
                patch_rng(self.seed, epoch, sample),
                foreground=self.foreground,
                flips=self.flips,
                pixels=train.pixels(place, self.reading.level),
            )
            images.append(patch.image(train.image(place)))
            targets.append(patch.image(target))
            is_in, counted = _inside(patch, frame), train.counted(place)
            masks.append(is_in if counted is None else is_in & patch.image(counted))
            if (cell_map := train.cell_map(place)) is not None:
                cells.append(patch.image(cell_map).astype(np.int64))
        values = torch.from_numpy(np.stack(targets))
        inside = torch.from_numpy(np.stack(masks))
        lit = (values > self.reading.level).any(1) & inside
        return ValuesBatch(
            self.reading.shown_crops(images),
            values / self.reading.scale,
            torch.from_numpy(np.stack(cells)) if cells else None,
            None if bool(inside.all()) or not self._takes_mask else inside,
            lit,
        )

    def cost_of(self, output: Tensor, batch: ValuesBatch) -> Tensor:
        """Return the loss of an output for a batch."""
        options: dict[str, Tensor] = {}
        if batch.mask is not None and not self._passes_mask:
            return _mean_of_counted(self.output_loss, output, batch.target, batch.mask)
        if batch.mask is not None:
            options["mask"] = batch.mask
        if self.wants_cells:
            assert batch.cells is not None
            options["label"] = label_of_cells(self.loss, self.reading.cells, batch.cells)
        cost: Tensor = self.output_loss(output, batch.target, **options)
        return cost

    @torch.no_grad()
    def validate(
        self, network: nn.Module, device: torch.device, process: int, n_processes: int
    ) -> dict[str, float]:
        """Return the errors over whole images, by cell, and scores of a collapse."""
        scores = Validation(self.reading)
        for prediction, i in self._predictions(network, device, process, n_processes):
            known = self.validation
            scores.update(prediction, known.target(i), known.cell_map(i), known.counted(i))
        self.scores = scores.reduce_over_processes()
        return self.scores.numbers()

    @torch.no_grad()
    def tally_read_out(
        self, network: nn.Module, device: torch.device, process: int, n_processes: int
    ) -> ReadOutTally:
        """Return the sums of the validation images from which a read-out is fitted."""
        reading = self.reading
        tally = ReadOutTally(reading.n_targets, value=reading.scale, level=reading.level)
        for prediction, i in self._predictions(network, device, process, n_processes, raw=True):
            target = torch.from_numpy(self.validation.target(i).copy())[None]
            cells, counted = self.validation.cell_map(i), self.validation.counted(i)
            mask = counted_pixels(reading, cells, counted)
            tally.update(prediction, target, mask=mask)
        return tally.reduce_over_processes()

    def _predictions(
        self,
        network: nn.Module,
        device: torch.device,
        process: int,
        n_processes: int,
        *,
        raw: bool = False,
    ) -> Iterator[tuple[Tensor, int]]:
        """Yield the prediction of each validation image of a process, and its number."""
        for i in range(process, len(self.validation), n_processes):
            shown = torch.from_numpy(self.reading.shown(self.validation.image(i)))[None]
            yield self.reading.values(network, shown.to(device), raw=raw).cpu(), i

    def save_scores(self, path: Path) -> None:
        """Write the sums of the last validation."""
        self.scores.save(path)

    def probe(self, n: int) -> NDArray[np.int64]:
        """Return samples for `gradient_shares`: images with each cell, the rarest first."""
        content = self.data.class_content
        if content is None:
            return np.arange(min(n, self.n_samples))
        return rarest_first(content[:, 1:] if content.shape[1] > 1 else content, n)

    def pixels_by_class(self, batch: ValuesBatch) -> Mapping[str, Tensor]:
        """Return masks of the empty and the lit pixels."""
        return {"empty": ~batch.lit, "lit": batch.lit}


def check_takes_values(loss: nn.Module) -> None:
    """Refuse a loss of logits or features."""
    if (kind := feeds_on(loss)) != "values":
        raise Refused(
            "a loss of values",
            f"{type(loss).__name__}, a loss of {kind}",
            "take ACBMSELoss, BalancedRegressionLoss or torch.nn:L1Loss; a loss of your own says "
            'feeds_on = "values"',
        )


def is_mean_of_pixels(loss: nn.Module) -> bool:
    """Whether a loss is torch's mean of the errors of single pixels.

    Such a loss takes no mask, but can be called with the pixels that count alone.
    """
    kinds = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
    return type(loss) in kinds and getattr(loss, "reduction", None) == "mean"


def _mean_of_counted(loss: nn.Module, output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return a mean over the pixels that count; 0 without any.

    Args:
        loss: loss for which `is_mean_of_pixels`.
        output, target: (B, K, *spatial).
        mask: (B, *spatial).
    """
    is_in = mask.unsqueeze(1).expand_as(output)
    if not bool(is_in.any()):
        return (output * 0).sum()
    value: Tensor = loss(output[is_in], target[is_in])
    return value


def check_cells_of_loss(loss: nn.Module, cells: Cells | None) -> None:
    """Refuse a loss over cells without cells, or with others than those of the images."""
    if cells is None:
        raise Refused(
            "cells for a loss with a partition by labels or masks",
            "images without cells",
            "add {values.cells=FOLDER}",
        )
    for part in loss.modules():
        partition, n_classes = getattr(part, "partition", None), getattr(part, "n_classes", None)
        if partition == "labels" and cells.overlap:
            raise Refused(
                "a partition of masks for bit fields, whose cells may overlap",
                'partition="labels"',
                'write partition="masks" in {loss}',
            )
        wanted = partition.n_cells if isinstance(partition, Cover) else n_classes
        is_over_cells = isinstance(partition, Cover) or partition in ("labels", "masks")
        if is_over_cells and wanted != cells.n:
            cure = f"write n_classes={cells.n}, or omit it"
            if isinstance(partition, Cover):
                cure = f"write n_cells={cells.n} in its Cover"
                cure += ", which has a cell more for the rest anyway" * (partition.rest == "cell")
            raise Refused(
                f"a loss over the {cells.n} cells of the images",
                f"{type(part).__name__} over {wanted}",
                cure,
            )


def refuses_rest(loss: nn.Module) -> bool:
    """Whether a part of a loss refuses pixels that are in no cell."""
    partitions = (getattr(part, "partition", None) for part in loss.modules())
    return any(isinstance(one, Cover) and one.rest == "refuse" for one in partitions)


def ignores_rest(loss: nn.Module, cells: Cells | None) -> bool:
    """Whether a loss leaves out pixels that are in no cell."""
    partitions = (getattr(part, "partition", None) for part in loss.modules())
    rests = [getattr(one, "rest", "ignore") for one in partitions if _is_cover(one)]
    return cells is not None and cells.overlap and bool(rests) and {*rests} == {"ignore"}


def check_every_pixel_in_a_cell(loss: nn.Module, n_outside: int, n_pixels: int) -> None:
    """Refuse pixels in no cell for a loss that refuses them; say how many there are."""
    if n_outside and refuses_rest(loss):
        raise refusal(
            f"Expected every training pixel in a cell, got {n_outside:,} of {n_pixels:,} in none; "
            'take a Cover with rest="cell" to make them one, or rest="ignore".'
        )


def label_of_cells(loss: nn.Module, cells: Cells | None, stored: Tensor) -> Tensor:
    """Return cells as a loss takes them: labels or a bit field, or masks for a cover of labels.

    Args:
        loss: loss over cells.
        cells: cells of the images.
        stored: (B, *spatial) labels or bit fields.
    """
    assert cells is not None
    if cells.overlap or not _takes_masks(loss):
        return stored
    number = torch.arange(cells.n, device=stored.device)
    return stored.unsqueeze(1) == number.view(1, -1, *(1,) * (stored.dim() - 1))


def _takes_masks(loss: nn.Module) -> bool:
    return any(_is_cover(getattr(part, "partition", None)) for part in loss.modules())


def _is_cover(partition: object) -> bool:
    return isinstance(partition, Cover) or (isinstance(partition, str) and partition == "masks")


def _inside(patch: Patch, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where a patch lies in its image."""
    if all(pad == (0, 0) for pad in patch.padding):
        sides = [place.stop - place.start for place in patch.box]
        return np.ones(sides if not patch.quarters % 2 else sides[::-1], np.bool_)
    return np.asarray(patch.label(frame) == 0)


def _both(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return first if second is None else second
    return first & second
