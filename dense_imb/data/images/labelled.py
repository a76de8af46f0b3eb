"""Images with a label for each pixel, in 2-D or 3-D: random access, and statistics in one pass.

data = open_labelled("images", "masks", labels=[0, 255])
image, label = data.image(0), data.label(0)  # (C, *spatial), (*spatial)
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.checks import check_finite
from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused, option, refusal
from dense_imb.data.images.instances import InstanceMaps, open_instances
from dense_imb.data.images.sources import IGNORED as IGNORED
from dense_imb.data.images.sources import FolderSource, ImageSource, are_names, find_source
from dense_imb.statistics import ClassStatistics

_UNKNOWN = 254
MOST_CLASSES = 254
BUDGET = 1 << 30  # bytes of decoded images in memory
_PIECE = 1 << 20  # pixels whose float64 copy is held at a time
_LISTED = 10


class LabelMap:
    """Map of mask values to classes.

    Args:
        values: mask value of each class.
        ignore_index: mask value of the pixels that belong to no class.
        is_given: the user named the values, and not only their number.
    """

    def __init__(self, values: Sequence[int], ignore_index: int | None, is_given: bool) -> None:
        self.values, self.ignore_index, self.is_given = tuple(values), ignore_index, is_given
        self.n_classes = len(values)
        classes = {int(value): k for k, value in enumerate(values)}
        if ignore_index is not None:
            classes[int(ignore_index)] = IGNORED
        self._known = np.array(sorted(classes), np.int64)
        self._class = np.array([classes[value] for value in sorted(classes)], np.uint8)
        self._of_byte = self._searched(np.arange(256))

    @classmethod
    def of(cls, labels: Sequence[int], ignore_index: int | None = None) -> LabelMap:
        """Return the map of the values that a user names; refuse repeated values."""
        if not 2 <= len(labels) <= MOST_CLASSES or len(set(labels)) < len(labels):
            raise ValueError(
                f"Expected `labels` with the mask value of each of at least two classes, got "
                f"{list(labels)}."
            )
        if ignore_index in labels:
            raise ValueError(
                f"Expected `ignore_index` outside `labels` {list(labels)}, got {ignore_index}."
            )
        return cls(labels, ignore_index, True)

    def name_classes(self, value_names: Sequence[str] | None) -> tuple[str, ...] | None:
        """Return the names of the classes, from names of the mask values 0, 1, 2 and so on."""
        return names_of_classes(value_names, self.values)

    def read(self, source: ImageSource, number: int) -> NDArray[np.uint8]:
        """Return the class of each pixel of an image."""
        return self(source.mask(number), source.place(number))

    def _searched(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        place = np.minimum(np.searchsorted(self._known, mask), len(self._known) - 1)
        return np.where(self._known[place] == mask, self._class[place], np.uint8(_UNKNOWN))

    def __call__(self, mask: NDArray[Any], place: str) -> NDArray[np.uint8]:
        """Return the class of each pixel; refuse a value without a class."""
        is_bytes = mask.dtype == np.uint8
        label = self._of_byte[mask] if is_bytes else self._searched(mask.astype(np.int64))
        if (label == _UNKNOWN).any():
            values = [int(value) for value in np.unique(mask)]
            if self.is_given:
                unknown = [v for v in values if v not in (*self.values, self.ignore_index)]
                cure = f"add {unknown[0]}, or ignore its pixels with {{ignore_index={unknown[0]}}}"
                if len(values) > _LISTED:
                    cure = f"{_threshold_cure(values)} in place of `labels`"
                wanted = f"{place} to hold the values {list_values(self.values)} of `labels`"
                raise Refused(wanted, list_values(values), cure)
            raise _unmapped(place, values, self.ignore_index, f"0 to {len(self.values) - 1}")
        return label


class Threshold:
    """Two classes of masks with grey values: class 1 where the value is above a threshold.

    Args:
        above: the threshold; the value itself is of class 0.
        ignore_index: mask value of the pixels that belong to no class.
    """

    n_classes = 2

    def __init__(self, above: float, ignore_index: int | None) -> None:
        check_finite("above", above)
        self.above, self.ignore_index = above, ignore_index

    def name_classes(self, value_names: Sequence[str] | None) -> None:
        """Return None: names of mask values are not those of the two classes."""

    def read(self, source: ImageSource, number: int) -> NDArray[np.uint8]:
        """Return the class of each pixel of an image."""
        values = source.mask_values(number)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            n_broken = int((~np.isfinite(values)).sum())
            raise Refused(
                f"{source.place(number)} to hold finite numbers",
                f"{n_broken} NaN or infinite of {values.size}",
            )
        label = (values > self.above).astype(np.uint8)
        if self.ignore_index is not None:
            label[values == self.ignore_index] = IGNORED
        return label


@dataclass(frozen=True)
class LabelTally:
    """Statistics of labelled images, from one pass over them.

    Args:
        n_classes: number of classes.
        class_content: (n_images, n_classes) pixels of each class in each image.
        mean: mean of each channel over all pixels, ignored ones included.
        std: standard deviation of each channel over the same pixels.
        sizes: number of images of each size (*spatial).
    """

    n_classes: int
    class_content: NDArray[np.int64]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sizes: Counter[tuple[int, ...]]

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Pixels of each class."""
        return tuple(self.class_content.sum(0).tolist())

    @property
    def statistics(self) -> ClassStatistics:
        """Class statistics, for losses and `class_weights`."""
        return statistics_of(self.class_content)


