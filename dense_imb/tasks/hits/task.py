"""The task of scoring hits: signal against noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.base.refusals import Refused
from dense_imb.data.epochs.mixing import mix, union
from dense_imb.data.events.virtual import VALIDATION_EPOCH, VirtualEvents
from dense_imb.data.images.labelled import IGNORED
from dense_imb.hits import Events, encode, gap
from dense_imb.hits.drift import VALIDATION_EVENTS, EventProfile
from dense_imb.hits.frames import CHANNELS, pixel_index, visible
from dense_imb.losses.foreign.feeding import Intake, feed, intake_of
from dense_imb.losses.foreign.soft_feeding import check_takes_soft, feed_soft
from dense_imb.metrics import ScoreHistogram
from dense_imb.metrics.hits import RETENTIONS
from dense_imb.tasks.base import SampledTask, TaskOptions, TrainingData, as_logits

Target = Literal["signal", "pattern"]
Pixels = Literal["lit", "frame"]
Output = Literal["score", "value", "both"]
TARGETS, PIXELS, OUTPUTS = ("signal", "pattern"), ("lit", "frame"), ("score", "value", "both")
N_CHANNELS = {"score": 1, "value": 1, "both": 2}
_PARTNERS = 2**31  # epochs from here on degrade events that others are mixed with


@dataclass(frozen=True)
class HitsReading:
    """Preparation of a network's input from events, and meaning of its output.

    Args:
        channels: input channels, see `dense_imb.hits.encode`.
        threshold: r of the gapped values.
        output: network output: a "score" in its first channel, a gapped time ("value"), or "both",
            with the value in the second channel.
        is_logit: whether the score is a logit; otherwise 0 means noise and 1 signal.
    """

    channels: Sequence[str] = ("gapped", "hit", "fourier")
    threshold: float = 0.5
    output: Output = "score"
    is_logit: bool = True

    def __post_init__(self) -> None:
        check_choice("output", self.output, OUTPUTS)
        if not self.channels:
            raise ValueError("Expected `channels` with at least one channel, got none.")
        for channel in self.channels:
            check_choice("channels", channel, CHANNELS)
        if not 0 <= self.threshold < 1:
            raise ValueError(f"Expected `threshold` at least 0 and below 1, got {self.threshold}.")

    def score(self, network: nn.Module, events: Events) -> Tensor:
        """Return the score of each hit, (n_hits,) in [0, 1]; hits in one pixel see one output.

        score   = sigmoid(z), or sigmoid(8 z - 4) of an output that means 0 or 1
        value   = 1 - |p - v| / v, at least 0; v is the gapped time of the hit itself
        """
        events = events if events.is_torch else events.torch()
        shown = encode(events, self.channels, threshold=self.threshold)
        output = network(shown).float()
        seen = output.movedim(1, -1).flatten(0, -2)[pixel_index(events)]  # (n_hits, channels)
        if self.output == "value":
            own = gap(events.t.float(), events.geometry.time_steps, self.threshold)
            return torch.clamp(1 - (seen[:, 0] - own).abs() / own, 0, 1)
        score: Tensor = torch.sigmoid(as_logits(seen[:, 0], is_logit=self.is_logit))
        return score

    def as_text(self) -> str:
        """Return the text of the description in checkpoints."""
        arguments = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields(self))
        return f"Reading({arguments})"  # as checkpoints have always held it

    @staticmethod
    def is_logit_in(text: str) -> bool:
        """Tell whether the reading of an `as_text` is of logits."""
        return text.endswith("is_logit=True)")


@dataclass(frozen=True)
class HitsBatch:
    """Noisy frames and their targets.

    Args:
        shown: (B, C, H, W) network input.
        lit: (n,) index of each lit pixel in the flattened (B, H, W).
        is_signal: (B, 1, H, W) float, 1 at pixels of the target.
        value: (B, 1, H, W) gapped times of those pixels, 0 elsewhere.
        is_soft: whether frames were mixed: `is_signal` holds probabilities, `value` mixed times,
            and `lit` the pixels that either frame lights.
    """

    shown: Tensor
    lit: Tensor
    is_signal: Tensor
    value: Tensor
    is_soft: bool = False


@dataclass(frozen=True)
class HitsOptions(TaskOptions):
    """Options of the task of scoring hits, beside those of `TaskOptions`.

    Args:
        target: hits to find: the "signal" hits, or the full "pattern" they were drawn from.
        pixels: pixels that enter the loss: "lit" pixels only, or the whole "frame".
        value_loss: loss of the second channel with `output="both"`.
        retention: fraction of the signal to keep, at which networks are compared.
        batch_size: number of events validated together.
    """

    target: Target = "signal"
    pixels: Pixels = "lit"
    value_loss: nn.Module | None = None
    retention: float = 0.97
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_choice("target", self.target, TARGETS)
        check_choice("pixels", self.pixels, PIXELS)
        check_at_least("batch_size", self.batch_size, 1)


class HitsTask(SampledTask):
    """The task of scoring hits, see `dense_imb.engine.task.Task`.

    Args:
        network: takes (B, C, H, W) of the channels of `reading`, returns (B, 1 or 2, H, W).
        loss: takes (prediction, target), both (1, 1, n) lit pixels or (B, 1, H, W) frames; the
            target is 0 or 1, or a gapped time with `output="value"`.
        data: training and validation events.
        reading: input channels and meaning of the output.
        options: target, loss pixels, sampling, mixing.
    """

    sample_name = "events"

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        data: TrainingData,
        reading: HitsReading | None = None,
        options: HitsOptions | None = None,
    ) -> None:
        self.reading, options = reading or HitsReading(), options or HitsOptions()
        value_loss = options.value_loss
        if self.reading.output == "both" and value_loss is None:
            raise ValueError("Expected `value_loss` with an output of both, got none.")
        train, validation = data.train, data.validation
        for name, events in (("train", train), ("validation", validation)):
            _check_events(name, events)
        if train.geometry != validation.geometry:
            raise ValueError(
                f"Expected validation events of the training events' geometry {train.geometry}, "
                f"got {validation.geometry}."
            )
        losses = [loss] if value_loss is None else [loss, value_loss]
        super().__init__(network, nn.ModuleList(losses), data, options, len(train))
        self._losses, self._intakes = losses, [intake_of(one) for one in losses]
        self.target, self.pixels, self.retention = options.target, options.pixels, options.retention
        self.batch_size = options.batch_size
        self.monitor = f"removal_at_{100 * self.retention:g}"
        if self.mixer is not None and self.mixer.mixing.hits == "linear":
            for one in losses:
                check_takes_soft(one, 1)
        self.histogram = ScoreHistogram()  # of the last validation
        self.profile = EventProfile()  # of its events

    @property
    def described_loss(self) -> object:
        """Loss in `describe`: the losses as a list."""
        return self._losses

    def describe_input(self) -> Mapping[str, str]:
        """Describe target, frame and degradation."""
        frame = self.train.geometry
        return {
            "target": f"{self.target}, {self.pixels} pixels, {self.reading.as_text()}",
            "frame": f"{frame.width} x {frame.height} x {frame.time_steps}",
            "degradation": f"{self.train.describe()}, seed {self.train.seed}",
        }

    def batch(self, samples: NDArray[np.int64], epoch: int, device: torch.device) -> HitsBatch:
        """Return the noisy frames of these samples, mixed if there is a mixer."""
        clean = self.train.clean(samples)
        noisy = self.train.degraded(samples, epoch, clean)
        if self.mixer is None:
            return self._batch(clean, noisy, device)
        plan = self.mixer.plan(samples, epoch, self._is_present(samples))
        partner = plan.partner.tolist()
        other_clean, other = clean, noisy
        if self.mixer.draws_images:
            # the same event may be the partner of several: its noise follows the sample's number
            other_clean = self.train.clean(plan.partner)
            other = self.train.degraded(samples, epoch + _PARTNERS, other_clean)
            partner = list(range(len(partner)))
        if self.mixer.mixing.hits == "union":
            both = union(
                noisy.numpy(),
                other.numpy().take(partner),
                plan.share,
                seed=self.mixer.seed,
                epoch=epoch,
                samples=samples,
            )
            return self._batch(clean, both, device)
        first = self._batch(clean, noisy, device)
        second = self._batch(other_clean, other, device) if self.mixer.draws_images else first
        return _mixed(first, second, partner, torch.from_numpy(plan.share).float().to(device))

    def _is_present(self, samples: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Return the classes in each event, (B, n_classes); None if the mixer needs none."""
        assert self.mixer is not None
        return None if self.mixer.content is None else self.mixer.content[samples % self.n_samples]

    def cost_of(self, output: Tensor, batch: HitsBatch) -> Tensor:
        """Return the loss of an output; with `output="both"` the value loss is added."""
        wants_value = self.reading.output == "value"
        cost = self._apply(0, output[:, :1], batch.value if wants_value else batch.is_signal, batch)
        if len(self._losses) > 1:
            cost = cost + self._apply(1, output[:, 1:2], batch.value, batch)
        return cost

    def _apply(self, which: int, prediction: Tensor, target: Tensor, batch: HitsBatch) -> Tensor:
        lit = batch.lit if self.pixels == "lit" else None
        loss, intake = self._losses[which], self._intakes[which]
        return cost_at(loss, intake, prediction, target, lit, is_soft=batch.is_soft)

    def feature_label(self, batch: HitsBatch) -> Tensor:
        """Return the class of each pixel, (B, H, W); `IGNORED` where it does not enter the loss."""
        label = batch.is_signal[:, 0].long()
        if self.pixels == "frame":
            return label
        lit = torch.full_like(label, IGNORED)
        lit.view(-1)[batch.lit] = label.flatten()[batch.lit]
        return lit

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
            score, shown = self.reading.score(network, events), is_visible(events)
            profile.update(events, score)
            histogram.update(score[shown], is_signal(events)[shown])
        self.histogram = histogram.reduce_over_processes()
        self.profile = profile.reduce_over_processes()
        natural = histogram.at(0.5)
        purity = natural.purity
        n_kept = natural.retention * histogram.n_signal + (
            (1 - natural.removal) * histogram.n_noise if histogram.n_noise else 0.0
        )
        return {
            **{f"removal_at_{100 * r:g}": histogram.removal_at(r) for r in self._retentions()},
            "auc": histogram.auc(),
            "recall_at_half": natural.retention,
            "purity_at_half": purity,
            "lit_at_half": n_kept / max(histogram.n_signal + histogram.n_noise, 1),
        }

    def save_scores(self, path: Path) -> None:
        """Write the score histogram of the last validation, and the profile of its events."""
        self.histogram.save(path)
        self.profile.save(path.with_name(VALIDATION_EVENTS))

    def pixels_by_class(self, batch: HitsBatch) -> Mapping[str, Tensor]:
        """Return masks of the signal, noise and empty pixels."""
        is_lit = torch.zeros_like(batch.is_signal).flatten()
        is_lit[batch.lit] = 1
        is_lit, is_signal = (
            pixels.reshape(batch.is_signal.shape)[:, 0] > 0 for pixels in (is_lit, batch.is_signal)
        )
        return {"signal": is_signal, "noise": is_lit & ~is_signal, "empty": ~(is_lit | is_signal)}

    def _retentions(self) -> list[float]:
        return sorted({*RETENTIONS, self.retention})

    def _batch(self, clean: Events, noisy: Events, device: torch.device) -> HitsBatch:
        noisy = noisy.torch(device)
        noisy = noisy.select(is_visible(noisy))
        lit, geometry = pixel_index(noisy), noisy.geometry
        shape = (len(noisy), 1, geometry.height, geometry.width)
        if self.target == "pattern":
            aim = clean.torch(device)
            if aim.label is not None:
                aim = aim.select(is_signal(aim))
            aim = aim.select(visible(aim))
        else:
            aim = noisy.select(is_signal(noisy))
        where = pixel_index(aim)
        value = gap(aim.t.float(), geometry.time_steps, self.reading.threshold)
        flat = torch.zeros(2, len(noisy) * geometry.height * geometry.width, device=device)
        flat[0].scatter_(0, where, 1.0)
        flat[1].scatter_(0, where, value)
        shown = encode(noisy, self.reading.channels, threshold=self.reading.threshold)
        return HitsBatch(
            shown,
            lit,
            flat[0].reshape(shape),
            flat[1].reshape(shape),
        )


