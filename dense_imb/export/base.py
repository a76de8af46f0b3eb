"""The base of what can be exported: a network with its description, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.runs import Run

N_SAMPLES = 4
FROM_VALIDATION = "validation data of the run"
FROM_RANDOM = "random frames, since the run's validation data can't be read"
_TRACED = 61  # side of the frames to trace with: odd, so that all padding is traced
Given = tuple[Tensor, ...]  # the inputs of one call of the network
AXES = {2: ("height", "width"), 3: ("depth", "height", "width")}


@dataclass(frozen=True)
class Exportable:
    """Base class of exportable networks: a subclass for each kind of run describes its own.

    Args:
        run: the run of the network.
        network: module that takes a tensor for each of `names`, returns one for each of `outputs`.
        outputs: names of the outputs.
        frame: size of the inputs in training.
        channels: channels of the input.
        samples: inputs to compare on: tensors (1, C, *frame), or tuples of several tensors.
        source: origin of the samples.
    """

    run: Run
    network: nn.Module
    outputs: tuple[str, ...]
    frame: tuple[int, ...]
    channels: int
    samples: tuple[Any, ...]
    source: str

    kind: ClassVar[str]  # denoiser, segmenter or classifier
    purpose: ClassVar[str]  # predicate of a sentence about the file
    input: ClassVar[str]  # name of the input, or of the first one
    parts: ClassVar[str] = "frames"  # the samples in words
    fits_any_size: ClassVar[bool] = False  # whether other sizes than the frame are worth trying
    measured_on: ClassVar[str]  # data of the scores

    def input_facts(self) -> dict[str, Any]:
        """Return the meaning of the input, beside its name, type and shape."""
        raise NotImplementedError

    def all_input_facts(self, any_size: bool) -> list[dict[str, Any]]:
        """Return name, type, shape and meaning of each input."""
        shape = ["batch", self.channels, *self.sides(any_size)]
        own = {"name": self.input, "dtype": "float32", "shape": shape}
        return [{**own, **self.input_facts()}]

    def output_facts(self, any_size: bool) -> list[dict[str, Any]]:
        """Return name, shape and meaning of each output."""
        raise NotImplementedError

    def training_facts(self) -> dict[str, Any]:
        """Return the files and sizes of the training data."""
        raise NotImplementedError

    def operating_point(self) -> dict[str, Any] | None:
        """Return the decision rule that validation chose; None if its counts are missing."""
        raise NotImplementedError

    def limitations(self, any_size: bool) -> list[str]:
        """Return the limits of this kind of network, a sentence each."""
        raise NotImplementedError

    def sides(self, any_size: bool) -> list[Any]:
        """Return the sizes of an input: names of axes if they are free, else numbers."""
        return list(AXES[len(self.frame)] if any_size else self.frame)

    @property
    def frame_text(self) -> str:
        """Size of the frame as text."""
        return " x ".join(map(str, self.frame))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return (self.input,)

    def size_of(self, given: Given) -> tuple[int, ...]:
        """Return the size of the frames of a call."""
        return self.frame

    def calls(self) -> list[Given]:
        """Return the inputs of a call for each sample."""
        return [one if isinstance(one, tuple) else (one,) for one in self.samples]

    def together(self, calls: Sequence[Given]) -> Given:
        """Return the inputs of one call for several samples."""
        return tuple(torch.cat(parts) for parts in zip(*calls, strict=True))

    def example(self, any_size: bool) -> tuple[Given, tuple[dict[int, Any], ...]]:
        """Return inputs to trace with, and the free axes of each."""
        dynamic = torch.export.Dim.DYNAMIC
        sides: Sequence[int] = self.frame
        axes: dict[int, Any] = {0: dynamic}
        if any_size:
            sides = [max(side, _TRACED) + 2 * k + 1 - side % 2 for k, side in enumerate(sides)]
            axes |= {2 + k: dynamic for k in range(len(sides))}
        return (torch.zeros(2, self.channels, *sides),), (axes,)

    @torch.no_grad()
    def answers(self, *given: Tensor) -> list[Tensor]:
        """Return the outputs of PyTorch."""
        return as_list(self.network(*given))

    def sample_of_other_size(self) -> Tensor:
        """Return a sample with one more pixel on the first axis, two more on the second, ..."""
        extra = [k + 1 for k in range(len(self.frame))]
        ends = [end for more in reversed(extra) for end in (0, more)]
        return nn.functional.pad(self.samples[0], ends, mode="replicate")


def as_list(given: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Return one or several outputs as a list."""
    return [given] if isinstance(given, Tensor) else list(given)


def random_pixels(
    mean: Sequence[float], std: Sequence[float], size: Sequence[int]
) -> list[NDArray[Any]]:
    """Return random images (C, *size) with the moments of the training images."""
    rng = np.random.default_rng(0)
    shape = (-1,) + (1,) * len(size)
    normal = [rng.normal(size=(len(mean), *size)) for _ in range(N_SAMPLES)]
    return [np.reshape(mean, shape) + x * np.reshape(std, shape) for x in normal]