def statistics_of(class_content: NDArray[np.int64]) -> ClassStatistics:
    """Return class statistics from (n_images, n_classes) pixel counts."""
    is_present = class_content > 0
    image_pixels = (class_content.sum(1, keepdims=True) * is_present).sum(0)
    return ClassStatistics.from_counts(
        class_content.sum(0).tolist(),
        is_present.sum(0).tolist(),
        image_pixels.tolist(),
        len(class_content),
    )


def class_pixels(label: NDArray[np.uint8]) -> dict[int, NDArray[np.int64]]:
    """Return the flat indices of the pixels of each foreground class in a label map."""
    flat = label.ravel()
    lit = np.flatnonzero(flat)
    classes = flat[lit]
    present = np.flatnonzero(np.bincount(classes, minlength=256)[:IGNORED]).tolist()
    if len(present) == 1 and not (classes == IGNORED).any():
        return {int(present[0]): lit}
    return {int(k): lit[classes == k] for k in present}


class Decoded:
    """Cache of decoded images with a budget, shared by a data set and its subsets."""

    def __init__(self, budget: int) -> None:
        self.budget, self.n_bytes = budget, 0
        self.held: dict[int, tuple[Any, ...]] = {}
        self.pixels: dict[Any, dict[int, NDArray[np.int64]]] = {}

    def keep(self, where: dict[Any, Any], i: Any, value: Any, arrays: Iterable[Any]) -> None:
        """Keep a value if its arrays fit in the budget."""
        n_bytes = sum(array.nbytes for array in arrays)
        if i not in where and self.n_bytes + n_bytes <= self.budget:
            where[i] = value
            self.n_bytes += n_bytes

    def __getstate__(self) -> dict[str, Any]:
        # a pickle stays small
        return {"budget": self.budget, "n_bytes": 0, "held": {}, "pixels": {}}


