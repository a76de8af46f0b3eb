"""Peak memory of each command on many events, on large images and on many images.

    python experiments/benchmarks/peak_memory.py                     # 15 minutes of one core
    python experiments/benchmarks/peak_memory.py --sections large --side 3000
    python experiments/benchmarks/peak_memory.py --sections hits --events 100000 200000

Each command runs as a process of its own, on data that this script makes. The peak is the largest
resident size of the process and of those that it starts. Three sections, a table row for each
command and size:

- hits: events of 2 signal and 3 noise hits, 128 x 88. Commands that score events take
  `--scored-events`, of which two sizes show whether memory grows.
- large: images of `--side` pixels, with masks and with maps of values: two to train on, one of
  them to use and measure the networks on.
- small: `--images` images of 64 x 64, with masks and with one label each.

Networks are small and trained for two steps: their size does not depend on the data. The answer
is in docs/strangers.md.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SECTIONS = ("hits", "large", "small")
EDGE = 64  # pixels of a small image, and of a patch of a large one
_FRAME = "--width 88 --height 128 --time-steps 1000 --quiet"
_STEPS = "--steps 2 --validate_every 2 --batch_size 4 --report false --quiet"
_UNET = f"""--model.options '{{"widths": [4, 8]}}' {_STEPS}"""
_RESNET = f"""--model.name resnet32 --model.options '{{"depth": 8, "width": 4}}' {_STEPS}"""
_TRAIN_HITS = f"--hits.signal 2 --hits.noise 3 --model.name hits:tiny {_STEPS}"


class Row(NamedTuple):
    """A command, written for the folder of the data.

    Args:
        name: name in the table.
        data: data in the table.
        words: the command line after `dense-imb`.
        is_shown: print a row; False for what only makes the input of others.
    """

    name: str
    data: str
    words: str
    is_shown: bool = True


def rows_of_hits(events: list[int], scored: list[int]) -> Iterator[Row]:
    yield Row("", "", "simulate few.h5 --events 200 --photons 50 --quiet", False)
    for n in sorted({*events, *scored}):
        data, is_shown = f"{n:,} events", n in events
        file = f"noisy-{n}.h5"
        noisy = f"simulate {file} --events {n} --photons 50 --signal 2 --noise 3 --quiet"
        yield Row("simulate", data, noisy, is_shown)
        if is_shown:
            yield Row("convert to CSV", data, f"convert {file} noisy-{n}.csv --quiet")
            yield Row("convert from CSV", data, f"convert noisy-{n}.csv back-{n}.h5 {_FRAME}")
            yield Row("inspect", data, f"inspect {file} --quiet")
            train = f"train hits --out run-{n} --hits.train {file} --hits.validation few.h5"
            yield Row("train hits", data, f"{train} {_TRAIN_HITS}")
    yield Row("", "", f"train hits --out run --hits.train few.h5 {_TRAIN_HITS}", False)
    for n in scored:
        data, file = f"{n:,} events", f"noisy-{n}.h5"
        yield Row("evaluate", data, f"evaluate run {file} --no-baselines --quiet")
        yield Row("denoise", data, f"denoise run {file} clean-{n}.h5 --quiet")
        yield Row("report", data, f"report run --test {file} --quiet")


def rows_of_large_images(side: int) -> Iterator[Row]:
    data = f"2 images of {side:,} x {side:,}"
    yield Row("inspect", data, "inspect large/images --masks large/masks --quiet")
    train = "train images --out masks --images.train large/images --images.masks large/masks"
    yield Row("train images", data, f"{train} --images.patch {EDGE} {EDGE} {_UNET}")
    data = f"1 image of {side:,} x {side:,}"
    yield Row("segment", data, "segment masks one/images segmented --quiet")
    test = "one/images --masks one/masks --quiet"
    yield Row("evaluate", data, f"evaluate masks {test}")
    yield Row("report", data, f"report masks --test {test}")
    yield Row("export", data, "export masks model.onnx --quiet")
    train = "train values --out maps --values.train large/images --values.targets large/targets"
    yield Row(
        "train values",
        f"2 images of {side:,} x {side:,}",
        f"{train} --values.patch {EDGE} {EDGE} {_UNET}",
    )
    yield Row("predict", data, "predict maps one/images predicted --quiet")
    test = "one/images --targets one/targets --quiet"
    yield Row("evaluate, values", data, f"evaluate maps {test}")


def rows_of_small_images(n: int) -> Iterator[Row]:
    data = f"{n:,} images of {EDGE} x {EDGE}"
    yield Row("inspect", data, "inspect small/images --masks small/masks --quiet")
    train = "train images --out many --images.train small/images --images.masks small/masks"
    yield Row("train images", data, f"{train} --images.patch {EDGE} {EDGE} {_UNET}")
    yield Row("segment", data, "segment many small/images many-masks --quiet")
    test = "small/images --masks small/masks --quiet"
    yield Row("evaluate", data, f"evaluate many {test}")
    yield Row("report", data, f"report many --test {test}")
    compare = "compare small/images --masks small/masks --out compared --loss focal --loss Dice"
    options = f"--steps 2 --seeds 1 --batch-size 4 --patch {EDGE} {EDGE} --widths 4 8 --quiet"
    yield Row("compare", data, f"{compare} {options}")
    train = "train labels --out labels --labels.train small/labels.csv --labels.images small/images"
    yield Row("train labels", data, f"{train} {_RESNET}")
    test = "small/labels.csv --images small/images --quiet"
    yield Row("evaluate, labels", data, f"evaluate labels {test}")
    yield Row("report, labels", data, f"report labels --test {test}")


def write_images(folder: Path, n: int, side: int, *, with_targets: bool = False) -> None:
    """Write grey images with bright discs, of which some pixels are of class 1."""
    for name in ("images", "masks", "targets"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    grid = np.arange(side)
    for i in range(n):
        y, x, radius = (*rng.uniform(0, side, 2), side * rng.uniform(0.02, 0.1))
        mask = (grid[:, None] - y) ** 2 + (grid - x) ** 2 < radius**2
        pixels = (40 * np.sin(grid / 9)[:, None] + 60 + 60 * mask).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i:05}.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"{i:05}.png")
        if with_targets:
            np.save(folder / "targets" / f"{i:05}.npy", mask.astype(np.float32))
    lines = ["image,label", *(f"{i:05}.png,{i % 2}" for i in range(n))]
    (folder / "labels.csv").write_text("\n".join(lines))


def measure(row: Row, folder: Path) -> tuple[float, float]:
    """Run a command; return its peak in MB and the seconds of its processor."""
    words = [sys.executable, "-m", "dense_imb", *shlex.split(row.words)]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"code {process.returncode}: dense-imb {row.words}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return usage.ru_maxrss * unit / 1e6, usage.ru_utime + usage.ru_stime


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument(
        "--events", type=int, nargs="+", default=[1_000_000],
        help="number of events, for simulate, convert, inspect and train",
    )  # fmt: skip
    parser.add_argument(
        "--scored-events", type=int, nargs="+", default=[100_000, 200_000],
        help="number of events, for evaluate, denoise and report",
    )  # fmt: skip
    parser.add_argument("--side", type=int, default=6000, help="pixels of a large image's edge")
    parser.add_argument("--images", type=int, default=10_000, help="number of small images")
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder with the data")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        rows: list[Row] = []
        if "hits" in options.sections:
            rows += rows_of_hits(options.events, options.scored_events)
        if "large" in options.sections:
            for name, n in (("large", 2), ("one", 1)):
                write_images(folder / name, n, options.side, with_targets=True)
            rows += rows_of_large_images(options.side)
        if "small" in options.sections:
            write_images(folder / "small", options.images, EDGE)
            rows += rows_of_small_images(options.images)
        print("| command | data | peak, MB | seconds of a processor |\n| --- | --- | ---: | ---: |")
        for row in rows:
            peak, seconds = measure(row, folder)
            if row.is_shown:
                print(f"| `{row.name}` | {row.data} | {peak:,.0f} | {seconds:.0f} |", flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
