"""Run by torchrun from test_processes.py: loops of two processes, each a part of the batch."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[2]))

from dense_imb.engine import CollapseAlarm, CollapseWarning, Interrupted
from tests.engine.test_callbacks import ACCURACY, ROLL, Scripted, scripted
from tests.engine.test_loop import Signal, dropping_line
from tests.runs.tiny import Line, assert_same_content, loop_of

RANK = int(os.environ.get("RANK", 0))


def everybodys(value: object) -> list[object]:
    values: list[object] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def resumes_to_the_bit(folder: Path) -> None:
    """Dropout, batch statistics, a loss with a state; the signal meets the second process."""
    whole = loop_of(dropping_line(), folder / "whole")
    whole.run()
    for step in (2, 7):
        callbacks = [Signal(step)] if RANK == 1 else []
        with pytest.raises(Interrupted, match=f"after step {step}"):
            loop_of(dropping_line(), folder / str(step), callbacks=callbacks).run()
        again = loop_of(dropping_line(), folder / str(step))
        again.run(resume=True)
        assert_same_content(again.snapshot(), whole.snapshot())
    first, second = everybodys(whole.state.history)
    assert first == second, "batch statistics are those of one process at a validation"


def saves_when_one_clock_says_so(folder: Path) -> None:
    loop = loop_of(Line(), folder, save_every=0.0 if RANK == 1 else 1e9, steps=3, validate_every=9)
    loop.run()
    assert (folder / "step-00000002.pt").exists()


def rolls_back(folder: Path) -> None:
    task = Scripted(*ROLL, accuracy=ACCURACY)
    loop = scripted(task, folder, CollapseAlarm("roll-back"))
    loop.run()
    assert loop.state.rate_scale == 0.5
    first, second = everybodys(task.network.weight.item())
    assert first == second


def refuses_more_processes_than_samples() -> None:
    with pytest.raises(ValueError, match="at least 2, one sample for each process"):
        loop_of(Line(), batch_size=1)


def main() -> None:
    folder = Path(sys.argv[1])
    warnings.simplefilter("ignore", CollapseWarning)
    task = Line()
    loop = loop_of(task, batch_size=6, steps=8)  # equal parts: the mean of means is the mean
    loop.run()
    if RANK == 0:
        torch.save(
            {**task.network.state_dict(), "loss": loop.state.history[-1]["loss"]},
            folder / "line.pt",
        )
    resumes_to_the_bit(folder)
    saves_when_one_clock_says_so(folder / "clock")
    rolls_back(folder / "roll")
    refuses_more_processes_than_samples()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
