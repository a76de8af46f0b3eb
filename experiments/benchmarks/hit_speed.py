"""Speed and memory of networks of hits, and their cost against the hits of an event.

    python experiments/benchmarks/hit_speed.py                      # a minute
    python experiments/benchmarks/hit_speed.py --threads 1 --cpu     # on a busy machine

The weights are random: they do not change the speed. Times are the best of a few repetitions, in
seconds of the wall clock or, with --cpu, of the processor. Memory is the growth of the largest
resident size, each size in a process of its own. The answer is in experiments/hits/README.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time

import numpy as np
import torch
from torch import Tensor

from dense_imb.models import HitInput, HitTransformer

TASKS = {  # hits an event, events of a batch, coordinates, features
    "tiny, arc": ("tiny", 230, 16, 3, 0),
    "small, arc": ("small", 230, 16, 3, 0),
    "base, arc": ("base", 230, 16, 3, 0),
    "small, KM3NeT": ("small", 4458, 1, 4, 4),
    "base, KM3NeT": ("base", 4458, 1, 4, 4),
}
SIZES = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
AT_ONCE = 4000  # hits of a batch, if an event has fewer


def network_and_hits(
    size: str, n_hits: int, n_events: int, n_axes: int, n_features: int
) -> tuple[HitTransformer, HitInput]:
    """Return an untrained network, and hits that lie at random in a cube of 100 units."""
    generator = torch.Generator().manual_seed(0)
    extent = (100.0,) * n_axes if n_features == 0 else None
    network = HitTransformer(n_axes, n_features, extent=extent, size=size)

    def random(columns: int) -> Tensor:
        return 100 * torch.rand(n_hits * n_events, columns, generator=generator)

    offset = torch.arange(n_events + 1) * n_hits
    return network.eval(), HitInput(random(n_axes), random(n_features), offset)


def seconds_of_a_batch(
    network: HitTransformer, hits: HitInput, repeats: int, is_cpu: bool
) -> float:
    clock = time.process_time if is_cpu else time.perf_counter
    times = []
    with torch.inference_mode():
        network(hits)
        for _ in range(repeats):
            start = clock()
            network(hits)
            times.append(clock() - start)
    return min(times)


def time_and_memory(n_hits: int, is_cpu: bool) -> tuple[float, float]:
    """Return seconds an event and MB of `base` for events of a size."""
    torch.set_num_threads(1)
    n_events = max(1, AT_ONCE // n_hits)
    network, hits = network_and_hits("base", n_hits, n_events, 4, 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = seconds_of_a_batch(network, hits, 3, is_cpu) / n_events
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--cpu", action="store_true", help="count seconds of the processor")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    options = parser.parse_args(arguments)
    print("| network | weights | threads | events/s |\n| --- | --- | --- | --- |")
    for name, (size, n_hits, n_events, n_axes, n_features) in TASKS.items():
        network, hits = network_and_hits(size, n_hits, n_events, n_axes, n_features)
        weights = sum(weight.numel() for weight in network.parameters())
        for threads in options.threads:
            torch.set_num_threads(threads)
            seconds = seconds_of_a_batch(network, hits, options.repeats, options.cpu)
            speed = n_events / seconds
            print(f"| {name} | {weights:,} | {threads} | {speed:,.0f} |", flush=True)
    print("\n| hits | ms an event | us a hit | MB |\n| --- | --- | --- | --- |")
    context = multiprocessing.get_context("spawn")
    times = []
    for n_hits in options.sizes:
        with context.Pool(1) as pool:
            seconds, memory = pool.apply(time_and_memory, (n_hits, options.cpu))
        times.append(seconds)
        each = f"{1e3 * seconds:.1f} | {1e6 * seconds / n_hits:.1f} | {memory:.0f}"
        print(f"| {n_hits:,} | {each} |", flush=True)
    if len(options.sizes) > 1:
        exponent = np.polyfit(np.log(options.sizes), np.log(times), 1)[0]
        print(f"time grows as hits to the power {exponent:.2f}")


if __name__ == "__main__":
    main()
