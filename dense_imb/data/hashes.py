"""Hashes of samples by content, to find those that a run was trained on.

hashes = hash_samples(images)  # or hits files, or their events
hash_samples(others).overlap(hashes)  # identical and nearly identical ones
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.progress import tqdm
from dense_imb.data.events.virtual import VirtualEvents
from dense_imb.hits import Events, HitsFile, HitsFiles

NEAR = 1 / 7  # of the bits that are set, in which two hashes may differ; see docs/leaks.md
MOST = 1 << 22  # samples whose hashes are kept, 32 MB for events
_SIDE = 16  # of the small images that are compared
WORDS = 2 * _SIDE**2 // 64  # of a perceptual hash
_FEWEST_BITS = 64  # of an image with enough structure to be recognised
_FEWEST_HITS = 4  # of an event that is compared: smaller ones are alike by chance
_CHANCE = 0.02  # fraction of events that may agree with others by chance, beside one
_AT_ONCE = 4096  # events
_BLOCK = 1 << 22  # pairs of images compared at a time
_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


@dataclass(frozen=True)
class Overlap:
    """Samples that are among others.

    Args:
        n: number of samples looked at.
        identical: samples with an identical one among the others.
        near: further samples with a nearly identical one: re-encoded or resized copies, or
            neighbouring frames of a video.
        is_of_events: the samples are events.
    """

    n: int
    identical: int
    near: int
    is_of_events: bool = False

    @property
    def is_chance(self) -> bool:
        """Whether so few samples agree that chance explains them, as short events do."""
        return self.total == 0 or (self.is_of_events and self.total <= 1 + _CHANCE * self.n)

    @property
    def total(self) -> int:
        """Number of samples that are among the others."""
        return self.identical + self.near

    def describe(self) -> str:
        """Format the counts, for example "7 identical, 2 nearly identical"."""
        parts = ((self.identical, "identical"), (self.near, "nearly identical"))
        return ", ".join(f"{count:,} {name}" for count, name in parts if count)


def _no_hashes() -> NDArray[np.uint64]:
    return np.zeros((0, WORDS), np.uint64)


@dataclass(frozen=True)
class SampleHashes:
    """Hashes of samples.

    Args:
        n: number of samples.
        exact: (m,) hash of the content of each sample that can be compared.
        near: (m, 8) perceptual hash of each image, 0 where it has too little structure; (0, 8)
            for events.
    """

    n: int
    exact: NDArray[np.uint64]
    near: NDArray[np.uint64] = field(default_factory=_no_hashes)

    def overlap(self, others: SampleHashes) -> Overlap:
        """Count the samples that are among others."""
        is_same = np.isin(self.exact, others.exact)
        n_near = 0
        if len(self.near) and len(others.near):
            asked = self.near[~is_same & self.near.any(1)]
            n_near = _count_near(asked, others.near[others.near.any(1)])
        return Overlap(self.n, int(is_same.sum()), n_near, not len(self.near))

    def sorted(self) -> SampleHashes:
        """Return the same hashes in the order of `exact`, at most `MOST` of them."""
        order = np.argsort(self.exact, kind="stable")[:MOST]
        return SampleHashes(
            self.n, self.exact[order], self.near[order] if len(self.near) else self.near
        )

    def joined(self, other: SampleHashes) -> SampleHashes:
        """Return the hashes of both."""
        pairs = ((self.exact, other.exact), (self.near, other.near))
        return SampleHashes(self.n + other.n, *(np.concatenate(pair) for pair in pairs))


def hash_samples(
    samples: Any, most: int | None = None, *, show_progress: bool = False
) -> SampleHashes:
    """Hash samples by their content, without labels.

    Args:
        samples: events (`VirtualEvents`, `HitsFile`, `HitsFiles`), or images by number.
        most: number of samples to look at, from the first; all by default.
        show_progress: draw a bar where it takes long.

    Example:
        >>> from dense_imb.data.labels.classified import ArrayImages, WholeImages
        >>> pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32)).astype(np.uint8)
        >>> images = WholeImages(ArrayImages(pixels), range(4))
        >>> hash_samples(WholeImages(images.source, [1, 1, 3])).overlap(hash_samples(images))
        Overlap(n=3, identical=3, near=0, is_of_events=False)
    """
    n = len(samples) if most is None else min(len(samples), most)
    bar = tqdm(total=n, desc="compare", unit="sample", disable=not show_progress, delay=2)
    with bar:
        if isinstance(samples, VirtualEvents | HitsFile | HitsFiles):
            parts = [np.zeros(0, np.uint64)]
            for start in range(0, n, _AT_ONCE):
                numbers = np.arange(start, min(start + _AT_ONCE, n))
                if isinstance(samples, VirtualEvents):
                    events = samples.clean(numbers)
                else:
                    events = samples[numbers]
                parts.append(hash_events(events))
                bar.update(len(numbers))
            return SampleHashes(n, np.concatenate(parts))
        exact, near = np.zeros(n, np.uint64), np.zeros((n, WORDS), np.uint64)
        for i in range(n):
            image = samples.image(i)
            exact[i], near[i] = hash_pixels(image), perceptual_hash(image)
            bar.update()
    return SampleHashes(n, exact, near)


def hash_events(events: Events) -> NDArray[np.uint64]:
    """Return a hash of the hits of each event, whatever their order and types.

    Labels and further columns are left out, and events of fewer than 4 hits.

    Args:
        events: events of arrays.
    """
    events = events.numpy()
    offset = np.asarray(events.offset, np.int64)
    hit = np.zeros(events.n_hits, np.uint64)
    with np.errstate(over="ignore"):
        for name in (*events.geometry.columns, "t"):
            column = np.ascontiguousarray(getattr(events, name), np.float64) + 0.0  # no -0
            hit = _mixed(hit * np.uint64(31) + column.view(np.uint64))
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hit, dtype=np.uint64)])
        n_hits = np.diff(offset)
        one = _mixed(total[offset[1:]] - total[offset[:-1]] + n_hits.astype(np.uint64))
    return one[n_hits >= _FEWEST_HITS]


def _mixed(number: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread each bit over all bits (splitmix64)."""
    number = number + np.uint64(0x9E3779B97F4A7C15)
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))


