"""Exported networks of hits: padded events in, the score of each hit out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dense_imb.base.refusals import Refused
from dense_imb.data.events.virtual import VALIDATION_EPOCH
from dense_imb.export.base import FROM_VALIDATION, N_SAMPLES, Exportable, Given, as_list
from dense_imb.hits import Events, Geometry
from dense_imb.models import HitInput, HitTransformer
from dense_imb.report.hits.measures import validation_events
from dense_imb.runs import Run
from dense_imb.tasks.base import as_logits
from dense_imb.tasks.hits.task import DIRECTION, HitsReading
from dense_imb.tasks.hits.trained import KnownTable, TrainedHits

_TRACED = 7  # hits of the events to trace with
FROM_MADE_UP = "made-up hits, since the run's validation data can't be read"
WAYS = (
    "take the weights, best.safetensors in the folder of the run, with `dense_imb.denoise` or "
    "`open_run(RUN).trained()` in Python"
)


class PaddedHits(nn.Module):
    """A `HitTransformer` on a batch of padded events, in real numbers and with full attention.

    Its scores are those of the network for events of at most `window` hits.

    Args:
        network: network of a run on hits.
        reading: reading of the run.
    """

    def __init__(self, network: HitTransformer, reading: HitsReading) -> None:
        super().__init__()
        self.network, self.reading = network, reading

    def forward(
        self, coordinate: Tensor, is_hit: Tensor, feature: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Return the score of each hit; perhaps probabilities and values, too. Padding has 0.

        Args:
            coordinate: (B, N, D) position and, last, time.
            is_hit: (B, N) bool, False for padding.
            feature: (B, N, n_features) further inputs; None without any.
        """
        return self.read(self._outputs(coordinate, is_hit, feature), is_hit)

    def read(self, output: Tensor, is_hit: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return scores, and perhaps probabilities and values, of (B, N, outputs) outputs."""
        reading, n_channels = self.reading, self.reading.n_channels
        if reading.n_classes > 2:
            probability = output[..., :n_channels].softmax(-1)
            answers = [(1 - probability[..., 0]).clamp(0, 1), probability]
        else:
            answers = [as_logits(output[..., 0], is_logit=reading.is_logit).sigmoid()]
        if reading.value is not None:
            answers.append(output[..., n_channels])
        masked = [
            torch.where(is_hit if one.dim() == 2 else is_hit[..., None], one, 0.0)
            for one in answers
        ]
        return masked[0] if len(masked) == 1 else tuple(masked)

    def _outputs(self, coordinate: Tensor, is_hit: Tensor, feature: Tensor | None) -> Tensor:
        network = self.network
        angle = torch.einsum("bmd,hnd->bmhn", coordinate * network.metric, network.waves)
        cos, sin = angle.cos(), angle.sin()  # (B, N, heads, n)
        # a softmax over no key is NaN: an event without hits keeps its padding
        mask = (is_hit | ~is_hit.any(1, keepdim=True))[:, None, None]  # (B, 1, 1, N)
        x: Tensor = network.embed(self._inputs(coordinate, feature))
        for layer in network.layers:
            x = self._layer(layer, x, cos, sin, mask)
        output: Tensor = network.head(network.norm(x))
        return output

    def _inputs(self, coordinate: Tensor, feature: Tensor | None) -> Tensor:
        network = self.network
        inputs = [torch.ones_like(coordinate[..., :1])]
        if feature is not None:
            middle, spread = network.feature_scale
            inputs.append(torch.asinh((feature - middle) / spread))
        if network.extent is not None:
            phase = (coordinate / network.extent)[..., None] * network.frequency
            phase = phase.flatten(2)
            inputs += [phase.sin(), phase.cos()]
        return torch.cat(inputs, -1)

    @staticmethod
    def _layer(layer: Any, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        heads, n = cos.shape[2], cos.shape[3]
        z = layer.qkv(layer.norm1(x)).unflatten(-1, (3, heads, n, 2))
        z = _turned(z, cos[:, :, None], sin[:, :, None]).flatten(-2)  # (B, N, 3, heads, 2 n)
        q, k, v = z.permute(2, 0, 3, 1, 4)
        message = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, heads, N, 2 n)
        message = message.transpose(1, 2).unflatten(-1, (n, 2))
        message = _turned(message, cos, -sin).flatten(2)
        x = x + layer.out(message)
        down: Tensor = layer.down(F.relu(layer.up(layer.norm2(x))))
        return x + down


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs of numbers (..., n, 2) by angles (..., n)."""
    real, imaginary = x[..., 0], x[..., 1]
    return torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], -1)


