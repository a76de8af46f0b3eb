"""What of a run is exported: its network with all that stands before and after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.data.events.virtual import VALIDATION_EPOCH
from dense_imb.hits import Events, Geometry, gap, rasterise
from dense_imb.hits.frames import TURNS
from dense_imb.report.measure import validation_events
from dense_imb.runs import Run
from dense_imb.tasks import HitsReading, ImagesReading
from dense_imb.tasks.base import as_logits
from dense_imb.tasks.images.recipe import open_images

_SAMPLES = 4
_VALIDATION = "validation data of the run"
_RANDOM = "random frames, since the run's validation data can't be read"


class SegmentingNetwork(nn.Module):
    """Pixels as they are in a file to the probability of each class.

        probability = softmax(z), or (1 - sigmoid(z), sigmoid(z)) of one channel,
        z = network((image - mean) / std)

    Args:
        network: of a run on images.
        reading: of the run.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, reading: ImagesReading) -> None:
        super().__init__()
        shape = (1, -1) + (1,) * len(reading.patch)
        self.network, self.is_logit = network, reading.is_logit
        self.register_buffer("mean", torch.tensor(reading.mean).reshape(shape))
        self.register_buffer("std", torch.tensor(reading.std).reshape(shape))

    def forward(self, image: Tensor) -> Tensor:  # (B, channels, *spatial)
        logits = self.network((image - self.mean) / self.std)
        logits = as_logits(logits, is_logit=self.is_logit)
        if logits.shape[1] > 1:
            return logits.softmax(1)
        of_second = logits.sigmoid()
        return torch.cat([1 - of_second, of_second], 1)


