"""Convolutional autoencoder: a frame through a handful of numbers and back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from dense_imb.models._checks import check_frame, check_frames, check_whole
from dense_imb.models._frames import crop_frames, pad_frames, padded_size

_HALVINGS = 4


class Autoencoder(nn.Module):
    """Frames (B, C, H, W) through a dense bottleneck of `latent` numbers each, and back.

        encoder: 4 times (2 x 2 pixels become channels, 3 x 3 convolution, ReLU), 2 dense layers
        decoder: the same backwards, then a 3 x 3 convolution at full resolution

    The frame's size is part of the dense layers and fixed when the network is made; any size
    will do, since a frame is padded with empty pixels to a multiple of 16 and its output
    cropped. The output has no activation, so that any loss fits. Nothing is normalised: an event
    is encoded the same whatever its batch, and no buffers have to agree between processes.

    Args:
        in_channels, out_channels: C of the input and of the output.
        frame: height and width in pixels.
        latent: numbers that an event is squeezed into.
        width: channels after the first halving; twice and four times as many deeper.
        hidden: units of the dense layer on either side of the bottleneck. They hold most
            of the parameters.
    Example:
        >>> network = Autoencoder(frame=(37, 53), latent=8)
        >>> frames = torch.zeros(2, 1, 37, 53)
        >>> network(frames).shape, network.encode(frames).shape
        (torch.Size([2, 1, 37, 53]), torch.Size([2, 8]))
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        frame: Sequence[int] = (128, 88),
        latent: int = 24,
        width: int = 16,
        hidden: int = 112,
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "latent": latent}
        for name, value in {**sizes, "width": width, "hidden": hidden}.items():
            check_whole(name, value)
        self.in_channels = in_channels
        self.frame = check_frame(frame)
        self._padded = padded_size(self.frame, 2**_HALVINGS)
        height, breadth = (size // 2**_HALVINGS for size in self._padded)
        widths = (width, 2 * width, 4 * width, 4 * width)
        n_dense = widths[-1] * height * breadth

        self.down = nn.Sequential(*(_half(*pair) for pair in pairwise((in_channels, *widths))))
        self.squeeze = nn.Sequential(
            nn.Flatten(), nn.Linear(n_dense, hidden), nn.ReLU(), nn.Linear(hidden, latent)
        )
        self.spread = nn.Sequential(
            nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, n_dense), nn.ReLU(),
            nn.Unflatten(1, (widths[-1], height, breadth)),
        )  # fmt: skip
        self.up = nn.Sequential(*(_double(*pair) for pair in pairwise((*reversed(widths), width))))
        self.output = nn.Conv2d(width, out_channels, 3, padding=1)

    def padded(self, frame: Sequence[int]) -> tuple[int, ...]:
        """The size of a frame with the pixels that are put behind it."""
        return padded_size(frame, 2**_HALVINGS)

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (B, C, H, W) as (B, latent)."""
        check_frames("Autoencoder", frames, self.in_channels)
        if tuple(frames.shape[2:]) != self.frame:
            given, wanted = (" x ".join(map(str, size)) for size in (frames.shape[2:], self.frame))
            raise ValueError(
                f"Expected frames of {wanted} pixels for this Autoencoder, got {given}; "
                f"its dense layers need one made with frame={tuple(frames.shape[2:])}."
            )
        pixels = self.down(pad_frames(frames, self._padded))
        return self.squeeze(pixels)  # type: ignore[no-any-return]

    def decode(self, code: Tensor) -> Tensor:
        """Codes (B, latent) as frames."""
        # the layout that a CPU convolves faster in
        pixels = self.spread(code).contiguous(memory_format=torch.channels_last)
        return crop_frames(self.output(self.up(pixels)), self.frame)

    def forward(self, frames: Tensor) -> Tensor:
        return self.decode(self.encode(frames))


def _half(before: int, after: int) -> nn.Sequential:
    convolution = nn.Conv2d(4 * before, after, 3, padding=1)
    return nn.Sequential(nn.PixelUnshuffle(2), convolution, nn.ReLU())


def _double(before: int, after: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, 4 * after, 3, padding=1)
    return nn.Sequential(convolution, nn.ReLU(), nn.PixelShuffle(2))
