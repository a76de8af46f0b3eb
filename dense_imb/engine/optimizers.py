"""Optimizers by name, and Muon beside AdamW as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

OPTIMIZERS = ("adamw", "adam", "sgd", "muon")
_ADAM_SHARE = 2 / 15  # of Muon's learning rate, for the weights that are no matrices
_WAVES_SHARE = 1 / 6  # of Muon's learning rate, for wave vectors, which do not decay


def build_optimizer(
    name: str, network: nn.Module, *, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Build an optimizer of the weights of a network that need a gradient.

    Args:
        name: a name of `OPTIMIZERS`. "muon" trains matrices and kernels with Muon, and other
            weights with AdamW at 2/15 of its learning rate.
        network: network; its method `weight_groups`, if it has one, names the matrices.
        learning_rate: peak learning rate.
        weight_decay: weight decay.
    """
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    if name == "sgd":
        return torch.optim.SGD(weights, learning_rate, momentum=0.9, weight_decay=weight_decay)
    if name != "muon":
        kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
        return kind(weights, learning_rate, weight_decay=weight_decay, fused=True)
    groups = _weight_groups(network)
    matrices, waves, others = (
        [weight for weight in groups[kind] if weight.requires_grad]
        for kind in ("matrices", "waves", "others")
    )
    adam_groups = [
        {"params": others, "lr": learning_rate * _ADAM_SHARE, "weight_decay": weight_decay},
        {"params": waves, "lr": learning_rate * _WAVES_SHARE, "weight_decay": 0.0},
    ]
    return MuonAndAdamW(matrices, [group for group in adam_groups if group["params"]],
                        learning_rate=learning_rate, weight_decay=weight_decay)  # fmt: skip


def _weight_groups(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the weights by how they are trained; without `weight_groups`, by their shape.

    The first and the last layer are no matrices for Muon, as its author advises.
    """
    named: Callable[[], dict[str, list[nn.Parameter]]] | None
    named = getattr(network, "weight_groups", None)
    if callable(named):
        groups: dict[str, list[nn.Parameter]] = named()
        return groups
    weights = list(network.parameters())
    deep = [i for i, weight in enumerate(weights) if weight.dim() >= 2]
    is_matrix = {*deep[1:-1]}
    return {
        "matrices": [weight for i, weight in enumerate(weights) if i in is_matrix],
        "waves": [],
        "others": [weight for i, weight in enumerate(weights) if i not in is_matrix],
    }


class MuonAndAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` for matrices and AdamW for all other weights, as one optimizer.

    Kernels of convolutions are matrices (out, in x height x width) to Muon.

    Args:
        matrices: weights of two dimensions or more, for Muon.
        others: groups of parameters for AdamW.
        learning_rate: learning rate of Muon.
        weight_decay: weight decay of Muon.
    """

    def __init__(
        self,
        matrices: Sequence[nn.Parameter],
        others: Iterable[dict[str, Any]],
        *,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        groups = [{"params": [*matrices], "lr": learning_rate, "weight_decay": weight_decay}]
        super().__init__([group for group in [*groups, *others] if group["params"]], {})
        self._has_muon = bool(matrices)
        self._parts: tuple[torch.optim.Muon | None, torch.optim.AdamW | None] | None = None
        self._views: list[tuple[nn.Parameter, Tensor]] = []

    def _built(self) -> tuple[torch.optim.Muon | None, torch.optim.AdamW | None]:
        """Build both optimizers at the first step: the weights have moved to their device."""
        if self._parts is None:
            groups = self.param_groups
            muon = adamw = None
            if self._has_muon:
                own, groups = groups[0], groups[1:]
                self._views = [
                    (weight, nn.Parameter(_as_matrix(weight.data))) for weight in own["params"]
                ]
                muon = torch.optim.Muon(
                    [view for _, view in self._views], own["lr"], weight_decay=own["weight_decay"]
                )
            if groups:
                adamw = torch.optim.AdamW([dict(group) for group in groups], fused=True)
            self._parts = muon, adamw
        return self._parts

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step of both; no closure is taken."""
        muon, adamw = self._built()
        parts = [*([] if muon is None else muon.param_groups),
                 *([] if adamw is None else adamw.param_groups)]  # fmt: skip
        for part, group in zip(parts, self.param_groups, strict=True):
            part["lr"] = group["lr"]
        if muon is not None:
            for weight, view in self._views:
                view.data = _as_matrix(weight.data)  # a weight that moved lies elsewhere
                view.grad = None if weight.grad is None else _as_matrix(weight.grad, weight)
            muon.step()  # type: ignore[no-untyped-call]
        if adamw is not None:
            adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both optimizers and the learning rates."""
        muon, adamw = self._built()
        return {
            "rates": [group["lr"] for group in self.param_groups],
            "muon": None if muon is None else muon.state_dict(),
            "adamw": None if adamw is None else adamw.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        muon, adamw = self._built()
        for group, rate in zip(self.param_groups, state_dict["rates"], strict=True):
            group["lr"] = rate
        if muon is not None:
            muon.load_state_dict(state_dict["muon"])
        if adamw is not None:
            adamw.load_state_dict(state_dict["adamw"])


def _as_matrix(values: Tensor, like: Tensor | None = None) -> Tensor:
    """Return (out, ...) values as a matrix, in the order in which `like` lies in memory.

    Values in this order share their memory with the matrix.
    """
    like = values if like is None else like
    if values.dim() == 2:
        return values
    strides = like.stride()
    order = sorted(range(1, like.dim()), key=lambda axis: -strides[axis])
    moved = values.permute(0, *order)
    return moved.reshape(len(moved), -1)
