"""Operating point: a threshold with its measured retention, removal and purity."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields

from torch import Tensor

from dense_imb.base.checks import check_choice
from dense_imb.metrics._checks import checked_score
from dense_imb.metrics._counts import reading_json, summary_text, write_json

SCALES = ("probability", "logit")


@dataclass(frozen=True)
class OperatingPoint:
    """Threshold of a score, and its effect on the data on which it was chosen.

        kept  <=>  score >= threshold

    `ScoreHistogram.operating_point` chooses one; `save` keeps it for other data.

    Args:
        threshold: in units of the score; 0 or -inf keeps everything, inf nothing.
        scale: "probability" for scores in [0, 1], "logit" for any real scores.
        retention: kept signal / signal.
        removal: rejected noise / noise.
        purity: kept signal / kept.
        n_signal: number of signal scores. Below about 1,000, the retention has two digits.
        n_noise: number of noise scores.

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

    def __repr__(self) -> str:
        measured = {name: getattr(self, name) for name in ("retention", "removal", "purity")}
        counts = {"signal": self.n_signal, "noise": self.n_noise}
        return (
            f"OperatingPoint({self.scale} >= {self.threshold:.6g}; "
            f"{summary_text(counts, measured)})"
        )

    def keep(self, score: Tensor) -> Tensor:
        """Return whether each score is kept, bool in the shape of `score`."""
        return (checked_score(score, self.scale) >= self.threshold).to(score.device)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, to a temporary name that is then moved into place."""
        write_json(path, type(self).__name__, self.as_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> OperatingPoint:
        """Read the operating point that `save` wrote."""
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
        """Return the operating point of a dictionary from `as_json`."""
        measured = ("threshold", "retention", "removal", "purity")
        numbers = {name: float(stored[name]) for name in measured}
        return cls(
            **numbers,
            scale=str(stored["scale"]),
            n_signal=int(stored["n_signal"]),
            n_noise=int(stored["n_noise"]),
        )
