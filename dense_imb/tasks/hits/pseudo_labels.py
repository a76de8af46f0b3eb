"""Pseudo-labels of hits: unlabelled events for the mean teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.base.checks import check_choice
from dense_imb.base.random import Draws
from dense_imb.base.refusals import Refused
from dense_imb.data.epochs.views import STRONG
from dense_imb.data.events.virtual import VirtualEvents
from dense_imb.data.images.labelled import IGNORED
from dense_imb.hits import Degradation, Events, MeasuredNoise, Sensors, Uniform, degrade, encode
from dense_imb.hits.frames import pixel_index
from dense_imb.losses.foreign.feeding import intake_of, takes_logits
from dense_imb.models import HitInput
from dense_imb.tasks.hits.frames import FrameBatch, FramesTask, cost_at
from dense_imb.tasks.hits.scoring import is_visible
from dense_imb.tasks.hits.task import DIRECTION, HitsBatch, HitsTask, cost_of_hits
from dense_imb.tasks.instances import check_pseudo_loss
from dense_imb.tasks.mean_teacher import as_trained

_EPOCHS = 2**30  # offset of epochs: unlabelled events vary differently from labelled ones
_THIN = 105  # purpose of random numbers: the hits that a strong view drops
_MOST_LOST = 0.3  # fraction of the hits of an event that is dropped, and added, at most
_SMEAR_PIXELS, _SMEAR_TIME = 0.4, 0.005  # in pixels, and as a fraction of the time steps
_COUNTED = 256  # events whose mean number of hits sets the noise of strong views


@dataclass(frozen=True)
class HitViews:
    """Events as they are, and strong views of them.

    Args:
        shown: input of the network for the strong views.
        weak: hits for the teacher.
        strong: hits of the strong views.
        origin: for each hit of `strong`, 1 + index of its hit in `weak`; 0 for added hits.
    """

    shown: Any
    weak: Events
    strong: Events
    origin: Tensor


class EventsPseudoLabels:
    """Unlabelled events, see `dense_imb.tasks.mean_teacher.Unlabelled`.

    `FramePseudoLabels` and `HitsPseudoLabels` label what their networks see of them.

    A strong view drops up to 0.3 of the hits and moves the others by about a pixel and some time
    steps. It adds noise hits, up to 0.3 of the hits of a mean event.

    Args:
        task: labelled part.
        events: events without labels, or with labels that are not used. Their degradation is the
            same in every epoch.
        loss: loss of the pseudo-labels; that of the task by default.
        strong: strong views: "hits" (also for "auto") or "none".
    """

    n_classes = 2  # noise and signal
    _sees_frames = True
    _features: tuple[str, ...] = ()  # columns that the network sees

    def __init__(
        self,
        task: FramesTask | HitsTask,
        events: VirtualEvents,
        loss: nn.Module | None = None,
        *,
        strong: str = "auto",
    ) -> None:
        self._check_task(task)
        check_choice("unlabelled.strong", strong, STRONG)
        if strong in ("randaugment", "photometric"):
            raise ValueError(
                f"Expected `unlabelled.strong` hits or none for events, got {strong}, which is for "
                "images."
            )
        if events.geometry.size != task.train.geometry.size:
            raise ValueError(
                f"Expected unlabelled events of {task.train.geometry.size_text()}, "
                f"as the labelled ones, got {events.geometry.size_text()}."
            )
        if not len(events):
            raise ValueError("Expected at least one unlabelled event, got none.")
        if loss is not None and takes_logits(loss) != task.reading.is_logit:
            fed, got = ("logits", "values") if task.reading.is_logit else ("values", "logits")
            raise ValueError(
                f"Expected a loss of {fed} for the pseudo-labels, as for the labels, got "
                f"{type(loss).__name__}, a loss of {got}."
            )
        self.n_images = len(events)
        self.loss: nn.Module = task.output_loss if loss is None else loss
        own = next(task.output_loss.children())
        self._fed: nn.Module = own if loss is None else loss
        check_pseudo_loss(self._fed)
        self._intake = intake_of(self._fed)
        self._task, self._events = task, events
        self.samples = events
        self._seed = task.train.seed
        # correction of the network's logits to the signal fraction of the training data
        trained = as_trained(own, torch.zeros(1, 1), task.class_counts)
        self._shift = float(trained[0, -1] - trained[0, 0])
        self._change = None if strong == "none" else self._strong_change()
        self._description = (
            f"{events.fingerprint()}, degradation {events.describe()}, seed {events.seed}, strong "
            f"views {self._change}"
        )

    def views(
        self,
        samples: NDArray[np.int64],
        places: NDArray[np.int64],
        epoch: int,
        device: torch.device,
    ) -> HitViews:
        """Return the events, and thinned, smeared and noisy copies."""
        weak = self._shown_hits(places)
        strong, origin = self._strong(weak, samples, epoch + _EPOCHS)
        strong = strong.torch(device)
        return HitViews(
            self._shown(strong), weak.torch(device), strong, torch.from_numpy(origin).to(device)
        )

    def _check_task(self, task: Any) -> None:
        """Refuse tasks that labels of hits cannot train."""

    def _shown(self, events: Events) -> Any:
        """Return the network's input for the strong views."""
        raise NotImplementedError

    def label_views(self, teacher: nn.Module, views: Any, threshold: float) -> tuple[Any, Tensor]:
        """Label the strong views, see `Unlabelled.label_views`."""
        raise NotImplementedError

    def _labels(
        self, teacher: nn.Module, views: HitViews, threshold: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return whether each hit of the strong views is labelled, and signal, and the fractions.

        Added hits have the origin 0 and are noise.
        """
        score = self._score(teacher, views.weak)
        is_signal = score >= threshold
        is_sure = is_signal | (score <= 1 - threshold)
        sure = nn.functional.pad(is_sure, (1, 0), value=True)[views.origin]
        signal = nn.functional.pad(is_signal, (1, 0), value=False)[views.origin]
        kinds = torch.stack([is_sure & ~is_signal, is_signal])  # noise, signal
        return sure, signal, kinds.float().sum(1) / max(len(is_sure), 1)

    def content(
        self, teacher: nn.Module, places: NDArray[np.int64], device: torch.device
    ) -> NDArray[np.int64]:
        """Count the hits that the teacher calls noise and signal, confident or not, (n, 2)."""
        counts = np.zeros((len(places), 2), np.int64)
        size = self._task.batch_size
        for start in range(0, len(places), size):
            part = places[start : start + size]
            hits = self._shown_hits(part)
            is_signal = self._score(teacher, hits.torch(device)) >= 0.5
            kind = 2 * hits.event_index() + is_signal.cpu().numpy()
            counts[start : start + size] = np.bincount(kind, minlength=2 * len(part)).reshape(-1, 2)
        return counts

    def _score(self, teacher: nn.Module, hits: Events) -> Tensor:
        """Return the probability of signal, calibrated to the training data, (n_hits,)."""
        score = self._task.reading.score(teacher, hits)
        return torch.sigmoid(torch.logit(score) + self._shift) if self._shift else score

    def describe(self) -> str:
        """Describe the events and their views in words, for a checkpoint."""
        return self._description

    def _shown_hits(self, places: NDArray[np.int64]) -> Events:
        """Return the hits that the network sees, with the columns that it sees only."""
        events = self._events.degraded(places, 0).numpy()
        if self._sees_frames:
            events = events.select(is_visible(events))
        names = (*events.geometry.columns, "t", *self._features)
        columns = events.hit_columns()
        return events.with_hits(events.offset, {name: columns[name] for name in names})

    def _strong_change(self) -> Degradation:
        first = self._shown_hits(np.arange(min(_COUNTED, self.n_images)))
        noise = (0, round(_MOST_LOST * first.n_hits / len(first)))
        is_table = isinstance(first.geometry, Sensors)
        duration = float(np.ptp(first.t)) if is_table and first.n_hits else 1.0
        if not is_table:
            duration = float(first.grid.time_steps)
        # on a table, and with further columns, added hits are copies of others
        is_copied = (is_table or self._features) and first.n_hits > 0
        return Degradation(
            smear_x=0.0 if is_table else _SMEAR_PIXELS,
            smear_y=0.0 if is_table else _SMEAR_PIXELS,
            smear_t=_SMEAR_TIME * duration,
            noise=noise,
            profiles=(MeasuredNoise(first) if is_copied else Uniform(),),
        )

    def _strong(
        self, weak: Events, samples: NDArray[np.int64], epoch: int
    ) -> tuple[Events, NDArray[np.int64]]:
        """Return the hits of strong views, and the origin of each hit."""
        origin = np.arange(1, weak.n_hits + 1)
        if self._change is None:
            return weak, origin
        # labelled as signal, so that `degrade` moves every hit; hits that it adds have the origin 0
        label = np.ones(weak.n_hits, np.uint8)
        marked = weak.with_hits(
            weak.offset, {**weak.hit_columns(), "label": label, "origin": origin}
        )
        draws = Draws(self._seed, epoch, samples)
        count = np.diff(weak.offset)
        is_kept = draws.uniform(_THIN, count)[0] > np.repeat(
            _MOST_LOST * draws.uniform(_THIN + 1, 1)[0], count
        )
        strong = degrade(
            marked.select(is_kept), self._change, seed=self._seed, epoch=epoch, event_index=samples
        )
        if self._sees_frames:
            strong = strong.select(~strong.hit["is_occluded"])
        return strong, np.asarray(strong.hit["origin"], np.int64)


class FramePseudoLabels(EventsPseudoLabels):
    """Unlabelled events for networks of frames."""

    _task: FramesTask

    def _check_task(self, task: Any) -> None:
        wanted = {
            "hits.pixels": (task.pixels, "lit", "a teacher labels hits, not empty pixels"),
            "hits.target": (task.target, "signal", "hits that were lost have no label"),
            "hits.output": (task.reading.output, "score", "labels are signal and noise, not times"),
        }
        for name, (got, want, why) in wanted.items():
            if got != want:
                raise ValueError(
                    f"Expected `{name}` {want} with unlabelled events, got {got}: {why}."
                )

    def _shown(self, events: Events) -> Tensor:
        reading = self._task.reading
        return encode(events, reading.channels, threshold=reading.threshold)

    def label_views(
        self, teacher: nn.Module, views: HitViews, threshold: float
    ) -> tuple[FrameBatch, Tensor]:
        """Label the strong views; only pixels with a label enter the loss.

        A pixel is signal if its visible hit is; added hits are noise.
        """
        sure, signal, share = self._labels(teacher, views, threshold)
        place = pixel_index(views.strong)
        frame = torch.zeros_like(views.shown[:, :1], memory_format=torch.contiguous_format)
        frame.view(-1)[place[signal]] = 1.0
        return FrameBatch(views.shown, place[sure], frame, torch.zeros_like(frame)), share

    def cost(self, output: Tensor, pseudo: FrameBatch) -> Tensor:
        """Return the loss of the pixels with a label."""
        return cost_at(self._fed, self._intake, output[:, :1], pseudo.is_signal, pseudo.lit)


class HitsPseudoLabels(EventsPseudoLabels):
    """Unlabelled events for networks of hits."""

    _task: HitsTask
    _sees_frames = False

    def _check_task(self, task: Any) -> None:
        self._features = tuple(name for name in task.reading.features if name != DIRECTION)
        if task.reading.n_classes != 2:
            raise Refused(
                "two classes of hits, {hits.n_classes=2}, with unlabelled events",
                task.reading.n_classes,
                "a teacher labels signal and noise",
            )

    def _shown(self, events: Events) -> HitInput:
        shown: HitInput = self._task.reading.inputs(events)
        return shown

    def label_views(
        self, teacher: nn.Module, views: HitViews, threshold: float
    ) -> tuple[HitsBatch, Tensor]:
        """Label the hits of the strong views; added hits are noise."""
        sure, signal, share = self._labels(teacher, views, threshold)
        return HitsBatch(views.shown, signal.long().masked_fill(~sure, IGNORED)), share

    def cost(self, output: Tensor, pseudo: HitsBatch) -> Tensor:
        """Return the loss of the hits with a label."""
        return cost_of_hits(self._fed, self._intake, output[:, :1], pseudo.label)