@dataclass(frozen=True)
class ExportableHits(Exportable):
    """The network of hits of a run.

    Args:
        reading: reading of the run.
        geometry: grid of the run, or what is known of its table of sensors.
    """

    reading: HitsReading
    geometry: Geometry | KnownTable

    kind: ClassVar[str] = "hit scorer"
    purpose: ClassVar[str] = "separates the hits of a pattern from noise"
    input: ClassVar[str] = "coordinate"
    parts: ClassVar[str] = "events"
    measured_on: ClassVar[str] = "validation events of the run, all hits"

    @property
    def names(self) -> tuple[str, ...]:
        return ("coordinate", "is_hit", "feature") if self._features else ("coordinate", "is_hit")

    @property
    def _features(self) -> list[str]:
        """Names of the features, one for each number."""
        axes = "xyz"[: self.geometry.n_axes]
        return [
            name
            for one in self.reading.features
            for name in ([f"direction {axis}" for axis in axes] if one == DIRECTION else [one])
        ]

    @property
    def _most(self) -> int:
        """Largest number of hits of an event."""
        assert isinstance(self.network, PaddedHits)
        return self.network.network.window

    def all_input_facts(self, any_size: bool) -> list[dict[str, Any]]:
        axes = "xyz"[: self.geometry.n_axes]
        unit = "pixels and time steps" if isinstance(self.geometry, Geometry) else "metres and ns"
        shape = ["batch", "hits"]
        facts: list[dict[str, Any]] = [
            {
                "name": "coordinate",
                "dtype": "float32",
                "shape": [*shape, len(axes) + 1],
                "is": f"{', '.join(axes)} and time of each hit, in {unit}; padded to the event "
                f"with most hits, at most {self._most}",
                "axes": [*axes, "t"],
                "most_hits": self._most,
            },
            {
                "name": "is_hit",
                "dtype": "bool",
                "shape": shape,
                "is": "true for a hit, false for padding",
            },
        ]
        if names := self._features:
            facts.append(
                {
                    "name": "feature",
                    "dtype": "float32",
                    "shape": [*shape, len(names)],
                    "is": f"{', '.join(names)} of each hit, as in the file; scaled inside",
                    "columns": names,
                }
            )
        return facts

    def output_facts(self, any_size: bool) -> list[dict[str, Any]]:
        meanings = {
            "score": "from 0, noise, to 1, signal; 0 for padding",
            "probability": "probability of each class, noise first",
            "value": f"`{self.reading.value}` that the network predicts for a hit of signal",
        }
        shape = ["batch", "hits"]
        return [
            {
                "name": name,
                "dtype": "float32",
                "shape": [*shape, self.reading.n_classes] if name == "probability" else shape,
                "is": meanings[name],
            }
            for name in self.outputs
        ]

    def training_facts(self) -> dict[str, Any]:
        hits, setup = self.run.config.hits, self.run.checkpoint()["setup"]
        return {
            "train": hits.train,
            "validation": hits.validation,
            "geometry": self.geometry.size_text(),
            "degradation": setup.get("degradation"),
        }

    def operating_point(self) -> dict[str, Any] | None:
        try:
            point = self.run.operating_point()
        except (ValueError, OSError):
            return None
        return {"chosen_at_retention": self.run.config.hits.retention, **point.as_json()}

    def limitations(self, any_size: bool) -> list[str]:
        where = f"It was trained on {self.geometry.size_text()}"
        return [
            f"It takes events of at most {self._most} hits, all of which attend to each other. The "
            "network in dense_imb cuts longer events into windows; this file does not.",
            f"{where}; elsewhere, choose the threshold anew on labelled events.",
            "The validation data chose both the weights and the threshold: scores on new data are "
            "slightly lower.",
        ]

    @torch.no_grad()
    def answers(self, *given: Tensor) -> list[Tensor]:
        """Return the outputs of the run's own network, which takes flat arrays of hits."""
        assert isinstance(self.network, PaddedHits)
        coordinate, is_hit, *features = given
        flat = coordinate[is_hit]
        feature = features[0][is_hit] if features else flat.new_zeros(len(flat), 0)
        offset = F.pad(is_hit.sum(1).cumsum(0), [1, 0])
        scored = self.network.network(HitInput(flat, feature, offset))
        output = scored.new_zeros(*is_hit.shape, scored.shape[1])
        output[is_hit] = scored
        return as_list(self.network.read(output, is_hit))

    def size_of(self, given: Given) -> tuple[int, ...]:
        """Return the number of hits of an event, padding included."""
        return (given[0].shape[1],)

    def together(self, calls: Sequence[Given]) -> Given:
        """Pad the events to the one with most hits."""
        longest = max(call[0].shape[1] for call in calls)
        return tuple(
            torch.cat([_padded(part, longest) for part in parts])
            for parts in zip(*calls, strict=True)
        )

    def example(self, any_size: bool) -> tuple[Given, tuple[dict[int, Any], ...]]:
        axes: dict[int, Any] = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
        is_hit = torch.ones(2, _TRACED, dtype=torch.bool)
        given = torch.zeros(2, _TRACED, self.geometry.n_axes + 1), is_hit
        if names := self._features:
            given = (*given, torch.zeros(2, _TRACED, len(names)))  # type: ignore[assignment]
        return given, (axes,) * len(given)


