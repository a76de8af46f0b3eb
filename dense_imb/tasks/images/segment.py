"""Masks of a folder of images, written by a trained network.

run = open_run("runs/cracks")
segment_images(run, "images", "segmented")
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused, literal
from dense_imb.data.images.folders import is_nifti
from dense_imb.data.images.unlabelled import UnlabelledImages, nifti_like, open_unlabelled
from dense_imb.engine.checkpoint import digest_weights
from dense_imb.metrics import ScoreHistogram, SegmentationScores
from dense_imb.tasks.images.evaluate import chosen_thresholds, logit_of_class
from dense_imb.tasks.images.trained import TrainedImages
from dense_imb.tasks.outputs import (
    OutputRecord,
    check_elsewhere,
    save_array,
    save_bytes,
    save_picture,
)

RECORD = "segmented.json"  # record of how the masks of a folder were made
_FORMAT, _VERSION = "dense-imb-segmented", 1
_Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Segmented:
    """Result of `segment_images`.

    Args:
        folder: folder of the masks.
        n_done: number of images segmented now.
        n_there: number of images that had files already.
        threshold: probability; None with more than two classes.
        promised_f1: F1 that the probabilities of the images promise, for the threshold "auto".
        validation_threshold: probability with the best F1 on the validation images, beside it.
    """

    folder: Path
    n_done: int
    n_there: int
    threshold: float | None
    promised_f1: float | None = None
    validation_threshold: float | None = None


def decided(
    logits: Tensor, threshold: float = 0.0, *, thresholds: Sequence[float] = ()
) -> NDArray[np.uint8]:
    """Return the class of each pixel of one image, (*spatial).

    Args:
        logits: logits, (1, 1 or C, *spatial), as from `TrainedImages.logits`.
        threshold: smallest logit of the second of two classes.
        thresholds: with more classes, smallest logit of each class against the rest. A pixel has
            the foreground class that exceeds its threshold most, or class 0 if none does. By
            default each pixel has the likeliest class.

    Example:
        >>> decided(torch.tensor([[[-1.0, 0.5, 2.0]]]), threshold=0.5).tolist()
        [0, 1, 1]
        >>> logits = torch.tensor([[[3.0, 2.0], [0.0, 1.0], [0.0, 0.0]]])  # 3 classes, 2 pixels
        >>> decided(logits).tolist(), decided(logits, thresholds=(0.0, -2.0, -2.0)).tolist()
        ([0, 0], [0, 1])
    """
    if logits.shape[1] == 1:
        classes: NDArray[np.uint8] = (logits[0, 0].double() >= threshold).numpy().astype(np.uint8)
        return classes
    if not thresholds:
        likeliest: NDArray[np.uint8] = logits[0].argmax(0).numpy().astype(np.uint8)
        return likeliest
    excess = [logit_of_class(logits, k)[0] - t for k, t in enumerate(thresholds)][1:]
    most, best = torch.stack(excess).max(0)
    foreground: NDArray[np.uint8] = ((most >= 0) * (best + 1)).numpy().astype(np.uint8)
    return foreground


class SegmentingRun(Protocol):
    """A run on images with masks: its folder, its network and its validation scores."""

    folder: Path

    def trained(self, *, device: str | torch.device | None = None) -> TrainedImages:
        """Load the trained network."""

    def scores(self) -> SegmentationScores:
        """Load the validation scores."""


def segment_images(
    run: SegmentingRun,
    images: _Path,
    out: _Path,
    *,
    threshold: float | Literal["auto"] | None = None,
    probability: bool = False,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    show_progress: bool = True,
    process: int = 0,
    n_processes: int = 1,
) -> Segmented:
    """Write the mask that a run's network gives each image.

    A mask holds the values of the training masks. It is a PNG in 2-D, .npy in 3-D, and .nii.gz
    with the same affine for NIfTI. Each file is written atomically. Existing files are skipped, so
    a stopped call continues when it is repeated.

    With more than two classes a pixel has the class that exceeds the threshold of its best F1 on
    the validation images most, see `decided`. In a run without natural probabilities it has the
    likeliest class.

    Args:
        run: run on images with masks.
        images: folder of images, one image, or an HDF5 file with the data set `image`.
        out: folder for the masks, and for `segmented.json`, a record of how they were made.
        threshold: smallest probability of the second of two classes; by default that of the best
            F1 on the validation images of the run. "auto" takes that of the best F1 that the
            probabilities of these very images promise, see `best_f1_threshold`; it reads them
            twice, and refuses a run without natural probabilities.
        probability: also write NAME_probability.npy in float32: (*spatial) for the second of two
            classes, (C, *spatial) for more.
        overwrite: replace files of an earlier call.
        device: device to run on; by default a GPU if there is one.
        show_progress: show a progress bar.
        process: rank of this process, which takes every `n_processes`-th image.
        n_processes: number of processes that share the images.
    """
    segmenter = run.trained(device=device)
    reading = segmenter.reading
    source = open_unlabelled(
        images, n_channels=reading.in_channels, spatial_dims=len(reading.patch)
    )
    is_auto = threshold == "auto"
    promised_f1 = validation_threshold = None
    cut = _threshold(run, segmenter, 0.5 if threshold == "auto" else threshold, is_auto=is_auto)
    if is_auto:
        own_images = range(process, len(source), n_processes)
        bar = tqdm(own_images, "threshold", unit="image", disable=not show_progress)
        promised_f1, cut = _promised_f1(segmenter, source, bar)
        validation_threshold = as_probability(chosen_thresholds(run.scores())[1])
    # natural probabilities of rare classes seldom are the largest
    many = reading.n_classes > 2 and reading.natural is not None
    cuts = chosen_thresholds(run.scores()) if many else ()
    values = _values(reading.labels, reading.n_classes)
    folder = Path(out)
    facts: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "run": str(run.folder),
        "weights": digest_weights(segmenter.network.state_dict()),
        "threshold_logit": cut if cut is None or math.isfinite(cut) else str(cut),
        **({} if reading.natural is None else {"natural": repr(reading.natural)}),
        **({"threshold_logits": list(map(str, cuts))} if cuts else {}),
        "values": values.tolist(),
        "classes": reading.names,
        "probability": probability,
    }
    wanted = [_outputs(source, i, folder, values, probability) for i in range(len(source))]
    free = frozenset({"run", "classes", "probability"})
    outputs = dict(zip(source.names, wanted, strict=True))
    record = OutputRecord(
        folder, RECORD, "masks", facts, free, source.digests(), outputs, overwrite
    )
    files = [path for paths in wanted for path in paths]
    check_elsewhere(folder, images, "masks", [*files, folder / RECORD], source.files())
    record.check()
    own = [*enumerate(wanted)][process::n_processes]
    n_done = 0
    bar = tqdm(own, "segment", unit="image", disable=not show_progress)
    with ExitStack() as held:
        for i, paths in bar:
            if not overwrite and all(path.exists() for path in paths):
                continue
            logits = segmenter.logits(source.image(i))
            mask = values[decided(logits, cut or 0.0, thresholds=cuts)]
            if n_done == 0:  # not before the network has shown that it takes such images
                held.enter_context(record.begun(source.names[process::n_processes]))
            if probability:
                shown = logits[0, 0].sigmoid() if logits.shape[1] == 1 else logits[0].softmax(0)
                save_array(paths[-1], shown.float().numpy())
            if is_nifti(paths[0]):
                save_bytes(paths[0], nifti_like(mask, source.paths[i]))
            elif paths[0].suffix == ".png":
                save_picture(paths[0], [mask], "PNG")
            else:
                save_array(paths[0], mask)
            n_done += 1
    chosen = None if cut is None else as_probability(cut)
    n_there = len(own) - n_done
    return Segmented(folder, n_done, n_there, chosen, promised_f1, validation_threshold)


def as_probability(logit: float) -> float:
    """Return a threshold as a probability; 0 keeps all, 1 nothing.

    Example:
        >>> as_probability(0.0), as_probability(-math.inf), as_probability(math.inf)
        (0.5, 0.0, 1.0)
    """
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


def _promised_f1(
    segmenter: TrainedImages, source: UnlabelledImages, own: Iterable[int]
) -> tuple[float, float]:
    """Return the best F1 that the probabilities of images promise, and the logit of it.

    Args:
        segmenter: trained network.
        source: images.
        own: indices of the images of this process.
    """
    histogram = ScoreHistogram(scale="logit")
    for i in own:
        logits = segmenter.logits(source.image(i))
        histogram.update(logits, torch.zeros_like(logits, dtype=torch.bool))
    return histogram.reduce_over_processes().expected_best_f1()


def _threshold(
    run: SegmentingRun, segmenter: TrainedImages, threshold: float | None, *, is_auto: bool
) -> float | None:
    """Return the logit that separates two classes; None with more classes."""
    n_classes = segmenter.reading.n_classes
    if is_auto and not segmenter.is_natural and n_classes == 2:
        raise Refused(
            "a run with natural probabilities for {threshold=auto}",
            f"{run.folder}, whose outputs are as trained",
            f"fit them with dense-imb evaluate {literal(run.folder)} --calibrate, or omit "
            "{threshold}",
        )
    if n_classes > 2:
        if threshold is not None:
            raise Refused(
                f"two classes for {{threshold={'auto' if is_auto else threshold}}}",
                f"{n_classes}, of which each has a threshold of its own",
                "omit {threshold}",
            )
        return None
    if threshold is None:
        return chosen_thresholds(run.scores())[1]
    if not 0 < threshold < 1:
        raise Refused("{threshold} between 0 and 1, a probability", threshold)
    return math.log(threshold / (1 - threshold))


def _values(labels: tuple[int, ...] | None, n_classes: int) -> NDArray[Any]:
    """Return the mask value of each class, in the narrowest type."""
    values = np.array(range(n_classes) if labels is None else labels)
    low, high = int(values.min()), int(values.max())
    kind = np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))
    return values.astype(kind)


def _outputs(
    source: UnlabelledImages, i: int, folder: Path, values: NDArray[Any], probability: bool
) -> tuple[Path, ...]:
    """Return the files of an image's mask and of its probability."""
    suffix = ".npy"
    if source.paths and is_nifti(source.paths[i]):
        suffix = ".nii.gz"
    elif source.spatial_dims == 2 and values.dtype in (np.uint8, np.uint16):  # all that PNG has
        suffix = ".png"
    name = source.names[i]
    further = (folder / f"{name}_probability.npy",) if probability else ()
    return (folder / f"{name}{suffix}", *further)
