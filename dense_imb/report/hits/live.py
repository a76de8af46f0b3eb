"""Events of a live page, with the verdicts of the network as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from dense_imb.data.events.virtual import VALIDATION_EPOCH
from dense_imb.hits import Sensors
from dense_imb.report.hits import displays
from dense_imb.report.hits.measures import EventSample, verdicts
from dense_imb.report.page import Drawing

_AMONG = 50  # first validation events, among which the examples are chosen
_QUANTILES = (0.5, 0.9)  # of the number of hits, for each example


class LiveExamples:
    """Two validation events: one of typical size, and a large one.

    Args:
        task: task of a run on hits.

    Example:
        >>> from types import SimpleNamespace as Some
        >>> from dense_imb.hits import simulate
        >>> from dense_imb.report.hits import LiveExamples
        >>> class Validation(list):
        ...     def degraded(self, numbers, epoch):
        ...         return simulate("arc", len(numbers), seed=1)
        >>> len(LiveExamples(Some(validation=Validation(range(4)))).events)
        2
    """

    def __init__(self, task: Any) -> None:
        self.task = task
        numbers = np.arange(min(_AMONG, len(task.validation)))
        events = task.validation.degraded(numbers, VALIDATION_EPOCH).numpy()
        order = np.argsort(np.diff(events.offset), kind="stable")
        places = [int(order[int(q * (len(order) - 1))]) for q in _QUANTILES]
        self.events = {i: events[i] for i in dict.fromkeys(places)}

    @torch.no_grad()
    def drawings(self, network: nn.Module, device: torch.device) -> list[Drawing]:
        """Return the figures of the events before and after denoising.

        Args:
            network: network in evaluation mode.
            device: device of the network.
        """
        task = self.task
        point = task.histogram.operating_point(task.retention)
        drawings = []
        for k, (number, events) in enumerate(self.events.items()):
            score = task.reading.score(network, events.torch(device)).cpu()
            verdict = verdicts(events.label, point.keep(score))
            sample = EventSample("Validation event", number, events, verdict)
            counts = ", ".join(f"{n} {words}" for words, n in sample.counts().items())
            caption = (
                f"Validation event {number}, as the network sees it now: {counts}. The threshold "
                f"keeps {100 * task.retention:g} % of the signal of all validation events."
            )
            if isinstance(events.geometry, Sensors) and events.geometry.n_axes == 3:
                caption += " Colours show the time of signal hits; pale dots are sensors."
            drawings.append(
                Drawing(
                    f"example_{k}",
                    lambda to, one=sample: displays.draw_sample(one, to),  # type: ignore[misc]
                    displays.sample_size(sample),
                    f"Validation event {number}: {counts}.",
                    caption,
                )
            )
        return drawings