def hash_pixels(image: NDArray[Any]) -> np.uint64:
    """Return a hash of the shape, the type and all pixels of an image."""
    pixels = np.ascontiguousarray(image)
    head = f"{pixels.dtype.str} {pixels.shape}".encode()
    digest = hashlib.blake2b(head, digest_size=8)
    digest.update(pixels.reshape(-1).view(np.uint8).data)
    return np.uint64(int.from_bytes(digest.digest(), "little"))


def perceptual_hash(image: NDArray[Any]) -> NDArray[np.uint64]:
    """Return 512 bits that stay nearly the same when an image is re-encoded or resized.

    A bit says whether a pixel of the image, shrunk to 16 x 17 and 17 x 16, is brighter than
    its neighbour. The bits are 0 if fewer than 64 are set, as in images with little structure.

    Args:
        image: (C, H, W), or (C, D, H, W), whose mean over the depth is taken.
    """
    from PIL import Image

    grey = image.mean(tuple(range(image.ndim - 2)), dtype=np.float32)
    picture = Image.fromarray(grey)
    wide, high = (
        np.asarray(picture.resize(size, Image.Resampling.BOX))
        for size in ((_SIDE + 1, _SIDE), (_SIDE, _SIDE + 1))
    )
    bits = np.concatenate(
        [(np.diff(wide, axis=1) > 0).ravel(), (np.diff(high, axis=0) > 0).ravel()]
    )
    if bits.sum() < _FEWEST_BITS:
        bits[:] = False
    return np.packbits(bits).view(np.uint64)


def _count_near(asked: NDArray[np.uint64], others: NDArray[np.uint64]) -> int:
    """Count the hashes (n, 8) that are close to one of others (m, 8)."""
    if not len(others):
        return 0
    step, n_near = max(_BLOCK // len(others), 1), 0
    for start in range(0, len(asked), step):
        some = asked[start : start + step]
        n_near += int((_distance(some, others).min(1) <= NEAR * _ones(some).sum(-1)).sum())
    return n_near


def _distance(some: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Return the number of bits in which each of some hashes differs from each of others."""
    distance = np.zeros((len(some), len(others)), np.uint16)
    for k in range(WORDS):
        distance += _ones(some[:, k, None] ^ others[None, :, k])
    return distance


def _ones(number: NDArray[np.uint64]) -> NDArray[Any]:
    """Return the number of bits that are set in each word."""
    count = getattr(np, "bitwise_count", None)  # of numpy 2
    if count is not None:
        bits: NDArray[np.uint8] = count(number)
        return bits
    bytes_: NDArray[np.uint8] = _ONES[np.ascontiguousarray(number)[..., None].view(np.uint8)]
    return np.asarray(bytes_.sum(-1, dtype=np.uint8))
