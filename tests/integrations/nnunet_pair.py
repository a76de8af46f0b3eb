"""Run by torchrun from test_nnunet.py: each process has one image of the batch."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[2]))

from dense_imb.integrations.nnunet import TRAINERS, trainers
from tests.integrations.test_nnunet import KINDS, batch_of, trainer_of


def gradient_of(name: str, data: str, images: slice) -> torch.Tensor:
    trainer = trainer_of(getattr(trainers, name), data, is_deep=False, batch_dice=True)
    trainer.is_ddp = dist.is_initialized()
    logits, target = batch_of(data, is_deep=False)
    part = logits.detach()[images].clone().requires_grad_()
    trainer._build_loss()(part, target[images]).backward()
    return part.grad


def main() -> None:
    cases = [(name, data) for name in TRAINERS for data in KINDS]
    whole = [gradient_of(*case, slice(None)) for case in cases]  # before there is a group
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for case, expected in zip(cases, whole, strict=True):
        images = slice(rank, rank + 1)
        # DDP takes the mean over the two processes
        torch.testing.assert_close(gradient_of(*case, images) / 2, expected[images], msg=str(case))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
