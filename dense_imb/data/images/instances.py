"""Instance maps: the number of the object that each pixel of an image belongs to.

instance = label_instances(label)     # 0 on the background: the map of blob loss
nearest = nearest_instance(instance)  # the nearest object at every pixel: the map of CC loss
value = DiceLoss(per="instance")(logits, label, instance=nearest)
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dense_imb.base.files import refuse_existing, refuse_inputs, write_whole
from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused, literal, suggest
from dense_imb.data.images.folders import NIFTI, SUFFIXES, list_images, read_image, stem_of
from dense_imb.data.images.sources import (
    IGNORED,
    HDF5Source,
    ImageSource,
    digest_files,
)

if TYPE_CHECKING:
    from dense_imb.data.images.labelled import LabelledImages

COMPONENTS, NEAREST = "components", "nearest"
MADE = (COMPONENTS, NEAREST)  # of the labels; other maps are stored
_LARGEST = np.iinfo(np.int32).max
_MOST_BOXES = 1 << 16


class InstancesWarning(UserWarning):
    """Instance maps that are made again for every crop."""


def label_instances(label: ArrayLike, ignore_index: int | None = IGNORED) -> NDArray[Any]:
    """Number the connected components of each foreground class.

    It takes one image: in a batch, objects of neighbouring images would be one. Pixels that touch
    at a corner are connected. A component has pixels of one class only. Needs SciPy.

    Args:
        label: (*spatial) classes of one image; 0 is the background.
        ignore_index: label of the pixels that belong to no class.

    Returns:
        (*spatial) numbers 1 .. R, by class, and 0 elsewhere; int16, or int32 above 32767.

    Example:
        >>> label_instances(np.array([[1, 0, 1, 2], [1, 0, 0, 2]]))
        array([[1, 0, 2, 3],
               [1, 0, 0, 3]], dtype=int16)
    """
    classes = _whole("`label`", label)
    ndimage = _ndimage()
    instance = np.zeros(classes.shape, np.int32)
    if classes.size and classes.max() > _MOST_BOXES:  # a box for each number up to the largest
        known = np.unique(classes[classes > 0])
        if ignore_index is not None:
            is_there = ignore_index in known
            ignore_index = int(np.searchsorted(known, ignore_index)) + 1 if is_there else None
        classes = np.where(classes > 0, np.searchsorted(known, classes) + 1, 0)
    structure, n = np.ones((3,) * classes.ndim, bool), 0
    boxes = ndimage.find_objects(classes) if classes.size else []  # around each class
    for k, box in enumerate(boxes, start=1):
        if box is not None and k != ignore_index:
            is_class = classes[box] == k
            number, n_components = ndimage.label(is_class, structure)
            instance[box][is_class] = number[is_class] + n
            n += n_components
    return _narrow(instance)


def nearest_instance(instance: ArrayLike) -> NDArray[Any]:
    """Fill the background of an instance map with the number of the nearest instance.

    It takes one image: in a batch, the nearest instance may be another image's. Distances are
    Euclidean, in pixels. A map without instances stays 0. Needs SciPy.

    Args:
        instance: (*spatial) numbers of the instances of one image, 0 for none, see
            `label_instances`.

    Example:
        >>> nearest_instance(np.array([1, 0, 0, 0, 2, 0]))
        array([1, 1, 1, 2, 2, 2], dtype=int16)
    """
    numbers = _whole("`instance`", instance)
    is_free = numbers == 0
    if is_free.any() and not is_free.all():
        nearest = _ndimage().distance_transform_edt(
            is_free, return_distances=False, return_indices=True
        )
        numbers = numbers[tuple(nearest)]
    return _narrow(numbers)


def check_instances(
    instance: ArrayLike,
    label: ArrayLike,
    ignore_index: int | None = IGNORED,
    *,
    place: str = "`instance`",
) -> None:
    """Refuse an instance map that does not fit the labels of its image.

    An instance has pixels of one foreground class. It may have background pixels, as the nearest
    instance has.

    Args:
        instance: (*spatial) numbers of instances, 0 for none.
        label: (*spatial) classes, 0 is the background.
        ignore_index: label of the pixels that belong to no class.
        place: name of the map, for errors.

    Example:
        >>> check_instances([1, 1, 2], [0, 1, 1])
    """
    numbers, classes = np.asarray(instance), _whole("`label`", label)
    if numbers.shape != classes.shape:
        raise ValueError(
            f"Expected {place} of the shape {classes.shape} of its labels, got {numbers.shape}."
        )
    numbers = _whole(place, numbers)
    low, high = (int(numbers.min()), int(numbers.max())) if numbers.size else (0, 0)
    if low < 0 or high > _LARGEST:
        raise ValueError(
            f"Expected {place} to hold instance numbers from 0, for none, to {_LARGEST}, got "
            f"{low if low < 0 else high}; renumber them."
        )
    is_instance = (numbers > 0) & (classes > 0)
    if ignore_index is not None:
        is_instance &= classes != ignore_index
    number, k = numbers[is_instance].astype(np.int64), classes[is_instance].astype(np.int64)
    n_labels = int(k.max(initial=0)) + 1
    cells = np.unique(number * n_labels + k)  # the classes of each instance
    number, k = cells // n_labels, cells % n_labels
    twice = np.flatnonzero(number[1:] == number[:-1])
    if len(twice):
        first = int(twice[0])
        raise ValueError(
            f"Expected {place} with one class in each instance, got instance {number[first]} "
            f"with the classes {k[first]} and {k[first + 1]}; number the instances of each class "
            "apart, as label_instances does."
        )


class StoredMaps(Protocol):
    """Instance maps in files."""

    def place(self, number: int) -> str:
        """Name the map of an image for an error."""

    def read(self, number: int) -> NDArray[Any]:
        """Return the map of an image in its stored type."""

    def digest(self, numbers: Iterable[int]) -> str:
        """Return a digest of the maps of some images, independent of their folder."""


class FolderMaps:
    """A folder with a map of the name of each image.

    Args:
        folder: files as masks have them.
        names: name of each image by its number.
        spatial_dims: 2 or 3.
        what: kind of map, for errors.
        cure: cure for images without one.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        names: Mapping[int, str],
        spatial_dims: int,
        *,
        what: str = "an instance map",
        cure: str = "add them, or let maps be made with {images.instances=components}",
    ) -> None:
        by_name = {stem_of(path): path for path in list_images(folder, SUFFIXES + NIFTI)}
        missing = [name for name in names.values() if name not in by_name]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise Refused(
                f"{what} of the same name in {literal(folder)} for each image",
                f"none for {', '.join(missing[:3])}{more}",
                cure,
            )
        self._paths = {number: by_name[name] for number, name in names.items()}
        self._is_volume = spatial_dims == 3

    def place(self, number: int) -> str:
        return str(self._paths[number])

    def read(self, number: int) -> NDArray[Any]:
        return read_image(self._paths[number], is_volume=self._is_volume, as_indices=True)

    def digest(self, numbers: Iterable[int]) -> str:
        return digest_files([self._paths[number] for number in numbers])


