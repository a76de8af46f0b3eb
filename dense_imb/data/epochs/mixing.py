"""Mixing samples and their targets: MixUp, Balanced-MixUp, UniMix, and a union of thinned events.

    x = s x_1 + (1 - s) x_2,    y = s y_1 + (1 - s) y_2       y: probability of each class

mixer = Mixer(Mixing("balanced-mixup", alpha=0.2), seed=0, content=labels)
plan = mixer.plan(samples, epoch)                   # a share and a partner for each sample
image = mix(image, images_of(plan.partner), plan.share)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dense_imb.base.checks import check_choice
from dense_imb.base.random import Draws
from dense_imb.data.epochs.samplers import ClassSampling, uniform_of
from dense_imb.data.images.labelled import LabelTally
from dense_imb.hits.events import Events, concatenate, reorder

MIXINGS = ("none", "mixup", "balanced-mixup", "unimix")
HITS = ("linear", "union")
_SHARE, _PARTNER, _THIN = 97, 98, 100  # purposes of random numbers; the first two thin
_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Mixing:
    """What is mixed with what, and in which shares.

    kind            partner of a sample                    share s of the sample itself
    mixup           another one of the batch               b ~ Beta(alpha, alpha)
    balanced-mixup  one drawn by class from all images     1 - b, b ~ Beta(alpha, 1)
    unimix          one of the batch, drawn ~ n_c^tau      (b + n_2 / (n_1 + n_2)) mod 1,
                                                           b ~ Beta(alpha, alpha)

    n_1 and n_2 are the images of the classes of the two. Each sample has a share of its own.
    MixUp: Zhang et al. 2018. Balanced-MixUp: Galdran et al. 2021, who take alpha from 0.1 to 0.3.
    UniMix: Xu et al. 2021 ("Towards Calibrated Model for Long-Tailed Visual Recognition from
    Prior Perspective"), who take alpha = 0.5 and tau = -1.

    Args:
        kind: one of MIXINGS.
        alpha: above 0; the smaller, the purer the samples.
        tau: of UniMix; below 0 rare partners are drawn more often.
        hits: events are mixed as frames ("linear"), or as hits ("union"), see `union`.
    """

    kind: str = "none"
    alpha: float = 0.2
    tau: float = -1.0
    hits: str = "linear"

    def __post_init__(self) -> None:
        check_choice("mixing", self.kind, MIXINGS)
        check_choice("mixing.hits", self.hits, HITS)
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"Expected `alpha` above 0 for mixing, got {self.alpha}.")
        if not math.isfinite(self.tau):
            raise ValueError(f"Expected `tau` as a finite number, got {self.tau}.")

    @property
    def needs_classes(self) -> bool:
        """Whether classes have a say in it."""
        return self.kind in ("balanced-mixup", "unimix")


@dataclass(frozen=True)
class Plan:
    """How a batch is mixed.

    Args:
        share: (B,) of each sample in the mixture, between 0 and 1; its partner has the rest.
        partner: (B,) images of the data set with Balanced-MixUp, else places in the batch.
    """

    share: NDArray[np.float64]
    partner: NDArray[np.int64]


class Mixer:
    """Decides about batches, by numbers that are a pure function of (seed, epoch, sample).

    With Balanced-MixUp a sample's partner and share depend on nothing else, so that two processes
    mix as one does. The other kinds look for partners in the batch of their process.

    Args:
        mixing: what to do.
        seed: of the random numbers.
        content: what each image holds, as `ClassSampling.of` takes it; not needed by "mixup".
    """

    def __init__(
        self, mixing: Mixing, seed: int = 0, content: LabelTally | ArrayLike | None = None
    ) -> None:
        self.mixing, self.seed = mixing, seed
        self._by_class: ClassSampling | None = None
        if mixing.needs_classes:
            if content is None:
                raise ValueError(f'Expected `content` for the mixing "{mixing.kind}", got none.')
            self._by_class = ClassSampling.of(content, "class")

    @property
    def content(self) -> NDArray[np.bool_] | None:
        """(n_images, n_classes) which classes each image holds, where that matters."""
        return None if self._by_class is None else self._by_class.is_present

    @property
    def draws_images(self) -> bool:
        """Whether partners are images of the data set, and not places in the batch."""
        return self.mixing.kind == "balanced-mixup"

    def plan(
        self,
        samples: NDArray[np.int64],
        epoch: int,
        is_present: NDArray[np.bool_] | None = None,
    ) -> Plan:
        """A partner and a share for each sample.

        Args:
            samples: their numbers; a sample that comes twice is mixed the same way twice.
            epoch: pass over the data.
            is_present: (B, n_classes) what each sample holds, for UniMix: of several classes the
                one with the fewest images is the sample's own.
        """
        kind, alpha = self.mixing.kind, self.mixing.alpha
        samples = np.asarray(samples, np.int64)
        if kind == "none":
            return Plan(np.ones(len(samples)), np.arange(len(samples)))
        event = samples & _WORD
        numbers = Draws(self.seed, epoch, event).uniform(_SHARE, 1)
        if self.draws_images:
            assert self._by_class is not None
            number = uniform_of(self.seed, epoch, event, _PARTNER)
            share = [1 - u ** (1 / alpha) for u in numbers[0].tolist()]
            return Plan(np.array(share), self._by_class.images_at(number, epoch))
        beta = np.array([_symmetric_beta(alpha, *four) for four in numbers.T.tolist()])
        if kind == "mixup":
            # who is mixed with whom: the batch in the order of random keys, moved by one place
            order = np.argsort(uniform_of(self.seed, epoch, event, _PARTNER), kind="stable")
            partner = np.empty(len(order), np.int64)
            partner[order] = np.roll(order, 1)
            return Plan(beta, partner)
        count = self._images_of(is_present)
        border = np.cumsum(count**self.mixing.tau)
        number = uniform_of(self.seed, epoch, event, _PARTNER)
        partner = np.minimum(np.searchsorted(border, number * border[-1]), len(samples) - 1)
        return Plan((beta + count[partner] / (count + count[partner])) % 1.0, partner)

    def _images_of(self, is_present: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """(B,) images of the rarest class that each sample holds; of all, where it holds none."""
        if is_present is None or self._by_class is None:
            raise ValueError("Expected `is_present`, the classes of each sample, for UniMix.")
        counts = self._by_class.images_of_class.astype(np.float64)
        held = np.where(is_present, counts, np.inf).min(1)
        return np.asarray(np.where(np.isfinite(held), held, counts.max()))


def samples_told(sampling: ClassSampling | None, mixer: Mixer | None) -> dict[str, str]:
    """What a checkpoint has to agree with, by name; nothing of what is not done."""
    found = {}
    if sampling is not None:
        found["sampling"] = sampling.fingerprint()
    if mixer is not None:
        found["mixing"] = f"{mixer.mixing}, seed {mixer.seed}"
    return found


def _symmetric_beta(alpha: float, u: float, v: float, w: float, z: float) -> float:
    """A number of Beta(alpha, alpha) from four of (0, 1), exactly and without rejection.

        x = (1 + sqrt(1 - u^(2 / (2 alpha + 1))) cos(2 pi v)) / 2     ~ Beta(alpha + 1, alpha + 1)
        logit b = logit x + (log w - log z) / alpha                  ~ Beta(alpha, alpha)

    The first is Ulrich's (1984), the second the boost of two gamma numbers of shape alpha + 1 to
    alpha (Marsaglia and Tsang 2000). Python's own functions: those of NumPy may depend on the
    place in an array, and a batch of two processes has other places.
    """
    radius = math.sqrt(-math.expm1(2 / (2 * alpha + 1) * math.log(u)))
    x = min(max((1 + radius * math.cos(2 * math.pi * v)) / 2, 1e-300), 1 - 2.0**-53)
    logit = math.log(x) - math.log1p(-x) + (math.log(w) - math.log(z)) / alpha
    rest = math.exp(-min(abs(logit), 700.0))
    return (1.0 if logit >= 0 else rest) / (1 + rest)


def mix(first: Tensor, second: Tensor, share: ArrayLike | Tensor) -> Tensor:
    """s first + (1 - s) second, of images or of targets.

    Args:
        first, second: (B, ...) floats.
        share: (B,) s.
    Example:
        >>> mix(torch.tensor([[0.0, 4.0]]), torch.tensor([[1.0, 0.0]]), [0.75])
        tensor([[0.2500, 3.0000]])
    """
    return torch.lerp(second, first, _of_batch(share, first))


def _of_batch(share: ArrayLike | Tensor, like: Tensor) -> Tensor:
    """A number for each sample, in a shape that meets all of its pixels."""
    numbers = torch.as_tensor(np.asarray(share), dtype=like.dtype).to(like.device)
    return numbers.reshape(-1, *(1,) * (like.dim() - 1))


def mix_labels(
    first: Tensor,
    second: Tensor,
    share: ArrayLike | Tensor,
    n_channels: int,
    ignore_index: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The probabilities of mixed labels, and where both of them are known.

    Args:
        first, second: (B, *spatial) classes; (B,) labels of whole images, too.
        share: (B,) of the first.
        n_channels: of the logits; one is the probability of the second of two classes.
        ignore_index: ignored in either is ignored.
    Returns:
        (B, n_channels, *spatial), and (B, *spatial) bool.
    Example:
        >>> target, is_known = mix_labels(torch.tensor([2]), torch.tensor([0]), [0.75], 3)
        >>> target, is_known
        (tensor([[0.2500, 0.0000, 0.7500]]), tensor([True]))
    """
    is_known = torch.ones_like(first, dtype=torch.bool)
    if ignore_index is not None:
        is_known = (first != ignore_index) & (second != ignore_index)
        first, second = (label.where(is_known, 0) for label in (first, second))
    if n_channels == 1:
        return mix(first.float(), second.float(), share).unsqueeze(1), is_known
    of_first = _of_batch(share, first.unsqueeze(1).float())
    shape = (first.shape[0], n_channels, *first.shape[1:])
    target = torch.zeros(shape, device=first.device)
    one, other = first.long().unsqueeze(1), second.long().unsqueeze(1)
    target.scatter_(1, one, of_first.expand(one.shape))
    target.scatter_add_(1, other, (1 - of_first).expand(other.shape))
    return target, is_known


def union(
    first: Events, second: Events, share: Sequence[float] | NDArray[np.float64], *,
    seed: int, epoch: int, samples: ArrayLike,
) -> Events:  # fmt: skip
    """Both events of each pair in one, thinned: hits stay hits, with their own times and labels.

    Each hit of the first is kept with probability s, each of the second with 1 - s. Hits that hide
    others in a frame have to be found anew: a column `is_occluded` is left out.

    Args:
        first, second: (B) events in NumPy of one geometry, with the same columns.
        share: (B,) s.
        seed, epoch, samples: of the random numbers.
    """
    own = np.asarray(samples, np.int64) & _WORD
    thinned = []
    for purpose, events, kept in ((0, first, share), (1, second, 1 - np.asarray(share))):
        size = np.diff(events.offset)
        # four numbers a block; number k of an event is number k % 4 of its block k // 4
        n_blocks = (size + 3) // 4
        number = Draws(seed, epoch, own).uniform(_THIN + purpose, n_blocks).T.ravel()
        start = 4 * (np.cumsum(n_blocks) - n_blocks)
        place = np.arange(events.n_hits) + np.repeat(start - events.offset[:-1], size)
        thinned.append(events.select(number[place] < np.repeat(kept, size)))
    both = concatenate([replace(_without_occlusion(events), event={}) for events in thinned])
    n = len(first)
    pairs = np.stack([np.arange(n), n + np.arange(n)], 1).ravel()
    offset, order = reorder(both.offset, pairs)
    columns = {name: column[order] for name, column in both.hit_columns().items()}
    joined = replace(both, event={}).with_hits(offset[::2].copy(), columns)
    return replace(joined, event=first.event)


def _without_occlusion(events: Events) -> Events:
    columns = {n: column for n, column in events.hit_columns().items() if n != "is_occluded"}
    return events.with_hits(events.offset, columns)
