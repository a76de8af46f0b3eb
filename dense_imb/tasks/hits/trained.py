"""A trained network that scores hits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from dense_imb.base.refusals import Refused
from dense_imb.hits import Events, Geometry, Sensors
from dense_imb.models import HitTransformer
from dense_imb.tasks.base import TrainedNetwork
from dense_imb.tasks.hits.frames import FrameReading
from dense_imb.tasks.hits.task import DIRECTION, HitsReading

_FRAMES = {"cpu": 16}  # frames of a batch; 16 stay in the caches of a CPU
_FRAMES_ON_GPU = 256
_HITS = {"cpu": 16384}  # hits of a batch, unless one event has more
_HITS_ON_GPU = 1 << 19


@dataclass(frozen=True)
class KnownTable:
    """A table of sensors that a network was trained on: its size and digest."""

    n_sensors: int
    n_axes: int
    digest: str

    def size_text(self) -> str:
        """Return the size as text, see `Sensors.size_text`."""
        return f"{self.n_sensors} sensors in {self.n_axes}-D"


def trained_on(text: str) -> Geometry | KnownTable:
    """Return the geometry that `describe_geometry` described in a checkpoint.

    Example:
        >>> trained_on("88 x 128 x 1000").size
        (88, 128, 1000)
        >>> trained_on("64170 sensors in 3-D, 0123abcd")
        KnownTable(n_sensors=64170, n_axes=3, digest='0123abcd')
    """
    if "sensors" not in text:
        width, height, time_steps = (int(size) for size in text.split(" x "))
        return Geometry(width, height, time_steps)
    words = text.replace(",", " ").split()
    return KnownTable(int(words[0]), int(words[3][0]), words[4])


class TrainedHits(TrainedNetwork[HitsReading | FrameReading]):
    """A trained network as a `dense_imb.hits.baselines.Scorer`.

    Args:
        name: name in tables.
        network: network with its weights.
        reading: how events become its input, and how its output becomes scores.
        geometry: grid of the training events, or what is known of their table of sensors.
        device: device it runs on.

    Attributes:
        batch_size: frames scored together; hits scored together for networks of hits, except that
            an event is never cut.

    Example:
        >>> from dense_imb import pretrained
        >>> from dense_imb.hits import Degradation, degrade, simulate
        >>> from dense_imb.tasks import TrainedHits
        >>> network = pretrained("arc").trained(device="cpu")
        >>> isinstance(network, TrainedHits), network.n_classes
        (True, 2)
        >>> noisy = degrade(simulate("arc", 2, seed=1), Degradation(signal=30, noise=200), seed=1)
        >>> network.score(noisy).shape
        torch.Size([460])
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        reading: HitsReading | FrameReading,
        geometry: Geometry | KnownTable,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(name, network, reading, device)
        self.trained_on = geometry
        sees_frames = isinstance(reading, FrameReading)
        sizes, on_gpu = (_FRAMES, _FRAMES_ON_GPU) if sees_frames else (_HITS, _HITS_ON_GPU)
        self.batch_size = sizes.get(self.device.type, on_gpu)

    @property
    def geometry(self) -> Geometry | None:
        """The grid that events must have; None where `check` knows more."""
        fits_one = isinstance(self.trained_on, Geometry) and self._knows_places
        return self.trained_on if fits_one and isinstance(self.trained_on, Geometry) else None

    @property
    def _knows_places(self) -> bool:
        """Whether the network sees where in the detector a hit lies, not differences alone."""
        return not isinstance(self.network, HitTransformer) or self.network.extent is not None

    def check(self, geometry: Geometry | Sensors) -> None:
        """Refuse events of a geometry that the network cannot be applied to."""
        known = self.trained_on
        trained = f"events of {known.size_text()}, as {self.name} was trained on"
        got = geometry.size_text()
        if isinstance(known, KnownTable):
            if not isinstance(geometry, Sensors) or geometry.n_axes != known.n_axes:
                raise Refused(
                    trained,
                    got,
                    f"the network takes any table of sensors in {known.n_axes}-D: convert the file "
                    "to one, or train on such events",
                )
            if self._wants_direction and geometry.direction is None:
                raise Refused(
                    f"{trained}, with directions of the sensors",
                    f"{got} without directions",
                    "convert the file with them, or train without the feature `direction`",
                )
            return
        if isinstance(geometry, Sensors):
            raise Refused(
                trained, got, "the network takes pixels: convert the file with bins, or train anew"
            )
        if self._knows_places and geometry.size != known.size:
            why = "the network knows places in this frame, so it cannot be applied to another"
            if not isinstance(self.network, HitTransformer):
                why = "a network of frames fits one size"
            cure = "train on such events, or convert the file"
            width, height, n_steps = known.size
            if geometry.size[:2] == (height, width) != (width, height):
                cure = (
                    "x and y are exchanged: convert your data again with --columns "
                    "x=COLUMN_OF_Y,y=COLUMN_OF_X "
                    f"--width {width} --height {height} --time-steps {n_steps}"
                )
            raise Refused(trained, got, f"{why}; {cure}")

    def note(self, geometry: Geometry | Sensors) -> str | None:
        """Return a sentence on events of another geometry that the network can be applied to."""
        known = self.trained_on
        is_known = (
            geometry.size == known.size
            if isinstance(known, Geometry)
            else getattr(geometry, "digest", None) == known.digest
        )
        if is_known:
            return None
        elsewhere = " at other places" * (known.size_text() == geometry.size_text())
        return (
            f"{self.name} was trained on {known.size_text()}, these events have "
            f"{geometry.size_text()}{elsewhere}; the network can be applied, but its threshold may "
            "not hold: choose it on labelled events of this detector."
        )

    @property
    def _wants_direction(self) -> bool:
        return isinstance(self.reading, HitsReading) and DIRECTION in self.reading.features

    @torch.no_grad()
    def score(self, events: Events) -> Tensor:
        """Return the score of each hit, (n_hits,) float32 in [0, 1]; larger is more signal-like."""
        self.check(events.geometry)
        scores = [torch.zeros(0)]
        for part in self._parts(events):
            scores.append(self.reading.score(self.network, part.torch(self.device)).float().cpu())
        return torch.cat(scores).to(events.t.device if events.is_torch else "cpu")

    @torch.no_grad()
    def probability(self, events: Events) -> Tensor:
        """Return the probability of each class of hits, (n_hits, n_classes) float32.

        Networks of hits only.
        """
        if not isinstance(self.reading, HitsReading):
            raise TypeError(f"Expected a network of hits for classes, got {self.name} of frames.")
        self.check(events.geometry)
        parts = [torch.zeros(0, self.reading.n_classes)]
        for part in self._parts(events):
            parts.append(self.reading.probability(self.network, part.torch(self.device)).cpu())
        return torch.cat(parts)

    @property
    def n_classes(self) -> int:
        """Classes of hits that the network tells apart, noise included."""
        return self.reading.n_classes if isinstance(self.reading, HitsReading) else 2

    def columns(self, events: Events) -> dict[str, Tensor]:
        """Return the score and the most probable class (uint8) of hits, for more than two classes.

        Networks that tell signal from noise return none: their score says it all.
        """
        if self.n_classes == 2:
            return {}
        probability = self.probability(events)
        score = (1 - probability[:, 0]).clamp(0, 1)
        return {"score": score, "class": probability.argmax(1).to(torch.uint8)}

    def _parts(self, events: Events) -> Iterator[Events]:
        """Yield events in batches: some frames, or some hits."""
        if isinstance(self.reading, FrameReading):
            bounds = [*range(0, len(events), self.batch_size), len(events)]
        else:
            offset = events.offset.cpu().numpy() if events.is_torch else np.asarray(events.offset)
            # an event belongs to the batch in which it begins
            batch = np.asarray(offset[:-1], np.int64) // self.batch_size
            bounds = [*np.flatnonzero(np.diff(batch, prepend=-1)).tolist(), len(events)]
        for first, last in pairwise(bounds):
            if last > first:
                yield events[first:last]
