"""Latency of each event of a stream, as in the loop of a data acquisition.

    python experiments/benchmarks/hit_stream.py
    python experiments/benchmarks/hit_stream.py --scorers hits:tiny fast_unet --threads 2

Noisy arc events (30 signal and 200 noise hits) are scored by networks with random weights, which
take as long as trained ones, and by hit density. Milliseconds from the arrival of an event to its
mask, median and 99th percentile:

- alone: one event at a time, as it comes.
- batched: events come `--rate` a second and are scored together, at most `--max-events`, none of
  which waits longer than `--max-seconds`.

Answer (one run each on two cores, with a load of 4 from other jobs; 150 events):

    1 thread       alone: median    99 %    batched at 200 a second: median    99 %
    hit density             0.73    4.70                               7.35   15.16
    hits:tiny               1.21    5.95                               8.93   19.12
    hits:small              1.59    6.58                              13.40   22.18
    hits:base               4.52   16.64                              15.44   23.48
    fast_unet               7.15    8.93                              23.76   41.34
    2 threads
    hits:tiny               3.75  164.80                             114.40  543.07
    hits:base              12.49  279.02                             481.65  816.05
    fast_unet              28.16  256.20                             690.37 1626.28

A second thread waits for a core in every operation, so a stream is scored by one. Batches are for
rates that one event at a time cannot follow: below these they only add waiting.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from dense_imb.hits import (
    Degradation,
    Events,
    HitDensity,
    Scorer,
    concatenate,
    degrade,
    mask_stream,
    simulate,
)
from dense_imb.models import build_hit_network, build_model
from dense_imb.tasks.hits.frames import FrameReading
from dense_imb.tasks.hits.task import HitsReading
from dense_imb.tasks.hits.trained import TrainedHits

SCORERS = ("hit density", "hits:tiny", "hits:small", "hits:base", "fast_unet")
WARM_UP = 20  # events that are not measured


def scorer_named(name: str, events: Events) -> Scorer:
    """Build a scorer with random weights."""
    if name == "hit density":
        return HitDensity()
    torch.manual_seed(0)
    if name.startswith("hits"):
        return TrainedHits(name, build_hit_network(name, n_axes=3), HitsReading(), events.grid)
    network = build_model(name, in_channels=8, out_channels=1)
    return TrainedHits(name, network, FrameReading(), events.grid)


def latencies(scorer: Scorer, events: list[Events], rate: float, **options: float) -> list[float]:
    """Return the seconds from the arrival of each event to its mask."""
    arrived: list[float] = []

    def arriving() -> Iterator[Events]:
        start = time.perf_counter()
        for k, event in enumerate(events):
            if rate:
                time.sleep(max(start + k / rate - time.perf_counter(), 0))
            arrived.append(time.perf_counter())
            yield event

    left = []
    for _ in mask_stream(scorer, 0.5, arriving(), **options):  # type: ignore[arg-type]
        left.append(time.perf_counter())
    return [after - before for before, after in zip(arrived, left, strict=True)][WARM_UP:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scorers", nargs="+", default=SCORERS)
    parser.add_argument("--events", type=int, default=500)
    parser.add_argument("--noise", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rate", type=float, default=200.0, help="events a second, batched")
    parser.add_argument("--max-events", type=int, default=16)
    parser.add_argument("--max-seconds", type=float, default=0.01)
    parser.add_argument("--out", type=Path, default=Path("runs/hit_stream.json"))
    options = parser.parse_args()
    degradation = Degradation(signal=30, noise=options.noise)
    noisy = degrade(simulate("arc", options.events + WARM_UP, seed=1), degradation, seed=1)
    events = [concatenate([one]) for one in noisy]  # each with arrays of its own
    ways = {
        "alone": {"rate": 0.0, "threads": options.threads},
        "batched": {
            "rate": options.rate,
            "max_events": options.max_events,
            "max_seconds": options.max_seconds,
            "threads": options.threads,
        },
    }
    rows = []
    print(f"{'ms':14}{'alone: median':>14}{'99 %':>8}{'batched: median':>17}{'99 %':>8}")
    for name in options.scorers:
        scorer = scorer_named(name, noisy)
        row: dict[str, object] = {"scorer": name, "threads": options.threads}
        text = f"{name:14}"
        for way, how in ways.items():
            spent = 1000 * np.array(latencies(scorer, events, **how))
            median, tail = np.quantile(spent, [0.5, 0.99])
            row |= {f"{way}_median_ms": median, f"{way}_99_ms": tail}
            text += f"{median:>{14 if way == 'alone' else 17}.2f}{tail:>8.2f}"
        print(text, flush=True)
        rows.append(row)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
