"""The windows of a run on images as part of a graph, for images of any size."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dense_imb.tasks.pixels import OVERLAP


class Windows(nn.Module):
    """A network behind the windows of `ImagesReading.logits`, in operations that can be exported.

    An image that fits in a window is processed whole. A larger one is cut into overlapping windows,
    of which the outputs are blended with Gaussian weights; its sides below that of the window are
    extended by repeated edges. The windows are processed one by one, all in one loop of the graph.

    Args:
        network: network of the run.
        size: size of a window.
        takes_less: whether the network takes images smaller than a window. If not, their edges are
            repeated, too.
    """

    weight: Tensor

    def __init__(self, network: nn.Module, size: Sequence[int], *, takes_less: bool) -> None:
        super().__init__()
        self.network, self.size, self.takes_less = network, tuple(size), takes_less
        self.steps = [max(int(side * (1 - OVERLAP)), 1) for side in size]
        weight = importlib.import_module("monai.data.utils").compute_importance_map(
            self.size, mode="gaussian", sigma_scale=0.125
        )
        self.register_buffer("weight", weight)

    def forward(self, shown: Tensor) -> Tensor:  # (B, C, *spatial)
        sides = shown.shape[2:]
        if all(isinstance(side, int) for side in sides):
            assert tuple(sides) == self.size
            return self._whole(shown)
        if not self.takes_less:
            return self._windowed(shown)
        fits = [
            _number(side) <= of_window for side, of_window in zip(sides, self.size, strict=True)
        ]
        output: Tensor = torch.cond(torch.cat(fits).all(), self._whole, self._windowed, (shown,))
        return output

    def _whole(self, shown: Tensor) -> Tensor:
        output: Tensor = self.network(shown)
        return output.float()

    def _windowed(self, shown: Tensor) -> Tensor:
        batch, channels, *sides = shown.shape
        canvas: list[Any] = [
            torch.sym_max(side, size) for side, size in zip(sides, self.size, strict=True)
        ]
        margins = [(n - side) // 2 for n, side in zip(canvas, sides, strict=True)]
        rows = self._rows(canvas)
        within = [  # a repeated edge around the image
            (row - margin).clamp(min=0, max=side - 1)
            for row, margin, side in zip(rows, margins, sides, strict=True)
        ]
        windows = shown.flatten(2).index_select(2, _places(within, sides))
        windows = windows.reshape(batch, channels, -1, *self.size).transpose(1, 2).flatten(0, 1)
        outputs = self._outputs(windows) * self.weight
        outputs = outputs.view(batch, -1, *outputs.shape[1:])
        outputs = outputs.transpose(1, 2).flatten(2)  # (B, K, pixels)

        places = _places(rows, canvas)
        n_pixels = _product(canvas)
        total = outputs.new_zeros(batch, outputs.shape[1], n_pixels).index_add(2, places, outputs)
        weights = self.weight.flatten().repeat(rows[0].shape[0]).view(1, 1, -1)
        total = total / weights.new_zeros(1, 1, n_pixels).index_add(2, places, weights)
        blended: Tensor = total.view(batch, -1, *canvas)
        for axis, (margin, side) in enumerate(zip(margins, sides, strict=True), 2):
            blended = blended.index_select(axis, torch.arange(side) + margin)
        return blended

    def _rows(self, canvas: Sequence[int]) -> list[Tensor]:
        """Return the coordinates of the windows' pixels, (windows, side) for each axis."""
        counts = [
            (n - size + step - 1) // step + 1
            for n, size, step in zip(canvas, self.size, self.steps, strict=True)
        ]
        # an image of one window is processed whole: let the tracer know that there are more
        number = torch.arange(torch.sym_max(_product(counts), 2))
        rows = []
        for axis in reversed(range(len(canvas))):
            count = _number(counts[axis])
            start = torch.remainder(number, count) * self.steps[axis]
            number = torch.div(number, count, rounding_mode="floor")
            start = start.clamp(max=canvas[axis] - self.size[axis])
            rows.append(start.unsqueeze(1) + torch.arange(self.size[axis]))
        return rows[::-1]

    def _outputs(self, windows: Tensor) -> Tensor:
        """Return the outputs of windows, (N, K, *size), one by one."""
        from torch._higher_order_ops.scan import scan

        def see(nothing: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
            return nothing.clone(), self._whole(window.unsqueeze(0)).squeeze(0)

        outputs: Tensor = scan(see, torch.zeros(1), windows)[1]
        return outputs


def _places(rows: Sequence[Tensor], sides: Sequence[int]) -> Tensor:
    """Return the flat place of each pixel of each window in an image of `sides`."""
    place: Tensor | int = 0
    for axis, (row, side) in enumerate(zip(rows, sides, strict=True)):
        shape = (-1, *(row.shape[1] if k == axis else 1 for k in range(len(rows))))
        place = (place * side if axis else 0) + row.view(shape)
    assert isinstance(place, Tensor)
    return place.reshape(-1)


def _number(number: int) -> Tensor:  # (1,)
    return torch.full((1,), number, dtype=torch.int64)


def _product(numbers: Sequence[int]) -> int:
    product = numbers[0]
    for number in numbers[1:]:
        product = product * number
    return product
