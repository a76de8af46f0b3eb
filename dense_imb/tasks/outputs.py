"""A folder of maps that a network writes: one file an image, and a record of how they were made.

Each file is written whole or not at all, so that a stopped call continues when it is repeated.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dense_imb.base.files import write_whole


def check_elsewhere(folder: Path, images: str | os.PathLike[str], what: str) -> None:
    """Refuse to write among the images.

    Args:
        folder: folder to write to.
        images: folder of the images, or one file.
        what: files to write, in words.
    """
    place = Path(images)
    if folder.resolve() == (place if place.is_dir() else place.parent).resolve():
        raise ValueError(
            f"Expected another folder for {what} than that of the images, got {folder}."
        )


def check_outputs(
    folder: Path,
    name: str,
    record: Mapping[str, Any],
    wanted: Iterable[Sequence[Path]],
    overwrite: bool,
    what: str,
    free: set[str],
) -> None:
    """Refuse to mix with files that were made in another way, unless they are replaced.

    Args:
        folder: folder to write to.
        name: file name of the record.
        record: how the files are made.
        wanted: files of each image.
        overwrite: whether files are replaced.
        what: files to write, in words.
        free: entries of the record that may differ: the same weights in another place are the same.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected a folder for {what}, got the file {folder}.")
    existing = next((path for paths in wanted for path in paths if path.exists()), None)
    if overwrite or existing is None:
        return
    cure = "choose another folder or overwrite them (overwrite=True, --overwrite)"
    try:
        stored = dict(json.loads((folder / name).read_text()))
    except (OSError, ValueError, TypeError):
        raise FileExistsError(
            f"Expected no file at {existing}, got one without a record of ours, {name}; {cure}."
        ) from None
    differing = [key for key in record if key not in free and stored.get(key) != record[key]]
    if differing:
        raise FileExistsError(
            f"Expected {what} in {folder} that were made in this way, got others "
            f"({', '.join(differing)} differ{'s' * (len(differing) == 1)}); {cure}."
        )


def begin_outputs(
    folder: Path, name: str, record: Mapping[str, Any], replaced: Iterable[Path]
) -> None:
    """Make the folder and its record, and remove files that are replaced.

    They go first: a stopped call would go on among files of another kind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in replaced:
        path.unlink(missing_ok=True)
    save_bytes(folder / name, (json.dumps(record, indent=1) + "\n").encode())


def digest_weights(network: nn.Module) -> str:
    """Return a digest of the state of a network."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        stored = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(stored.numpy().tobytes())
    return digest.hexdigest()


def save_bytes(path: Path, content: bytes) -> None:
    """Write a file whole."""
    write_whole(path, lambda to: to.write_bytes(content))


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy, whole."""
    write_whole(path, partial(_save_array, array))


def save_picture(path: Path, pages: Sequence[NDArray[Any]], form: str) -> None:
    """Write pages (H, W) as an image, whole.

    Args:
        path: the file.
        pages: pages of one size; a PNG has one.
        form: "PNG" or "TIFF".
    """
    from PIL import Image

    first, *others = [Image.fromarray(page) for page in pages]
    more = {"save_all": True, "append_images": others} if others else {}
    write_whole(path, lambda to: first.save(to, format=form, **more))


def _save_array(array: NDArray[Any], to: Path) -> None:
    with to.open("wb") as file:  # by its name numpy would add a suffix
        np.save(file, array)
