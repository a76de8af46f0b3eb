"""Which images an epoch shows, and how often: the rare classes in favour, or not.

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
ORDER = 96  # a purpose of random numbers; those of simulate and degrade leave 96 .. 127 free
_EXPONENT = {"instance": 0.0, "sqrt": 0.5, "class": 1.0, "mean": 1.0, "reverse": 2.0}
_WORD = 0xFFFFFFFF


def sampling_weights(
    images_of_class: ClassStatistics | Sequence[float],
    kind: str = "class",
    *,
    power: float = 0.125,
    progress: float = 0.0,
) -> tuple[float, ...]:
    """How likely an image of each class is, relative to the others.

        w_k = sum_j f_j^q / f_k^q,   f_k = n_k / sum_j n_j

    A class then fills a share n_k w_k ~ n_k^(1 - q) of an epoch.

        kind          q        share of class k   source
        instance      0        n_k                plain random sampling
        sqrt          1/2      n_k^(1/2)          Mahajan et al. 2018
        power         power    n_k^(1 - power)    Galdran et al. 2021, whose "cbrt" is 0.125
        class, mean   1        1                  Kang et al. 2020; "mean" in He et al. 2021
        reverse       2        1 / n_k            Zhou et al. 2020; He et al. 2021
        progressive   (1 - a) instance + a class, a = progress       Kang et al. 2020

    Args:
        images_of_class: n_k, or the statistics that counted them (`image_presence`).
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
        told = ", ".join(map(str, absent[:5])) + (
            f" and {len(absent) - 5} more" * (len(absent) > 5)
        )
        raise ValueError(
            f'Expected an image of each class for the sampling "{kind}", got none of class {told}; '
            'add some, leave the class out of the labels, or sample by "instance".'
        )


def uniform_of(seed: int, epoch: int, sample: ArrayLike, purpose: int) -> NDArray[np.float64]:
    """(n,) numbers inside (0, 1), each a pure function of its sample and the other arguments."""
    words = Draws(seed, epoch, np.asarray(sample, np.int64) & _WORD).words(purpose, 1)
    high, low = words[0].astype(np.int64) >> 5, words[1].astype(np.int64) >> 6
    return np.asarray(((high << 26 | low) + 0.5) * 2.0**-53)


