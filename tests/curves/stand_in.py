"""Losses of a user's own: one that mines, one of values, and some that misbehave."""

from __future__ import annotations

import math

import torch
from torch import nn


class Mining(nn.Module):
    """Hard mining in plain operations."""

    def __init__(self, alpha=1.0, gamma=1.0, delta=1e7):
        super().__init__()
        self.alpha, self.gamma, self.delta = alpha, gamma, delta

    def forward(self, logits, target):
        lp = torch.log_softmax(logits, dim=1).gather(1, target.unsqueeze(1)).squeeze(1)
        clipped = lp.clamp(min=math.log(1e-7))
        p, q = clipped.exp(), -torch.expm1(clipped)
        s = torch.sin(math.pi * torch.minimum(p, q)) / (math.pi * p)
        x = self.delta * p
        e = torch.exp(-x) * torch.sin(math.pi * x) / (math.pi * x)
        return (-self.alpha * (s - e).clamp(min=0) ** self.gamma * lp).mean()


class Focal(nn.Module):
    """Focal loss in plain operations."""

    def __init__(self, gamma=1.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits, target):
        lp = torch.log_softmax(logits, dim=1).gather(1, target.unsqueeze(1)).squeeze(1)
        return (-((1 - lp.exp()) ** self.gamma) * lp).mean()


class Cubic(nn.Module):
    """A loss of values that declares nothing."""

    def forward(self, prediction, target):
        return (prediction - target).abs().pow(3).mean()


class SaysLogits(nn.Module):
    """A binary loss that declares what it is fed."""

    feeds_on = "logits"
    target_form = "binary"

    def forward(self, log_odds, target):
        return nn.functional.binary_cross_entropy_with_logits(log_odds, target)


class Gap(nn.Module):
    """No number while more than half of the frame is signal."""

    def forward(self, prediction, target):
        hole = torch.where(target.mean() > 50, math.nan, 0.0)
        return (prediction - target).square().mean() + hole


class SometimesShaped(nn.Module):
    """A map, not a number, while less than half of the frame is signal."""

    def forward(self, prediction, target):
        error = (prediction - target).square()
        return error if target.mean() < 50 else error.mean()


class Unreduced(nn.Module):
    def forward(self, prediction, target):
        return (prediction - target).square()


class Refuses(nn.Module):
    def forward(self, prediction, target):
        raise RuntimeError("not\ntoday")


class NaNGradient(nn.Module):
    """A finite value whose gradient is not, as a root at 0 has."""

    def forward(self, prediction, target):
        return (prediction - target).square().sum().sqrt()


def not_a_class():
    raise AssertionError("called before it was checked")