def _padded(part: Tensor, n_hits: int) -> Tensor:
    more = [0, 0] * (part.dim() - 2) + [0, n_hits - part.shape[1]]
    return F.pad(part, more)


def exportable_hits(run: Run, scorer: TrainedHits) -> ExportableHits:
    """Return the network of hits of a run, with events to compare on."""
    network, reading = scorer.network, scorer.reading
    assert isinstance(network, HitTransformer)
    assert isinstance(reading, HitsReading)
    try:
        held_out = validation_events(run)
        events = held_out.degraded(np.arange(min(len(held_out), N_SAMPLES)), VALIDATION_EPOCH)
        samples, source = _samples(events.torch(), reading, network.window), FROM_VALIDATION
    except Refused:
        raise
    except (ValueError, OSError):
        samples, source = _made_up(network), FROM_MADE_UP
    outputs = ["score"]
    outputs += ["probability"] if reading.n_classes > 2 else []
    outputs += ["value"] if reading.value is not None else []
    return ExportableHits(
        run,
        PaddedHits(network, reading).eval(),
        tuple(outputs),
        (network.window,),
        network.n_axes,
        samples,
        source,
        reading,
        scorer.trained_on,
    )


def _samples(events: Events, reading: HitsReading, most: int) -> tuple[Given, ...]:
    """Return the inputs of each event with hits; refuse events that need windows."""
    longest = int(events.offset.diff().max()) if len(events) else 0
    if longest > most:
        raise Refused(
            f"events of at most {most} hits to export a network of hits",
            f"validation events of {longest:,}, which it sees in windows",
            WAYS,
        )
    samples = []
    for event in events:
        if event.n_hits:
            shown = reading.inputs(event)
            is_hit = torch.ones(1, event.n_hits, dtype=torch.bool)
            feature = (shown.feature[None],) if shown.feature.shape[1] else ()
            samples.append((shown.coordinate[None], is_hit, *feature))
    if not samples:
        raise ValueError("Expected validation events with hits, got none.")
    return tuple(samples)


def _made_up(network: HitTransformer) -> tuple[Given, ...]:
    """Return events of hits that lie anywhere."""
    rng = torch.Generator().manual_seed(0)
    extent = 100 / network.metric if network.extent is None else network.extent
    samples = []
    for n_hits in range(5, 5 + N_SAMPLES):
        place = torch.rand(1, n_hits, network.n_axes, generator=rng) * extent
        feature = torch.randn(1, n_hits, network.n_features, generator=rng)
        middle, spread = network.feature_scale
        given = place, torch.ones(1, n_hits, dtype=torch.bool)
        samples.append((*given, middle + spread * feature) if network.n_features else given)
    return tuple(samples)
