"""Class-balanced sampling of training images.

sampling = ClassSampling.of([0, 0, 0, 1], "class")  # a label for each image
sampling.probabilities()                            # (n_images,) 1/6, 1/6, 1/6, 1/2
sampling.order(seed=0, epoch=3)                     # a pure function of its arguments
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Sampler

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.base.random import Draws, epoch_order
from dense_imb.data.images.labelled import LabelTally
from dense_imb.statistics import ClassStatistics

SAMPLINGS = ("instance", "class", "sqrt", "power", "progressive", "mean", "reverse")
ORDER = 96  # purpose of random numbers; simulate and degrade leave 96 .. 127 free
_EXPONENT = {"instance": 0.0, "sqrt": 0.5, "class": 1.0, "mean": 1.0, "reverse": 2.0}
_WORD = 0xFFFFFFFF


def sampling_weights(
    images_of_class: ClassStatistics | Sequence[float],
    kind: str = "class",
    *,
    power: float = 0.125,
    progress: float = 0.0,
) -> tuple[float, ...]:
    """Return the relative probability of an image of each class.

        w_k = sum_j f_j^q / f_k^q,   f_k = n_k / sum_j n_j

    Class k then fills a share n_k w_k ~ n_k^(1 - q) of an epoch.

        kind          q        share of class k   source
        instance      0        n_k                plain random sampling
        sqrt          1/2      n_k^(1/2)          Mahajan et al. 2018
        power         power    n_k^(1 - power)    Galdran et al. 2021, whose "cbrt" is 0.125
        class, mean   1        1                  Kang et al. 2020; "mean" in He et al. 2021
        reverse       2        1 / n_k            Zhou et al. 2020; He et al. 2021
        progressive   (1 - a) instance + a class, a = progress       Kang et al. 2020

    Args:
        images_of_class: n_k, or class statistics, whose `image_presence` is used.
        kind: one of SAMPLINGS.
        power: q of "power".
        progress: a of "progressive", 0 in the first epoch and 1 in the last.

    Example:
        >>> [round(w, 3) for w in sampling_weights((500, 120, 30, 7), "class")]
        [1.314, 5.475, 21.9, 93.857]
        >>> sampling_weights((500, 120, 30, 7), "instance")
        (4.0, 4.0, 4.0, 4.0)
    """
    check_choice("sampling", kind, SAMPLINGS)
    counts = images_of_class
    if isinstance(counts, ClassStatistics):
        counts = counts.image_presence
    n = np.asarray(counts, np.float64)
    if n.ndim != 1 or not len(n) or not np.isfinite(n).all() or (n < 0).any():
        raise ValueError(f"Expected `images_of_class` with a count for each class, got {counts}.")
    if kind == "progressive":
        if not 0 <= progress <= 1:
            raise ValueError(f"Expected `progress` between 0 and 1, got {progress}.")
        first, last = (np.array(sampling_weights(counts, one)) for one in ("instance", "class"))
        return tuple(((1 - progress) * first + progress * last).tolist())
    exponent = _power(power) if kind == "power" else _EXPONENT[kind]
    if exponent == 0:
        return (float(len(n)),) * len(n)
    _check_each_class(n, kind)
    relative = (n / n.sum()) ** exponent
    return tuple((relative.sum() / relative).tolist())


def _power(power: float) -> float:
    if not (math.isfinite(power) and power >= 0):
        raise ValueError(f"Expected `power` of at least 0, got {power}.")
    return float(power)


def _check_each_class(counts: NDArray[Any], kind: str) -> None:
    absent = np.flatnonzero(counts == 0).tolist()
    if absent:
        names = ", ".join(map(str, absent[:5])) + (
            f" and {len(absent) - 5} more" * (len(absent) > 5)
        )
        raise ValueError(
            f'Expected an image of each class for the sampling "{kind}", got none of class '
            f'{names}; add some, drop the class from the labels, or sample by "instance".'
        )


def draw_uniform(seed: int, epoch: int, sample: ArrayLike, purpose: int) -> NDArray[np.float64]:
    """Return (n,) numbers inside (0, 1), a pure function of sample and other arguments."""
    words = Draws(seed, epoch, np.asarray(sample, np.int64) & _WORD).words(purpose, 1)
    high, low = words[0].astype(np.int64) >> 5, words[1].astype(np.int64) >> 6
    return np.asarray(((high << 26 | low) + 0.5) * 2.0**-53)


@dataclass(frozen=True)
class ClassSampling:
    """Sampling of images by their classes; made by `ClassSampling.of`.

    If each image has one class, `sampling_weights` gives its probability. If images hold several
    classes (masks), first a class is drawn with its share p_k ~ n_k^(1 - q), n_k being the number
    of images that hold it. Then one of these images is drawn uniformly:

        P(image) = sum_{k in image} p_k / n_k

    "instance" draws every image once instead, and "progressive" mixes it with "class". An image
    without a class, all of it ignored, is drawn by "instance" only.

    Args:
        is_present: (n_images, n_classes) whether an image holds a class.
        kind: one of SAMPLINGS.
        power: q of "power".
        n_epochs: number of epochs after which "progressive" equals "class".
    """

    is_present: NDArray[np.bool_]
    kind: str = "instance"
    power: float = 0.125
    n_epochs: int = 1

    def __post_init__(self) -> None:
        check_choice("sampling", self.kind, SAMPLINGS)
        _power(self.power)
        check_at_least("epochs", self.n_epochs, 1)
        if self.kind != "instance":
            _check_each_class(self.images_of_class, self.kind)

    @classmethod
    def of(
        cls,
        content: LabelTally | ArrayLike,
        kind: str = "class",
        *,
        power: float = 0.125,
        n_epochs: int = 1,
        n_classes: int | None = None,
    ) -> ClassSampling:
        """Make a sampling from labels or pixel counts.

        Args:
            content: (n_images,) labels, or (n_images, n_classes) pixels of each class in each
                image, or a `LabelTally` with these.
            kind: one of SAMPLINGS.
            power: q of "power".
            n_epochs: number of epochs after which "progressive" equals "class".
            n_classes: number of classes of labels; by default the largest label + 1.

        Example:
            >>> masks = [[90, 10, 0], [100, 0, 0], [80, 15, 5]]  # pixels
            >>> ClassSampling.of(masks, "class").probabilities().round(3).tolist()
            [0.278, 0.111, 0.611]
        """
        counts = np.asarray(content.class_content if isinstance(content, LabelTally) else content)
        if counts.ndim not in (1, 2) or not counts.size:
            raise ValueError(
                "Expected a label for each image, or the pixels of each class in each image, got "
                f"an array in the shape {counts.shape}."
            )
        _check_whole(counts, "labels" if counts.ndim == 1 else "pixels of each class")
        if counts.ndim == 2:
            return cls(counts > 0, kind, power, n_epochs)
        n_classes = int(counts.max()) + 1 if n_classes is None else n_classes
        if counts.max() >= n_classes:
            raise ValueError(f"Expected labels from 0 to {n_classes - 1}, got {int(counts.max())}.")
        is_present = counts[:, None] == np.arange(n_classes)
        return cls(is_present, kind, power, n_epochs)

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.is_present)

    @property
    def images_of_class(self) -> NDArray[np.int64]:
        """(n_classes,) images that hold each class."""
        return np.asarray(self.is_present.sum(0), np.int64)

    @property
    def is_uniform(self) -> bool:
        """Whether all images hold the same classes, so that no sampling by class favours any."""
        return bool((self.is_present == self.is_present[:1]).all())

    def probabilities(self, epoch: int = 0) -> NDArray[np.float64]:
        """Return (n_images,) the probability of each image in each draw of an epoch."""
        uniform = np.full(self.n_images, 1 / self.n_images)
        if self.kind == "instance":
            return uniform
        n = self.images_of_class.astype(np.float64)
        kind = "class" if self.kind == "progressive" else self.kind
        share = n * sampling_weights(n.tolist(), kind, power=self.power)
        probability = self.is_present @ (share / share.sum() / n)
        if self.kind == "progressive":
            done = min(epoch / max(self.n_epochs - 1, 1), 1.0)
            probability = (1 - done) * uniform + done * probability
        return np.asarray(probability / probability.sum())

    def images_at(self, number: NDArray[np.float64], epoch: int) -> NDArray[np.int64]:
        """Return the images that uniform numbers inside (0, 1) draw."""
        border = np.cumsum(self.probabilities(epoch))
        # the sum of the shares may miss 1 by a rounding, and the last images may be impossible
        drawn = np.searchsorted(border, number * border[-1], side="right")
        return np.asarray(np.minimum(drawn, np.searchsorted(border, border[-1])))

    def order(self, seed: int, epoch: int, n_samples: int | None = None) -> NDArray[np.int64]:
        """Return (n_samples,) the samples of an epoch; sample s is image s % n_images.

        "instance" permutes all samples 0 .. n_samples - 1. The other kinds draw an image for each
        position. A repeated image is another sample, s + n_images and so on, so that its crop and
        its noise differ.

        Args:
            seed: random seed.
            epoch: pass over the data.
            n_samples: samples in the epoch; by default the number of images.
        """
        n = self.n_images if n_samples is None else n_samples
        if self.kind == "instance":
            return epoch_order(n, seed, epoch)
        image = self.images_at(draw_uniform(seed, epoch, np.arange(n), ORDER), epoch)
        return np.asarray(image + self.n_images * _times_before(image))

    def describe(self) -> str:
        """Describe the kind in words, for a checkpoint."""
        options = {"power": f" {self.power:g}", "progressive": f" over {self.n_epochs} epochs"}
        return f"{self.kind}{options.get(self.kind, '')}"

    def fingerprint(self) -> str:
        """Return a text that is equal for samplings with equal draws."""
        digest = zlib.crc32(np.packbits(self.is_present).tobytes())
        return f"{self.describe()}, {self.is_present.shape} {digest:08x}"


def _check_whole(values: NDArray[Any], what: str) -> None:
    if values.dtype.kind not in "iufb":
        raise TypeError(f"Expected whole numbers as {what}, got {values.dtype}.")
    is_wrong = (values < 0) if values.dtype.kind in "iub" else ~((values >= 0) & (values % 1 == 0))
    if is_wrong.any():
        raise ValueError(f"Expected {what} as whole numbers from 0, got {values[is_wrong][0]}.")


def _times_before(image: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n,) how often the image of each position occurred at earlier positions."""
    sorted_places = np.argsort(image, kind="stable")
    is_first = np.diff(image[sorted_places], prepend=-1) != 0
    starts = np.flatnonzero(is_first)
    times = np.empty(len(image), np.int64)
    times[sorted_places] = np.arange(len(image)) - np.repeat(
        starts, np.diff(starts, append=len(image))
    )
    return times