class DenoisingNetwork(nn.Module):
    """Frames of hit times, 0 where no hit is, to the score of each pixel.

    The channels of `dense_imb.hits.encode` are made inside, and the output is read as
    `HitsReading.score` reads it: the score of a hit is that of its pixel.

    Args:
        network: of a run on hits.
        reading: of the run.
        geometry: of the run.
    """

    def __init__(self, network: nn.Module, reading: HitsReading, geometry: Geometry) -> None:
        super().__init__()
        self.network, self.reading, self.time_steps = network, reading, geometry.time_steps

    def forward(self, time: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # (B, 1, H, W)
        reading, is_hit = self.reading, time > 0
        own = gap(time, self.time_steps, reading.threshold)
        output = self.network(self._encoded(time, own, is_hit))
        if reading.output == "value":
            error = (output - own).abs() / torch.where(is_hit, own, torch.ones_like(own))
            score = torch.where(is_hit, torch.clamp(1 - error, 0, 1), torch.zeros_like(own))
            return score, output
        score = as_logits(output[:, :1], is_logit=reading.is_logit)
        return score.sigmoid() if reading.output == "score" else (score.sigmoid(), output[:, 1:2])

    def _encoded(self, time: Tensor, own: Tensor, is_hit: Tensor) -> Tensor:
        hit = is_hit.to(time.dtype)
        turn = (2 * math.pi / self.time_steps) * time
        channels: list[Tensor] = []
        for channel in self.reading.channels:
            if channel == "fourier":
                channels += [wave(n * turn) * hit for n in TURNS for wave in (torch.sin, torch.cos)]
            else:
                channels.append(own if channel == "gapped" else hit)
        return torch.cat(channels, 1)


@dataclass(frozen=True)
class Exportable:
    """A network with what it takes and gives.

    Args:
        network: takes one tensor, gives one for each of `outputs`.
        input: name of what it takes.
        outputs: names of what it gives.
        frame: the size that it was trained on.
        channels: of its input.
        fits_any_size: worth trying; frames of hits have one size.
        samples: (1, C, *frame) each, to compare on.
        source: of the samples.
        sizes: of the training data, in words; None of hits, and where they are gone.
        reading: of the run.
        geometry: of a run on hits.
    """

    network: nn.Module
    input: str
    outputs: tuple[str, ...]
    frame: tuple[int, ...]
    channels: int
    fits_any_size: bool
    samples: tuple[Tensor, ...]
    source: str
    sizes: str | None
    reading: HitsReading | ImagesReading
    geometry: Geometry | None = None

    @torch.no_grad()
    def answers(self, given: Tensor) -> list[Tensor]:
        """The outputs, by PyTorch."""
        return as_list(self.network(given))

    def of_another_size(self) -> Tensor:
        """A sample with one more pixel on an axis, two on the next: what a fixed size refuses."""
        extra = [k + 1 for k in range(len(self.frame))]
        ends = [end for more in reversed(extra) for end in (0, more)]
        return nn.functional.pad(self.samples[0], ends, mode="replicate")


def as_list(given: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """One output or several, as a list."""
    return [given] if isinstance(given, Tensor) else list(given)


def exportable(run: Run) -> Exportable:
    """The best network of a run, on the CPU, with frames to compare on."""
    return _of_images(run) if run.config.trains_on_images else _of_hits(run)


def _of_images(run: Run) -> Exportable:
    segmenter = run.trained(device="cpu")
    reading = segmenter.reading
    try:
        train, images = open_images(run.config.images)
        pixels = [images.image(i) for i in range(min(len(images), _SAMPLES))]
        source, sizes = _VALIDATION, f"{len(train)} images, {len(images)} to validate"
    except (ValueError, OSError):
        rng = np.random.default_rng(0)
        normal = [rng.normal(size=(reading.in_channels, *reading.patch)) for _ in range(_SAMPLES)]
        shape = (-1,) + (1,) * len(reading.patch)
        pixels = [
            np.reshape(reading.mean, shape) + x * np.reshape(reading.std, shape) for x in normal
        ]
        source, sizes = _RANDOM, None
    crops = [_cropped(x.astype(np.float32), reading.patch) for x in pixels]
    return Exportable(
        SegmentingNetwork(segmenter.network, reading).eval(),
        "image",
        ("probability",),
        reading.patch,
        reading.in_channels,
        True,
        tuple(torch.from_numpy(crop)[None] for crop in crops),
        source,
        sizes,
        reading,
    )


def _cropped(image: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """The middle of an image (C, *spatial), its edges repeated where it is too small."""
    missing = [max(s - n, 0) for s, n in zip(size, image.shape[1:], strict=True)]
    image = np.pad(image, [(0, 0), *((0, more) for more in missing)], mode="edge")
    starts = [(n - s) // 2 for s, n in zip(size, image.shape[1:], strict=True)]
    return image[(slice(None), *(slice(a, a + s) for a, s in zip(starts, size, strict=True)))]


def _of_hits(run: Run) -> Exportable:
    scorer = run.trained(device="cpu")
    geometry = scorer.geometry
    try:
        held_out = validation_events(run)
        events = held_out.degraded(np.arange(min(len(held_out), _SAMPLES)), VALIDATION_EPOCH)
        source = _VALIDATION
    except (ValueError, OSError):
        events, source = _random_events(geometry), _RANDOM
    frames = rasterise(events).frame
    has_value = scorer.reading.output != "score"
    return Exportable(
        DenoisingNetwork(scorer.network, scorer.reading, geometry).eval(),
        "time",
        ("score", "value") if has_value else ("score",),
        (geometry.height, geometry.width),
        1,
        False,
        tuple(frame[None].contiguous() for frame in frames),
        source,
        None,  # their fingerprint tells
        scorer.reading,
        geometry,
    )


def _random_events(geometry: Geometry, n_hits: int = 200) -> Events:
    rng = np.random.default_rng(0)
    sizes = (geometry.width, geometry.height, geometry.time_steps)
    x, y, t = (rng.integers(0, size, _SAMPLES * n_hits) for size in sizes)
    return Events(geometry, n_hits * np.arange(_SAMPLES + 1), x, y, t + 1)
