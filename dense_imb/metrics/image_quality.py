"""SSIM and PSNR, next to those of a blank frame and of the input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least, check_floating, check_same_shape, readable
from dense_imb.metrics._counts import StreamingCounts, in_float64, ratio

ROWS = ("prediction", "blank", "input")
_WINDOW, _SIGMA = 11, 1.5  # width of the SSIM's Gaussian in pixels, as published


class ImageQuality(StreamingCounts):
    """PSNR and SSIM of a prediction, of a blank frame and of the input.

        PSNR = 10 log10(range^2 / mean over all pixels of (p - t)^2)
        SSIM = mean over images and window positions of
               (2 m_p m_t + c_1) (2 s_pt + c_2) / ((m_p^2 + m_t^2 + c_1) (s_p^2 + s_t^2 + c_2))

    with means m and (co)variances s in a Gaussian window, c_1 = (0.01 range)^2 and
    c_2 = (0.03 range)^2 (Wang et al. 2004). The window is 11 pixels wide with sigma 1.5, and lies
    inside the image. Where nearly every pixel is empty, a blank frame has nearly the best score:
    a prediction must beat it.

    Args:
        data_range: largest minus smallest possible value of a pixel.

    Example:
        >>> truth = torch.zeros(1, 1, 16, 16)
        >>> truth[..., 8, 8] = 1.0
        >>> quality = ImageQuality(data_range=1.0)
        >>> quality.update(truth / 2, truth, measured=truth + truth.roll(3, -1))
        >>> {row: round(values["psnr"], 2) for row, values in quality.rows().items()}
        {'prediction': 30.1, 'blank': 24.08, 'input': 24.08}
    """

    def __init__(self, *, data_range: float = 1.0) -> None:
        check_at_least("data_range", data_range, 0.0)
        if data_range == 0:
            raise ValueError("Expected `data_range` above 0, got 0.")
        self.data_range = float(data_range)
        self._sums = torch.zeros(len(ROWS), 2, dtype=torch.float64)  # squared error, SSIM
        self._n = torch.zeros(2, dtype=torch.int64)  # pixels, images

    def _settings(self) -> dict[str, Any]:
        return {"data_range": self.data_range}

    def _tensors(self) -> tuple[Tensor, ...]:
        return self._sums, self._n

    def update(self, prediction: Tensor, target: Tensor, measured: Tensor) -> None:
        """Add a batch of images, (B, C, *spatial) each.

        Args:
            prediction: output of the network.
            target: true images.
            measured: input of the network.
        """
        prediction, target, measured = readable(
            prediction=prediction, target=target, measured=measured
        )
        check_floating("prediction", prediction)
        check_same_shape("target", target, "prediction", prediction)
        check_same_shape("measured", measured, "prediction", prediction)
        if prediction.dim() < 3 or min(prediction.shape[2:]) < _WINDOW:
            raise ValueError(
                f"Expected `prediction` (B, C, *spatial) of at least {_WINDOW} pixels a side, "
                f"got {tuple(prediction.shape)}."
            )
        target = in_float64(target)
        rows = (in_float64(prediction), torch.zeros_like(target), in_float64(measured))
        sums = torch.stack([
            torch.stack([(image - target).square().sum(), self._ssim(image, target).sum()])
            for image in rows
        ])  # fmt: skip
        if bool(sums.isnan().any()):
            raise ValueError("Expected images without NaN or infinity, got one.")
        self._sums += sums.cpu()
        self._n += torch.tensor([target.numel(), target.shape[0]])

    def rows(self) -> dict[str, dict[str, float]]:
        """Return {"prediction": {"psnr": .., "ssim": ..}, "blank": .., "input": ..}.

        The PSNR of images without error is infinite.
        """
        n_pixels, n_images = self._n.tolist()
        return {
            row: {"psnr": self._psnr(ratio(error, n_pixels)), "ssim": ratio(ssim, n_images)}
            for row, (error, ssim) in zip(ROWS, self._sums.tolist(), strict=True)
        }

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        psnr = {f"PSNR of {row}": values["psnr"] for row, values in self.rows().items()}
        return {"images": int(self._n[1])}, psnr

    def _psnr(self, mean_square: float) -> float:
        if mean_square == 0:
            return math.inf
        return 10 * math.log10(self.data_range**2 / mean_square)

    def _ssim(self, p: Tensor, t: Tensor) -> Tensor:
        """Return the SSIM of each image, (B,)."""
        c_1, c_2 = (0.01 * self.data_range) ** 2, (0.03 * self.data_range) ** 2
        m_p, m_t = _local_mean(p), _local_mean(t)
        s_pp = _local_mean(p * p) - m_p * m_p
        s_tt = _local_mean(t * t) - m_t * m_t
        s_pt = _local_mean(p * t) - m_p * m_t
        ssim = (2 * m_p * m_t + c_1) * (2 * s_pt + c_2)
        ssim = ssim / ((m_p * m_p + m_t * m_t + c_1) * (s_pp + s_tt + c_2))
        return ssim.flatten(1).mean(1)


def _local_mean(image: Tensor) -> Tensor:
    """Return the Gaussian mean at each position where the window fits, axis by axis."""
    offset = torch.arange(_WINDOW, dtype=image.dtype, device=image.device) - _WINDOW // 2
    weight = (-offset.square() / (2 * _SIGMA**2)).exp()
    weight = weight / weight.sum()
    for axis in range(2, image.dim()):
        image = image.unfold(axis, _WINDOW, 1) @ weight
    return image