class ClassSampler(Sampler[int]):
    """Sampler of the images of a `ClassSampling`, for a `torch.utils.data.DataLoader`.

    Each process takes every world_size-th entry of one order: no overlap, no padding; a remainder
    smaller than world_size is dropped. Each pass is another epoch. Call `set_epoch` when a run is
    resumed or a loader is made anew. A loader that shards by itself (Accelerate's) needs
    `world_size=1`.

    Args:
        sampling: the probabilities.
        seed: random seed.
        n_samples: samples in an epoch, over all processes; by default the number of images.
        rank: rank of this process; by default that of torch.distributed.
        world_size: number of processes; by default that of torch.distributed.

    Example:
        >>> sampling = ClassSampling.of([0] * 90 + [1] * 10, "class")
        >>> sampler = ClassSampler(sampling, seed=1)
        >>> sum(image >= 90 for image in sampler), len(sampler)
        (48, 100)
    """

    def __init__(
        self,
        sampling: ClassSampling,
        *,
        seed: int = 0,
        n_samples: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        is_shared = dist.is_available() and dist.is_initialized()
        own = (dist.get_rank(), dist.get_world_size()) if is_shared else (0, 1)
        self.rank = own[0] if rank is None else rank
        self.world_size = own[1] if world_size is None else world_size
        if not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"Expected `rank` from 0 to {self.world_size - 1}, one of {self.world_size} "
                f"processes, got {self.rank}."
            )
        self.sampling, self.seed = sampling, seed
        self.n_samples = sampling.n_images if n_samples is None else n_samples
        check_at_least("n_samples", self.n_samples, self.world_size)
        self.epoch, self._is_spent = 0, False
        # positions of the epoch over all processes; images that this process has yielded
        self._first = self._done = 0

    def __len__(self) -> int:
        return (self.n_samples - self._first) // self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; continue it if `load_state_dict` has restored it."""
        check_at_least("epoch", epoch, 0)
        self._is_spent = False
        if epoch != self.epoch:
            self.epoch, self._first, self._done = epoch, 0, 0

    def __iter__(self) -> Iterator[int]:
        if self._is_spent:  # `set_epoch` was not called
            self.epoch, self._is_spent = self.epoch + 1, False
        order = self.sampling.order(self.seed, self.epoch, self.n_samples) % self.sampling.n_images
        part = order[self._first :][self.rank :: self.world_size][: len(self)]
        self._done = 0
        for image in part.tolist():
            self._done += 1
            yield image
        self._first = self._done = 0
        self._is_spent = True

    def state_dict(self, n_seen: int | None = None) -> dict[str, Any]:
        """Return the position in the epoch; it is the same in all processes.

        Args:
            n_seen: images that this process has trained on since the epoch began or was resumed.
                By default the images yielded, of which a loader with workers takes some ahead.
        """
        done = self._done if n_seen is None else n_seen
        place = self._first + done * self.world_size
        return {"epoch": self.epoch, "place": place, "setup": self._setup()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state, with the current number of processes."""
        if state["setup"] != self._setup():
            raise ValueError(
                f"Expected the state of a sampler of {self._setup()}, got one of {state['setup']}."
            )
        self.epoch, self._first, self._done = int(state["epoch"]), int(state["place"]), 0
        self._is_spent = False

    def _setup(self) -> str:
        return f"{self.sampling.fingerprint()}, {self.n_samples} samples, seed {self.seed}"
