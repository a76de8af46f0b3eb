"""Images without masks, 2-D or 3-D, for trained networks and pseudo-labels."""

from __future__ import annotations

import filecmp
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused, literal
from dense_imb.data.images.folders import (
    NIFTI,
    SUFFIXES,
    VOLUMES,
    is_nifti,
    list_images,
    read_image,
    stem_of,
)
from dense_imb.data.images.labelled import LabelledImages
from dense_imb.data.images.sources import (
    HDF5Images,
    channels_first,
    digest_content,
    digest_ends,
    digest_files,
)


class UnlabelledImages:
    """Images by number, read on access; made by `open_unlabelled`.

    Args:
        files: the image files, or an HDF5 file.
        n_channels: channels of each image.
        spatial_dims: 2 or 3.
        numbers: numbers of the images to use; all by default.

    Attributes:
        names: name of each image: the file name without suffix, or a number.
        paths: the files; empty for HDF5.
    """

    def __init__(
        self,
        files: list[Path] | HDF5Images,
        n_channels: int,
        spatial_dims: int,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self._stored = files if isinstance(files, HDF5Images) else None
        paths = files if isinstance(files, list) else []
        names = [stem_of(path) for path in paths] if self._stored is None else self._stored.names
        self._numbers = list(range(len(names)) if numbers is None else numbers)
        self.names = [names[i] for i in self._numbers]
        self.paths = [paths[i] for i in self._numbers if paths]
        self._is_whole = len(self._numbers) == len(names)
        self.n_channels, self.spatial_dims = n_channels, spatial_dims

    def __len__(self) -> int:
        return len(self.names)

    def image(self, i: int) -> NDArray[Any]:
        """Return (C, *spatial) pixels of the stored type."""
        if self._stored is not None:
            number, axis = self._numbers[i], self._stored.channel_axis
            pixels = self._stored.read("image", number)
            if axis is not None and pixels.ndim == self.spatial_dims:
                raise self._refusal(self._stored.image_place(number), pixels.shape)
            return self._checked(pixels, self._stored.image_place(number), axis)
        path = self.paths[i]
        pixels = read_image(path, is_volume=self.spatial_dims == 3)
        is_array = path.suffix.lower() == ".npy"
        if self.spatial_dims == 3 and len(pixels) == 1 and not (is_array or is_nifti(path)):
            raise Refused(
                f"{literal(path)} to be a volume, as the network was trained on",
                "a flat image",
                VOLUMES,
            )
        return self._checked(pixels, str(path), None if is_array else -1)

    def files(self) -> list[Path]:
        """Return the files of the images; for HDF5 the one file."""
        return self.paths if self._stored is None else [self._stored.path]

    def fingerprint(self) -> str:
        """Return a digest of the files, see `LabelledImages.fingerprint`."""
        if self._stored is None:
            return digest_files(self.paths)
        digest = digest_files([self._stored.path])
        if self._is_whole:
            return digest
        return hashlib.blake2b(f"{self._numbers} of {digest}".encode(), digest_size=16).hexdigest()

    def digests(self) -> dict[str, str]:
        """Return a digest of each image by name; an image of an HDF5 file has that of the file."""
        if self._stored is None:
            return dict(zip(self.names, map(digest_content, self.paths), strict=True))
        return dict.fromkeys(self.names, digest_content(self._stored.path))

    def without(self, held_out: Iterable[LabelledImages]) -> UnlabelledImages:
        """Return the images that are not in `held_out`.

        Files match by path or identical bytes, entries of the same HDF5 file by number.
        """
        dropped: set[int] = set()
        if self._stored is None:
            others = [path for part in held_out for path in part.files()]
            dropped.update(find_copies(self.paths, others))
            files: list[Path] | HDF5Images = self.paths
            left = [i for i in range(len(self)) if i not in dropped]
        else:
            for part in held_out:
                if find_copies([self._stored.path], part.files()):
                    dropped.update(part.numbers)
            files = self._stored
            left = [number for number in self._numbers if number not in dropped]
        return UnlabelledImages(files, self.n_channels, self.spatial_dims, left)

    def _checked(self, pixels: NDArray[Any], place: str, axis: int | None) -> NDArray[Any]:
        n_channels, shape = self.n_channels, pixels.shape
        if pixels.ndim == self.spatial_dims and n_channels == 1:
            return channels_first(pixels, shape, axis, place, place)
        if pixels.ndim == self.spatial_dims + 1:
            if axis is None:
                axis = -1 if shape[-1] == n_channels else 0
            if shape[axis] == n_channels:
                spatial = shape[1:] if axis == 0 else shape[:-1]
                return channels_first(pixels, spatial, axis, place, place)
        raise self._refusal(place, shape)

    def _refusal(self, place: str, shape: tuple[int, ...]) -> ValueError:
        n = self.n_channels
        return ValueError(
            f"Expected {place} with {n} channel{'s' * (n > 1)} in {self.spatial_dims}-D, as the "
            f"network was trained on, got an array {shape}; convert it, or move it to a folder of "
            "its own."
        )


def open_unlabelled(
    images: str | os.PathLike[str], *, n_channels: int, spatial_dims: int
) -> UnlabelledImages:
    """Open a folder of images, one image, or an HDF5 file with the data set `image`.

    Args:
        images: files as in `open_labelled`; other files in a folder are ignored.
        n_channels: channels of each image.
        spatial_dims: 2 or 3.

    Example:
        >>> import tempfile, numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/a.npy", np.zeros((4, 5, 3), np.uint8))
        ...     data = open_unlabelled(folder, n_channels=3, spatial_dims=2)
        ...     data.names, data.image(0).shape
        (['a'], (3, 4, 5))
    """
    place = Path(images)
    if place.is_file() and not place.name.lower().endswith(SUFFIXES + NIFTI):
        return UnlabelledImages(HDF5Images(place), n_channels, spatial_dims)
    if not place.exists():
        raise ValueError(f"Expected images in {place}, which does not exist.")
    files = [place] if place.is_file() else list_images(place, SUFFIXES + NIFTI)
    by_name: dict[str, Path] = {}
    for path in files:
        if (other := by_name.setdefault(stem_of(path), path)) is not path:
            raise ValueError(
                f"Expected one image of each name in {place}, got {other.name} and {path.name}."
            )
    return UnlabelledImages(files, n_channels, spatial_dims)


def find_copies(
    paths: Sequence[Path], others: Iterable[Path], *, show_progress: bool = True
) -> list[int]:
    """Return the numbers of the files that are among others, by path or identical bytes.

    Only files of equal size are read, and wholly only if their ends agree.

    Args:
        paths: files to look for.
        others: files to look among.
        show_progress: draw a bar where reading takes long.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = [Path(folder, name) for name in "abc"]
        ...     sizes = [path.write_bytes(b) for path, b in zip(paths, (b"1", b"2", b"1"))]
        ...     find_copies(paths[1:], paths[:1])
        [1]
    """
    by_size: dict[int, set[Path]] = {}
    for path in {path.resolve() for path in others}:
        by_size.setdefault(path.stat().st_size, set()).add(path)
    by_ends: dict[int, dict[str, list[Path]]] = {}
    copies = []
    bar = tqdm(paths, "look for copies", unit="file", disable=not show_progress, delay=1)
    for i, path in enumerate(bar):
        size = path.stat().st_size
        same_size = by_size.get(size, set())
        if not same_size:
            continue
        if path.resolve() in same_size:
            copies.append(i)
            continue
        if size not in by_ends:
            by_ends[size] = {}
            for other in same_size:
                by_ends[size].setdefault(digest_ends(other), []).append(other)
        likely = by_ends[size].get(digest_ends(path), [])
        if any(filecmp.cmp(path, other, shallow=False) for other in likely):
            copies.append(i)
    return copies


def nifti_like(mask: NDArray[Any], path: Path) -> bytes:
    """Return the bytes of a map as .nii.gz, with the position in space of the image `path`."""
    import gzip

    import nibabel

    assert is_nifti(path)
    tools: Any = nibabel  # its types are incomplete
    like = tools.load(path)
    made = tools.Nifti1Image(mask, like.affine)
    zooms = [*like.header.get_zooms(), *[1.0] * mask.ndim]  # a further axis has no unit
    made.header.set_zooms(zooms[: mask.ndim])
    made.header.set_xyzt_units(*like.header.get_xyzt_units())
    for code in ("qform", "sform"):  # the meaning of the two affines
        getattr(made, f"set_{code}")(like.affine, int(like.header[f"{code}_code"]))
    packed: bytes = gzip.compress(made.to_bytes(), mtime=0)
    return packed
