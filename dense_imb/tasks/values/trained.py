"""A trained network that predicts maps of values."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from dense_imb.tasks.base import TrainedNetwork
from dense_imb.tasks.values.task import ValuesReading


class TrainedValues(TrainedNetwork[ValuesReading]):
    """A trained network that predicts maps of values, see `TrainedNetwork`.

    Example:
        >>> import numpy as np, torch
        >>> from dense_imb.tasks import TrainedValues, ValuesReading
        >>> reading = ValuesReading(1, mean=(0.0,), std=(1.0,), patch=(32, 32), scale=70.0)
        >>> network = TrainedValues("tiny", torch.nn.Conv2d(1, 1, 3, padding=1), reading)
        >>> network.predict(np.zeros((1, 32, 32), np.float32)).shape
        torch.Size([1, 32, 32])
    """

    @torch.no_grad()
    def predict(self, image: NDArray[Any], *, raw: bool = False) -> Tensor:
        """Return the values (K, *spatial) of one image (channels, *spatial), float32.

        Args:
            image: pixels as stored.
            raw: leave predictions as trained, without the read-out.
        """
        shown = torch.from_numpy(self.reading.shown(image))[None].to(self.device)
        return self.reading.values(self.network, shown, raw=raw)[0].cpu()
