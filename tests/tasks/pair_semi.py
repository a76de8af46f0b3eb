"""Run by torchrun from test_semi_supervised.py: two processes with one teacher."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[2]))

from dense_imb.engine import Interrupted
from tests.engine.test_loop import Signal
from tests.runs.pair import RANK, everybodys
from tests.runs.semi import semi_classes, semi_hits
from tests.runs.tiny import assert_same_content, loop_of


def trains_as_one(made, folder: Path) -> None:
    """All weights, buffers and what the teacher says of each image."""
    whole = loop_of(made(), folder / "whole", batch_size=6)
    whole.run()
    assert_same_content(*everybodys(whole.task.network.state_dict()))
    mine, theirs = everybodys(whole.task.teacher.state_dict())
    for content in (mine, theirs):
        content.pop("sure")  # each of its own images
    assert_same_content(mine, theirs)
    assert bool((mine["content"].sum(1) > 0).all())
    callbacks = [Signal(7)] if RANK == 1 else []
    with pytest.raises(Interrupted, match="after step 7"):
        loop_of(made(), folder / "stopped", batch_size=6, callbacks=callbacks).run()
    again = loop_of(made(), folder / "stopped", batch_size=6)
    again.run(resume=True)
    got, wanted = again.snapshot(), whole.snapshot()
    for content in (got, wanted):
        content["teacher"].pop("sure")
    assert_same_content(got, wanted)


def main() -> None:
    folder, classes, hits = sys.argv[1:]
    features = {"feature_loss": "RangeLoss(k=1)"}
    for name, made, place, options in (
        ("c", semi_classes, classes, features),
        ("h", semi_hits, hits, {}),
    ):
        (Path(folder) / name).mkdir(exist_ok=True)
        trains_as_one(
            lambda m=made, p=place, o=options: m(p, sampling="reverse", **o), Path(folder) / name
        )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
