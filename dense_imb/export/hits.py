"""Exported networks of hits: padded events in, the score of each hit out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from dense_imb.data.events.virtual import VALIDATION_EPOCH
from dense_imb.export import frames
from dense_imb.export.base import FROM_RANDOM, FROM_VALIDATION, N_SAMPLES, Exportable, Inputs
from dense_imb.hits import Geometry
from dense_imb.models import HitInput, HitTransformer
from dense_imb.report.hits.measures import validation_events
from dense_imb.runs import Run
from dense_imb.tasks.hits.frames import FrameReading
from dense_imb.tasks.hits.scoring import validation_scores
from dense_imb.tasks.hits.task import DIRECTION, HitsReading

_N_EVENTS = 64  # first validation events, among which those that fit are compared
_TRACED = (2, 5)  # events and hits to trace with


class PaddedNetwork(nn.Module):
    """Network from padded events to the score of each hit, and further outputs.

    Args:
        network: network of a run on hits.
        reading: reading of the run.
    """

    def __init__(self, network: HitTransformer, reading: HitsReading) -> None:
        super().__init__()
        self.network, self.reading = network, reading

    def forward(
        self,
        coordinate: Tensor,  # (B, N, D)
        is_hit: Tensor,  # (B, N)
        feature: Tensor | None = None,  # (B, N, F)
    ) -> tuple[Tensor, ...]:
        feature = coordinate[..., :0] if feature is None else feature
        return self.read(self.network.score_padded(coordinate, is_hit, feature), is_hit)

    def read(self, output: Tensor, is_hit: Tensor) -> tuple[Tensor, ...]:
        """Return what outputs (B, N, n_outputs) of the network mean, 0 at padding."""
        reading = self.reading
        meant = [reading.read_score(output)]
        if reading.n_classes > 2:
            meant.append(reading.read_probability(output))
        if reading.value is not None:
            meant.append(output[..., reading.n_channels])
        is_padding = ~is_hit
        return tuple(
            one.masked_fill(is_padding if one.dim() == 2 else is_padding[..., None], 0)
            for one in meant
        )


@dataclass(frozen=True)
class ExportableHits(Exportable):
    """The network of a run on hits that sees hits.

    Args:
        network: `PaddedNetwork`.
        samples: `HitInput` of an event each, with at most `window` hits.
        is_grid: whether the hits lie on a grid of pixels, or at sensors.
        n_events: validation events with hits that were looked at; 0 if none can be read.
        n_longer: events with more hits than `window` among them.
    """

    is_grid: bool
    n_events: int
    n_longer: int

    kind: ClassVar[str] = "denoiser"
    purpose: ClassVar[str] = "separates the hits of a pattern from noise"
    unit: ClassVar[str] = "events"
    sizes_to_try: ClassVar[tuple[bool, ...]] = (True,)
    measured_on: ClassVar[str] = "validation events of the run, all hits"
    cure: ClassVar[str] = (
        "score hits with `dense-imb denoise` or `dense_imb.denoise`, and take the weights from "
        "best.safetensors in the folder of the run"
    )

    @property
    def padded(self) -> PaddedNetwork:
        """The network, by its type."""
        assert isinstance(self.network, PaddedNetwork)
        return self.network

    @property
    def window(self) -> int:
        """Most hits of an event for which the file answers as dense_imb does."""
        return self.padded.network.window

    @property
    def inputs(self) -> tuple[str, ...]:
        has_features = self.padded.network.n_features > 0
        return ("coordinate", "is_hit", "feature") if has_features else ("coordinate", "is_hit")

    @property
    def trained_on_size(self) -> str:
        return str(self.run.checkpoint()["setup"]["frame"])

    def further_facts(self) -> dict[str, Any]:
        return {"window": self.window, "axes": self._axes()}

    def input_facts(self, any_size: bool) -> list[dict[str, Any]]:
        axes, n_features = ", ".join(self._axes()), self.padded.network.n_features
        units = "in pixels and time steps" if self.is_grid else "in metres and ns"
        meanings: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
            "coordinate": (
                "float32",
                [len(self._axes())],
                {"is": f"{axes} of each hit {units}, as in the hits file; scaled inside"},
            ),
            "is_hit": (
                "bool",
                [],
                {"is": "true at hits, false at padding, whose other values are not read"},
            ),
            "feature": (
                "float32",
                [n_features],
                {
                    "is": f"{', '.join(self._features())} of each hit in the units of the hits "
                    "file; scaled inside",
                    "features": self._features(),
                },
            ),
        }
        described = []
        for name in self.inputs:
            dtype, last, meaning = meanings[name]
            shape = ["batch", "hits", *last]
            described.append({"name": name, "dtype": dtype, "shape": shape, **meaning})
        return described

    def _axes(self) -> list[str]:
        return [*"xyz"[: self.padded.network.n_axes - 1], "t"]

    def _features(self) -> list[str]:
        """Return the names of the features' columns."""
        names, axes = self.padded.reading.features, self._axes()[:-1]
        n_plain = self.padded.network.n_features - len(axes) * (DIRECTION in names)
        n_each, rest = divmod(n_plain, max(len(names) - (DIRECTION in names), 1))
        listed = []
        for name in names:
            if name == DIRECTION:
                listed += [f"direction {axis} of the sensor" for axis in axes]
            elif n_each == 1 and not rest:
                listed.append(name)
            else:  # columns with several numbers a hit
                listed.append(f"all numbers of {name}")
        return listed

    def output_facts(self, any_size: bool) -> list[dict[str, Any]]:
        n_classes = self.padded.reading.n_classes
        meanings: dict[str, dict[str, Any]] = {
            "score": {"is": "from 0, noise, to 1, signal; 0 at padding"},
            "probability": {
                "is": f"probability of each of the {n_classes} classes, noise first; they sum to "
                "1, and are 0 at padding; the score is 1 minus that of noise",
            },
            "value": {
                "is": f"predicted {self.padded.reading.value}, for hits that are signal; 0 at "
                "padding",
            },
        }
        last = {"probability": [n_classes]}
        return [
            {
                "name": name,
                "dtype": "float32",
                "shape": ["batch", "hits", *last.get(name, [])],
                **meanings[name],
            }
            for name in self.outputs
        ]

    def training_facts(self) -> dict[str, Any]:
        hits, setup = self.run.config.hits, self.run.checkpoint()["setup"]
        facts = {
            "train": hits.train,
            "validation": hits.validation,
            "degradation": setup.get("degradation"),
            "geometry": self.trained_on_size,
        }
        return {**facts, "value_loss": hits.value_loss} if hits.value is not None else facts

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
        longer = ""
        if self.n_events:
            longer = f" Of the first {self.n_events} validation events, {self.n_longer} are longer."
        return [
            f"It answers as `dense_imb` does for events of at most {self.window} hits. Longer "
            "events need `dense_imb` (`dense-imb denoise`), which cuts them into windows; the "
            "file lets all hits of an event attend to each other, which was not trained or "
            f"measured for them.{longer}",
            self._place_limit(),
            "The validation data chose both the weights and the threshold: scores on new data are "
            "slightly lower.",
        ]

    def _place_limit(self) -> str:
        if not self.is_grid:
            return "It sees positions of sensors, not their numbers; look them up in your table."
        if self.padded.network.extent is None:
            return "It sees differences of coordinates: frames may have any number of pixels."
        size = self.trained_on_size
        return f"It takes events of {size} (x, y, time steps) only, as in training."

    def example(self, any_size: bool) -> tuple[Inputs, tuple[dict[int, Any], ...]]:
        network, dynamic = self.padded.network, torch.export.Dim.DYNAMIC
        given = {
            "coordinate": torch.zeros(*_TRACED, network.n_axes),
            "is_hit": torch.ones(_TRACED, dtype=torch.bool),
            "feature": torch.zeros(*_TRACED, network.n_features),
        }
        axes = tuple({0: dynamic, 1: dynamic} for _ in self.inputs)
        return tuple(given[name] for name in self.inputs), axes

    def batch(self, numbers: Sequence[int]) -> Inputs:
        return self._pad([self.samples[number] for number in numbers])

    def _pad(self, events: Sequence[HitInput]) -> Inputs:
        count = torch.tensor([len(event.coordinate) for event in events])
        is_hit = torch.arange(int(count.max())) < count[:, None]
        given = {"is_hit": is_hit}
        for name in ("coordinate", "feature"):
            values = torch.cat([getattr(event, name) for event in events])
            given[name] = values.new_zeros(*is_hit.shape, values.shape[1])
            given[name][is_hit] = values
        return tuple(given[name] for name in self.inputs)

    def describe_size(self, given: Inputs) -> str:
        fewest, most = (int(end(given[1].sum(1))) for end in (torch.min, torch.max))
        return f"{most} hits" if fewest == most else f"{fewest} to {most} hits"

    def inputs_to_compare(self, any_size: bool) -> list[Inputs]:
        first = self.samples[0]
        empty = HitInput(first.coordinate[:0], first.feature[:0], torch.tensor([0, 0]))
        single = [self.batch([number]) for number in range(len(self.samples))]
        return [*single, self._pad([*self.samples, empty])]

    @torch.no_grad()
    def answers(self, given: Inputs) -> list[Tensor]:
        """Return what dense_imb answers, for flat hits in its own windows."""
        coordinate, is_hit, *rest = given
        feature = rest[0] if rest else coordinate[..., :0]
        offset = torch.cat([torch.zeros(1, dtype=torch.long), is_hit.sum(1).cumsum(0)])
        network = self.padded.network
        output = network(HitInput(coordinate[is_hit], feature[is_hit], offset))
        padded = output.new_zeros(*is_hit.shape, output.shape[1])
        padded[is_hit] = output
        return list(self.padded.read(padded, is_hit))


