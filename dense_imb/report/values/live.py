"""Maps of a live page: target and prediction of the network as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from dense_imb.report.blocks import blocks_text
from dense_imb.report.live.crops import parts_to_show
from dense_imb.report.page import Drawing
from dense_imb.report.values import figures
from dense_imb.report.values.measures import ValueSample, sample_of
from dense_imb.tasks.values.trained import TrainedValues


class LiveExamples:
    """Parts of two validation images: the one with most lit pixels, and a typical one.

    Args:
        task: task of a run on values.

    Example:
        >>> from types import SimpleNamespace as Some
        >>> import numpy as np
        >>> from dense_imb.report.values import LiveExamples
        >>> class Validation(list):
        ...     target = list.__getitem__
        >>> target = np.zeros((1, 24, 24))
        >>> target[:, 2:4, 2:4] = 1
        >>> task = Some(validation=Validation([target]), reading=Some(patch=(6, 6), level=0.5))
        >>> LiveExamples(task).parts
        {0: (slice(0, 12, None), slice(0, 12, None))}
    """

    def __init__(self, task: Any) -> None:
        self.task = task
        self.parts = parts_to_show(self._is_lit, len(task.validation), task.reading.patch)

    def _is_lit(self, i: int) -> Any:
        return (self.task.validation.target(i) > self.task.reading.level).any(0)

    def drawings(self, network: nn.Module, device: torch.device) -> list[Drawing]:
        """Return the figures of the images: target, prediction and their difference.

        Args:
            network: network in evaluation mode.
            device: device of the network.
        """
        applied = TrainedValues("now", network, self.task.reading, device)
        drawings = []
        for k, (i, part) in enumerate(self.parts.items()):
            sample = self._sample(applied, i, part)
            where = f"{sample.name}, {sample.part}" if sample.part else sample.name
            drawings.append(
                Drawing(
                    f"example_{k}",
                    lambda to, one=sample: figures.draw_value_sample(one, to),  # type: ignore[misc]
                    figures.size_of_sample(sample),
                    f"{where}: image, target, prediction and difference.",
                    f"{where}. Mean absolute error {sample.error:.4g} here. Predictions are those "
                    "of the network as trained." + blocks_text(sample.block, "its largest value"),
                )
            )
        return drawings

    def _sample(self, network: TrainedValues, i: int, part: tuple[slice, ...]) -> ValueSample:
        images = self.task.validation
        image, target = images.image(i)[:, *part], images.target(i)[:, *part]
        prediction = network.predict(np.ascontiguousarray(image), raw=True).numpy()
        counted = images.counted(i)
        if counted is not None:
            prediction = np.where(counted[part], prediction, np.nan)
        error = float(np.nanmean(np.abs(prediction - target)))
        return sample_of(network.reading, images.names[i], image, target, prediction, error)
