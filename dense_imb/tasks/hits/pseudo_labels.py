"""Events of hits without labels, for a denoiser, see `dense_imb.tasks.mean_teacher`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.base.checks import check_choice
from dense_imb.base.random import Draws
from dense_imb.data.epochs.views import STRONG
from dense_imb.data.events.virtual import VirtualEvents
from dense_imb.hits import Degradation, Events, degrade, encode
from dense_imb.hits.frames import pixel_index
from dense_imb.losses.foreign.feeding import intake_of, takes_logits
from dense_imb.tasks.hits.task import HitsBatch, HitsTask, cost_at, is_visible
from dense_imb.tasks.mean_teacher import as_trained

_EPOCHS = 2**30  # from here on epochs vary events without labels: not as labelled ones degrade
_THIN = 105  # purpose of random numbers: which hits a strong view loses
_MOST_LOST = 0.3  # share of the hits of an event, lost and added each
_SMEAR_PIXELS, _SMEAR_TIME = 0.4, 0.005  # of pixels, and of all time steps
_LOOKED_AT = 256  # events


@dataclass(frozen=True)
class HitViews:
    """Events as they are, and strong views of them.

    Args:
        shown: (B, C, H, W) frames of the strong views.
        weak: the visible hits, for the teacher.
        strong: those of the strong views.
        origin: (hits of `strong`,) 1 + number of the hit of `weak` that each was; 0 was added.
    """

    shown: Tensor
    weak: Events
    strong: Events
    origin: Tensor


class HitsPseudoLabels:
    """Events whose hits a teacher labels, see `dense_imb.tasks.mean_teacher.Unlabelled`.

    Strong views lose up to 0.3 of the hits, move the others by about a pixel and some time steps,
    and get up to 0.3 of the hits of a mean event anywhere, which are noise whatever the teacher
    says.

    Args:
        task: the labelled part.
        events: hits without labels, or with labels that are not looked at. What `degradation`
            does to an event is the same in each epoch: it is measured once.
        loss: of the teacher's labels; that of the task by default.
        strong: "hits" (of "auto", too) or "none".
    """

    n_classes = 2  # noise and signal

    def __init__(
        self,
        task: HitsTask,
        events: VirtualEvents,
        loss: nn.Module | None = None,
        *,
        strong: str = "auto",
    ) -> None:
        _check_task(task)
        check_choice("unlabelled.strong", strong, STRONG)
        if strong in ("randaugment", "photometric"):
            raise ValueError(
                f"Expected strong views of events by hits or none, got {strong}, which is of "
                "images."
            )
        if events.geometry.size != task.train.geometry.size:
            raise ValueError(
                f"Expected events without labels in frames of {task.train.geometry.size_text()}, "
                f"as those with labels, got {events.geometry.size_text()}."
            )
        if not len(events):
            raise ValueError("Expected an event without labels or more, got none.")
        if loss is not None and takes_logits(loss) != task.reading.is_logit:
            fed, got = ("logits", "values") if task.reading.is_logit else ("values", "logits")
            raise ValueError(
                f"Expected a loss of {fed} for the teacher's labels, as that of the others, got "
                f"{type(loss).__name__}, which is fed {got}."
            )
        self.n_images = len(events)
        self.loss: nn.Module = task.output_loss if loss is None else loss
        own = next(task.output_loss.children())
        self._fed: nn.Module = own if loss is None else loss
        self._intake = intake_of(self._fed)
        self._task, self._events = task, events
        self._seed = task.train.seed
        # how much likelier, in logits, signal is in the training data than the network says
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
        """The events as they are, and thinned, smeared and with noise."""
        weak = self._shown_hits(places)
        strong, origin = self._strong(weak, samples, epoch + _EPOCHS)
        strong = strong.torch(device)
        reading = self._task.reading
        shown = encode(strong, reading.channels, threshold=reading.threshold)
        return HitViews(shown, weak.torch(device), strong, torch.from_numpy(origin).to(device))

    def labelled(
        self, teacher: nn.Module, views: HitViews, threshold: float
    ) -> tuple[HitsBatch, Tensor]:
        """The strong views, at whose pixels with a label alone the loss looks.

        A pixel is of the signal where the hit that it shows is; hits that were added are noise.
        """
        score = self._score(teacher, views.weak)
        is_signal = score >= threshold
        is_sure = is_signal | (score <= 1 - threshold)
        # what was added comes from nowhere, place 0, and is surely no signal
        sure = nn.functional.pad(is_sure, (1, 0), value=True)[views.origin]
        signal = nn.functional.pad(is_signal, (1, 0), value=False)[views.origin]
        place = pixel_index(views.strong)
        frame = torch.zeros_like(views.shown[:, :1], memory_format=torch.contiguous_format)
        frame.view(-1)[place[signal]] = 1.0
        kinds = torch.stack([is_sure & ~is_signal, is_signal])  # noise, signal
        share = kinds.float().sum(1) / max(len(is_sure), 1)
        return HitsBatch(views.shown, place[sure], frame, torch.zeros_like(frame)), share

    def cost(self, output: Tensor, pseudo: HitsBatch) -> Tensor:
        """The loss of the pixels with a label."""
        return cost_at(self._fed, self._intake, output[:, :1], pseudo.is_signal, pseudo.lit)

    def content(
        self, teacher: nn.Module, places: NDArray[np.int64], device: torch.device
    ) -> NDArray[np.int64]:
        """(n, 2) hits that the teacher calls noise and signal, sure or not."""
        found = np.zeros((len(places), 2), np.int64)
        size = self._task.batch_size
        for start in range(0, len(places), size):
            part = places[start : start + size]
            hits = self._shown_hits(part)
            is_signal = self._score(teacher, hits.torch(device)) >= 0.5
            kind = 2 * hits.event_index() + is_signal.cpu().numpy()
            found[start : start + size] = np.bincount(kind, minlength=2 * len(part)).reshape(-1, 2)
        return found

    def _score(self, teacher: nn.Module, hits: Events) -> Tensor:
        """(n_hits,) probability of signal, as often as the training data have it."""
        score = self._task.reading.score(teacher, hits)
        return torch.sigmoid(torch.logit(score) + self._shift) if self._shift else score

    def describe(self) -> str:
        """Which events these are, and how strong their views."""
        return self._description

    def _shown_hits(self, places: NDArray[np.int64]) -> Events:
        """The hits that a frame shows, with no more than their place and time."""
        events = self._events.degraded(places, 0).numpy()
        events = events.select(is_visible(events))
        return events.with_hits(events.offset, {name: getattr(events, name) for name in "xyt"})

    def _strong_change(self) -> Degradation:
        first = self._shown_hits(np.arange(min(_LOOKED_AT, self.n_images)))
        return Degradation(
            smear_x=_SMEAR_PIXELS,
            smear_y=_SMEAR_PIXELS,
            smear_t=_SMEAR_TIME * first.geometry.time_steps,
            noise=(0, round(_MOST_LOST * first.n_hits / len(first))),
        )

    def _strong(
        self, weak: Events, samples: NDArray[np.int64], epoch: int
    ) -> tuple[Events, NDArray[np.int64]]:
        """Strong views of events, the hits that a frame shows, and where each comes from."""
        origin = np.arange(1, weak.n_hits + 1)
        if self._change is None:
            return weak, origin
        # all hits move, so that all are signal to `degrade`; what it adds has the origin 0
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
        strong = strong.select(~strong.hit["is_occluded"])
        return strong, np.asarray(strong.hit["origin"], np.int64)


def _check_task(task: HitsTask) -> None:
    """Refuse what labels of hits teach nothing about."""
    wanted = {
        "hits.pixels": (task.pixels, "lit", "an empty pixel has no hit that a teacher could label"),
        "hits.target": (task.target, "signal", "hits that were lost have no label"),
        "hits.output": (task.reading.output, "score", "labels are signal and noise, not times"),
    }
    for name, (got, want, why) in wanted.items():
        if got != want:
            raise ValueError(
                f"Expected `{name}` {want} to learn from events without labels, got {got}: {why}."
            )