class LabelledImages:
    """Images and the class of each of their pixels, by number; made by `open_labelled`.

    Images are decoded on access, and stay in memory up to a budget of 1 GB. A `subset` shares the
    budget; a pickle drops the decoded images. Arrays are read-only: change a copy.

    Attributes:
        names: name of each image: the file name without suffix, or a number.
        numbers: number of each image in the folder or file.
        spatial_dims: 2 or 3.
        n_classes: number of classes.
        n_channels: number of channels, equal for all images; sizes may differ.
        class_names: the names given, or those in an HDF5 file, or "background", "class 1", ...
        has_class_names: whether the names were given or read.
    """

    def __init__(
        self,
        source: ImageSource,
        label_map: LabelMap | Threshold,
        numbers: Sequence[int],
        decoded: Decoded,
        class_names: Sequence[str] | None = None,
        instances: InstanceMaps | None = None,
    ) -> None:
        self._source, self._map, self._decoded = source, label_map, decoded
        self._instances = instances
        self.has_class_names = class_names is not None
        self.class_names = tuple(class_names or numbered_classes(label_map.n_classes))
        self.numbers = [int(i) for i in numbers]
        self.names = [source.names[i] for i in self.numbers]
        self.spatial_dims = source.spatial_dims
        self.n_classes = label_map.n_classes
        self.n_channels = 0  # unknown until the first image is read
        self.n_channels = len(self.image(0))

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        return (
            f"LabelledImages({len(self)} images in {self.spatial_dims}-D, {self.n_channels} "
            f"channels, {self.n_classes} classes, of {self._source.where})"
        )

    def _pair(self, i: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        if not 0 <= i < len(self):
            raise IndexError(f"Expected an image from 0 to {len(self) - 1}, got {i}.")
        number = self.numbers[i]
        if number in self._decoded.held:
            image, label = self._decoded.held[number]
            return image, label
        label = self._map.read(self._source, number)
        image = self._source.image(number, label.shape)
        if self.n_channels not in (0, len(image)):
            raise ValueError(
                f"Expected all images with the {self.n_channels} channels of {self.names[0]}, got "
                f"{len(image)} in {self.names[i]} ({self._source.where}); convert it, or move "
                "it to a folder of its own."
            )
        image.flags.writeable = label.flags.writeable = False
        self._decoded.keep(self._decoded.held, number, (image, label), (image, label))
        return image, label

    def image(self, i: int) -> NDArray[Any]:
        """Return (C, *spatial) pixels of the stored type, read-only."""
        return self._pair(i)[0]

    def label(self, i: int) -> NDArray[np.uint8]:
        """Return (*spatial) classes 0 .. n_classes - 1, and IGNORED."""
        return self._pair(i)[1]

    def pixels(self, i: int) -> dict[int, NDArray[np.int64]]:
        """Return the flat indices of the pixels of each foreground class of an image."""
        label, number = self.label(i), self.numbers[i]
        if number in self._decoded.pixels:
            return self._decoded.pixels[number]
        pixels = class_pixels(label)
        self._decoded.keep(self._decoded.pixels, number, pixels, pixels.values())
        return pixels

    @property
    def has_instances(self) -> bool:
        """Whether the images have instance maps, see `with_instances`."""
        return self._instances is not None

    def instance(self, i: int) -> NDArray[Any]:
        """Return (*spatial) the number of the instance of each pixel, 0 for none, read-only."""
        if self._instances is None:
            raise ValueError(
                'Expected images with instance maps, got none; call with_instances("components").'
            )
        number = self.numbers[i]
        if number in self._instances.held:
            return self._instances.held[number]
        instance = self._instances.make(number, self.label(i))
        instance.flags.writeable = False
        self._decoded.keep(self._instances.held, number, instance, (instance,))
        self._instances.warn_if_made_often(number)
        return instance

    def with_instances(self, instances: str | os.PathLike[str]) -> LabelledImages:
        """Return the same images with instance maps, which share the budget of decoded images.

        Args:
            instances: "components" of each foreground class, "nearest" for the nearest component
                at each pixel, or stored maps: a folder with a map of the name of each image, or
                the name of a data set of the HDF5 file.
        """
        places = dict(zip(self.numbers, self.names, strict=True))
        return self._with(self.numbers, open_instances(instances, self._source, places))

    def describe_instances(self) -> str:
        """Describe the instance maps in words, for a checkpoint; "" without maps."""
        return "" if self._instances is None else self._instances.describe(self.numbers)

    def subset(self, numbers: Sequence[int]) -> LabelledImages:
        """Return some of the images, in this order; decoded images are shared."""
        wrong = [i for i in numbers if not 0 <= i < len(self)]
        if wrong or not len(numbers):
            got = wrong[0] if wrong else "none"
            raise ValueError(f"Expected numbers of images from 0 to {len(self) - 1}, got {got}.")
        return self._with([self.numbers[i] for i in numbers], self._instances)

    def _with(self, numbers: Sequence[int], instances: InstanceMaps | None) -> LabelledImages:
        names = self.class_names if self.has_class_names else None
        return LabelledImages(self._source, self._map, numbers, self._decoded, names, instances)

    def files(self) -> list[Path]:
        """Return the image files, without masks; for HDF5 the one file."""
        return self._source.files(self.numbers)

    def read_files(self) -> list[Path]:
        """Return the files that are read: images and masks."""
        if isinstance(self._source, FolderSource):
            return [path for i in self.numbers for path in self._source.pairs[i]]
        return self.files()

    def fingerprint(self) -> str:
        """Return a digest of the files' names, sizes and bytes, independent of their folder.

        For data above 1 GB, only the first and last 512 kB of each file are read.
        """
        return self._source.digest(self.numbers)

    def tally(self, show_progress: bool = True) -> LabelTally:
        """Count classes and sizes, and compute mean and standard deviation, in one pass."""
        class_content = np.zeros((len(self), self.n_classes), np.int64)
        sizes: Counter[tuple[int, ...]] = Counter()
        moments = Moments(self.n_channels)
        bar = tqdm(range(len(self)), "read images", unit="image", disable=not show_progress)
        for i in bar:
            image, label = self._pair(i)
            class_content[i] = np.bincount(label.ravel(), minlength=256)[: self.n_classes]
            sizes[label.shape] += 1
            moments.add(image)
        if not class_content.any():
            raise _all_ignored(self._source, self._map.ignore_index)
        return LabelTally(self.n_classes, class_content, *moments.mean_and_std(), sizes)


class Moments:
    """Running mean and variance of each channel, without cancellation (Chan et al.)."""

    def __init__(self, n_channels: int) -> None:
        self.n, self.mean, self.square = 0, np.zeros(n_channels), np.zeros(n_channels)

    def add(self, image: NDArray[Any]) -> None:
        flat = image.reshape(len(image), -1)
        for start in range(0, flat.shape[1], _PIECE):
            piece = flat[:, start : start + _PIECE].astype(np.float64)
            n = piece.shape[1]
            mean = piece.mean(1)
            piece -= mean[:, None]
            shift = mean - self.mean
            total = self.n + n
            self.square += (piece**2).sum(1) + shift**2 * (self.n * n / total)
            self.mean += shift * (n / total)
            self.n = total

    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return tuple(self.mean.tolist()), tuple(np.sqrt(self.square / self.n).tolist())


def open_labelled(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str] | None = None,
    *,
    labels: Sequence[int] | None = None,
    above: float | None = None,
    ignore_index: int | None = None,
    n_classes: int | None = None,
    names: Sequence[str] | None = None,
    spatial_dims: int | None = None,
    instances: str | os.PathLike[str] | None = None,
    budget: int = BUDGET,
    show_progress: bool = True,
) -> LabelledImages:
    """Open images and masks in two folders, or in one HDF5 file.

    Folders hold PNG, JPEG, TIFF (pages are the slices of a volume), .npy or NIfTI (with nibabel:
    `pip install 'dense-imb[nifti]'`), and each image has a mask of the same name. An HDF5 file
    holds the data sets `image` and `mask`; see `HDF5Source`.

    Args:
        images: folder, or HDF5 file.
        masks: folder of the masks; None with an HDF5 file.
        labels: mask value of each class, for example [0, 255].
        above: threshold of grey masks, in place of `labels`: class 1 where the mask value is
            larger. For anti-aliased and JPEG masks, 127.
        ignore_index: mask value of the pixels that belong to no class.
        n_classes: number of classes. Without `labels`, `above`, `names` and `n_classes`, all masks
            are read to find it.
        names: name of each class; by default those in an HDF5 file.
        spatial_dims: 2 or 3; by default the dimensions of the first mask, which has no channels.
        instances: instance maps, see `LabelledImages.with_instances`; none by default.
        budget: bytes of decoded images that may stay in memory.
        show_progress: draw a bar where reading the masks takes long.

    Example:
        >>> import tempfile, pathlib, numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("images", "masks"):
        ...         (pathlib.Path(folder) / name).mkdir()
        ...     np.save(f"{folder}/images/a.npy", np.zeros((4, 5, 3), np.uint8))
        ...     np.save(f"{folder}/masks/a.npy", np.full((4, 5), 255, np.uint8))
        ...     data = open_labelled(f"{folder}/images", f"{folder}/masks", labels=[0, 255])
        ...     data.image(0).shape, data.label(0).max().item(), data.n_classes
        ((3, 4, 5), 1, 2)
    """
    if n_classes is not None and not 2 <= n_classes <= MOST_CLASSES:
        raise ValueError(f"Expected `n_classes` from 2 to {MOST_CLASSES}, got {n_classes}.")
    if above is not None and labels is not None:
        raise refusal("`above` takes the place of `labels`; drop {labels} or {above}.")
    if above is not None and n_classes not in (None, 2):
        raise refusal(
            f"`above` makes two classes, got {option('n_classes', n_classes)}; drop {{n_classes}}."
        )
    if labels is not None and n_classes not in (None, len(labels)):
        raise ValueError(
            f"Expected `labels` with a value for each of {n_classes} classes, got {list(labels)}."
        )
    n_given = len(labels) if labels is not None else n_classes if above is None else 2
    check_names(names, n_given)
    label_map: LabelMap | Threshold | None = None
    if above is not None:
        label_map = Threshold(above, ignore_index)
    elif labels is not None:
        label_map = LabelMap.of(labels, ignore_index)
    source = find_source(images, masks, spatial_dims)
    if label_map is None:
        given = n_classes or len(names or ())
        n = given or _count_classes(source, ignore_index, show_progress)
        label_map = LabelMap(range(n), ignore_index, is_given=False)
    opened = LabelledImages(
        source,
        label_map,
        range(len(source.names)),
        Decoded(budget),
        names or label_map.name_classes(source.value_names),
    )
    return opened if instances is None else opened.with_instances(instances)