@dataclass(frozen=True)
class ClassSampling:
    """Samples of images by what they hold; made by `ClassSampling.of`.

    With one class an image, an image of class k is as likely as `sampling_weights` says. Where
    images hold several classes (masks), a class is drawn with its share p_k ~ n_k^(1 - q), n_k
    being the images that hold it, then one of these images, all being as likely:

        P(image) = sum_{k in image} p_k / n_k

    "instance" shows every image once instead, and "progressive" mixes it with "class". An image
    that holds no class, all of it ignored, is shown by "instance" only.

    Args:
        is_present: (n_images, n_classes) whether an image holds a class.
        kind: one of SAMPLINGS.
        power: q of "power".
        n_epochs: after which "progressive" has arrived at "class".
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
        """Sampling by what was counted.

        Args:
            content: (n_images,) label of each, or (n_images, n_classes) pixels of each class in
                each image, or the `LabelTally` that counted them.
            kind, power, n_epochs: see `ClassSampling`.
            n_classes: of labels; the largest and one more by default.
        Example:
            >>> masks = [[90, 10, 0], [100, 0, 0], [80, 15, 5]]  # pixels
            >>> ClassSampling.of(masks, "class").probabilities().round(3).tolist()
            [0.278, 0.111, 0.611]
        """
        found = np.asarray(content.class_content if isinstance(content, LabelTally) else content)
        if found.ndim not in (1, 2) or not found.size:
            raise ValueError(
                "Expected a label for each image, or the pixels of each class in each image, got "
                f"an array in the shape {found.shape}."
            )
        _check_whole(found, "labels" if found.ndim == 1 else "pixels of each class")
        if found.ndim == 2:
            return cls(found > 0, kind, power, n_epochs)
        n_classes = int(found.max()) + 1 if n_classes is None else n_classes
        if found.max() >= n_classes:
            raise ValueError(f"Expected labels from 0 to {n_classes - 1}, got {int(found.max())}.")
        is_present = found[:, None] == np.arange(n_classes)
        return cls(is_present, kind, power, n_epochs)

    @property
    def n_images(self) -> int:
        """How many there are."""
        return len(self.is_present)

    @property
    def images_of_class(self) -> NDArray[np.int64]:
        """(n_classes,) images that hold each class."""
        return np.asarray(self.is_present.sum(0), np.int64)

    @property
    def is_alike(self) -> bool:
        """Whether all images hold the same classes, and no draw by class favours any."""
        return bool((self.is_present == self.is_present[:1]).all())

    def probabilities(self, epoch: int = 0) -> NDArray[np.float64]:
        """(n_images,) how likely each image is in each draw of an epoch; their sum is 1."""
        uniform = np.full(self.n_images, 1 / self.n_images)
        if self.kind == "instance":
            return uniform
        n = self.images_of_class.astype(np.float64)
        kind = "class" if self.kind == "progressive" else self.kind
        share = n * sampling_weights(n.tolist(), kind, power=self.power)
        of_image = self.is_present @ (share / share.sum() / n)
        if self.kind == "progressive":
            done = min(epoch / max(self.n_epochs - 1, 1), 1.0)
            of_image = (1 - done) * uniform + done * of_image
        return np.asarray(of_image / of_image.sum())

    def images_at(self, number: NDArray[np.float64], epoch: int) -> NDArray[np.int64]:
        """The images that uniform numbers inside (0, 1) draw."""
        border = np.cumsum(self.probabilities(epoch))
        # the sum of the shares may miss 1 by a rounding, and the last images may be impossible
        drawn = np.searchsorted(border, number * border[-1], side="right")
        return np.asarray(np.minimum(drawn, np.searchsorted(border, border[-1])))

    def order(self, seed: int, epoch: int, n_samples: int | None = None) -> NDArray[np.int64]:
        """(n_samples,) the samples of an epoch; sample s shows image s % n_images.

        "instance" permutes all samples 0 .. n_samples - 1. The other kinds draw anew for each
        place: an image that comes again is another sample, s + n_images and so on, so that its
        crop or its noise is another one, too.

        Args:
            seed, epoch: of the random numbers.
            n_samples: as many as there are images by default.
        """
        n = self.n_images if n_samples is None else n_samples
        if self.kind == "instance":
            return epoch_order(n, seed, epoch)
        image = self.images_at(uniform_of(seed, epoch, np.arange(n), ORDER), epoch)
        return np.asarray(image + self.n_images * _times_before(image))

    def told(self) -> str:
        """In words, for a checkpoint."""
        options = {"power": f" {self.power:g}", "progressive": f" over {self.n_epochs} epochs"}
        return f"{self.kind}{options.get(self.kind, '')}"

    def fingerprint(self) -> str:
        """What two samplings of the same draws have in common."""
        digest = zlib.crc32(np.packbits(self.is_present).tobytes())
        return f"{self.told()}, {self.is_present.shape} {digest:08x}"


def _check_whole(found: NDArray[Any], what: str) -> None:
    if found.dtype.kind not in "iufb":
        raise TypeError(f"Expected whole numbers as {what}, got {found.dtype}.")
    is_wrong = (found < 0) if found.dtype.kind in "iub" else ~((found >= 0) & (found % 1 == 0))
    if is_wrong.any():
        raise ValueError(f"Expected {what} as whole numbers from 0, got {found[is_wrong][0]}.")


def _times_before(image: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) how often the image of a place has come at earlier places."""
    sorted_places = np.argsort(image, kind="stable")
    is_first = np.diff(image[sorted_places], prepend=-1) != 0
    starts = np.flatnonzero(is_first)
    times = np.empty(len(image), np.int64)
    times[sorted_places] = np.arange(len(image)) - np.repeat(
        starts, np.diff(starts, append=len(image))
    )
    return times


class ClassSampler(Sampler[int]):
    """Hands the images of a `ClassSampling` to a `torch.utils.data.DataLoader`.

    All processes share one order and take turns in it: nobody sees another's place, and nothing is
    repeated to fill up. Where the processes do not divide an epoch, its last places, fewer than
    processes, are left out. Each pass is another epoch; where a run is taken up, or loaders are
    made anew, say which with `set_epoch`. A loader that shards by itself (Accelerate's) needs
    `world_size=1`.

    Args:
        sampling: what is drawn.
        seed: of the draws.
        n_samples: of an epoch, over all processes; as many as there are images by default.
        rank, world_size: this process of how many; those of torch.distributed by default.
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
        self._first = self._done = 0  # places of the epoch, over all processes; images handed out

    def __len__(self) -> int:
        return (self.n_samples - self._first) // self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; one that was taken up with `load_state_dict` goes on."""
        check_at_least("epoch", epoch, 0)
        self._is_spent = False
        if epoch != self.epoch:
            self.epoch, self._first, self._done = epoch, 0, 0

    def __iter__(self) -> Iterator[int]:
        if self._is_spent:  # nobody said which epoch this is
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
        """Where the epoch stands, in step in all processes.

        Args:
            n_seen: images that this process has trained on since the epoch began or was taken up;
                by default those handed out, which a loader with workers takes ahead of time.
        """
        done = self._done if n_seen is None else n_seen
        place = self._first + done * self.world_size
        return {"epoch": self.epoch, "place": place, "setup": self._setup()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there, with as many processes as now."""
        if state["setup"] != self._setup():
            raise ValueError(
                f"Expected the state of a sampler of {self._setup()}, got one of {state['setup']}."
            )
        self.epoch, self._first, self._done = int(state["epoch"]), int(state["place"]), 0
        self._is_spent = False

    def _setup(self) -> str:
        return f"{self.sampling.fingerprint()}, {self.n_samples} samples, seed {self.seed}"
