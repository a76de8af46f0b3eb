"""A trained network that scores hits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dense_imb.hits import Events, Geometry
from dense_imb.tasks.base import TrainedNetwork
from dense_imb.tasks.hits.task import HitsReading

_BATCH = {"cpu": 16}  # events; 16 frames stay in the caches of a CPU
_BATCH_ON_GPU = 256


class TrainedHits(TrainedNetwork[HitsReading]):
    """A trained network as a `dense_imb.hits.baselines.Scorer`.

    Args:
        name: name in tables.
        network: network with its weights.
        reading: how events become its input, and how its output becomes scores.
        geometry: frame of the training events.
        device: device it runs on.

    Attributes:
        batch_size: number of events scored together.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        reading: HitsReading,
        geometry: Geometry,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(name, network, reading, device)
        self.geometry = geometry
        self.batch_size = _BATCH.get(self.device.type, _BATCH_ON_GPU)

    @torch.no_grad()
    def score(self, events: Events) -> Tensor:
        """Return the score of each hit, (n_hits,) float32 in [0, 1]; larger is more signal-like."""
        for name in ("width", "height", "time_steps"):
            wanted, got = getattr(self.geometry, name), getattr(events.geometry, name)
            if wanted != got:
                raise ValueError(
                    f"Expected events of {name} {wanted}, on which {self.name} was trained, "
                    f"got {got}."
                )
        scores = [torch.zeros(0)]
        for start in range(0, len(events), self.batch_size):
            part = events[start : start + self.batch_size].torch(self.device)
            scores.append(self.reading.score(self.network, part).cpu())
        return torch.cat(scores).to(events.t.device if events.is_torch else "cpu")