def numbered_classes(n_classes: int) -> tuple[str, ...]:
    """Return names for classes without any.

    Example:
        >>> numbered_classes(3)
        ('background', 'class 1', 'class 2')
    """
    return ("background", *(f"class {k}" for k in range(1, n_classes)))


def names_of_classes(
    value_names: Sequence[str] | None, values: Sequence[int]
) -> tuple[str, ...] | None:
    """Return the names of classes from names of mask values; None if one has no name.

    Example:
        >>> names_of_classes(("empty", "noise", "arc"), values=(0, 2))
        ('empty', 'arc')
    """
    known = value_names or ()
    if not all(0 <= value < len(known) for value in values):
        return None
    return tuple(known[value] for value in values)


def check_names(names: Sequence[str] | None, n_classes: int | None = None) -> None:
    """Refuse repeated or empty names, and another number of names than of classes."""
    if names is None:
        return
    if not are_names(names) or not 2 <= len(names) <= MOST_CLASSES:
        raise ValueError(
            "Expected `names` with a short name for each of at least two classes, all different, "
            f"got {list(names)}."
        )
    if n_classes not in (None, len(names)):
        raise ValueError(
            f"Expected `names` with a name for each of {n_classes} classes, the background first, "
            f"got {list(names)}."
        )


def _count_classes(source: ImageSource, ignore_index: int | None, show_progress: bool) -> int:
    """Return the largest label + 1; refuse labels with gaps, whose meaning is unclear."""
    first_with: dict[int, int] = {}
    bar = tqdm(
        range(len(source.names)), "read masks", unit="mask", disable=not show_progress, delay=1
    )
    for i in bar:
        mask = source.mask(i)
        is_bytes = mask.dtype == np.uint8
        present = np.flatnonzero(np.bincount(mask.ravel())) if is_bytes else np.unique(mask)
        for value in present.tolist():
            first_with.setdefault(value, i)
    values = sorted(set(first_with) - {ignore_index})
    if not values:
        raise _all_ignored(source, ignore_index)
    known = {*values, ignore_index}
    is_small = 0 <= values[0] <= values[-1] <= len(values)  # at most one gap, that of ignore_index
    is_gapless = is_small and all(value in known for value in range(values[-1] + 1))
    if not is_gapless or len(values) > MOST_CLASSES:
        raise _unmapped(source.place(first_with[values[-1]]), values, ignore_index, "0, 1, 2 ..")
    return max(2, values[-1] + 1)


