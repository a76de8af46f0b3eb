"""Images with thin structures, your own or generated ones, for the training scripts."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from dense_imb.data.images.folders import pair_images, read_image
from dense_imb.metrics import ScoreHistogram

Sample = tuple[Tensor, Tensor]  # image (1, H, W), mask (1, H, W) of 0 and 1


def samples(images: str | None, masks: str | None, n_generated: int, seed: int) -> list[Sample]:
    """Return images of two folders, in an order drawn from the seed, or generated ones."""
    rng = torch.Generator().manual_seed(seed)
    if images is None or masks is None:
        return [generated(rng) for _ in range(n_generated)]
    pairs = pair_images(images, masks)
    return [
        (_grey(read_image(pair.image)), torch.as_tensor(read_image(pair.mask) > 0)[None].float())
        for pair in (pairs[i] for i in torch.randperm(len(pairs), generator=rng).tolist())
    ]


def generated(rng: torch.Generator, size: int = 96) -> Sample:
    """Generate a texture with one faint crooked line, some 2 % of the pixels."""
    texture = F.avg_pool2d(torch.randn(1, 1, size, size, generator=rng), 3, 1, 1)[0]
    angle, shift, phase = torch.rand(3, generator=rng) * torch.tensor([math.pi, 48.0, 6.0])
    y, x = torch.meshgrid(*[torch.arange(size) - size / 2] * 2, indexing="ij")
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    mask = ((across - shift + 24 + 4 * torch.sin(along / 9 + phase)).abs() < 1).float()[None]
    return texture - 0.4 * mask, mask


def crops(data: list[Sample], n: int, rng: torch.Generator, size: int = 96) -> list[Tensor]:
    """Cut images and masks (n, 1, size, size) at random places."""
    cut = []
    for i in torch.randint(len(data), (n,), generator=rng).tolist():
        _, height, width = data[i][1].shape
        top, left = (
            int(torch.randint(max(extent - size, 0) + 1, (), generator=rng))
            for extent in (height, width)
        )
        cut.append([one[:, top : top + size, left : left + size] for one in data[i]])
    return [torch.stack(part) for part in zip(*cut, strict=True)]


@torch.no_grad()
def average_precision(network: Callable[[Tensor], Tensor], data: list[Sample]) -> float:
    """Return the area under precision over recall of all pixels; chance is the foreground share.

    Images are cut to multiples of 32, for networks that halve five times.
    """
    histogram = ScoreHistogram(scale="logit")
    for image, mask in data:
        height, width = (extent // 32 * 32 for extent in mask.shape[1:])
        logits = network(image[None, :, :height, :width])[0]
        histogram.update(logits, mask[:, :height, :width] > 0)
    return histogram.average_precision()


def _grey(pixels) -> Tensor:
    image = torch.as_tensor(pixels).float()
    image = image[..., :3].mean(-1) if image.dim() == 3 else image
    return ((image - image.mean()) / image.std().clamp(min=1e-6))[None]
