"""The task of scoring hits, whatever the network sees of them: data, validation, options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.base.refusals import Refused
from dense_imb.data.events.virtual import VALIDATION_EPOCH, VirtualEvents
from dense_imb.hits import Events
from dense_imb.hits.drift import VALIDATION_EVENTS, EventProfile
from dense_imb.hits.frames import visible
from dense_imb.metrics import ScoreHistogram
from dense_imb.metrics.hits import RETENTIONS
from dense_imb.tasks.base import SampledTask, TaskOptions, TrainingData

Target = Literal["signal", "pattern"]
Pixels = Literal["lit", "frame"]
TARGETS, PIXELS = ("signal", "pattern"), ("lit", "frame")
HITS, EVENTS = "hits", "events"  # what counts equally in the loss, beside columns of particles


class Reading(Protocol):
    """Preparation of a network's input from events, and meaning of its output."""

    def score(self, network: nn.Module, events: Events) -> Tensor:
        """Return the score of each hit, (n_hits,) in [0, 1]."""

    def as_text(self) -> str:
        """Return the text of the description in checkpoints."""


@dataclass(frozen=True)
class HitsOptions(TaskOptions):
    """Options of the task of scoring hits, beside those of `TaskOptions`.

    Args:
        target: hits to find: the "signal" hits, or the full "pattern" they were drawn from.
        pixels: pixels that enter the loss: "lit" pixels only, or the whole "frame".
        value_loss: loss of the second channel with `output="both"`, or of `value`.
        retention: fraction of the signal to keep, at which networks are compared.
        batch_size: number of events validated together.
        balance_over: units of a class that count equally in the loss of a network of hits:
            "hits", "events" (the hits of an event together count as one), or a column of hits
            that names the particle of each.
        augment: random changes of the events that a network of hits learns from: "none",
            "mirror" or "rotate".

    Example:
        >>> from dense_imb.tasks import HitsOptions
        >>> options = HitsOptions(balance_over="events", augment="mirror")
        >>> options.retention, options.pixels
        (0.97, 'lit')
    """

    target: Target = "signal"
    pixels: Pixels = "lit"
    value_loss: nn.Module | None = None
    retention: float = 0.97
    batch_size: int = 64
    balance_over: str = HITS
    augment: str = "none"

    def __post_init__(self) -> None:
        check_choice("target", self.target, TARGETS)
        check_choice("pixels", self.pixels, PIXELS)
        check_at_least("batch_size", self.batch_size, 1)


class ScoringTask(SampledTask):
    """A task whose network scores hits; `reading` says how.

    Args:
        network: network.
        losses: training loss, and the loss of values if there is one.
        data: training and validation events.
        reading: how events become the network's input, and its output scores.
        options: sampling, mixing, retention.
    """

    sample_name = "events"

    def __init__(
        self,
        network: nn.Module,
        losses: Sequence[nn.Module],
        data: TrainingData,
        reading: Any,
        options: HitsOptions,
    ) -> None:
        train, validation = data.train, data.validation
        for name, events in (("train", train), ("validation", validation)):
            _check_events(name, events)
        if train.geometry != validation.geometry:
            raise ValueError(
                f"Expected validation events of the training events' geometry {train.geometry}, "
                f"got {validation.geometry}."
            )
        super().__init__(network, nn.ModuleList(losses), data, options, len(train))
        self.reading: Any = reading
        self._losses = [*losses]
        self.retention, self.batch_size = options.retention, options.batch_size
        self.monitor = f"removal_at_{100 * self.retention:g}"
        self.histogram = ScoreHistogram()  # of the last validation
        self.profile = EventProfile()  # of its events

    @property
    def described_loss(self) -> object:
        """Loss in `describe`: the losses as a list."""
        return self._losses

    def _is_present(self, samples: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Return the classes in each event, (B, n_classes); None if the mixer needs none."""
        assert self.mixer is not None
        return None if self.mixer.content is None else self.mixer.content[samples % self.n_samples]

    @torch.no_grad()
    def validate(
        self, network: nn.Module, device: torch.device, process: int, n_processes: int
    ) -> dict[str, float]:
        """Return noise removal at several retentions, AUC, and scores of a collapse."""
        histogram, profile = ScoreHistogram(), EventProfile()
        starts = range(0, len(self.validation), self.batch_size)
        for start in starts[process::n_processes]:
            numbers = np.arange(start, min(start + self.batch_size, len(self.validation)))
            events = self.validation.degraded(numbers, VALIDATION_EPOCH).torch(device)
            score = self.reading.score(network, events)
            histogram.update(score, is_signal(events), event=events.event_index())
            profile.update(events, score)
        self.histogram = histogram.reduce_over_processes()
        self.profile = profile.reduce_over_processes()
        return validation_scores(self.histogram, self.retention)

    def save_scores(self, path: Path) -> None:
        """Write the score histogram of the last validation, and the profile of its events."""
        self.histogram.save(path)
        self.profile.save(path.with_name(VALIDATION_EVENTS))


def validation_scores(histogram: ScoreHistogram, retention: float) -> dict[str, float]:
    """Return noise removal at several retentions and `retention`, AUC, and scores at 1/2."""
    half = histogram.at(0.5)
    n_kept = half.retention * histogram.n_signal + (
        (1 - half.removal) * histogram.n_noise if histogram.n_noise else 0.0
    )
    retentions = sorted({*RETENTIONS, retention})
    return {
        **{f"removal_at_{100 * r:g}": histogram.removal_at(r) for r in retentions},
        "auc": histogram.auc(),
        "recall_at_half": half.retention,
        "purity_at_half": half.purity,
        "lit_at_half": n_kept / max(histogram.n_signal + histogram.n_noise, 1),
    }


def _check_events(name: str, events: VirtualEvents) -> None:
    if len(events) == 0:
        raise ValueError(f"Expected {name} data with at least one event, got none.")
    has_signal, has_noise = events.kinds()
    if not has_signal:
        raise ValueError(
            f"Expected {name} data with signal hits (label 1 and more), got none in "
            f"{len(events)} events; there is nothing to learn from."
        )
    if not has_noise:
        raise Refused(
            f"{name} data with noise hits (label 0), or noise to add",
            "neither",
            "add noise hits: {hits.noise=200}",
        )


def is_visible(events: Events) -> Tensor:
    """Return whether each hit is visible in its frame, (n_hits,)."""
    hidden = events.hit.get("is_occluded")
    shown: Tensor = visible(events) if hidden is None else ~hidden
    return shown


def is_signal(events: Events) -> Tensor:
    """Return whether each hit is signal, (n_hits,)."""
    assert events.label is not None  # degraded, or checked at the start
    is_signal: Tensor = events.label > 0
    return is_signal
