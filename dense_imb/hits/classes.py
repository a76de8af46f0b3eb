"""Recall and precision of each class of hits, for networks that tell classes apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dense_imb.metrics import StreamingCounts
from dense_imb.metrics.score_table import Row, percent_digits

_MOST = 256  # labels are uint8


class HitClasses(StreamingCounts):
    """Counts of hits by their class and by the class that a network finds most probable.

        recall_k    = hits of class k that are called k / hits of class k
        precision_k = hits of class k that are called k / hits that are called k

    Example:
        >>> from dense_imb.metrics.score_table import aligned
        >>> classes = HitClasses()
        >>> classes.update(torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 0, 1, 1, 2, 0]))
        >>> for line in aligned(class_table({"run": classes.rows()})): print(line)
        classes of hits  hits    recall  precision
        run: 0, noise       3   66.67 %    66.67 %
        run: 1              1  100.00 %    50.00 %
        run: 2              2   50.00 %   100.00 %
    """

    def __init__(self) -> None:
        self._counts = torch.zeros(_MOST, _MOST, dtype=torch.int64)

    def _settings(self) -> dict[str, Any]:
        return {}

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self._counts,)

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        hits = int(self._counts.sum())
        return {"hits": hits}, {"accuracy": _ratio(int(self._counts.diagonal().sum()), hits)}

    def update(self, label: Tensor, called: Tensor) -> None:
        """Count hits.

        Args:
            label: (n_hits,) class of each hit, 0 for noise.
            called: (n_hits,) most probable class of each hit.
        """
        place = label.cpu().long() * _MOST + called.cpu().long()
        self._counts += torch.bincount(place, minlength=_MOST * _MOST).view(_MOST, _MOST)

    def rows(self) -> tuple[Row, ...]:
        """Return class, hits, recall and precision, up to the last class that occurs."""
        hits, called = self._counts.sum(1).tolist(), self._counts.sum(0).tolist()
        right = self._counts.diagonal().tolist()
        last = max((k for k in range(_MOST) if hits[k] or called[k]), default=0)
        return tuple(
            {
                "class": k,
                "n_hits": hits[k],
                "recall": _ratio(right[k], hits[k]),
                "precision": _ratio(right[k], called[k]),
            }
            for k in range(last + 1)
        )


def class_table(classes: Mapping[str, Sequence[Row]]) -> list[list[str]]:
    """Return the table of the classes of every network: a header and rows of texts."""
    return [
        ["classes of hits", "hits", "recall", "precision"],
        *(
            [
                f"{name}: {row['class']:g}{', noise' * (row['class'] == 0)}",
                f"{row['n_hits']:,.0f}",
                *(_percent(float(row[score])) for score in ("recall", "precision")),
            ]
            for name, rows in classes.items()
            for row in rows
        ),
    ]


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{percent_digits(share, 2)} %"


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