def _unmapped(place: str, values: Sequence[int], ignore_index: int | None, wanted: str) -> Refused:
    """Return the refusal of mask values that are no class numbers."""
    values = [value for value in values if value != ignore_index]
    if len(values) > _LISTED:
        cure = _threshold_cure(values)
    else:
        named = values if len(values) > 1 else [0, *values]
        cure = f"name the value of each class with {option('labels', ' '.join(map(str, named)))}"
        if values[0] < 0 and ignore_index is None:
            cure += f", or ignore pixels with {option('ignore_index', values[0])}"
        elif values[-1] == IGNORED and len(values) > 2 and ignore_index is None:
            cure += f", or ignore pixels with {option('ignore_index', IGNORED)}"
        elif 0 <= values[-1] < 50:
            cure += f", or the number of classes with {option('n_classes', values[-1] + 1)}"
    return Refused(f"{place} to hold labels {wanted}", list_values(values), cure)


def _threshold_cure(values: Sequence[int]) -> str:
    """Return the cure for grey values, which smooth edges and JPEG make of two classes."""
    low, high = min(values), max(values)
    above = 127 if low >= 0 and 127 < high <= 255 else (low + high) // 2
    return f"for grey masks, in which larger values mean class 1, pass {option('above', above)}"


def list_values(values: Sequence[int]) -> str:
    """Format values for an error: all of them if few, else their number and range."""
    if len(values) > _LISTED:
        return f"{len(values)} values from {min(values)} to {max(values)}"
    head = ", ".join(map(str, values[:-1]))
    return f"{head} and {values[-1]}" if head else str(values[0])


def _all_ignored(source: ImageSource, ignore_index: int | None) -> Refused:
    return Refused(
        f"labelled pixels in the masks of {source.where}",
        f"ignore_index {ignore_index} everywhere",
        "pass another {ignore_index}",
    )
