"""A folder of maps that a network writes: one file an image, and a record of how they were made.

Each file is written whole or not at all, so that a stopped call continues when it is repeated.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.files import refuse_inputs, write_whole
from dense_imb.base.locks import shared_folder
from dense_imb.base.refusals import Refused


def check_elsewhere(
    folder: Path,
    images: str | os.PathLike[str],
    what: str,
    outputs: Iterable[Path],
    inputs: Iterable[Path],
) -> None:
    """Refuse to write among the images, or to replace one.

    Args:
        folder: folder to write to.
        images: folder of the images, or one file.
        what: files to write, in words.
        outputs: files to write.
        inputs: files of the images.
    """
    place = Path(images)
    place = place if place.is_dir() else place.parent
    if folder.is_dir() and folder.samefile(place):
        raise ValueError(
            f"Expected another folder for {what} than that of the images, got {folder}."
        )
    refuse_inputs(outputs, inputs)


@dataclass(frozen=True)
class OutputRecord:
    """Record of how the files of a folder are made; it refuses files made in another way.

    Args:
        folder: folder to write to.
        name: file name of the record.
        what: files to write, in words.
        facts: format, run, weights and options.
        free: facts that may differ: the same weights in another place are the same.
        images: digest of each image by name.
        outputs: files of each image by name.
        overwrite: whether files of an earlier call are replaced.
    """

    folder: Path
    name: str
    what: str
    facts: Mapping[str, Any]
    free: frozenset[str]
    images: Mapping[str, str]
    outputs: Mapping[str, Sequence[Path]]
    overwrite: bool

    def check(self) -> None:
        """Refuse to mix with files that were made in another way, unless they are replaced.

        Files without a record, such as masks that somebody drew, are never replaced.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"Expected a folder for {self.what}, got the file {self.folder}.")
        there = {
            image: path for image, paths in self.outputs.items() for path in paths if path.exists()
        }
        if not there:
            return
        stored = self._stored()
        ours = self._written(stored)
        if foreign := [path for image, path in there.items() if image not in ours]:
            raise FileExistsError(
                f"Expected no file at {foreign[0]}, got one without a record of ours, "
                f"{self.name}; choose another folder, or remove it yourself."
            )
        if self.overwrite:
            return
        cure = "choose another folder or overwrite them (overwrite=True, --overwrite)"
        if differing := self._differing(stored):
            raise FileExistsError(
                f"Expected {self.what} in {self.folder} that were made in this way, got others "
                f"({', '.join(differing)} differ{'s' * (len(differing) == 1)}); {cure}."
            )
        if changed := self._changed(stored, there):
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise FileExistsError(
                f"Expected {self.what} in {self.folder} of these images, got those of others "
                f"({changed[0]}{more} changed since); {cure}."
            )

    @contextmanager
    def begun(self, own: Iterable[str]) -> Iterator[None]:
        """Make the folder and its record, and hold the folder while its files are written.

        Processes with the same record may write side by side. Files that are replaced are removed
        first: a stopped call would go on among files of another kind.

        Args:
            own: images of this process.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with shared_folder(self.folder, self._write):
            stored = self._stored()
            if self._differing(stored) or self._changed(stored, self.outputs):
                raise Refused(
                    "a folder that no other process works in",
                    f"{self.folder}, to which one writes other {self.what}",
                    "wait for it or choose another name",
                )
            for image in own if self.overwrite else ():
                for path in self.outputs[image]:
                    path.unlink(missing_ok=True)
            yield

    def _write(self) -> None:
        self.check()  # another call may have written since
        stored = self._stored()
        is_more = not self.overwrite and not self._differing(stored)
        images = {**(stored["images"] if is_more else {}), **self.images}
        earlier = sorted(self._written(stored) - set(images))
        content = {**self.facts, "images": images, "earlier": earlier}
        save_bytes(self.folder / self.name, (json.dumps(content, indent=1) + "\n").encode())

    def _stored(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / self.name).read_text()))
        except (OSError, ValueError, TypeError, RecursionError):
            return {}

    def _written(self, stored: Mapping[str, Any]) -> set[str]:
        """Return the images whose files are ours, by the record in the folder."""
        if stored.get("format") != self.facts["format"]:
            return set()
        if not isinstance(stored.get("images"), dict):  # records of older versions name none
            return set(self.outputs)
        earlier = stored.get("earlier")
        names = earlier if isinstance(earlier, list) else []
        return {*stored["images"], *(name for name in names if isinstance(name, str))}

    def _differing(self, stored: Mapping[str, Any]) -> list[str]:
        """Return the facts that differ from those of the record in the folder."""
        differing = [
            name
            for name, value in self.facts.items()
            if name not in self.free and stored.get(name) != value
        ]
        has_images = isinstance(stored.get("images"), dict)  # records of older versions have none
        return differing if has_images else [*differing, "images"]

    def _changed(self, stored: Mapping[str, Any], images: Iterable[str]) -> list[str]:
        """Return those of some images that are not as the record in the folder says."""
        return [name for name in images if stored["images"].get(name) != self.images[name]]


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
