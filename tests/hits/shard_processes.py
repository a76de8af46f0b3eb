"""One of several processes that mask a file in shards, for test_shards.py.

Usage: shard_processes.py SOURCE TARGET KILLED [--resume], with RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT in the environment. The process with the rank KILLED dies in the middle of a shard.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[2]))

from dense_imb.engine.processes import joined
from dense_imb.hits import Events, Geometry, shards
from dense_imb.models import build_hit_network, build_model
from dense_imb.tasks.hits.frames import FrameReading
from dense_imb.tasks.hits.task import HitsReading
from dense_imb.tasks.hits.trained import TrainedHits

FRAME = Geometry(16, 12, 100)
BATCH = 3


def network(kind: str = "frames") -> TrainedHits:
    """A small network of frames or of hits, the same in every process."""
    torch.manual_seed(0)
    if kind == "hits":
        small = build_hit_network("hits:tiny", n_axes=3)
        return TrainedHits("net", small, HitsReading(), FRAME)
    model = build_model("fast_unet", in_channels=8, out_channels=1, widths=[4, 8])
    return TrainedHits("net", model, FrameReading(), FRAME)


def dying(score: Callable[[Events], torch.Tensor]) -> Callable[[Events], torch.Tensor]:
    """Return a score that kills its process at the fifth batch with events."""
    n_batches = 0

    def counted(events: Events) -> torch.Tensor:
        nonlocal n_batches
        n_batches += len(events) > 0
        if n_batches == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return score(events)

    return counted


def main() -> None:
    source, target, killed, *rest = sys.argv[1:]
    shards._PATIENCE = 2.0
    with joined("cpu") as processes:
        scorer = network()
        if processes.rank == int(killed):
            scorer.score = dying(scorer.score)  # type: ignore[method-assign]
        done = shards.mask_in_shards(
            {Path(target): Path(source)},
            scorer,
            0.5,
            resume=bool(rest),
            batch_size=BATCH,
            shard_events=2 * BATCH,
        )
        assert len(done) == (processes.rank == 0)
        for one in done:
            print(one.summary())
        assert dist.is_initialized() == (processes.n > 1)


if __name__ == "__main__":
    try:
        main()
    except shards.MissingShardsError as problem:
        print(problem, file=sys.stderr)
        sys.exit(75)
