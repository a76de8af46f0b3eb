"""Whole images with one label each: random access, stratified splits, random shifts and flips.

data = open_table("train.csv", "images", size=(224, 224))  # or open_cifar("cifar-10-python.tar.gz")
train, validation = (data.subset(part) for part in split_by_class(data.labels, 0.2))
image, label = train.image(0), train.labels[0]  # (3, H, W) uint8
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dense_imb.base.random import Draws, between
from dense_imb.data.images.labelled import Moments

_BUDGET = 1 << 30
_N_FOR_MOMENTS = 1024  # images read for mean and standard deviation
_VIEW = 0xC1A55  # purpose of the random numbers of a view
_SPLIT = 0xC1A56
FLIPS = ("none", "horizontal", "both")


class WholeImageSource(Protocol):
    """Stored images of one size, by number."""

    size: tuple[int, int]  # height and width
    where: str  # for messages

    def image(self, number: int) -> NDArray[np.uint8]:
        """Return (3, height, width) red, green and blue."""

    def name(self, number: int) -> str:
        """Name an image for an error."""

    def digest(self, numbers: Iterable[int]) -> str:
        """Return a digest of the content of some images, independent of their folder."""


class ArrayImages:
    """Images in memory.

    Args:
        images: (N, 3, height, width) uint8.
        where: name of the data, for messages.
    """

    def __init__(self, images: NDArray[np.uint8], where: str = "memory") -> None:
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[1] != 3:
            raise ValueError(
                f"Expected `images` (N, 3, height, width) of uint8, got {images.shape} of "
                f"{images.dtype}."
            )
        self.images, self.where = images, where
        self.size = (images.shape[2], images.shape[3])

    def image(self, number: int) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = self.images[number]
        return image

    def name(self, number: int) -> str:
        return f"image {number} of {self.where}"

    def digest(self, numbers: Iterable[int]) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for number in numbers:
            digest.update(self.images[number].tobytes())
        return digest.hexdigest()


class WholeImages:
    """Whole images of one size by number, without labels.

    Images from files stay in memory up to a budget of 1 GB, which a `subset` shares.

    Args:
        source: the stored images.
        numbers: numbers of the images in the source.
        held: images in memory, by number; for `subset`.
    """

    def __init__(
        self,
        source: WholeImageSource,
        numbers: Sequence[int],
        *,
        held: dict[int, NDArray[np.uint8]] | None = None,
    ) -> None:
        self.source, self.numbers = source, list(numbers)
        self._held: dict[int, NDArray[np.uint8]] = {} if held is None else held
        self._most = _BUDGET // (3 * source.size[0] * source.size[1])
        if isinstance(source, ArrayImages):
            self._most = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        height, width = self.size
        return f"WholeImages({len(self)} images of {height} x {width}, of {self.source.where})"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.source.size

    def image(self, i: int) -> NDArray[np.uint8]:
        """Return (3, height, width); do not write to it."""
        number = self.numbers[i]
        if number in self._held:
            return self._held[number]
        image = self.source.image(number)
        if len(self._held) < self._most:
            self._held[number] = image
        return image

    def images(self, places: Iterable[int]) -> NDArray[np.uint8]:
        """Return some images, (n, 3, height, width)."""
        return np.stack([self.image(int(i)) for i in places])

    def digest(self) -> str:
        """Return a digest of the images, without labels."""
        return self.source.digest(self.numbers)


class ClassifiedImages(WholeImages):
    """Whole images of one size with a label each, see `WholeImages`.

    Args:
        source: the stored images.
        labels: (N,) classes 0 .. n_classes - 1.
        class_names: name of each class.
        numbers: numbers of the images in the source; all by default.
        held: images in memory, by number; for `subset`.
    """

    def __init__(
        self,
        source: WholeImageSource,
        labels: ArrayLike,
        class_names: Sequence[str],
        numbers: Sequence[int] | None = None,
        *,
        held: dict[int, NDArray[np.uint8]] | None = None,
    ) -> None:
        self.class_names = tuple(class_names)
        self.labels: NDArray[np.int64] = np.asarray(labels, np.int64)
        super().__init__(source, range(len(self.labels)) if numbers is None else numbers, held=held)
        if self.labels.shape != (len(self.numbers),) or not len(self.labels):
            raise ValueError(
                f"Expected a label for each of {len(self.numbers)} images, and one image at "
                f"least, got labels {self.labels.shape}."
            )
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise ValueError(
                f"Expected labels from 0 to {len(self.class_names) - 1}, got "
                f"{self.labels.min()} to {self.labels.max()}."
            )

    def __repr__(self) -> str:
        return (
            f"ClassifiedImages({len(self)} images of {self.size[0]} x {self.size[1]}, "
            f"{self.n_classes} classes, of {self.source.where})"
        )

    @property
    def n_classes(self) -> int:
        """Number of classes, including those without an image."""
        return len(self.class_names)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Images of each class."""
        return tuple(np.bincount(self.labels, minlength=self.n_classes).tolist())

    def subset(self, places: Sequence[int]) -> ClassifiedImages:
        """Return some of the images, in this order."""
        chosen = [self.numbers[int(i)] for i in places]
        labels = self.labels[np.asarray(places, np.int64)]
        return ClassifiedImages(self.source, labels, self.class_names, chosen, held=self._held)

    def fingerprint(self) -> str:
        """Return a digest of the images and their labels."""
        digest = hashlib.blake2b(self.labels.tobytes(), digest_size=16)
        digest.update(self.digest().encode())
        return digest.hexdigest()

    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of each channel, from up to 1024 images."""
        moments = Moments(3)
        n_read = min(len(self), _N_FOR_MOMENTS)
        for i in (np.arange(n_read) * len(self) // n_read).tolist():
            moments.add(self.image(i))
        return moments.mean_and_std()

    def check_every_class(self, what: str) -> None:
        """Refuse training data without an image of some class."""
        empty = [k for k, count in enumerate(self.class_counts) if count == 0]
        if empty:
            names = ", ".join(f"{k} ({self.class_names[k]})" for k in empty[:3])
            more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
            raise ValueError(
                f"Expected {what} images of every class in {self.source.where}, got none of "
                f"class {names}{more}; drop the class, or add images."
            )


def split_by_class(
    labels: ArrayLike, share: float, seed: int = 0, groups: Sequence[Any] | None = None
) -> tuple[list[int], list[int]]:
    """Split images into those to train on and those held out, with a share of each class.

    A class with at least two images (or groups) has at least one on either side; a single image is
    trained on. A group, for example the images of one patient, stays together. It counts for its
    rarest class.

    Args:
        labels: (N,) classes.
        share: fraction of the images of each class to hold out.
        seed: random seed of the split; nothing else enters it.
        groups: (N,) images with equal values stay together.

    Returns:
        The numbers of the training images, and of the held-out images.

    Example:
        >>> kept, held_out = split_by_class([0] * 8 + [1] * 2 + [2], 0.25)
        >>> np.bincount(np.array([0] * 8 + [1] * 2 + [2])[held_out], minlength=3).tolist()
        [2, 1, 0]
    """
    label = np.asarray(labels, np.int64)
    if not 0 < share < 1:
        raise ValueError(f"Expected `share` between 0 and 1, got {share}.")
    if groups is not None and len(groups) != len(label):
        raise ValueError(
            f"Expected `groups` with a value for each of {len(label)} images, got {len(groups)}."
        )
    if groups is None:
        member = np.arange(len(label))
    else:
        _, member = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    counts = np.bincount(label)
    by_rarity = np.argsort(np.argsort(counts[label], kind="stable"), kind="stable")
    stratum = np.full(member.max() + 1 if len(member) else 0, -1, np.int64)
    rarest_first = np.argsort(by_rarity, kind="stable")
    stratum[member[rarest_first[::-1]]] = label[rarest_first[::-1]]  # the rarest is written last
    key = Draws(seed, 0, np.arange(len(stratum))).uniform(_SPLIT, 1)[0]
    is_held = np.zeros(len(stratum), bool)
    for k in np.unique(stratum):
        members = np.flatnonzero(stratum == k)
        n_held = min(max(round(share * len(members)), 1), len(members) - 1)
        is_held[members[np.argsort(key[members], kind="stable")[:n_held]]] = True
    held = is_held[member]
    if not held.any():
        raise ValueError(
            f"Expected a class with two images or more to hold one out, got {len(label)} images "
            f"of {len(np.unique(label))} classes"
            + (f" in {len(stratum)} groups." if groups is not None else ".")
        )
    return np.flatnonzero(~held).tolist(), np.flatnonzero(held).tolist()


def vary(
    images: NDArray[np.uint8],
    samples: ArrayLike,
    *,
    seed: int,
    epoch: int,
    padding: int = 0,
    flips: str = "horizontal",
) -> NDArray[np.uint8]:
    """Shift and mirror each image at random.

    A shift is a crop of the same size from an image padded with zeros. The result is a pure
    function of (seed, epoch, sample).

    Args:
        images: (B, 3, height, width).
        samples: (B,) numbers of the samples.
        seed: random seed.
        epoch: pass over the data.
        padding: largest shift; all shifts are equally likely.
        flips: "none", "horizontal" or "both" axes, each with probability 1/2.

    Example:
        >>> image = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)
        >>> bool((vary(image, [5], seed=0, epoch=0, flips="none") == image).all())
        True
    """
    number = Draws(seed, epoch, np.asarray(samples)).uniform(_VIEW, 1)  # (4, B)
    shift = between(number[:2], -padding, padding).T.tolist()
    mirrored = number[2:] < 0.5
    mirrored[0] &= flips == "both"
    mirrored[1] &= flips != "none"
    height, width = images.shape[2:]
    varied = np.zeros_like(images)
    for i, (down, right) in enumerate(shift):
        rows, from_rows = _overlap(down, height)
        columns, from_columns = _overlap(right, width)
        varied[i][:, rows, columns] = images[i][:, from_rows, from_columns]
        axes = tuple(1 + axis for axis in range(2) if mirrored[axis, i])
        if axes:
            varied[i] = np.flip(varied[i], axes).copy()
    return varied


def _overlap(shift: int, length: int) -> tuple[slice, slice]:
    """Return the target and the source range of a shift along one axis."""
    low, high = max(shift, 0), length + min(shift, 0)
    return slice(low, max(high, low)), slice(low - shift, max(high, low) - shift)
