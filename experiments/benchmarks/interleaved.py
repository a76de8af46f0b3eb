"""Time and memory of several losses that take turns in one process.

Disturbances (another job, a slower clock, a cold cache) then affect all losses equally. The ratio
to the first loss, the floor, is steadier than any time. This file names no loss.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

Formula = Callable[[Tensor, Tensor], Tensor]

VALUE_TOLERANCE = 1e-4  # relative; float32 sums over 10^6 pixels agree to about 1e-6
GRADIENT_TOLERANCE = 1e-3  # relative to the largest gradient of a pixel


class Missing(Exception):
    """A reason for which a contestant cannot take part."""


class Disagreement(Exception):
    """A contestant that does not compute its formula."""


@dataclass(frozen=True)
class Contestant:
    """One way to compute a loss.

    Args:
        name: name in the table.
        kind: "floor", "limit", "ours" or "rival".
        make: builds the callable (prediction, target) -> loss; raises Missing or ImportError where
            that fails.
        formula: its formula in plain operations; None where there is none.
        scale: factor from its value to that of the formula.
        is_compiled: whether it also runs under torch.compile, as another contestant.
    """

    name: str
    kind: str
    make: Callable[[], Formula]
    formula: Formula | None = None
    scale: float = 1.0
    is_compiled: bool = False

    def compiled(self) -> Contestant:
        """Return this contestant under torch.compile."""

        def make() -> Formula:
            if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "c++"))):
                raise Missing("no C++ compiler for torch.compile (g++, clang++ or $CXX)")
            return torch.compile(self.make(), fullgraph=True, dynamic=False)

        kind = "rival" if self.kind == "floor" else self.kind
        return replace(self, name=f"{self.name}, compiled", kind=kind, make=make)


@dataclass
class Runner:
    """A contestant with its data."""

    contestant: Contestant
    call: Formula
    prediction: Tensor
    target: Tensor
    seconds: list[float] = field(default_factory=list)

    def forward(self) -> Tensor:
        return self.call(self.prediction, self.target)

    def __call__(self) -> None:
        loss = self.forward()
        if loss.requires_grad:  # a plain copy has no backward
            loss.backward()


def prepare(
    contestants: Sequence[Contestant], prediction: Tensor, target: Tensor
) -> tuple[list[Runner], dict[str, str]]:
    """Return the contestants that can take part, and the reasons of the others."""
    runners, skipped = [], {}
    for contestant in contestants:
        try:
            call = contestant.make()
        except (Missing, ImportError) as reason:
            skipped[contestant.name] = str(reason)
            continue
        if isinstance(call, torch.nn.Module):
            call.to(prediction.device)
        runners.append(Runner(contestant, call, prediction, target))
    return runners, skipped


def check_same_value(runners: Sequence[Runner], report: Callable[[str], None]) -> None:
    """Refuse contestants whose value or gradient differs from their formula in float64."""
    expected: dict[Formula, tuple[Tensor, Tensor]] = {}
    for runner in runners:
        report(runner.contestant.name)
        formula, scale = runner.contestant.formula, runner.contestant.scale
        if formula is None:
            runner()  # the first call still compiles
            continue
        if formula not in expected:
            target = runner.target.double() if runner.target.is_floating_point() else runner.target
            expected[formula] = _value_and_gradient(formula, runner.prediction.double(), target)
        computed = _value_and_gradient(runner.call, runner.prediction, runner.target)
        for name, got, wanted, tolerance in zip(
            ("value", "gradient"),
            computed,
            expected[formula],
            (VALUE_TOLERANCE, GRADIENT_TOLERANCE),
            strict=True,
        ):
            error = (got.double() * scale - wanted).abs().max() / wanted.abs().max()
            if not error <= tolerance:  # NaN included
                raise Disagreement(
                    f"Expected the {name} of {runner.contestant.name!r} within {tolerance:g} of "
                    f"its formula {getattr(formula, '__name__', formula)!r} at the shape "
                    f"{tuple(runner.prediction.shape)}, got a relative error of {float(error):.2g}."
                )


def _value_and_gradient(
    formula: Formula, prediction: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    prediction = prediction.detach().requires_grad_()
    value = formula(prediction, target)
    return value.detach(), torch.autograd.grad(value, prediction)[0]


def time_interleaved(
    runners: Sequence[Runner], rounds: int, warmup: int, report: Callable[[], None]
) -> None:
    """Time forward and backward of each runner once a round, in a new order each round."""
    device = runners[0].prediction.device
    clock = _CudaClock(device) if device.type == "cuda" else _cpu_clock
    order = list(runners)
    shuffle = random.Random(0).shuffle
    gc.collect()
    gc.freeze()  # so that the collections between rounds are short
    gc.disable()
    try:
        for round_ in range(warmup + rounds):
            shuffle(order)  # nobody always runs after the one that leaves the cache in a mess
            for runner in order:
                runner.prediction.grad = None
                seconds = clock(runner)
                if round_ >= warmup:
                    runner.seconds.append(seconds)
            gc.collect()
            report()
    finally:
        gc.enable()
        gc.unfreeze()


def _cpu_clock(run: Callable[[], None]) -> float:
    # the CPU time of one thread does not count the waiting on a busy machine
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    run()
    return clock() - start


class _CudaClock:
    """Device time between two events, with an L2 cache cleared of the last run."""

    def __init__(self, device: torch.device) -> None:
        n_bytes = 4 * torch.cuda.get_device_properties(device).L2_cache_size
        self.flush = torch.empty(max(n_bytes, 2**28), dtype=torch.uint8, device=device)
        self.start = torch.cuda.Event(enable_timing=True)
        self.end = torch.cuda.Event(enable_timing=True)

    def __call__(self, run: Callable[[], None]) -> float:
        self.flush.zero_()
        self.start.record()
        run()
        self.end.record()
        self.end.synchronize()
        return self.start.elapsed_time(self.end) / 1000


def memory(runner: Runner) -> tuple[int, int]:
    """Return the bytes that forward leaves allocated, and the peak of forward and backward.

    Both exclude the inputs. The first is held for backward, and by the loss itself. The second
    includes the gradient of the prediction, which every loss makes.
    """
    runner.prediction.grad = None
    if runner.prediction.device.type == "cuda":
        return _cuda_memory(runner)
    kept, _ = _allocated(runner.forward)
    _, peak = _allocated(runner)
    runner.prediction.grad = None
    return kept, peak


def _allocated(run: Callable[[], Any]) -> tuple[int, int]:
    """Return the bytes that the CPU allocator holds at the end, and at most."""
    # without acc_events, torch 2.10 warns of cycles, of which there is one
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        result = run()
    events = profiler.profiler.kineto_results.events()
    moments = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    del result  # alive until here: a loss holds its graph
    now = most = 0
    for _, n_bytes in sorted(moments, key=lambda moment: moment[0]):
        now += n_bytes
        most = max(most, now)
    return now, most


def _cuda_memory(runner: Runner) -> tuple[int, int]:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    loss = runner.forward()
    kept = torch.cuda.memory_allocated() - before
    del loss
    torch.cuda.reset_peak_memory_stats()
    runner()
    peak = torch.cuda.max_memory_allocated() - before
    runner.prediction.grad = None
    return kept, peak


def waits_for_device(runner: Runner) -> bool | None:
    """Return whether forward or backward makes the host wait for the GPU; None on a CPU."""
    if runner.prediction.device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        runner()
    except RuntimeError as problem:
        if "synchroniz" not in str(problem):
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
        runner.prediction.grad = None
    return False


def summary(runner: Runner, floor: Runner) -> dict[str, Any]:
    """Return the numbers of a row: ratios to the floor, with quartiles over the rounds."""
    ratios = [own / other for own, other in zip(runner.seconds, floor.seconds, strict=True)]
    kept, peak = memory(runner)
    return {
        "contestant": runner.contestant.name,
        "kind": runner.contestant.kind,
        "formula": getattr(runner.contestant.formula, "__name__", None),
        "median_ms": 1000 * statistics.median(runner.seconds),
        "min_ms": 1000 * min(runner.seconds),
        "quartiles_ms": [1000 * quartile for quartile in _quartiles(runner.seconds)],
        "ratio": statistics.median(runner.seconds) / statistics.median(floor.seconds),
        "ratio_of_min": min(runner.seconds) / min(floor.seconds),
        "ratio_quartiles": _quartiles(ratios),
        "kept_bytes": kept,
        "peak_bytes": peak,
        "prediction_bytes": runner.prediction.nbytes,
        "waits_for_device": waits_for_device(runner),
    }


def _quartiles(values: Sequence[float]) -> list[float]:
    if len(values) == 1:
        return [values[0], values[0]]
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return [lower, upper]