def cost_at(
    loss: nn.Module,
    intake: Intake,
    prediction: Tensor,
    target: Tensor,
    lit: Tensor | None,
    *,
    is_soft: bool = False,
) -> Tensor:
    """Return the loss of frames (B, 1, H, W).

    Args:
        loss: loss.
        intake: its signature, see `intake_of`.
        prediction: output of the network.
        target: target.
        lit: indices of the pixels that enter the loss, which is 0 without any; None for all.
        is_soft: whether the target holds probabilities.
    """
    if lit is not None:
        if len(lit) == 0:  # no hit in any event; a plain mean would be NaN
            return 0 * prediction.sum()
        prediction, target = (f.flatten().take(lit)[None, None] for f in (prediction, target))
    cost: Tensor = (feed_soft if is_soft else feed)(loss, intake, prediction, target, {})
    return cost


def _mixed(first: HitsBatch, second: HitsBatch, partner: Sequence[int], share: Tensor) -> HitsBatch:
    """Mix the frames of `first` with their partners in `second`."""
    order = torch.tensor(partner, device=share.device)
    shown, is_signal, value = (
        mix(getattr(first, name), getattr(second, name)[order], share)
        for name in ("shown", "is_signal", "value")
    )
    is_lit = torch.zeros(2, is_signal.numel(), dtype=torch.bool, device=share.device)
    is_lit[0, first.lit], is_lit[1, second.lit] = True, True
    either = is_lit[0] | is_lit[1].reshape(len(order), -1)[order].flatten()
    return HitsBatch(shown, either.nonzero()[:, 0], is_signal, value, is_soft=True)


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
