"""A threshold with what it was measured to do: chosen once, stored, applied to other data."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor

from dense_imb.base.checks import check_choice, check_floating
from dense_imb.metrics._counts import in_float64, reading_json, write_json

SCALES = ("probability", "logit")


@dataclass(frozen=True)
class OperatingPoint:
    """Keep what scores at least `threshold`; `ScoreHistogram.operating_point` chooses one.

        kept  <=>  score >= threshold

    Args:
        threshold: in the scale of the score; 0 or -inf keeps everything, inf nothing.
        scale: "probability" for scores in [0, 1], "logit" for any real ones.
        retention: share of the signal that was kept where the threshold was chosen.
        removal: share of the noise that was rejected there.
        purity: share of signal in what was kept there.
        n_signal: signal seen there; below some 1,000 the last digit of the retention is luck.
        n_noise: noise seen there.

    Example:
        >>> point = OperatingPoint(0.5, "probability", 0.97, 0.9, 0.6, n_signal=30, n_noise=200)
        >>> point.keep(torch.tensor([0.2, 0.5, 0.9]))
        tensor([False,  True,  True])
    """

    threshold: float
    scale: str
    retention: float
    removal: float
    purity: float
    n_signal: int
    n_noise: int

    def __post_init__(self) -> None:
        check_choice("scale", self.scale, SCALES)
        if self.threshold != self.threshold:
            raise ValueError("Expected `threshold` to be a number, got nan.")

    def keep(self, score: Tensor) -> Tensor:
        """Return whether each score is kept, bool in the shape of `score`."""
        return (checked_score(score, self.scale) >= self.threshold).to(score.device)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON: to a temporary name, then moved into place."""
        write_json(path, type(self).__name__, self.as_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> OperatingPoint:
        """Read what `save` wrote."""
        with reading_json(path, cls.__name__) as stored:
            return cls.from_json({field.name: stored[field.name] for field in fields(cls)})

    def as_json(self) -> dict[str, str | float]:
        """Return a dictionary for strict JSON: NaN and infinity become strings."""
        return {
            name: str(value) if isinstance(value, float) and value - value != 0 else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, stored: dict[str, str | float]) -> OperatingPoint:
        """Return what `as_json` was made from."""
        measured = ("threshold", "retention", "removal", "purity")
        numbers = {name: float(stored[name]) for name in measured}
        return cls(
            **numbers,
            scale=str(stored["scale"]),
            n_signal=int(stored["n_signal"]),
            n_noise=int(stored["n_noise"]),
        )


def checked_score(score: Tensor, scale: str) -> Tensor:
    """Return the score in float64, in which thresholds are compared; refuse what is no score."""
    check_floating("score", score)
    score = in_float64(score)
    if score.numel() == 0:
        return score
    low, high = torch.aminmax(score)
    if bool(low.isnan()):
        raise ValueError("Expected `score` without NaN, got one; what made it is broken.")
    if scale == "probability" and not (bool(low >= 0) and bool(high <= 1)):
        raise ValueError(
            f"Expected `score` between 0 and 1, got {float(low if low < 0 else high):g}; "
            'logits and other real scores need scale="logit".'
        )
    return score
