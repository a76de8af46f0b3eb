"""Region losses compiled for the CPU: their sums are one hand-written operation of the graph."""

from __future__ import annotations

import pytest
import torch

from dense_imb.losses import Balance, CompoundLoss, CrossEntropyLoss, DiceLoss
from dense_imb.losses.core.compiled_sums import _class_sums

LOSSES = {
    "batch": DiceLoss(),
    "image": DiceLoss(balance=Balance(scope="image")),
    "with cross-entropy": CompoundLoss(DiceLoss(), CrossEntropyLoss()),
}


def example(n_channels, dtype=torch.float32):
    rng = torch.Generator().manual_seed(n_channels)
    z = torch.randn(2, n_channels, 5, 7, generator=rng).to(dtype).requires_grad_()
    label = torch.randint(0, max(n_channels, 2), (2, 5, 7), generator=rng)
    return z, label, torch.rand(2, 5, 7, generator=rng) > 0.3


def value_and_gradient(loss, z, label, mask):
    value = loss(z, label, mask=mask)
    return value, *torch.autograd.grad(value, z)


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("n_channels", [1, 2, 3, 9])
@pytest.mark.parametrize("name", LOSSES)
def test_compiled_sums_are_the_eager_ones(name, n_channels, is_masked):
    torch.compiler.reset()
    loss, (z, label, mask) = LOSSES[name], example(n_channels)
    mask = mask if is_masked else None
    graphs = []

    def remember(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    expected = value_and_gradient(loss, z, label, mask)
    torch.testing.assert_close(value_and_gradient(compiled, z, label, mask), expected)
    torch.compiler.reset()
    torch.compile(loss, fullgraph=True, backend=remember)(z, label, mask=mask)
    assert "dense_imb.class_sums" in graphs[0].code


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # of opcheck itself
@pytest.mark.parametrize("n_channels", [1, 2, 4])
def test_the_operation_keeps_torchs_rules(n_channels):
    z, label, mask = example(n_channels)
    z, label = z.detach().flatten(2).requires_grad_(), label.flatten(1)
    for weight, by_image, n_penalties in ((None, False, 1), (mask.flatten(1).float(), True, 0)):
        inputs = (z, label, weight, max(n_channels, 2), by_image, n_penalties)
        torch.library.opcheck(_class_sums, inputs)


def test_an_exported_loss_needs_no_operation_of_ours():
    z, label, _ = example(3)
    exported = torch.export.export(DiceLoss(), (z.detach(), label))
    assert "dense_imb" not in exported.graph_module.code
