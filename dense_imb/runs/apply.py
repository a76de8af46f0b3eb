"""Use the trained network of a run: score the hits of a file, write the masks of images."""

from __future__ import annotations

import os

import torch

from dense_imb.hits import MaskedFile, mask_file
from dense_imb.metrics import OperatingPoint
from dense_imb.runs.read import Run, open_run
from dense_imb.tasks.images.segment import Segmented, segment_images

_Path = str | os.PathLike[str]


def denoise(
    run: Run | _Path,
    source: _Path,
    target: _Path,
    *,
    retention: float | None = None,
    fakes: float | None = None,
    purity: float | None = None,
    threshold: float | None = None,
    only_kept: bool = False,
    overwrite: bool = False,
    device: str | torch.device | None = None,
) -> MaskedFile:
    """Write a hits file again with a score and a verdict (keep) for each hit.

    Args:
        run: run on hits, or its folder.
        source: hits file to denoise.
        target: file to write.
        retention: fraction of the signal to keep (signal efficiency). By default that of the run,
            if none of the next three is given.
        fakes: number of noise hits kept per noise-only event.
        purity: fraction of signal among the kept hits.
        threshold: smallest score to keep.
        only_kept: write kept hits only.
        overwrite: replace an existing target.
        device: device to run on; by default a GPU if there is one.
    """
    run = run if isinstance(run, Run) else open_run(run)
    run.require("hits", "denoise")
    point: OperatingPoint | float = (
        run.operating_point(retention=retention, fakes=fakes, purity=purity)
        if threshold is None
        else threshold
    )
    scorer = run.trained(device=device)
    return mask_file(source, target, scorer, point, only_kept=only_kept, overwrite=overwrite)


def segment(
    run: Run | _Path,
    images: _Path,
    out: _Path,
    *,
    threshold: float | None = None,
    probability: bool = False,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    show_progress: bool = True,
) -> Segmented:
    """Write the masks of images.

    Args:
        run: run on images with masks, or its folder.
        images: folder of images, one image, or an HDF5 file with the data set `image`.
        out: folder for the masks.
        threshold: probability of the second of two classes above which a pixel has it; by default
            that of the best F1 on the validation images.
        probability: also write NAME_probability.npy in float32.
        overwrite: replace existing files.
        device: device to run on; by default a GPU if there is one.
        show_progress: show a progress bar.
    """
    run = run if isinstance(run, Run) else open_run(run)
    run.require("images", "segment")
    return segment_images(
        run,
        images,
        out,
        threshold=threshold,
        probability=probability,
        overwrite=overwrite,
        device=device,
        show_progress=show_progress,
    )