class HDF5Maps:
    """A data set of maps in the HDF5 file of the images and masks."""

    def __init__(self, source: HDF5Source, name: str) -> None:
        shape, wanted = source.shape(name), source.shape("mask")
        if shape != wanted:
            raise ValueError(
                f"Expected `{name}` of {source.path} of the shape {wanted} of `mask`, got {shape}."
            )
        self._source, self._name = source, name

    def place(self, number: int) -> str:
        return f"`{self._name}` {number} of {self._source.path}"

    def read(self, number: int) -> NDArray[Any]:
        return self._source.read(self._name, number)

    def digest(self, numbers: Iterable[int]) -> str:
        return f"{self._name} {self._source.digest(numbers)}"


class InstanceMaps:
    """Instance maps of labelled images by number, made of their labels or read from files.

    Args:
        kind: one of MADE, or "stored".
        stored: maps in files, with the kind "stored".

    Attributes:
        held: maps that stay in memory.
    """

    def __init__(self, kind: str, stored: StoredMaps | None = None) -> None:
        self.kind, self._stored = kind, stored
        self.held: dict[int, NDArray[Any]] = {}
        self._has_warned = False

    def make(self, number: int, label: NDArray[np.uint8]) -> NDArray[Any]:
        """Make or read the map of an image; ignored pixels belong to no instance."""
        if self._stored is None:
            instance = label_instances(label)
            if self.kind == COMPONENTS:
                return instance
            instance = nearest_instance(instance)
        else:
            place = self._stored.place(number)
            instance = _integers(self._stored.read(number), place)
            check_instances(instance, label, place=place)
        is_ignored = label == IGNORED
        return _narrow(np.where(is_ignored, 0, instance) if is_ignored.any() else instance)

    def warn_if_made_often(self, number: int) -> None:
        """Warn once if a map that is slow to make does not stay in memory."""
        if self.kind != NEAREST or number in self.held or self._has_warned:
            return
        self._has_warned = True
        warnings.warn(
            "the nearest instances of the images do not fit in the memory for decoded images, and "
            "are searched again for every crop: store them with "
            "dense_imb.data.images.instances.write_instances",
            InstancesWarning,
            stacklevel=3,
        )

    def describe(self, numbers: Iterable[int]) -> str:
        """Describe the maps of some images in words; equal for equal stored maps."""
        return self.kind if self._stored is None else f"stored {self._stored.digest(numbers)}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "held": {}}  # a pickle stays small