def exportable(run: Run) -> Exportable:
    """Return the best network of a run on hits."""
    scorer = run.trained(device="cpu")
    reading, network = scorer.reading, scorer.network
    if isinstance(reading, FrameReading):
        return frames.exportable(run)
    outputs = ["score"]
    outputs += ["probability"] if reading.n_classes > 2 else []
    outputs += ["value"] if reading.value is not None else []
    known = _validation_hits(run, reading)
    n_longer = sum(len(one.coordinate) > network.window for one in known)
    samples, source = _samples(known, network, n_longer)
    return ExportableHits(
        run,
        PaddedNetwork(network, reading).eval(),
        tuple(outputs),
        samples,
        source,
        isinstance(scorer.trained_on, Geometry),
        len(known),
        n_longer,
    )


def _validation_hits(run: Run, reading: HitsReading) -> list[HitInput]:
    """Return the first validation events that have hits; none if they can't be read."""
    try:
        held_out = validation_events(run)
        numbers = np.arange(min(len(held_out), _N_EVENTS))
        events = held_out.degraded(numbers, VALIDATION_EPOCH).torch()
        single = [events[number] for number in range(len(events))]
        return [reading.inputs(one) for one in single if one.n_hits]
    except (ValueError, OSError):
        return []


def _samples(
    known: Sequence[HitInput], network: HitTransformer, n_longer: int
) -> tuple[tuple[HitInput, ...], str]:
    """Return events to compare on, and their origin."""
    window = network.window
    if not known:
        return _random_hits(network), FROM_RANDOM.format("hits")
    if n_longer == len(known):
        kept = f"of each event the {window} hits nearest in time, since all events have more"
        cut = tuple(_densest(one, window) for one in known[:N_SAMPLES])
        return cut, f"{FROM_VALIDATION}, {kept}"
    fitting = tuple(one for one in known if len(one.coordinate) <= window)
    left_out = f", without {n_longer} of the first {len(known)} events, which have more than "
    return fitting, FROM_VALIDATION + (f"{left_out}{window} hits" if n_longer else "")


def _densest(event: HitInput, n_hits: int) -> HitInput:
    """Return the hits of the shortest time that has so many; the first ones may be noise alone."""
    time, order = event.coordinate[:, -1].sort(stable=True)
    start = int((time[n_hits - 1 :] - time[: len(time) - n_hits + 1]).argmin())
    chosen = order[start : start + n_hits].sort().values
    return HitInput(event.coordinate[chosen], event.feature[chosen], torch.tensor([0, n_hits]))


def _random_hits(network: HitTransformer) -> tuple[HitInput, ...]:
    """Return events with the spread of the training data, as far as the network knows it."""
    random = torch.Generator().manual_seed(0)
    # without a known size: about as far as the longest of the first wavelengths
    size = 100 / network.metric if network.extent is None else network.extent
    middle, spread = network.feature_scale
    events = []
    for number in range(N_SAMPLES):
        n = max(network.window // (number + 1), 1)
        place = torch.rand(n, network.n_axes, generator=random) * size
        feature = middle + spread * torch.randn(n, network.n_features, generator=random)
        events.append(HitInput(place, feature, torch.tensor([0, n])))
    return tuple(events)
