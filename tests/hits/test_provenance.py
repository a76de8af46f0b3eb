"""Digests of scorers and sources: what a denoised file was made by."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from dense_imb.hits.provenance import digest_of_scorer
from dense_imb.losses.core.natural import Natural


@dataclass(frozen=True)
class Reading:
    natural: Natural | None = None

    def as_text(self) -> str:
        return "Reading()"  # as in checkpoints: without what is fitted after the training


class Scorer:
    name = "net"

    def __init__(self) -> None:
        self.network, self.reading = nn.Linear(1, 1), Reading()
        nn.init.ones_(self.network.weight)
        nn.init.zeros_(self.network.bias)

    def score(self, events: object) -> torch.Tensor:
        raise NotImplementedError


def test_natural_probabilities_are_part_of_a_scorer():
    scorer = Scorer()
    before = digest_of_scorer(scorer)
    natural = Natural((1.0, 1.0), bias=(0.0, 0.5))
    scorer.reading = replace(scorer.reading, natural=natural)
    fitted = digest_of_scorer(scorer)
    scorer.reading = replace(scorer.reading, natural=replace(natural, bias=(0.0, 0.7)))
    assert len({before, fitted, digest_of_scorer(scorer)}) == 3
