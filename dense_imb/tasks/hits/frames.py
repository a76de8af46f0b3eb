"""The task of scoring hits by networks of frames: an output for each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.base.checks import check_choice
from dense_imb.data.epochs.mixing import mix, union
from dense_imb.data.images.labelled import IGNORED
from dense_imb.hits import Events, encode, gap
from dense_imb.hits.frames import CHANNELS, pixel_index, visible
from dense_imb.losses.core.natural import Natural
from dense_imb.losses.foreign.feeding import Intake, feed, intake_of
from dense_imb.losses.foreign.soft_feeding import check_takes_soft, feed_soft
from dense_imb.tasks.base import TrainingData, as_logits
from dense_imb.tasks.hits.scoring import HitsOptions, ScoringTask, is_signal, is_visible
from dense_imb.tasks.instances import check_per_class

Output = Literal["score", "value", "both"]
OUTPUTS = ("score", "value", "both")
N_CHANNELS = {"score": 1, "value": 1, "both": 2}
# refusal of a loss per instance
NO_INSTANCES = (
    "a loss of frames",
    "a pixel may hold hits of several particles",
    "take {model.name=hits}, or a loss without `per`",
)
_PARTNERS = 2**31  # epochs from here on degrade events that others are mixed with


@dataclass(frozen=True)
class FrameReading:
    """Preparation of a network's input from events, and meaning of its output.

    Args:
        channels: input channels, see `dense_imb.hits.encode`.
        threshold: r of the gapped values.
        output: network output: a "score" in its first channel, a gapped time ("value"), or "both",
            with the value in the second channel.
        is_logit: whether the score is a logit; otherwise 0 means noise and 1 signal.
        natural: map to the logits of natural probabilities; None leaves them as trained.

    Example:
        >>> from dense_imb.tasks import FrameReading
        >>> reading = FrameReading(channels=["gapped", "hit"], output="both")
        >>> print(reading.as_text())
        Reading(channels=['gapped', 'hit'], threshold=0.5, output='both', is_logit=True)
    """

    channels: Sequence[str] = ("gapped", "hit", "fourier")
    threshold: float = 0.5
    output: Output = "score"
    is_logit: bool = True
    natural: Natural | None = None  # not in the text: a trained run has it in a file of its own

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
            own = gap(events.t.float(), events.grid.time_steps, self.threshold)
            return torch.clamp(1 - (seen[:, 0] - own).abs() / own, 0, 1)
        logits = as_logits(seen[:, :1], is_logit=self.is_logit, natural=self.natural)
        score: Tensor = torch.sigmoid(logits[:, 0])
        return score

    def as_text(self) -> str:
        """Return the text of the description in checkpoints."""
        names = [one.name for one in fields(self) if one.name != "natural"]
        arguments = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"Reading({arguments})"  # as checkpoints have always held it

    @staticmethod
    def is_logit_in(text: str) -> bool:
        """Tell whether the reading of an `as_text` is of logits."""
        return text.endswith("is_logit=True)")


@dataclass(frozen=True)
class FrameBatch:
    """Noisy frames and their targets.

    Args:
        shown: (B, C, H, W) network input.
        lit: (n,) index of each lit pixel in the flattened (B, H, W).
        is_signal: (B, 1, H, W) float, 1 at pixels of the target.
        value: (B, 1, H, W) gapped times of those pixels, 0 elsewhere.
        is_soft: whether frames were mixed: `is_signal` holds probabilities, `value` mixed times,
            and `lit` the pixels that either frame lights.

    Example:
        >>> import torch
        >>> from dense_imb.tasks import FrameBatch
        >>> is_signal = torch.zeros(1, 1, 4, 4)
        >>> is_signal[0, 0, 1, 2] = 1.0
        >>> lit = torch.tensor([6, 15])  # a signal hit and a noise hit, of 16 pixels
        >>> batch = FrameBatch(torch.zeros(1, 8, 4, 4), lit, is_signal, 0 * is_signal)
        >>> batch.is_signal.flatten()[batch.lit]
        tensor([1., 0.])
    """

    shown: Tensor
    lit: Tensor
    is_signal: Tensor
    value: Tensor
    is_soft: bool = False


class FramesTask(ScoringTask):
    """The task of scoring hits with a network of frames, see `dense_imb.engine.task.Task`.

    Args:
        network: takes (B, C, H, W) of the channels of `reading`, returns (B, 1 or 2, H, W).
        loss: takes (prediction, target), both (1, 1, n) lit pixels or (B, 1, H, W) frames; the
            target is 0 or 1, or a gapped time with `output="value"`.
        data: training and validation events.
        reading: input channels and meaning of the output.
        options: target, loss pixels, sampling, mixing.

    Example:
        >>> import numpy as np, tempfile, torch
        >>> from dense_imb import HitsConfig, ModelConfig, TrainConfig
        >>> from dense_imb.hits import HitsWriter, simulate
        >>> from dense_imb.tasks import FramesTask, build_task
        >>> path, arcs = tempfile.mkdtemp() + "/arcs.h5", simulate("arc", 8, seed=1)
        >>> with HitsWriter(path, arcs.geometry) as writer:
        ...     writer.append(arcs)
        >>> hits = HitsConfig(path, signal=20, noise=50, validation_share=0.5)
        >>> task = build_task(TrainConfig(hits, model=ModelConfig("fast_unet")))
        >>> batch = task.batch(np.arange(2), 0, torch.device("cpu"))
        >>> isinstance(task, FramesTask), batch.shown.shape
        (True, torch.Size([2, 8, 128, 88]))
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        data: TrainingData,
        reading: FrameReading | None = None,
        options: HitsOptions | None = None,
    ) -> None:
        reading, options = reading or FrameReading(), options or HitsOptions()
        value_loss = options.value_loss
        check_per_class(loss, *NO_INSTANCES)
        if reading.output == "both" and value_loss is None:
            raise ValueError("Expected `value_loss` with an output of both, got none.")
        losses = [loss] if value_loss is None else [loss, value_loss]
        super().__init__(network, losses, data, reading, options)
        self._intakes = [intake_of(one) for one in losses]
        self.target, self.pixels = options.target, options.pixels
        if self.mixer is not None and self.mixer.mixing.hits == "linear":
            for one in losses:
                check_takes_soft(one, 1)

    @property
    def balance_cure(self) -> str:
        """Return the cure of a network that ranks by chance, for `CollapseAlarm`."""
        cure = "use a balanced loss (BalancedSoftmaxLoss, balance={}), or a lower learning rate"
        is_frame = self.pixels == "frame"
        return f"train on the lit pixels only (hits.pixels=lit), {cure}" if is_frame else cure

    def describe_input(self) -> Mapping[str, str]:
        """Describe target, frame and degradation."""
        frame = self.train.grid
        return {
            "target": f"{self.target}, {self.pixels} pixels, {self.reading.as_text()}",
            "frame": f"{frame.width} x {frame.height} x {frame.time_steps}",
            "degradation": f"{self.train.describe()}, seed {self.train.seed}",
        }

    def batch(self, samples: NDArray[np.int64], epoch: int, device: torch.device) -> FrameBatch:
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

    def cost_of(self, output: Tensor, batch: FrameBatch) -> Tensor:
        """Return the loss of an output; with `output="both"` the value loss is added."""
        wants_value = self.reading.output == "value"
        cost = self._apply(0, output[:, :1], batch.value if wants_value else batch.is_signal, batch)
        if len(self._losses) > 1:
            cost = cost + self._apply(1, output[:, 1:2], batch.value, batch)
        return cost

    def _apply(self, which: int, prediction: Tensor, target: Tensor, batch: FrameBatch) -> Tensor:
        lit = batch.lit if self.pixels == "lit" else None
        loss, intake = self._losses[which], self._intakes[which]
        return cost_at(loss, intake, prediction, target, lit, is_soft=batch.is_soft)

    def feature_label(self, batch: FrameBatch) -> Tensor:
        """Return the class of each pixel, (B, H, W); `IGNORED` where it does not enter the loss."""
        label = batch.is_signal[:, 0].long()
        if self.pixels == "frame":
            return label
        lit = torch.full_like(label, IGNORED)
        lit.view(-1)[batch.lit] = label.flatten()[batch.lit]
        return lit

    def pixels_by_class(self, batch: FrameBatch) -> Mapping[str, Tensor]:
        """Return masks of the signal, noise and empty pixels."""
        is_lit = torch.zeros_like(batch.is_signal).flatten()
        is_lit[batch.lit] = 1
        is_lit, is_signal = (
            pixels.reshape(batch.is_signal.shape)[:, 0] > 0 for pixels in (is_lit, batch.is_signal)
        )
        return {"signal": is_signal, "noise": is_lit & ~is_signal, "empty": ~(is_lit | is_signal)}

    def _batch(self, clean: Events, noisy: Events, device: torch.device) -> FrameBatch:
        noisy = noisy.torch(device)
        noisy = noisy.select(is_visible(noisy))
        lit, geometry = pixel_index(noisy), noisy.grid
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
        return FrameBatch(
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


def _mixed(
    first: FrameBatch, second: FrameBatch, partner: Sequence[int], share: Tensor
) -> FrameBatch:
    """Mix the frames of `first` with their partners in `second`."""
    order = torch.tensor(partner, device=share.device)
    shown, is_signal, value = (
        mix(getattr(first, name), getattr(second, name)[order], share)
        for name in ("shown", "is_signal", "value")
    )
    is_lit = torch.zeros(2, is_signal.numel(), dtype=torch.bool, device=share.device)
    is_lit[0, first.lit], is_lit[1, second.lit] = True, True
    either = is_lit[0] | is_lit[1].reshape(len(order), -1)[order].flatten()
    return FrameBatch(shown, either.nonzero()[:, 0], is_signal, value, is_soft=True)
