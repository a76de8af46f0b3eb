"""Maps of values of a folder of images, predicted by a trained network.

run = open_run("runs/dose")
predict_images(run, "images", "predicted")
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from dense_imb.base.files import refuse_existing, refuse_inputs, write_whole
from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused, RefusedFile
from dense_imb.data.images.folders import is_nifti
from dense_imb.data.images.unlabelled import UnlabelledImages, nifti_like, open_unlabelled
from dense_imb.engine.checkpoint import digest_weights
from dense_imb.tasks.outputs import (
    OutputRecord,
    check_elsewhere,
    save_array,
    save_bytes,
    save_picture,
)
from dense_imb.tasks.values.trained import TrainedValues

RECORD = "predicted.json"  # record of how the maps of a folder were made
VALUES = "values"  # data set of predictions in an HDF5 file
_FORMAT, _VERSION = "dense-imb-predicted", 1
_NAMED = 500  # digests of images in an HDF5 file, whose attributes hold 64 kB
_HDF5 = (".h5", ".hdf5")
_Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Predicted:
    """Result of `predict_images`.

    Args:
        path: folder of the maps, or HDF5 file.
        n_done: number of images predicted now.
        n_there: number of images that had files already.
        is_read_out: whether the read-out of the run was applied.
    """

    path: Path
    n_done: int
    n_there: int
    is_read_out: bool


class PredictingRun(Protocol):
    """A run on images with maps of values."""

    folder: Path

    def trained(self, *, device: str | torch.device | None = None) -> TrainedValues:
        """Load the trained network."""


def predict_images(
    run: PredictingRun,
    images: _Path,
    out: _Path,
    *,
    raw: bool = False,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    show_progress: bool = True,
    process: int = 0,
    n_processes: int = 1,
) -> Predicted:
    """Write the map of values that a run's network predicts for each image, in float32.

    A map has the form of its image: TIFF for PNG, JPEG and TIFF, .npy (*spatial) or (K, *spatial),
    and .nii.gz with the same affine for NIfTI. Several channels of a flat image are .npy. Each file
    is written whole; existing files are skipped, so a stopped call continues when it is repeated.

    Args:
        run: run on images with maps of values.
        images: folder of images, one image, or an HDF5 file with the data set `image`.
        out: folder for the maps, and for `predicted.json`, a record of how they were made; or a
            file that ends in .h5, for one data set `values` (N, K, *spatial) of images of one size.
        raw: leave predictions as trained, without the read-out.
        overwrite: replace files of an earlier call.
        device: device to run on; by default a GPU if there is one.
        show_progress: show a progress bar.
        process: rank of this process, which takes every `n_processes`-th image.
        n_processes: number of processes that share the images.
    """
    predictor = run.trained(device=device)
    reading = predictor.reading
    source = open_unlabelled(
        images, n_channels=reading.in_channels, spatial_dims=len(reading.patch)
    )
    read_out = None if raw else reading.read_out
    path = Path(out)
    facts: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "run": str(run.folder),
        "weights": digest_weights(predictor.network.state_dict()),
        "scale": reading.scale,
        "read_out": None if read_out is None else read_out.to_dict(),
        "names": reading.names,
    }
    if path.suffix.lower() in _HDF5:
        if n_processes > 1:
            raise Refused("a folder for the maps of several processes", str(out))
        refuse_inputs([path], source.files())
        _refuse_foreign(path)
        refuse_existing(path, overwrite)
        bar = tqdm(range(len(source)), "predict", unit="image", disable=not show_progress)
        made_by = {**facts, "images": sorted(set(source.digests().values()))[:_NAMED]}
        _write_hdf5(path, predictor, source, bar, raw, made_by)
        return Predicted(path, len(source), 0, read_out is not None)
    wanted = [_output(source, i, path, reading.n_targets) for i in range(len(source))]
    check_elsewhere(path, images, "maps of values", [*wanted, path / RECORD], source.files())
    outputs = {name: [file] for name, file in zip(source.names, wanted, strict=True)}
    free = frozenset({"run", "names"})
    record = OutputRecord(
        path, RECORD, "maps of values", facts, free, source.digests(), outputs, overwrite
    )
    record.check()
    own = [*enumerate(wanted)][process::n_processes]
    n_done = 0
    with ExitStack() as held:
        for i, file in tqdm(own, "predict", unit="image", disable=not show_progress):
            if not overwrite and file.exists():
                continue
            values = predictor.predict(source.image(i), raw=raw).numpy()
            if n_done == 0:  # not before the network has shown that it takes such images
                held.enter_context(record.begun(source.names[process::n_processes]))
            _write(file, values, source, i)
            n_done += 1
    return Predicted(path, n_done, len(own) - n_done, read_out is not None)


def _refuse_foreign(path: Path) -> None:
    """Refuse to replace a file that holds no predictions, such as the maps of a training."""
    if not path.exists():
        return
    try:
        with h5py.File(path, locking=False) as file:
            is_ours = json.loads(bytes(file.attrs["made_by"])).get("format") == _FORMAT
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        is_ours = False
    if not is_ours:
        raise RefusedFile(
            f"no file or one of predictions at {path}",
            "another one",
            "choose another name, or remove it yourself",
        )


def _output(source: UnlabelledImages, i: int, folder: Path, n_targets: int) -> Path:
    """Return the file of an image's map."""
    suffix = ".npy"
    if source.paths and is_nifti(source.paths[i]):
        suffix = ".nii.gz"
    elif source.paths and source.paths[i].suffix.lower() != ".npy" and n_targets == 1:
        suffix = ".tif"
    return folder / f"{source.names[i]}{suffix}"


def _write(path: Path, values: NDArray[np.float32], source: UnlabelledImages, i: int) -> None:
    """Write a map (K, *spatial)."""
    only = values[0] if len(values) == 1 else None
    if is_nifti(path):
        stored = np.moveaxis(values, 0, -1) if only is None else only
        save_bytes(path, nifti_like(stored, source.paths[i]))
    elif path.suffix == ".tif":
        assert only is not None
        save_picture(path, [only] if only.ndim == 2 else [*only], "TIFF")
    else:
        save_array(path, values if only is None else only)


def _write_hdf5(
    path: Path,
    predictor: TrainedValues,
    source: UnlabelledImages,
    numbers: Iterable[int],
    raw: bool,
    made_by: dict[str, Any],
) -> None:
    """Write the maps of all images to one data set, the file whole or not at all."""

    def write(to: Path) -> None:
        with h5py.File(to, "w") as file:
            # of fixed length: safe to read from files of unknown origin
            file.attrs["made_by"] = np.bytes_(json.dumps(made_by))
            data: Any = None
            for i in numbers:
                values = predictor.predict(source.image(i), raw=raw).numpy()
                if data is None:
                    data = file.create_dataset(VALUES, (len(source), *values.shape), "float32")
                if values.shape != data.shape[1:]:
                    raise Refused(
                        "images of one size for an HDF5 file",
                        f"{data.shape[2:]} and {values.shape[1:]} ({source.names[i]})",
                        "give a folder as {out}",
                    )
                data[i] = values

    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, write)
