"""Run by torchrun from test_monai_processes.py: each process evaluates its part of the images."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[2]))

from monai.handlers import IgniteMetricHandler

from dense_imb.integrations.monai import (
    CollapseHandler,
    OperatingPointHandler,
    PixelAveragePrecision,
)
from tests.integrations.engines import PRED_LABEL, evaluator_of, loader, tiny


def metrics_of(batches, path) -> dict[str, float]:
    metric = IgniteMetricHandler(PixelAveragePrecision(), output_transform=PRED_LABEL)
    evaluator = evaluator_of(
        tiny(), batches, key_val_metric={"ap": metric},
        val_handlers=[CollapseHandler(), OperatingPointHandler(0.9, path=path)],
    )  # fmt: skip
    evaluator.run()
    return dict(evaluator.state.metrics)


def main() -> None:
    batches = list(loader(n=6, batch_size=1))
    whole = metrics_of(batches, None)  # before there is a group
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    shared = metrics_of(batches[:1] if rank == 0 else batches[1:], Path(sys.argv[1]) / "point.json")
    assert shared == pytest.approx(whole, nan_ok=True), (rank, shared, whole)
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
