"""Images of a live page, with the classes that the network gives their pixels now."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from dense_imb.data.images.labelled import IGNORED, numbered_classes
from dense_imb.report.blocks import blocks_text
from dense_imb.report.images import figures
from dense_imb.report.images.measures import ImageSample, fullest_slice, sample_of, verdicts
from dense_imb.report.live.crops import parts_to_show
from dense_imb.report.page import Drawing
from dense_imb.tasks.images.evaluate import chosen_thresholds
from dense_imb.tasks.images.segment import as_probability, decided
from dense_imb.tasks.images.trained import TrainedImages


class LiveExamples:
    """Parts of two validation images: the one with most foreground, and a typical one.

    Args:
        task: task of a run on images with masks.

    Example:
        >>> from types import SimpleNamespace as Some
        >>> import numpy as np
        >>> from dense_imb.report.images import LiveExamples
        >>> class Validation(list):
        ...     label = list.__getitem__
        >>> label = np.zeros((24, 24), int)
        >>> label[2:4, 2:4] = 1
        >>> task = Some(validation=Validation([label]), reading=Some(patch=(6, 6)))
        >>> LiveExamples(task).parts
        {0: (slice(0, 12, None), slice(0, 12, None))}
    """

    def __init__(self, task: Any) -> None:
        self.task = task
        self.parts = parts_to_show(self._is_lit, len(task.validation), task.reading.patch)

    def _is_lit(self, i: int) -> Any:
        label = self.task.validation.label(i)
        return (label > 0) & (label != IGNORED)

    def drawings(self, network: nn.Module, device: torch.device) -> list[Drawing]:
        """Return the figures of the images: truth, score of the foreground, errors.

        Args:
            network: network in evaluation mode.
            device: device of the network.
        """
        reading = self.task.reading
        thresholds = chosen_thresholds(self.task.scores)
        names = list((reading.names or numbered_classes(reading.n_classes))[1:])
        mark = as_probability(thresholds[1]) if len(names) == 1 else None
        applied = TrainedImages("now", network, reading, device)
        drawings = []
        for k, (i, part) in enumerate(self.parts.items()):
            sample = self._sample(applied, i, part, thresholds)
            where = f"{sample.name}, {sample.part}" if sample.part else sample.name
            end = "" if mark is None else " The red mark on the scale is the threshold of best F1."
            drawings.append(
                Drawing(
                    f"example_{k}",
                    lambda to, one=sample: figures.draw_sample(  # type: ignore[misc]
                        one, names, mark, to, is_probability=False
                    ),
                    figures.sample_layout(sample.truth.shape)[2],
                    f"{where}: image, truth, score and errors.",
                    f"{where}. Scores are those of the network as trained.{end}"
                    + blocks_text(sample.block, "an error if it holds any"),
                )
            )
        return drawings

    def _sample(
        self,
        network: TrainedImages,
        i: int,
        part: tuple[slice, ...],
        thresholds: tuple[float, ...],
    ) -> ImageSample:
        images = self.task.validation
        image, label = images.image(i)[:, *part], images.label(i)[part]
        logits = network.logits(np.ascontiguousarray(image))
        score = logits[0, 0].sigmoid() if logits.shape[1] == 1 else 1 - logits[0].softmax(0)[0]
        verdict = verdicts(decided(logits, thresholds[1]), label)
        planes = [np.moveaxis(image, 0, -1), label, score.numpy(), verdict]
        words = "" if label.shape == images.label(i).shape else "a part of it"
        if label.ndim == 3:
            axis, place = fullest_slice(label)
            planes = [plane.take(place, axis) for plane in planes]
            words = f"slice {part[axis].start + place + 1} along axis {axis + 1}"
        return sample_of("", images.names[i], words, {}, *planes)
