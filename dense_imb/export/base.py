"""The base of what can be exported: a network with its description, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.runs import Run

N_SAMPLES = 4
FROM_VALIDATION = "validation data of the run"
FROM_RANDOM = "random {}, since the run's validation data can't be read"
AXES = {2: ("height", "width"), 3: ("depth", "height", "width")}
_TRACED = 61  # side of the frames to trace with: odd, so that all padding is traced

Inputs = tuple[Tensor, ...]
Answer = Callable[[Inputs], list[Tensor]]


@dataclass(frozen=True)
class Exportable:
    """Base class of exportable networks: a subclass for each kind of run describes its own.

    Args:
        run: the run of the network.
        network: module that takes the tensors of `inputs`, and returns one for each of `outputs`.
        outputs: names of the outputs.
        samples: inputs to compare on.
        source: origin of the samples.
    """

    run: Run
    network: nn.Module
    outputs: tuple[str, ...]
    samples: tuple[Any, ...]
    source: str

    kind: ClassVar[str]  # denoiser, segmenter, classifier or predictor
    purpose: ClassVar[str]  # predicate of a sentence about the file
    unit: ClassVar[str] = "frames"  # of which a batch consists
    # whether to write for any size, or for that of training; the next is tried if one fails
    sizes_to_try: ClassVar[tuple[bool, ...]] = (False,)
    measured_on: ClassVar[str]  # data of the scores
    cure: ClassVar[str] = ""  # for networks that no file can hold

    @property
    def unit_of_outputs(self) -> float:
        """Size of a typical output, in which differences from PyTorch are measured."""
        return 1.0

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        raise NotImplementedError

    @property
    def trained_on_size(self) -> list[int] | str:
        """Size of the training data."""
        raise NotImplementedError

    def input_facts(self, any_size: bool) -> list[dict[str, Any]]:
        """Return name, type, shape and meaning of each input."""
        raise NotImplementedError

    def output_facts(self, any_size: bool) -> list[dict[str, Any]]:
        """Return name, type, shape and meaning of each output."""
        raise NotImplementedError

    def training_facts(self) -> dict[str, Any]:
        """Return the files and sizes of the training data."""
        raise NotImplementedError

    def further_facts(self) -> dict[str, Any]:
        """Return facts that other kinds of networks lack."""
        return {}

    def natural_scores(self) -> dict[str, float]:
        """Return the validation scores of natural probabilities; {} where they can't be read."""
        return {}

    def read_out_scores(self) -> dict[str, float]:
        """Return the validation scores of the values after the read-out of the run."""
        raise NotImplementedError

    def operating_point(self) -> dict[str, Any] | None:
        """Return the decision rule that validation chose; None if its counts are missing."""
        raise NotImplementedError

    def limitations(self, any_size: bool) -> list[str]:
        """Return the limits of this kind of network, a sentence each."""
        raise NotImplementedError

    def example(self, any_size: bool) -> tuple[Inputs, tuple[dict[int, Any], ...]]:
        """Return inputs to trace with, and their axes of any length."""
        raise NotImplementedError

    def batch(self, numbers: Sequence[int]) -> Inputs:
        """Return the samples of these numbers as a batch."""
        raise NotImplementedError

    def describe_size(self, given: Inputs) -> str:
        """Return the size of one entry of a batch as text."""
        raise NotImplementedError

    def inputs_to_compare(self, any_size: bool) -> list[Inputs]:
        """Return the samples one by one and together."""
        everyone = range(len(self.samples))
        return [*(self.batch([number]) for number in everyone), self.batch(everyone)]

    def file_scores(self, answer: Answer) -> dict[str, Any]:
        """Return scores of the file on validation data, beside those of the run; {} without any.

        Args:
            answer: function that runs the network of the file.
        """
        return {}

    @torch.no_grad()
    def answers(self, given: Inputs) -> list[Tensor]:
        """Return the outputs of PyTorch."""
        return as_list(self.network(*given))


@dataclass(frozen=True)
class ExportableFrames(Exportable):
    """Base class of networks of frames and images.

    Args:
        frame: size of the inputs in training.
        channels: channels of the input; samples are (1, C, *frame).
    """

    frame: tuple[int, ...]
    channels: int

    input: ClassVar[str]  # name of the input

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    @property
    def trained_on_size(self) -> list[int]:
        return list(self.frame)

    def input_facts(self, any_size: bool) -> list[dict[str, Any]]:
        shape = ["batch", self.channels, *self.sides(any_size)]
        return [{"name": self.input, "dtype": "float32", "shape": shape, **self.meaning()}]

    def meaning(self) -> dict[str, Any]:
        """Return the meaning of the input, beside its name, type and shape."""
        raise NotImplementedError

    def sides(self, any_size: bool) -> list[Any]:
        """Return the sizes of an input: names of axes if they are free, else numbers."""
        return list(AXES[len(self.frame)] if any_size else self.frame)

    @property
    def frame_text(self) -> str:
        """Size of the frame as text."""
        return " x ".join(map(str, self.frame))

    def example(self, any_size: bool) -> tuple[Inputs, tuple[dict[int, Any], ...]]:
        dynamic = torch.export.Dim.DYNAMIC
        sides: Sequence[int] = self.frame
        axes: dict[int, Any] = {0: dynamic}
        if any_size:
            sides = [max(side, _TRACED) + 2 * k + 1 - side % 2 for k, side in enumerate(sides)]
            axes |= {2 + k: dynamic for k in range(len(sides))}
        return (torch.zeros(2, self.channels, *sides),), (axes,)

    def batch(self, numbers: Sequence[int]) -> Inputs:
        return (torch.cat([self.samples[number] for number in numbers]),)

    def describe_size(self, given: Inputs) -> str:
        return f"{self.frame_text} pixels"

    def inputs_to_compare(self, any_size: bool) -> list[Inputs]:
        more = self.samples_of_other_sizes() if any_size else []
        return [*super().inputs_to_compare(any_size), *((one,) for one in more)]

    def samples_of_other_sizes(self) -> list[Tensor]:
        """Return a sample with one more pixel on the first axis, two more on the second, ..."""
        return [self.resized([k + 1 for k in range(len(self.frame))])]

    def resized(self, extra: Sequence[int]) -> Tensor:
        """Return the first sample with more pixels at the end of each axis, or fewer."""
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
