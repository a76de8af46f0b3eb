"""Images of a live page, with the class that the network gives them now."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from dense_imb.report.labels import figures
from dense_imb.report.labels.measures import WrongImage
from dense_imb.report.page import Drawing
from dense_imb.tasks.labels.trained import TrainedLabels

_N_IMAGES = 8


class LiveExamples:
    """Eight validation images: of each class in turn, the rarest first.

    Args:
        task: task of a run on whole images.

    Example:
        >>> from types import SimpleNamespace as Some
        >>> from dense_imb.report.labels import LiveExamples
        >>> task = Some(validation=Some(labels=[0, 0, 1]), reading=Some(n_classes=2))
        >>> LiveExamples(task).places
        [2, 0, 1]
    """

    def __init__(self, task: Any) -> None:
        self.task = task
        labels = np.asarray(task.validation.labels)
        by_class = [np.flatnonzero(labels == k) for k in range(task.reading.n_classes)]
        by_class.sort(key=len)
        most = max(map(len, by_class))
        turns = [int(one[n]) for n in range(most) for one in by_class if n < len(one)]
        self.places = turns[:_N_IMAGES]

    def drawings(self, network: nn.Module, device: torch.device) -> list[Drawing]:
        """Return one figure of the images with their true and predicted classes.

        Args:
            network: network in evaluation mode.
            device: device of the network.
        """
        images, names = self.task.validation, self.task.reading.class_names
        pixels = images.images(self.places)
        applied = TrainedLabels("now", network, self.task.reading, device)
        probability = applied.probability(pixels).numpy()
        shown = [
            WrongImage(
                images.source.name(images.numbers[i]),
                pixels[k],
                names[images.labels[i]],
                names[int(probability[k].argmax())],
                float(probability[k].max()),
            )
            for k, i in enumerate(self.places)
        ]
        n_right = sum(one.truth == one.predicted for one in shown)
        text = f"{n_right} of {len(shown)} images have their true class, in green."
        return [
            Drawing(
                "examples",
                lambda to: figures.draw_worst(shown, to),
                figures.worst_layout(len(shown))[2],
                f"Validation images with their true and predicted classes. {text}",
                f"Validation images of each class in turn, the rarest first. {text}",
            )
        ]
