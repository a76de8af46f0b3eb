"""torch.export of a network with its loss: the graph gives the same value for other data."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from .cases import CASES
from .test_every_loss import cast


class Step(nn.Module):
    """What a training step computes."""

    def __init__(self, network: nn.Module, loss: nn.Module, third: str | None) -> None:
        super().__init__()
        self.network, self.loss, self.third = network, loss, third

    def forward(self, image, target, map_=None):
        options = {} if self.third is None else {self.third: map_}
        return self.loss(self.network(image), target, **options)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.parametrize("scope", ["batch", "image"])
def test_network_and_loss_are_exported(case, scope):
    example, other = (
        tuple(cast(case.inputs(3, seed=seed), torch.float32).values()) for seed in (0, 1)
    )
    n_channels = example[0].shape[1]
    torch.manual_seed(0)
    third = next(iter(list(case.inputs(1))[2:]), None)  # name of a map beside the target
    step = Step(nn.Conv2d(n_channels, n_channels, 3, padding=1), case.make(scope=scope), third)
    exported = torch.export.export(step, example).module()
    for inputs in (example, other):
        torch.testing.assert_close(exported(*inputs), step(*inputs))
