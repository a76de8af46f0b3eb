"""Run by torchrun from test_every_score.py: uneven shards of every score against one process."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[2]))

from dense_imb.metrics import (
    ClassificationScores,
    HitScores,
    ImageQuality,
    ObjectScores,
    OperatingPoint,
    ReadOutTally,
    ScoreHistogram,
    SegmentationScores,
    TolerantF1,
    ValueScores,
)

POINT = OperatingPoint(0.4, "probability", 0.97, 0.5, 0.5, n_signal=10, n_noise=10)


def empty_scores():
    return (
        ScoreHistogram(),
        HitScores(POINT),
        SegmentationScores(3),
        ObjectScores(),
        ImageQuality(),
        TolerantF1(),
        ClassificationScores(3, train_counts=(9, 5, 1), many=8, few=2),
        ValueScores(
            level=0.5, value_edges=[0.2, 0.9], cells=["a", "b"], rest=True, mean=[0.5],
            with_input=True,
        ),
        ReadOutTally(),
    )  # fmt: skip


def update(scores, start, stop):
    """Let every score see the events (or images) start .. stop - 1 of one fixed data set."""
    rng = torch.Generator().manual_seed(3)
    histogram, hits, segmentation, objects, quality, tolerant, classes, values, tally = scores
    for i in range(7):
        n_hits = 10 * i
        score = torch.rand(n_hits, generator=rng)
        label = torch.randint(0, 3, (n_hits,), generator=rng) * (i % 3 > 0)
        time = torch.randint(0, 9, (2, n_hits), generator=rng).float()
        visible = torch.rand(n_hits, generator=rng) < 0.8
        logits = torch.randn(1, 3, 12, 12, generator=rng)
        target = torch.randint(0, 3, (1, 12, 12), generator=rng)
        image = torch.rand(3, 1, 1, 12, 12, generator=rng)
        if not start <= i < stop:
            continue
        event = torch.zeros(n_hits, dtype=torch.int64)
        histogram.update(score, label > 0, event=event)
        hits.update(
            score, label, event, n_events=1, time=time[0], true_time=time[1], is_visible=visible
        )
        hits.update_output(image[0] > 0.5, image[1] > 0.5)
        segmentation.update(logits, target)
        objects.update(logits.argmax(1) == 1, target == 1)
        quality.update(*image)
        tolerant.update(image[0, 0], image[1, 0] > 0.9)
        classes.update(logits[..., 0].mT[0], target[0, :, 0])
        values.update(image[0], image[1], target, input=image[2])
        tally.update(image[0], image[1])
    return scores


def state(score):
    return torch.cat([tensor.reshape(-1).double() for tensor in score._tensors()])


def main():
    dist.init_process_group("gloo", timeout=timedelta(minutes=10))
    rank = dist.get_rank()
    # the first takes five, the second two, then all and nothing
    for shards in (((0, 5), (5, 7)), ((0, 0), (0, 7)), ((0, 7), (7, 7))):
        parts = update(empty_scores(), *shards[rank])
        whole = update(empty_scores(), 0, 7)
        n_calls = 0
        all_reduce = dist.all_reduce

        def counting(*args, all_reduce=all_reduce, **options):
            nonlocal n_calls
            n_calls += 1
            return all_reduce(*args, **options)

        dist.all_reduce = counting
        for part, expected in zip(parts, whole, strict=True):
            assert part.reduce_over_processes() is part
            torch.testing.assert_close(state(part), state(expected), rtol=1e-12, atol=1e-9)
        dist.all_reduce = all_reduce
        assert n_calls == len(parts), "one all-reduce a score"
        assert parts[0].auc() == whole[0].auc()
        assert parts[0].operating_point(0.9) == whole[0].operating_point(0.9)
    if rank == 0:
        print(f"{len(whole)} scores agree in {dist.get_world_size()} processes")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
