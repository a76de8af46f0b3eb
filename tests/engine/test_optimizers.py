"""Muon beside AdamW: what each trains, and that a state continues to the bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dense_imb.engine.optimizers import MuonAndAdamW, build_optimizer
from dense_imb.models import FastUNet, HitTransformer


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6),
        nn.Conv2d(6, 1, 1),
    )  # fmt: skip


def steps(network: nn.Module, optimizer: torch.optim.Optimizer, n: int, first: int = 0) -> None:
    for step in range(first, first + n):
        generator = torch.Generator().manual_seed(step)
        network(torch.rand(2, 1, 8, 8, generator=generator)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def test_the_first_and_last_layer_and_vectors_are_for_adamw():
    network = small()
    optimizer = build_optimizer("muon", network, learning_rate=0.03, weight_decay=0.01)
    muon, adamw = optimizer.param_groups
    assert [weight.shape for weight in muon["params"]] == [(6, 4, 3, 3)]
    assert len(adamw["params"]) == 7
    assert adamw["lr"] == pytest.approx(0.004)


def test_wave_vectors_do_not_decay_and_have_their_own_rate():
    network = HitTransformer(3, size="tiny")
    optimizer = build_optimizer("muon", network, learning_rate=0.03, weight_decay=0.01)
    waves = optimizer.param_groups[-1]
    assert [*waves["params"]] == [network.waves]
    assert (waves["lr"], waves["weight_decay"]) == (pytest.approx(0.005), 0.0)


def test_a_matrix_moves_as_with_torchs_own_muon():
    weight = nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    other = nn.Parameter(weight.detach().clone())
    ours = MuonAndAdamW([weight], [], learning_rate=0.1, weight_decay=0.01)
    theirs = torch.optim.Muon([other], 0.1, weight_decay=0.01)
    for step in range(3):
        gradient = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        weight.grad, other.grad = gradient.clone(), gradient.clone()
        ours.step()
        theirs.step()
        assert torch.equal(weight, other)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_kernels_move_whatever_their_layout(layout):
    network = small().to(memory_format=layout)
    before = network[1].weight.detach().clone()
    optimizer = build_optimizer("muon", network, learning_rate=0.03, weight_decay=0.0)
    steps(network, optimizer, 1)
    moved = (network[1].weight - before).flatten(1)
    assert moved.norm() > 0
    # the step is nearly orthogonal: singular values near each other
    values = torch.linalg.svdvals(moved)
    assert values.max() / values.min() < 3


def test_a_state_continues_to_the_bit():
    one, two = small(), small()
    first = build_optimizer("muon", one, learning_rate=0.03, weight_decay=0.01)
    steps(one, first, 5)
    second = build_optimizer("muon", two, learning_rate=0.03, weight_decay=0.01)
    steps(two, second, 2)
    stored = copy.deepcopy((two.state_dict(), second.state_dict()))
    again = small()
    third = build_optimizer("muon", again, learning_rate=0.03, weight_decay=0.01)
    again.load_state_dict(stored[0])
    third.load_state_dict(stored[1])
    steps(again, third, 3, first=2)
    for name, value in one.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_frozen_weights_stay():
    network = FastUNet(1, 1, widths=[4, 8])
    network.requires_grad_(False)
    head = [*network.modules()][-1].requires_grad_(True)
    optimizer = build_optimizer("muon", network, learning_rate=0.03, weight_decay=0.01)
    n_trained = sum(len(group["params"]) for group in optimizer.param_groups)
    assert n_trained == len([*head.parameters()])


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_other_names_are_torchs(name):
    optimizer = build_optimizer(name, small(), learning_rate=0.01, weight_decay=0.0)
    assert type(optimizer).__name__.lower() == name
