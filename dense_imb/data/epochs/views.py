"""Strong views of images for pseudo-labels: random changes that keep the class.

    rand_augment   torchvision's RandAugment, for images of bytes
    photometric    gain, offset, contrast curve and noise, for any image
    thin_and_add   remove and add lit pixels, for sparse frames

Every view is a pure function of (seed, epoch, sample).
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
_LEAST_EMPTY = 0.8  # fraction of pixels that are 0 in a sparse frame
_MOST_LOST = 0.3  # fraction of the lit pixels that is removed, and added, at most


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
    """Apply random operations of torchvision's RandAugment to each image.

    Args:
        images: (B, 1 or 3, H, W) uint8.
        samples: (B,) numbers of the samples.
        seed: random seed.
        epoch: pass over the data.
        operations: number of operations on each image.
        magnitude: strength of each operation, 0 to 30.
        moves: include shear, shift and rotation, which invalidate labels of pixels.
    """
    check_rand_augment(operations, magnitude)
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            "Expected images (B, 1 or 3, H, W) of bytes for RandAugment, got "
            f"{tuple(images.shape)} of {images.dtype}; use the strong view photometric, which "
            "takes any image."
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
            "together, from one source, or use the strong view photometric."
        ) from problem
    if moves:
        return v2.RandAugment
    space = v2.RandAugment._AUGMENTATION_SPACE
    in_place = {name: space[name] for name in _IN_PLACE}
    return type("RandAugmentInPlace", (v2.RandAugment,), {"_AUGMENTATION_SPACE": in_place})


def check_rand_augment(operations: int, magnitude: int) -> None:
    """Refuse numbers that RandAugment does not take."""
    check_at_least("unlabelled.operations", operations, 0)
    check_at_least("unlabelled.magnitude", magnitude, 0)
    if magnitude > _LARGEST:
        raise ValueError(f"Expected `unlabelled.magnitude` up to {_LARGEST}, got {magnitude}.")


def photometric(images: Tensor, samples: NDArray[np.int64], *, seed: int, epoch: int) -> Tensor:
    """Change gain, offset, contrast curve and noise of each image.

        x' = sign(y) |y|^c + noise n,   y = g x + o

    Args:
        images: (B, C, *spatial) floats of about mean 0 and standard deviation 1.
        samples: (B,) numbers of the samples.
        seed: random seed.
        epoch: pass over the data.
    """
    changed = []
    for image, sample in zip(images, samples.tolist(), strict=True):
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
    """Remove lit pixels of sparse frames, and add others at random positions.

    Up to 0.3 of the lit pixels become 0. Up to as many empty ones get the value of a random lit
    pixel of the frame. The labels of both become IGNORED, because noise may be of any class.

    Args:
        pixels: (B, C, *spatial), 0 where nothing was hit.
        label: (B, *spatial) classes and IGNORED.
        samples: (B,) numbers of the samples.
        seed: random seed.
        epoch: pass over the data.
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
