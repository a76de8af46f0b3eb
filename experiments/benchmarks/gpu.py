"""The library on a GPU: waits, half precision, speed against the limit, runs on two devices.

    python experiments/benchmarks/gpu.py                            # everything, some four minutes
    python experiments/benchmarks/gpu.py --sections speed limit --rounds 60
    python experiments/benchmarks/gpu.py --device cpu --small       # a try without a GPU, a minute

Prints Markdown tables and writes them to runs/gpu.json after each section. A section that fails
says so, and the others go on.

| section | question |
| --- | --- |
| waits | Which losses make the host wait, or give other bits when repeated? |
| precision | How exact are values and gradients from bf16 and fp16 predictions, under autocast? |
| speed | How long do losses take, in multiples of torch's own, beside MONAI, smp and kornia? |
| limit | How near are they to the time in which the least bytes can be moved? |
| training | How long is a step of each kind of run, in float32 and bf16, and how much memory? |
| events | How many events a second do the networks of hits and `denoise` take? |
| runs | Are runs repeatable, and may they move between devices? |
| commands | What do commands say with two processes on one GPU, or too little memory? |

Answers of one GPU are in docs/benchmarks_gpu.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler is talkative

import gpu_losses
import gpu_training
import torch
from gpu_tables import Setting, Table, one_line
from loss_speed import commit, positive, write

SECTIONS: dict[str, Callable[[Setting], list[Table]]] = {
    "waits": gpu_losses.waits,
    "precision": gpu_losses.precision,
    "speed": gpu_losses.speed,
    "limit": gpu_losses.limit,
    "training": gpu_training.training,
    "events": gpu_training.events,
    "runs": gpu_training.runs,
    "commands": gpu_training.commands,
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sections", nargs="+", choices=SECTIONS, default=[*SECTIONS], help="default: all"
    )
    parser.add_argument("--rounds", type=positive, default=30, help="timed runs of each loss")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, for a try")
    parser.add_argument("--no-compile", action="store_true", help="omit torch.compile of losses")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu.json"), help="the result")
    parser.add_argument("--overwrite", action="store_true", help="replace the result")
    return parser.parse_args(arguments)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    on_gpu = options.device == "cuda"
    return {
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": commit(),
        "rounds": options.rounds,
        "small": options.small,
    }


def measure(name: str, setting: Setting) -> dict[str, Any]:
    """Return the tables of a section, or the reason why it failed, and print them."""
    start = time.perf_counter()
    tables, problem = [], None
    try:
        tables = SECTIONS[name](setting)
    except Exception as failed:
        problem = one_line(failed, 500)
        traceback.print_exc()
    seconds = time.perf_counter() - start
    print(f"## {name} ({seconds:.0f} s)\n", flush=True)
    for table in tables:
        print(table.markdown(), flush=True)
    if problem:
        print(f"failed: {problem}\n", flush=True)
    return {
        "seconds": seconds,
        "tables": [table.as_dict() for table in tables],
        "problem": problem,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, 1 if a section failed, 2 on bad input."""
    options = parse(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        sentence = "Expected a GPU, got none; --device cpu --small tries the script without one."
        print(f"gpu: error: {sentence}", file=sys.stderr)
        return 2
    if options.out.exists() and not options.overwrite:
        print(
            f"gpu: error: Expected no file {options.out}, got one; pass --overwrite.",
            file=sys.stderr,
        )
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"settings": settings_of(options), "sections": {}}
    print(json.dumps(result["settings"]), "\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(
            options.device, options.small, options.rounds, Path(folder), not options.no_compile
        )
        for name in options.sections:
            result["sections"][name] = measure(name, setting)
            write(options.out, result)
    return int(any(section["problem"] for section in result["sections"].values()))


if __name__ == "__main__":
    sys.exit(main())
