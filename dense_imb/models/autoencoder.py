"""Convolutional autoencoder, with a dense bottleneck or without."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from dense_imb.models._checks import check_frame, check_frames, check_whole
from dense_imb.models._frames import crop_frames, pad_frames, padded_size

_HALVINGS = 4


class Autoencoder(nn.Module):
    """Autoencoder that compresses each frame (B, C, H, W) to `latent` numbers.

        encoder: 4 times (2 x 2 pixels become channels, 3 x 3 convolution, ReLU), 2 dense layers
        decoder: the encoder reversed, then a 3 x 3 convolution at full resolution

    The dense layers fix the frame size when the network is built. Any size is possible: frames
    are padded with zeros to a multiple of 16, and the output is cropped. The output has no
    activation, so any loss fits. There is no normalisation: the code of a frame does not depend
    on its batch, and processes have no buffers to synchronise.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        frame: height and width in pixels.
        latent: size of the bottleneck; None for none, so that a code is a small frame.
        width: channels after the first halving; deeper layers have two and four times as many.
        hidden: units of the dense layers next to the bottleneck, which hold most parameters.
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
        latent: int | None = 24,
        width: int = 16,
        hidden: int = 112,
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels}
        if latent is not None:
            sizes["latent"] = latent
        for name, value in {**sizes, "width": width, "hidden": hidden}.items():
            check_whole(name, value)
        self.in_channels = in_channels
        self.frame = check_frame(frame)
        self._padded = padded_size(self.frame, 2**_HALVINGS)
        height, breadth = (size // 2**_HALVINGS for size in self._padded)
        widths = (width, 2 * width, 4 * width, 4 * width)
        n_dense = widths[-1] * height * breadth

        self.down = nn.Sequential(*(_half(*pair) for pair in pairwise((in_channels, *widths))))
        self.squeeze: nn.Module = nn.Identity()
        self.spread: nn.Module = nn.Identity()
        if latent is not None:
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
        """Return the size to which a frame is padded."""
        return padded_size(frame, 2**_HALVINGS)

    def encode(self, frames: Tensor) -> Tensor:
        """Return the codes (B, latent) of frames (B, C, H, W), small frames without bottleneck."""
        check_frames("Autoencoder", frames, self.in_channels)
        if tuple(frames.shape[2:]) != self.frame:
            given, wanted = (" x ".join(map(str, size)) for size in (frames.shape[2:], self.frame))
            raise ValueError(
                f"Expected frames of {wanted} pixels for this Autoencoder, got {given}; "
                f"build one with frame={tuple(frames.shape[2:])}."
            )
        pixels = self.down(pad_frames(frames, self._padded))
        return self.squeeze(pixels)  # type: ignore[no-any-return]

    def decode(self, code: Tensor) -> Tensor:
        """Return the frames (B, out_channels, H, W) of codes."""
        # convolutions on a CPU are faster in this layout
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
