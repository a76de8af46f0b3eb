"""FastUNet: a U-Net that is fast on a CPU and keeps hits of a single pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dense_imb.models._checks import check_frames, check_whole
from dense_imb.models._frames import crop_frames, pad_frames, padded_size


class FastUNet(nn.Module):
    """U-Net for frames (B, C, H, W) of any size; the output has the same size.

        stem     space-to-depth: 2 x 2 pixels become one pixel of 4 C channels, without loss
        levels   at 1/2, 1/4, ... of the resolution; skip connections are added
        head     depth-to-space to z, then  output = z_0 + sum_c z_c input_c  at each pixel

    The head multiplies the coefficients z with the input itself, so a hit keeps its own pixel
    and time. With sin and cos of time as channels, the product compares the time of the hit with
    the time of a pattern. Only the head works at full resolution, where computation is slow;
    capacity lies in the deep levels, where it costs little.

    Each level is normalised in groups of 8 channels of one frame. This takes a tenth more time
    and learns far faster. Unlike batch normalisation, the output of a frame does not depend on
    the rest of its batch, and processes have no buffers to synchronise. Frames are padded with
    zeros to a multiple of 2^levels; the output is cropped and has no activation.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        widths: channels of each level, from half the resolution downwards.
        prior: foreground fraction that the untrained output predicts: a number for sigmoid
            outputs, one number per class with sum 1 for a softmax; None for no prior.
    Example:
        >>> network = FastUNet(8, 1, prior=0.02)
        >>> frames = torch.zeros(2, 8, 37, 53)
        >>> network(frames).shape
        torch.Size([2, 1, 37, 53])
        >>> round(network(frames).sigmoid().mean().item(), 3)
        0.02
    """

    def __init__(
        self,
        in_channels: int = 8,
        out_channels: int = 1,
        *,
        widths: Sequence[int] = (24, 32, 64, 128, 192),
        prior: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"in_channels": in_channels, "out_channels": out_channels}.items():
            check_whole(name, value)
        if len(widths) == 0:
            raise ValueError("Expected `widths` with the channels of one level or more, got none.")
        for width in widths:
            check_whole("widths", width)
        self.in_channels, self.out_channels = in_channels, out_channels
        self._multiple = 2 ** len(widths)

        self.enter = nn.Sequential(nn.PixelUnshuffle(2), *_convolution(4 * in_channels, widths[0]))
        # the convolution of the first level is in `enter`; the cheapest, deepest level has two
        amounts = [0, *(1 for _ in widths[1:-1]), 2][-len(widths) :]
        self.encode = nn.ModuleList(
            nn.Sequential(*(_convolution(width, width) for _ in range(amount)))
            for width, amount in zip(widths, amounts, strict=True)
        )
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(above, below, 2, stride=2), nn.ReLU())
            for above, below in pairwise(widths)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(below, above, 2, stride=2) for above, below in pairwise(widths)
        )
        self.decode = nn.ModuleList(_convolution(width, width) for width in widths[:-1])
        self.output = nn.Conv2d(widths[0], 4 * out_channels * (1 + in_channels), 1)
        _start(self)
        with torch.no_grad():
            self.output.weight.mul_(0.1)  # so the untrained output is near 0 or the prior
        if prior is not None:
            _start_at(prior, self.output, out_channels)

    def padded(self, frame: Sequence[int]) -> tuple[int, ...]:
        """Return the size to which a frame is padded."""
        return padded_size(frame, self._multiple)

    def forward(self, frames: Tensor) -> Tensor:
        check_frames("FastUNet", frames, self.in_channels)
        size = frames.shape[2:]
        # channels last takes two thirds of the time on a CPU; only the activations have this
        # layout, since DDP and safetensors need contiguous weights
        whole = pad_frames(frames, self.padded(size))
        whole = whole.contiguous(memory_format=torch.channels_last)
        pixels = self.enter(whole)
        kept: list[Tensor] = []
        for encode, down in zip(self.encode[:-1], self.down, strict=True):
            kept.append(encode(pixels))
            pixels = down(kept[-1])
        pixels = self.encode[-1](pixels)
        for up, decode in zip(reversed(self.up), reversed(self.decode), strict=True):
            pixels = decode(F.relu(up(pixels) + kept.pop()))
        z = F.pixel_shuffle(self.output(pixels), 2)
        z_0, z_c = z[:, : self.out_channels], z[:, self.out_channels :]
        # (B, out_channels, in_channels, H, W), a view
        z_c = z_c.reshape(-1, self.out_channels, self.in_channels, *whole.shape[2:])
        return crop_frames(z_0 + (z_c * whole.unsqueeze(1)).sum(2), size)


def _convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    groups = out_channels // 8 if out_channels % 8 == 0 else 1
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.GroupNorm(groups, out_channels),
        nn.ReLU(),
    )


def _start(network: nn.Module) -> None:
    """Initialise as He et al. (2015); with PyTorch's defaults, hits vanish after a few ReLUs."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            # number of inputs of one output; the transposed kernels do not overlap
            is_up = isinstance(layer, nn.ConvTranspose2d)
            fan_in = layer.in_channels if is_up else layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_in))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _start_at(prior: float | Sequence[float], output: nn.Conv2d, n_classes: int) -> None:
    """Initialise the output layer so that it predicts `prior` at every empty pixel."""
    shares = (prior,) if isinstance(prior, (int, float)) else tuple(prior)
    classes_fit = len(shares) == n_classes and math.isclose(sum(shares), 1, rel_tol=1e-3)
    if not all(0 < share < 1 for share in shares) or not (len(shares) == 1 or classes_fit):
        raise ValueError(
            "Expected `prior` as a share between 0 and 1, or as one share for each of the "
            f"{n_classes} outputs with sum 1, got {prior!r}."
        )
    assert output.bias is not None
    with torch.no_grad():
        output.weight.mul_(0.1)  # with 0, the layers before would have no gradient in step 1
        # depth-to-space takes four numbers for each channel; the first channels are z_0
        bias = output.bias[: 4 * n_classes].view(n_classes, 4)
        if len(shares) == 1:
            bias.fill_(math.log(shares[0] / (1 - shares[0])))
        else:
            bias.copy_(torch.tensor(shares).log()[:, None].expand(-1, 4))
