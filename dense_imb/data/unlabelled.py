"""Images without masks, 2-D or 3-D, by number: what a trained network is shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dense_imb.data.image_sources import HDF5Images, channels_first, digest_of_files
from dense_imb.data.images import NIFTI, SUFFIXES, is_nifti, list_images, read_image, stem_of


class UnlabelledImages:
    """Images by number; made by `open_unlabelled`. Nothing is held in memory.

    `names` are the files' without suffix, or numbers; `paths` the files, none of HDF5.
    """

    def __init__(self, files: list[Path] | HDF5Images, n_channels: int, spatial_dims: int) -> None:
        self._stored = files if isinstance(files, HDF5Images) else None
        self.paths = files if isinstance(files, list) else []
        self.names = [stem_of(path) for path in self.paths] if self._stored is None else (
            self._stored.names
        )  # fmt: skip
        self.n_channels, self.spatial_dims = n_channels, spatial_dims

    def __len__(self) -> int:
        return len(self.names)

    def image(self, i: int) -> NDArray[Any]:
        """(C, *spatial), in the file's own type."""
        if self._stored is not None:
            pixels, axis = self._stored.read("image", i), self._stored.channel_axis
            return self._checked(pixels, self._stored.image_place(i), axis)
        path = self.paths[i]
        pixels = read_image(path, is_volume=self.spatial_dims == 3)
        return self._checked(pixels, str(path), None if path.suffix.lower() == ".npy" else -1)

    def fingerprint(self) -> str:
        """Digest of the files' names and bytes, see `LabelledImages.fingerprint`."""
        files = self.paths if self._stored is None else [self._stored.path]
        return digest_of_files(files)

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
        raise ValueError(
            f"Expected {place} with {n_channels} channel{'s' * (n_channels > 1)} in "
            f"{self.spatial_dims}-D, as the network was trained on, got an array {shape}; convert "
            "it, or move it to a folder of its own."
        )


def open_unlabelled(
    images: str | os.PathLike[str], *, n_channels: int, spatial_dims: int
) -> UnlabelledImages:
    """A folder of images, one image, or an HDF5 file with the data set `image`.

    Args:
        images: files as `open_labelled` reads them; of a folder those of other kinds are left out.
        n_channels: of each image.
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


def nifti_like(mask: NDArray[Any], path: Path) -> bytes:
    """The bytes of a .nii.gz of a mask, that lies in space as the NIfTI image of `path` does."""
    import gzip

    import nibabel

    assert is_nifti(path)
    tools: Any = nibabel  # its types are incomplete
    like = tools.load(path)
    made = tools.Nifti1Image(mask, like.affine)
    made.header.set_zooms(like.header.get_zooms()[: mask.ndim])
    made.header.set_xyzt_units(*like.header.get_xyzt_units())
    for code in ("qform", "sform"):  # which of the two affines stands for what
        getattr(made, f"set_{code}")(like.affine, int(like.header[f"{code}_code"]))
    packed: bytes = gzip.compress(made.to_bytes(), mtime=0)
    return packed
