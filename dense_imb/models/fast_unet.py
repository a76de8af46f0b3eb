"""FastUNet: a U-Net shaped for a CPU and for hits that are single pixels."""

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
    """Frames (B, C, H, W) of any size to frames of the same size, quickly.

        stem     space-to-depth: 2 x 2 pixels become one of 4 C channels, and nothing is lost
        levels   at 1/2, 1/4, ... of the resolution; a level's input is added to what comes back
                 from below
        head     depth-to-space, then  output = z_0 + sum_c z_c input_c  at each pixel

    The head meets the input itself, so a hit keeps its own pixel and time: the levels say what
    they expect of a hit at a pixel, and the product with what is there is the answer. With sin
    and cos of time as channels it compares the hit's time with that of a pattern. It is all that
    happens at full resolution, where time goes; the deep levels are where capacity costs little.

    The levels are normalised in groups of 8 channels of one frame: a tenth more time than without,
    for far faster learning; and unlike batch normalisation (no faster) a frame's output is the
    same whatever its batch, and there are no buffers that processes would have to agree on. Frames
    are padded with empty pixels to a multiple of 2^levels; the output is cropped and has no
    activation.

    Args:
        in_channels, out_channels: C of the input and of the output.
        widths: channels of each level, from 1/2 of the resolution downwards.
        prior: share of the foreground that the untrained output shall predict: a number for
            sigmoid outputs, one number a class (their sum is 1) for a softmax. None: no prior.
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
        # the first level has its convolution in `enter`; where it is cheapest there are two
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
            self.output.weight.mul_(0.1)  # the untrained output is near 0, or near its prior
        if prior is not None:
            _start_at(prior, self.output, out_channels)

    def padded(self, frame: Sequence[int]) -> tuple[int, ...]:
        """The size of a frame with the pixels that are put behind it."""
        return padded_size(frame, self._multiple)

    def forward(self, frames: Tensor) -> Tensor:
        check_frames("FastUNet", frames, self.in_channels)
        size = frames.shape[2:]
        # channels last is two thirds of the time on a CPU; as the layout of what flows and not
        # of the weights, which DDP and safetensors want contiguous
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
        found = F.pixel_shuffle(self.output(pixels), 2)
        bias, expected = found[:, : self.out_channels], found[:, self.out_channels :]
        # (B, out_channels, in_channels, H, W), as it lies in memory
        split = expected.reshape(-1, self.out_channels, self.in_channels, *whole.shape[2:])
        return crop_frames(bias + (split * whole.unsqueeze(1)).sum(2), size)


def _convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    groups = out_channels // 8 if out_channels % 8 == 0 else 1
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.GroupNorm(groups, out_channels),
        nn.ReLU(),
    )


def _start(network: nn.Module) -> None:
    """He's initial weights: torch's own shrink hits to nothing on their way through ReLUs."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            # inputs that one output sums; a transposed one's kernels don't overlap
            is_up = isinstance(layer, nn.ConvTranspose2d)
            fan_in = layer.in_channels if is_up else layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_in))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _start_at(prior: float | Sequence[float], output: nn.Conv2d, n_classes: int) -> None:
    """Let the untrained layer's output say `prior` at every empty pixel."""
    shares = (prior,) if isinstance(prior, (int, float)) else tuple(prior)
    classes_fit = len(shares) == n_classes and math.isclose(sum(shares), 1, rel_tol=1e-3)
    if not all(0 < share < 1 for share in shares) or not (len(shares) == 1 or classes_fit):
        raise ValueError(
            "Expected `prior` as a share between 0 and 1, or as one share for each of the "
            f"{n_classes} outputs whose sum is 1, got {prior!r}."
        )
    assert output.bias is not None
    with torch.no_grad():
        output.weight.mul_(0.1)  # nearer; with 0 the layers before it would miss a step
        # depth-to-space takes four numbers for each channel; the first channels are the bias
        bias = output.bias[: 4 * n_classes].view(n_classes, 4)
        if len(shares) == 1:
            bias.fill_(math.log(shares[0] / (1 - shares[0])))
        else:
            bias.copy_(torch.tensor(shares).log()[:, None].expand(-1, 4))
