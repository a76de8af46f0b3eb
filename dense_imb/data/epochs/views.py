"""Strong views of images: what a network has to see through, and the labels that stay true.

    rand_augment   torchvision's RandAugment, of images of bytes
    photometric    gain, offset, contrast curve and noise, of any image
    thin_and_add   lit pixels lost and added, of sparse frames

Every view is a pure function of (seed, epoch, sample), whatever else is drawn beside it.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.base.checks import check_at_least
from dense_imb.data.epochs.patches import patch_rng
from dense_imb.data.images.labelled import IGNORED

STRONG = ("auto", "randaugment", "photometric", "hits", "none")
# operations of RandAugment that leave every pixel where it is
_IN_PLACE = (
    "Identity", "Brightness", "Color", "Contrast", "Sharpness", "Posterize", "Solarize",
    "AutoContrast", "Equalize",
)  # fmt: skip
_LARGEST = 30  # magnitude
_LEAST_EMPTY = 0.8  # share of the pixels of a sparse frame that are 0
_MOST_LOST = 0.3  # share of the lit pixels of a frame, lost and added each


def rand_augment(
    images: Tensor,
    samples: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
    operations: int = 2,
    magnitude: int = 9,
    moves: bool = True,
) -> Tensor:
    """Each image through `operations` random operations of torchvision's RandAugment.

    Args:
        images: (B, 1 or 3, H, W) uint8.
        samples: (B,) their numbers.
        seed, epoch: of the random numbers.
        operations: one after the other.
        magnitude: strength of each, 0 to 30.
        moves: shear, shift and turn, too; without, labels of pixels stay true.
    """
    check_rand_augment(operations, magnitude)
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            "Expected images (B, 1 or 3, H, W) of bytes for RandAugment, got "
            f"{tuple(images.shape)} of {images.dtype}; a strong view of photometric takes any."
        )
    change = _rand_augment(moves)(num_ops=operations, magnitude=magnitude)
    changed = []
    with torch.random.fork_rng(devices=[]):
        for image, sample in zip(images, samples.tolist(), strict=True):
            number = int(patch_rng(seed, epoch, sample).integers(2**62))
            torch.default_generator.manual_seed(number)  # torch.manual_seed moves GPUs' as well
            changed.append(change(image))
    return torch.stack(changed)


@functools.cache
def _rand_augment(moves: bool) -> Any:
    try:
        # imported here: it takes a second
        v2: Any = importlib.import_module("torchvision.transforms.v2")
    except (ImportError, RuntimeError) as problem:
        raise ImportError(
            f"torchvision could not be imported ({problem}); install torch and torchvision "
            "together, from one source, or take a strong view of photometric."
        ) from problem
    if moves:
        return v2.RandAugment
    space = v2.RandAugment._AUGMENTATION_SPACE
    in_place = {name: space[name] for name in _IN_PLACE}
    return type("RandAugmentInPlace", (v2.RandAugment,), {"_AUGMENTATION_SPACE": in_place})


def check_rand_augment(operations: int, magnitude: int) -> None:
    """Refuse what RandAugment can't do."""
    check_at_least("unlabelled.operations", operations, 0)
    check_at_least("unlabelled.magnitude", magnitude, 0)
    if magnitude > _LARGEST:
        raise ValueError(f"Expected `unlabelled.magnitude` up to {_LARGEST}, got {magnitude}.")


def photometric(shown: Tensor, samples: NDArray[np.int64], *, seed: int, epoch: int) -> Tensor:
    """Another gain, offset, contrast curve and noise for each image.

        x' = sign(y) |y|^c + noise n,   y = g x + o

    Args:
        shown: (B, C, *spatial) floats of about mean 0 and deviation 1.
        samples: (B,) their numbers.
        seed, epoch: of the random numbers.
    """
    changed = []
    for image, sample in zip(shown, samples.tolist(), strict=True):
        rng = patch_rng(seed, epoch, sample)
        gain, power = np.exp(rng.uniform(-0.5, 0.5, 2))
        offset, noise = rng.uniform(-0.5, 0.5), rng.uniform(0, 0.3)
        y = gain * image + offset
        drawn = torch.from_numpy(rng.standard_normal(tuple(image.shape), np.float32))
        changed.append(y.sign() * y.abs() ** power + noise * drawn.to(image))
    return torch.stack(changed)


def thin_and_add(
    pixels: Tensor, label: Tensor, samples: NDArray[np.int64], *, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """Sparse frames that lose some lit pixels, and get others anywhere.

    A share of up to 0.3 of the lit pixels goes dark, as many are lit anywhere, with the values of
    other lit pixels of the frame. Both lose their label: noise may be of any class.

    Args:
        pixels: (B, C, *spatial), 0 where nothing was hit.
        label: (B, *spatial) classes and IGNORED.
        samples: (B,) their numbers.
        seed, epoch: of the random numbers.
    """
    pixels, label = pixels.clone(), label.clone()
    for one, sample in enumerate(samples.tolist()):
        rng = patch_rng(seed, epoch, sample)
        frame, classes = pixels[one].flatten(1), label[one].flatten()
        is_lit = frame.ne(0).any(0).cpu().numpy()
        lit, empty = np.flatnonzero(is_lit), np.flatnonzero(~is_lit)
        lost = lit[rng.random(len(lit)) < rng.uniform(0, _MOST_LOST)]
        n_added = min(int(rng.uniform(0, _MOST_LOST) * len(lit)), len(empty))
        place = torch.from_numpy(rng.choice(empty, n_added, replace=False)).to(frame.device)
        values = frame[:, torch.from_numpy(rng.choice(lit, n_added)).to(frame.device)]
        dark = torch.from_numpy(lost).to(frame.device)
        frame[:, dark], classes[dark] = 0, IGNORED
        frame[:, place], classes[place] = values, IGNORED
        pixels[one], label[one] = frame.view_as(pixels[one]), classes.view_as(label[one])
    return pixels, label


def is_sparse(pixels: NDArray[Any]) -> bool:
    """Whether most pixels of an image (C, *spatial) are 0 in all channels."""
    return bool((pixels == 0).all(0).mean() >= _LEAST_EMPTY)
