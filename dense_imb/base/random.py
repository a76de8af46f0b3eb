"""Random numbers that are a pure function of (seed, epoch, event, purpose, draw).

There is no state. The numbers do not depend on the order of the events, the batch, the worker or
the process. The generator is Philox-4x32-10 (Salmon et al., SC11):

    (w_0, w_1, w_2, w_3) = philox(counter = (draw, purpose, event, epoch), key = seed)

One block of four words serves one hit: its x, y and t, and one choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

_MULTIPLIER = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_CHUNK = 16384  # blocks at a time: few calls, and all ten rounds stay in the cache


def philox(counter: NDArray[np.uint32], key: int) -> NDArray[np.uint32]:
    """Apply ten rounds of Philox-4x32 to counters (4, n), with a key of 64 bits."""
    words = np.empty(counter.shape, np.uint32)
    scratch = np.empty((2, _CHUNK), np.uint64)
    for start in range(0, counter.shape[1], _CHUNK):
        a, b, c, d = counter[:, start : start + _CHUNK].astype(np.uint64)
        product_0, product_1 = scratch[:, : len(a)]
        key_0, key_1 = key & 0xFFFFFFFF, key >> 32
        for _ in range(10):
            np.multiply(a, _MULTIPLIER[0], out=product_0)
            np.multiply(c, _MULTIPLIER[1], out=product_1)
            # the high half of each product meets the other pair; the low half is kept
            np.right_shift(product_1, _HALF, out=a)
            np.right_shift(product_0, _HALF, out=c)
            a ^= b
            c ^= d
            a ^= np.uint64(key_0)
            c ^= np.uint64(key_1)
            np.bitwise_and(product_1, _LOW, out=b)
            np.bitwise_and(product_0, _LOW, out=d)
            key_0, key_1 = (key_0 + _WEYL[0]) & 0xFFFFFFFF, (key_1 + _WEYL[1]) & 0xFFFFFFFF
        for row, word in enumerate((a, b, c, d)):
            words[row, start : start + _CHUNK] = word
    return words


@dataclass(frozen=True)
class Draws:
    """Random numbers of events.

    Args:
        seed: random seed, 0 .. 2^64 - 1.
        epoch: pass over the data, 0 .. 2^32 - 1.
        event: (n_events,) number of each event in its data set, 0 .. 2^32 - 1.

    Example:
        >>> both = Draws(7, 0, [3, 4]).uniform(purpose=1, count=2)  # (4, 2 + 2)
        >>> bool((both[:, 2:] == Draws(7, 0, [4]).uniform(purpose=1, count=2)).all())
        True
    """

    seed: int
    epoch: int
    event: ArrayLike

    def __post_init__(self) -> None:
        event = np.asarray(self.event)
        if event.ndim != 1 or (event.size and event.dtype.kind not in "iu"):
            raise ValueError(
                f"Expected `event` as a sequence of whole numbers, got {event.dtype} "
                f"in the shape {event.shape}."
            )
        object.__setattr__(self, "event", event.astype(np.int64))
        lowest, highest = (int(event.min()), int(event.max())) if event.size else (0, 0)
        for name, low, high, bits in (
            ("seed", self.seed, self.seed, 64),
            ("epoch", self.epoch, self.epoch, 32),
            ("event", lowest, highest, 32),
        ):
            if int(low) != low or low < 0 or high >= 1 << bits:
                wrong = high if low >= 0 else low
                raise ValueError(f"Expected `{name}` from 0 to 2^{bits} - 1, got {wrong}.")

    def words(self, purpose: ArrayLike, count: ArrayLike) -> NDArray[np.uint32]:
        """Return (4, total) words: blocks 0 .. count - 1 of each event, one event after another.

        Args:
            purpose: number of the use, so that two uses have different numbers; one number, or one
                for each event.
            count: number of blocks, one number or one for each event.
        """
        event = np.asarray(self.event)
        n_blocks = np.broadcast_to(np.asarray(count, np.int64), event.shape)
        end = np.cumsum(n_blocks)
        total = int(end[-1]) if len(end) else 0
        counter = np.empty((4, total), np.uint32)
        counter[0] = np.arange(total) - np.repeat(end - n_blocks, n_blocks)
        counter[1] = np.repeat(np.broadcast_to(purpose, event.shape), n_blocks)
        counter[2] = np.repeat(event, n_blocks)
        counter[3] = self.epoch
        return philox(counter, int(self.seed))

    def uniform(self, purpose: ArrayLike, count: ArrayLike) -> NDArray[np.float64]:
        """Return (4, total) numbers inside (0, 1), without the ends."""
        return (self.words(purpose, count).astype(np.float64) + 0.5) * 2.0**-32

    def normal(self, purpose: ArrayLike, count: ArrayLike) -> NDArray[np.float64]:
        """Return (4, total) standard normal numbers, up to 6.3 in absolute value."""
        return normal_quantile(self.uniform(purpose, count))

    def integers(
        self, low: ArrayLike, high: ArrayLike, purpose: ArrayLike, count: ArrayLike
    ) -> NDArray[np.int64]:
        """Return (4, total) whole numbers from low to high, both included."""
        return between(self.uniform(purpose, count), low, high)

    def choose(self, n: ArrayLike, size: ArrayLike, purpose: int) -> NDArray[np.bool_]:
        """Choose n of the `size` members of each event; all subsets are equally likely.

        Floyd's algorithm: step j = 1 .. n draws one of the first size - n + j members, and takes
        the last of these if the drawn one is taken already. It needs n numbers, not `size`.

        Returns:
            (sum of size,) True at the chosen members.
        """
        events = np.asarray(self.event)
        sizes = np.broadcast_to(np.asarray(size, np.int64), events.shape)
        n_chosen = np.minimum(np.broadcast_to(np.asarray(n, np.int64), events.shape), sizes)
        start = np.cumsum(sizes) - sizes
        # 4 words a block; word k of an event is word k % 4 of its block k // 4
        n_blocks = (n_chosen + 3) // 4
        number = self.uniform(purpose, n_blocks).T.ravel()
        first = 4 * (np.cumsum(n_blocks) - n_blocks)
        is_chosen = np.zeros(int(sizes.sum()), bool)
        order = np.argsort(-n_chosen, kind="stable")  # events that still choose come first
        n_active = np.searchsorted(-n_chosen[order], -np.arange(n_chosen.max(initial=0)))
        for j, active in enumerate(n_active):
            event = order[:active]
            last = sizes[event] - n_chosen[event] + j
            offer = start[event] + (number[first[event] + j] * (last + 1)).astype(np.int64)
            is_chosen[np.where(is_chosen[offer], start[event] + last, offer)] = True
        return is_chosen

    def permutation(self, n: int, purpose: int) -> NDArray[np.int64]:
        """Return (n_events, n) a random order of 0 .. n - 1 for each event."""
        words = self.words(purpose, (n + 3) // 4)
        keys = words.T.reshape(-1, 4 * ((n + 3) // 4))[:, :n]
        return np.argsort(keys, axis=1, kind="stable").astype(np.int64)


def normal_quantile(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quantile of the standard normal distribution at a probability."""
    # torch computes it number by number: NumPy's logarithms may depend on the position in the array
    quantile: Any = torch.special.ndtri(torch.from_numpy(np.ascontiguousarray(probability)))
    return np.asarray(quantile.numpy())


def normal_share(quantile: ArrayLike) -> NDArray[np.float64]:
    """Return the cumulative probability of the standard normal distribution at a number."""
    share: Any = torch.special.ndtr(torch.as_tensor(np.asarray(quantile, np.float64)))
    return np.asarray(share.numpy())


def between(number: NDArray[np.float64], low: ArrayLike, high: ArrayLike) -> NDArray[np.int64]:
    """Map numbers inside (0, 1) to whole numbers from low to high, both included."""
    low, high = np.asarray(low, np.int64), np.asarray(high, np.int64)
    return np.asarray(low + (number * (high - low + 1)).astype(np.int64))


def epoch_order(n_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the numbers 0 .. n_samples - 1 in the random order of an epoch."""
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    # sorted random numbers: NumPy guarantees the same stream of bits in every version, nothing else
    return np.argsort(bits.random_raw(n_samples), kind="stable")
