"""Operating point: a threshold with its measured retention, removal, purity and fakes."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, Self

from torch import Tensor

from dense_imb.base.checks import check_choice
from dense_imb.base.refusals import Refused
from dense_imb.metrics._checks import checked_score
from dense_imb.metrics._counts import reading_json, summary_text, write_json

SCALES = ("probability", "logit")
_LEAST = 10  # signal scores on either side of a threshold that is no luck
_ENOUGH = 1000  # signal scores, of which the retention has two digits in any case


@dataclass(frozen=True)
class Aim:
    """Wanted property of an operating point, and its value.

        retention   kept signal / signal is at least the value; the highest such threshold
        fakes       noise hits kept per noise-only event are at most the value; the lowest such
                    threshold
        purity      kept signal / kept is at least the value; the threshold with most signal kept

    Args:
        name: "retention", "fakes" or "purity".
        value: value wanted, see `Aim.DEFAULTS` for those of tables.

    Example:
        >>> print(Aim("retention", 0.97))
        keep 97 % of the signal
        >>> print(Aim.of(fakes=0.5))
        keep at most 0.5 noise hits per noise-only event
    """

    name: str = "retention"
    value: float = 0.97

    DEFAULTS: ClassVar[dict[str, float]] = {"retention": 0.97, "fakes": 1.0, "purity": 0.95}

    def __post_init__(self) -> None:
        check_choice("name", self.name, tuple(self.DEFAULTS))
        is_fakes = self.name == "fakes"
        if not (0 <= self.value < math.inf if is_fakes else 0 < self.value <= 1):
            bounds = "of at least 0" if is_fakes else "above 0 and up to 1"
            raise Refused(f"{{{self.name}}} {bounds}", self.value, argument=self.name)

    def __str__(self) -> str:
        if self.name == "fakes":
            return f"keep at most {self.value:g} noise hits per noise-only event"
        percent = f"{100 * self.value:g} %"
        return (
            f"keep {percent} of the signal"
            if self.name == "retention"
            else f"keep hits of which {percent} are signal"
        )

    @classmethod
    def of(
        cls,
        retention: float | None = None,
        fakes: float | None = None,
        purity: float | None = None,
        *,
        default: float = 0.97,
    ) -> Self:
        """Return the aim of the one argument that is given; without any, a retention.

        Args:
            retention: fraction of the signal to keep (signal efficiency).
            fakes: number of noise hits kept per noise-only event.
            purity: fraction of signal among the kept hits.
            default: retention wanted if no argument is given.
        """
        every = {"retention": retention, "fakes": fakes, "purity": purity}
        given = {name: value for name, value in every.items() if value is not None}
        if len(given) > 1:
            raise Refused(
                "one of {retention}, {fakes} and {purity}", " and ".join(given), "drop one"
            )
        name, value = next(iter(given.items()), ("retention", default))
        return cls(name, float(value))


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
        fakes: kept noise per event, over events with noise and no signal; NaN without any.
        n_noise_only: number of such events.

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
    fakes: float = math.nan
    n_noise_only: int = 0

    def __post_init__(self) -> None:
        check_choice("scale", self.scale, SCALES)
        if self.threshold != self.threshold:
            raise ValueError("Expected `threshold` to be a number, got nan.")

    def __eq__(self, other: object) -> bool:
        """Tell whether all numbers are equal, where NaN is equal to NaN."""
        if not isinstance(other, OperatingPoint):
            return NotImplemented
        return self.as_json() == other.as_json()

    def __hash__(self) -> int:
        return hash(tuple(self.as_json().values()))

    def __repr__(self) -> str:
        measured = {name: getattr(self, name) for name in ("retention", "removal", "purity")}
        counts = {"signal": self.n_signal, "noise": self.n_noise}
        if self.n_noise_only:
            measured["fakes"] = self.fakes
            counts["noise-only events"] = self.n_noise_only
        return (
            f"OperatingPoint({self.scale} >= {self.threshold:.6g}; "
            f"{summary_text(counts, measured)})"
        )

    def few(self) -> str | None:
        """Return a sentence on a threshold that few scores decide; None where they are enough.

        The threshold lies where a fraction of the signal, or of the noise, is on its other side.
        With fewer than 10 scores there it is luck.

        Example:
            >>> print(OperatingPoint(0.5, "probability", 0.97, 0.9, 0.6, 99, 500).few())
            The threshold was chosen on 99 signal and 500 noise scores, of which 3 signal scores lie
            below it: on other data the retention may differ; choose it on more.
            >>> OperatingPoint(0.5, "probability", 0.97, 0.9, 0.6, 1000, 500).few() is None
            True
        """
        if not math.isfinite(self.threshold) or not self.n_signal:
            return None
        n_lost = round((1 - self.retention) * self.n_signal)
        n_kept = self.n_signal - n_lost
        n, side = min((n_lost, "below it"), (n_kept, "above it"))
        if n >= _LEAST or self.n_signal >= _ENOUGH:
            return None
        scores = "score lies" if n == 1 else "scores lie"
        return (
            f"The threshold was chosen on {self.n_signal:,} signal and {self.n_noise:,} noise "
            f"scores, of which {n} signal {scores} {side}: on other data the retention may differ; "
            "choose it on more."
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
            names = [field.name for field in fields(cls)]
            return cls.from_json({name: stored[name] for name in names if name in stored})

    def as_json(self) -> dict[str, str | float]:
        """Return a dictionary for strict JSON: NaN and infinity become strings."""
        return {
            name: str(value) if isinstance(value, float) and value - value != 0 else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, stored: dict[str, str | float]) -> OperatingPoint:
        """Return the operating point of a dictionary from `as_json`, of older versions too."""
        stored = {"n_noise_only": 0, **stored}
        measured = ("threshold", "retention", "removal", "purity")
        numbers = {name: float(stored[name]) for name in measured}
        n_noise_only = int(stored["n_noise_only"])
        return cls(
            **numbers,
            scale=str(stored["scale"]),
            n_signal=int(stored["n_signal"]),
            n_noise=int(stored["n_noise"]),
            fakes=float(stored["fakes"]) if n_noise_only else math.nan,
            n_noise_only=n_noise_only,
        )
