"""Exported networks of frames of hits: frames of hit times in, scores out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from dense_imb.data.events.virtual import VALIDATION_EPOCH
from dense_imb.export.base import FROM_RANDOM, FROM_VALIDATION, N_SAMPLES, ExportableFrames
from dense_imb.hits import Events, Geometry, gap, rasterise
from dense_imb.hits.frames import TURNS
from dense_imb.report.hits.measures import validation_events
from dense_imb.runs import Run
from dense_imb.tasks import FrameReading
from dense_imb.tasks.base import as_logits
from dense_imb.tasks.hits.scoring import validation_scores

_GAPPED = "r + (1 - r) t / T at a hit, 0 elsewhere"
_CHANNELS = {
    "gapped": _GAPPED,
    "hit": "1 at a hit, 0 elsewhere",
    "fourier": f"sin and cos of {', '.join(map(str, TURNS[:-1]))} and {TURNS[-1]} turns of "
    "2 pi t / T at a hit, 0 elsewhere",
}


class DenoisingNetwork(nn.Module):
    """Network from frames of hit times, 0 where no hit is, to the score of each pixel.

    It makes the channels of `dense_imb.hits.encode` itself, and reads the output like
    `FrameReading.score`: the score of a hit is that of its pixel.

    Args:
        network: network of a run on hits.
        reading: reading of the run.
        geometry: frames of the run.
    """

    def __init__(self, network: nn.Module, reading: FrameReading, geometry: Geometry) -> None:
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
        score = as_logits(output[:, :1], is_logit=reading.is_logit, natural=reading.natural)
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
class ExportableDenoiser(ExportableFrames):
    """The network of a run on hits that sees frames.

    Args:
        reading: reading of the run.
        geometry: frames of the run.
    """

    reading: FrameReading
    geometry: Geometry

    kind: ClassVar[str] = "denoiser"
    purpose: ClassVar[str] = "separates the hits of a pattern from noise"
    input: ClassVar[str] = "time"
    measured_on: ClassVar[str] = "validation events of the run, hits that a frame shows"

    def meaning(self) -> dict[str, Any]:
        steps = self.geometry.time_steps
        return {
            "is": f"time of the hit in each pixel, 1 to T = {steps} time steps, 0 without a hit; "
            "of several hits in a pixel the largest time; encoded inside",
            "time_steps": steps,
            "threshold_r": self.reading.threshold,
            "channels": {name: _CHANNELS[name] for name in self.reading.channels},
        }

    def output_facts(self, any_size: bool) -> list[dict[str, Any]]:
        score = "from 0, noise, to 1, signal; read it at the pixels of the hits"
        if self.reading.output == "value":
            score += "; 1 - |value - v| / v, at least 0, v = r + (1 - r) t / T of the hit"
        meanings = {
            "score": score,
            "value": f"time that the network predicts for a pixel, scaled: {_GAPPED}",
        }
        shape = ["batch", 1, *self.sides(any_size)]
        return [
            {"name": name, "dtype": "float32", "shape": shape, "is": meanings[name]}
            for name in self.outputs
        ]

    def training_facts(self) -> dict[str, Any]:
        hits, setup = self.run.config.hits, self.run.checkpoint()["setup"]
        facts = {
            "train": hits.train,
            "validation": hits.validation,
            "degradation": setup.get("degradation"),
        }
        return {**facts, "value_loss": hits.value_loss} if hits.output == "both" else facts

    def natural_scores(self) -> dict[str, float]:
        try:
            return validation_scores(self.run.scores(), self.run.config.hits.retention)
        except (ValueError, OSError):
            return {}

    def operating_point(self) -> dict[str, Any] | None:
        try:
            point = self.run.operating_point()
        except (ValueError, OSError):
            return None
        return {"chosen_at_retention": self.run.config.hits.retention, **point.as_json()}

    def limitations(self, any_size: bool) -> list[str]:
        hidden = (
            "they share the score of the hit in front."
            if self.reading.output != "value"
            else "score them by their own time with the formula of the score."
        )
        return [
            f"It takes frames of {self.frame_text} pixels and {self.geometry.time_steps} time "
            "steps only, as in training.",
            f"It does not see hits behind another one in their pixel; {hidden}",
            "The validation data chose both the weights and the threshold: scores on new data are "
            "slightly lower.",
        ]


def exportable(run: Run) -> ExportableDenoiser:
    """Return the best network of a run on hits that sees frames."""
    scorer = run.trained(device="cpu")
    geometry = scorer.geometry
    try:
        held_out = validation_events(run)
        events = held_out.degraded(np.arange(min(len(held_out), N_SAMPLES)), VALIDATION_EPOCH)
        source = FROM_VALIDATION
    except (ValueError, OSError):
        events, source = _random_events(geometry), FROM_RANDOM.format("frames")
    return ExportableDenoiser(
        run,
        DenoisingNetwork(scorer.network, scorer.reading, geometry).eval(),
        ("score", "value") if scorer.reading.output != "score" else ("score",),
        tuple(frame[None].contiguous() for frame in rasterise(events).frame),
        source,
        (geometry.height, geometry.width),
        1,
        scorer.reading,
        geometry,
    )


def _random_events(geometry: Geometry, n_hits: int = 200) -> Events:
    rng = np.random.default_rng(0)
    sizes = (geometry.width, geometry.height, geometry.time_steps)
    x, y, t = (rng.integers(0, size, N_SAMPLES * n_hits) for size in sizes)
    return Events(geometry, n_hits * np.arange(N_SAMPLES + 1), x, y, t + 1)
