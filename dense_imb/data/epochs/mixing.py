"""Mixed samples and targets: MixUp, Balanced-MixUp, UniMix, and a union of thinned events.

    x = s x_1 + (1 - s) x_2,    y = s y_1 + (1 - s) y_2       y: probability of each class

mixer = Mixer(Mixing("balanced-mixup", alpha=0.2), seed=0, content=labels)
mixture = mixer.plan(samples, epoch)                # a share and a partner for each sample
image = mix(image, load(mixture.partner), mixture.share)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dense_imb.base.checks import check_choice, is_other
from dense_imb.base.random import Draws
from dense_imb.data.epochs.samplers import ClassSampling, draw_uniform
from dense_imb.data.images.labelled import LabelTally
from dense_imb.hits.events import Events, concatenate, reorder

MIXINGS = ("none", "mixup", "balanced-mixup", "unimix")
HITS = ("linear", "union")
_SHARE, _PARTNER, _THIN = 97, 98, 100  # purposes of random numbers; the first two thin
_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Mixing:
    """Kind of mixing, and its parameters.

    kind            partner of a sample                    share s of the sample itself
    mixup           another one of the batch               b ~ Beta(alpha, alpha)
    balanced-mixup  one drawn by class from all images     1 - b, b ~ Beta(alpha, 1)
    unimix          one of the batch, drawn ~ n_c^tau      (b + n_2 / (n_1 + n_2)) mod 1,
                                                           b ~ Beta(alpha, alpha)

    n_1 and n_2 are the numbers of images of the two classes. Each sample has a share of its own.
    MixUp: Zhang et al. 2018. Balanced-MixUp: Galdran et al. 2021, who take alpha from 0.1 to 0.3.
    UniMix: Xu et al. 2021 ("Towards Calibrated Model for Long-Tailed Visual Recognition from
    Prior Perspective"), who take alpha = 0.5 and tau = -1.

    Args:
        kind: one of MIXINGS.
        alpha: parameter of the Beta distribution, above 0. A small value mixes little.
        tau: exponent of UniMix; below 0 it draws rare partners more often.
        hits: mix events as frames ("linear"), or as hits ("union", see `union`).
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
        """Whether the classes of the samples are needed."""
        return self.kind in ("balanced-mixup", "unimix")


@dataclass(frozen=True)
class Mixture:
    """Shares and partners of the samples of a batch.

    Args:
        share: (B,) share of each sample, between 0 and 1; its partner has the rest.
        partner: (B,) images of the data set with Balanced-MixUp, else positions in the batch.
    """

    share: NDArray[np.float64]
    partner: NDArray[np.int64]


class Mixer:
    """Draw shares and partners by numbers that are a pure function of (seed, epoch, sample).

    With Balanced-MixUp they depend on nothing else, so that two processes mix as one does. The
    other kinds choose partners in the batch of their process.

    Args:
        mixing: kind of mixing.
        seed: random seed.
        content: classes of each image, as in `ClassSampling.of`; "mixup" needs none.
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
        """(n_images, n_classes) whether each image holds a class; None where it does not matter."""
        return None if self._by_class is None else self._by_class.is_present

    @property
    def draws_images(self) -> bool:
        """Whether partners are images of the data set, and not positions in the batch."""
        return self.mixing.kind == "balanced-mixup"

    def plan(
        self,
        samples: NDArray[np.int64],
        epoch: int,
        is_present: NDArray[np.bool_] | None = None,
    ) -> Mixture:
        """Draw a partner and a share for each sample.

        Args:
            samples: numbers of the samples; a repeated sample is mixed the same way each time.
            epoch: pass over the data.
            is_present: (B, n_classes) whether each sample holds a class, for UniMix. The class of
                a sample is the one with the fewest images.
        """
        kind, alpha = self.mixing.kind, self.mixing.alpha
        samples = np.asarray(samples, np.int64)
        if kind == "none":
            return Mixture(np.ones(len(samples)), np.arange(len(samples)))
        event = samples & _WORD
        numbers = Draws(self.seed, epoch, event).uniform(_SHARE, 1)
        if self.draws_images:
            assert self._by_class is not None
            number = draw_uniform(self.seed, epoch, event, _PARTNER)
            share = [1 - u ** (1 / alpha) for u in numbers[0].tolist()]
            return Mixture(np.array(share), self._by_class.images_at(number, epoch))
        beta = np.array([_symmetric_beta(alpha, *four) for four in numbers.T.tolist()])
        if kind == "mixup":
            # the batch in the order of random keys; the partner is the next one
            order = np.argsort(draw_uniform(self.seed, epoch, event, _PARTNER), kind="stable")
            partner = np.empty(len(order), np.int64)
            partner[order] = np.roll(order, 1)
            return Mixture(beta, partner)
        count = self._count_images(is_present)
        border = np.cumsum(count**self.mixing.tau)
        number = draw_uniform(self.seed, epoch, event, _PARTNER)
        partner = np.minimum(np.searchsorted(border, number * border[-1]), len(samples) - 1)
        return Mixture((beta + count[partner] / (count + count[partner])) % 1.0, partner)

    def _count_images(self, is_present: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """Return (B,) images of the rarest class of each sample; of the largest, if it has none."""
        if is_present is None or self._by_class is None:
            raise ValueError("Expected `is_present`, the classes of each sample, for UniMix.")
        counts = self._by_class.images_of_class.astype(np.float64)
        held = np.where(is_present, counts, np.inf).min(1)
        return np.asarray(np.where(np.isfinite(held), held, counts.max()))


def describe_samples(sampling: ClassSampling | None, mixer: Mixer | None) -> dict[str, str]:
    """Describe sampling and mixing for a checkpoint; a resumed run must use the same."""
    setup = {}
    if sampling is not None:
        setup["sampling"] = sampling.fingerprint()
    if mixer is not None:
        setup["mixing"] = f"{mixer.mixing}, seed {mixer.seed}"
    return setup


def _symmetric_beta(alpha: float, u: float, v: float, w: float, z: float) -> float:
    """Draw from Beta(alpha, alpha) with four uniform numbers, exactly and without rejection.

        x = (1 + sqrt(1 - u^(2 / (2 alpha + 1))) cos(2 pi v)) / 2     ~ Beta(alpha + 1, alpha + 1)
        logit b = logit x + (log w - log z) / alpha                  ~ Beta(alpha, alpha)

    The first is Ulrich's (1984), the second the boost of two gamma numbers of shape alpha + 1 to
    alpha (Marsaglia and Tsang 2000). Python's own functions are used: results of NumPy may depend
    on the position in an array, and two processes have batches of their own.
    """
    radius = math.sqrt(-math.expm1(2 / (2 * alpha + 1) * math.log(u)))
    x = min(max((1 + radius * math.cos(2 * math.pi * v)) / 2, 1e-300), 1 - 2.0**-53)
    logit = math.log(x) - math.log1p(-x) + (math.log(w) - math.log(z)) / alpha
    rest = math.exp(-min(abs(logit), 700.0))
    return (1.0 if logit >= 0 else rest) / (1 + rest)


def mix(first: Tensor, second: Tensor, share: ArrayLike | Tensor) -> Tensor:
    """Mix images or targets: s first + (1 - s) second.

    Args:
        first: (B, ...) floats.
        second: (B, ...) floats.
        share: (B,) s.

    Example:
        >>> mix(torch.tensor([[0.0, 4.0]]), torch.tensor([[1.0, 0.0]]), [0.75])
        tensor([[0.2500, 3.0000]])
    """
    return torch.lerp(second, first, _per_sample(share, first))


def _per_sample(share: ArrayLike | Tensor, like: Tensor) -> Tensor:
    """Return (B, 1, ..., 1) numbers that broadcast over the pixels of each sample."""
    numbers = torch.as_tensor(np.asarray(share), dtype=like.dtype).to(like.device)
    return numbers.reshape(-1, *(1,) * (like.dim() - 1))


def mix_labels(
    first: Tensor,
    second: Tensor,
    share: ArrayLike | Tensor,
    n_channels: int,
    ignore_index: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Mix labels to class probabilities.

    Args:
        first: (B, *spatial) classes of pixels, or (B,) of whole images.
        second: the same shape.
        share: (B,) share of the first.
        n_channels: channels of the logits; 1 means the probability of the second of two classes.
        ignore_index: label to ignore; a pixel ignored in one label is ignored in the mixture.

    Returns:
        (B, n_channels, *spatial) probabilities, and (B, *spatial) where both labels are known.

    Example:
        >>> target, is_known = mix_labels(torch.tensor([2]), torch.tensor([0]), [0.75], 3)
        >>> target, is_known
        (tensor([[0.2500, 0.0000, 0.7500]]), tensor([True]))
    """
    is_known = torch.ones_like(first, dtype=torch.bool)
    if ignore_index is not None:
        is_known = is_other(first, ignore_index) & is_other(second, ignore_index)
        first, second = (label.where(is_known, 0) for label in (first, second))
    if n_channels == 1:
        return mix(first.float(), second.float(), share).unsqueeze(1), is_known
    first_share = _per_sample(share, first.unsqueeze(1).float())
    shape = (first.shape[0], n_channels, *first.shape[1:])
    target = torch.zeros(shape, device=first.device)
    one, other = first.long().unsqueeze(1), second.long().unsqueeze(1)
    target.scatter_(1, one, first_share.expand(one.shape))
    target.scatter_add_(1, other, (1 - first_share).expand(other.shape))
    return target, is_known


def union(
    first: Events, second: Events, share: Sequence[float] | NDArray[np.float64], *,
    seed: int, epoch: int, samples: ArrayLike, apart: str | None = None,
) -> Events:  # fmt: skip
    """Unite the thinned hits of each pair of events; hits keep their times and labels.

    Each hit of the first is kept with probability s, each of the second with 1 - s. The column
    `is_occluded` is dropped, because other hits share a pixel now.

    Args:
        first: B events in NumPy.
        second: B events of the same geometry, with the same columns.
        share: (B,) s.
        seed: random seed.
        epoch: pass over the data.
        samples: (B,) numbers of the samples.
        apart: column of hits, such as the number of the particle, whose values in the second event
            are moved beyond those in the first.
    """
    own = np.asarray(samples, np.int64) & _WORD
    if apart is not None and apart in first.hit:
        second = _moved_apart(first, second, apart)
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


def _moved_apart(first: Events, second: Events, name: str) -> Events:
    mine, theirs = (np.asarray(events.hit[name], np.int64) for events in (first, second))
    shift = mine.max(initial=0) - theirs.min(initial=0) + 1
    return second.with_hits(second.offset, {**second.hit_columns(), name: theirs + shift})


def _without_occlusion(events: Events) -> Events:
    columns = {n: column for n, column in events.hit_columns().items() if n != "is_occluded"}
    return events.with_hits(events.offset, columns)