def open_instances(
    instances: str | os.PathLike[str], source: ImageSource, names: Mapping[int, str]
) -> InstanceMaps:
    """Open the instance maps of images, see `LabelledImages.with_instances`.

    Args:
        instances: one of MADE, a folder, or a data set of the HDF5 file.
        source: images and masks.
        names: name of each image by its number.
    """
    if instances in MADE:
        check_scipy()  # refused here, not in the first step
        return InstanceMaps(str(instances))
    if Path(instances).is_dir():
        return InstanceMaps("stored", FolderMaps(instances, names, source.spatial_dims))
    if isinstance(source, HDF5Source) and source.shape(str(instances)) is not None:
        return InstanceMaps("stored", HDF5Maps(source, str(instances)))
    data_set = f", or a data set of {source.where}" if isinstance(source, HDF5Source) else ""
    hint = suggest(str(instances), MADE).strip().rstrip("?")
    raise Refused(
        f"{{images.instances}} as components, nearest or a folder of maps{literal(data_set)}",
        repr(str(instances)),
        f"{hint[0].lower()}{hint[1:]}" if hint else "",
    )


def write_instances(
    images: LabelledImages,
    folder: str | os.PathLike[str],
    kind: str = NEAREST,
    *,
    overwrite: bool = False,
    show_progress: bool = True,
) -> list[Path]:
    """Write the instance map of each image as folder/NAME.npy, for `images.instances`.

    Args:
        images: labelled images.
        folder: folder of the maps; it is made.
        kind: "components" or "nearest".
        overwrite: replace maps that exist.
        show_progress: draw a bar where it takes long.
    """
    if kind not in MADE:
        raise ValueError(f"Expected `kind` as components or nearest, got {kind!r}.")
    made = InstanceMaps(kind)
    paths = [Path(folder) / f"{name}.npy" for name in images.names]
    for path in paths:
        refuse_existing(path, overwrite)
    refuse_inputs(paths, images.read_files())
    Path(folder).mkdir(parents=True, exist_ok=True)
    bar = tqdm(paths, "write instances", unit="image", disable=not show_progress, delay=1)
    for i, path in enumerate(bar):
        _save(path, made.make(images.numbers[i], images.label(i)))
    return paths


def _save(path: Path, instance: NDArray[Any]) -> None:
    def write(partial: Path) -> None:
        with partial.open("wb") as file:  # np.save would add a suffix to the name
            np.save(file, instance)

    write_whole(path, write)


def _whole(name: str, values: ArrayLike) -> NDArray[Any]:
    """Return integers (*spatial); refuse other numbers."""
    array = np.asarray(values)
    if array.dtype.kind not in "bui" or array.ndim == 0:
        raise TypeError(
            f"Expected {name} as an array of integers, (*spatial), got {array.dtype} of the shape "
            f"{array.shape}."
        )
    return array.astype(np.uint8) if array.dtype == bool else array


def _integers(stored: NDArray[Any], place: str) -> NDArray[Any]:
    """Return a stored map as integers; NIfTI files often hold them as fractions."""
    if stored.dtype.kind != "f":
        return stored
    if not (np.abs(stored) <= _LARGEST).all() or (stored % 1 != 0).any():  # also NaN
        raise ValueError(
            f"Expected {place} to hold instance numbers, whole numbers from 0, got {stored.dtype} "
            f"from {stored.min()} to {stored.max()}; write them as integers."
        )
    return stored.astype(np.int64)


def _narrow(instance: NDArray[Any]) -> NDArray[Any]:
    """Return instance numbers as int16 if they fit, else int32."""
    is_small = instance.size == 0 or instance.max() <= np.iinfo(np.int16).max
    return instance.astype(np.int16 if is_small else np.int32)


def check_scipy() -> None:
    """Refuse where SciPy is missing, which `label_instances` and `nearest_instance` need."""
    _ndimage()


def _ndimage() -> Any:
    try:
        return importlib.import_module("scipy.ndimage")
    except ImportError as problem:
        raise ImportError(
            "Expected SciPy, to find the components of labels, got none; install it with "
            "`pip install 'dense-imb[objects]'`, or read stored maps."
        ) from problem
