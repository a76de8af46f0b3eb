"""Cost of two trainings side by side against one, for ways in which waiting threads wait.

    python experiments/benchmarks/side_by_side.py                     # 10 minutes of two cores
    python experiments/benchmarks/side_by_side.py --kinds images --steps 200 --rounds 5

Rounds alternate between the ways, and in each between one training and two, so that other work on
the machine disturbs all alike. Start it on a quiet machine for seconds of the clock. Seconds of the
processors hold on a busy one, too. The start of the interpreter and the imports are part of both.
The answer is in docs/installation.md.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

WAYS = {
    "libgomp's default": {"GOMP_SPINCOUNT": "300000"},
    "as the commands set it": {},
    "`OMP_WAIT_POLICY=passive`": {"OMP_WAIT_POLICY": "passive"},
}
_WAIT = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
KINDS = {
    "hits": "train hits --hits.signal 20 --hits.noise 200 --hits.train few.h5",
    "images": "train images --images.train images --images.masks masks --batch_size 4",
}


def write_data(folder: Path) -> None:
    """Write 200 events of 50 hits, and 16 images of 128 x 128 with masks."""
    run("simulate few.h5 --events 200 --photons 50 --quiet", folder, {})
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:128, :128]
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for i in range(16):
        centre = rng.uniform(20, 108, 2)
        mask = np.hypot(y - centre[0], x - centre[1]) < rng.uniform(3, 8)
        pixels = (100 + 60 * mask + rng.normal(0, 20, mask.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"{i}.png")


def run(words: str, folder: Path, way: dict[str, str], n: int = 1) -> tuple[float, float]:
    """Run a command n times at once; return seconds of the clock and of the processors."""
    surroundings = {name: value for name, value in os.environ.items() if name not in _WAIT}
    command = [sys.executable, "-m", "dense_imb", *shlex.split(words)]
    begin = time.perf_counter()
    processes = [
        subprocess.Popen(
            command + (["--out", tempfile.mkdtemp(dir=folder)] if "train" in command else []),
            cwd=folder,
            env=surroundings | way,
            stdout=subprocess.DEVNULL,
        )
        for _ in range(n)
    ]
    cpu = 0.0
    for process in processes:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"code {process.returncode}: {shlex.join(command)}")
        cpu += usage.ru_utime + usage.ru_stime
    return time.perf_counter() - begin, cpu


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--steps", type=int, default=60, help="steps of each training")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions, of which the median")
    options = parser.parse_args(arguments)
    steps = f"--steps {options.steps} --report false --quiet"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        seconds: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
        for _ in range(options.rounds):
            for kind in options.kinds:
                for way, variables in WAYS.items():
                    for n in (1, 2):
                        spent = run(f"{KINDS[kind]} {steps}", folder, variables, n)
                        seconds.setdefault((kind, way, n), []).append(spent)
    print(f"{options.steps} steps, median of {options.rounds}; load {os.getloadavg()[2]:.1f}\n")
    print("| training | threads wait | seconds: one, two | ratio | CPU seconds: one, two | ratio |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for kind in options.kinds:
        for way in WAYS:
            one, two = (
                [statistics.median(values) for values in zip(*seconds[kind, way, n], strict=True)]
                for n in (1, 2)
            )
            cells = [f"{a:.1f}, {b:.1f} | {b / a:.2f}" for a, b in zip(one, two, strict=True)]
            print(f"| {kind} | {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
