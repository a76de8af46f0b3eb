"""Speed and memory of each loss, against those of torch and of other libraries.

    python experiments/benchmarks/loss_speed.py                           # everything
    python experiments/benchmarks/loss_speed.py --sections regression --sizes 64x1x128x88
    python experiments/benchmarks/loss_speed.py --only ACBMSE acb-mse --rounds 60 --overwrite
    python experiments/benchmarks/loss_speed.py --resume                  # after an interruption

Needs the extra `bench`; MONAI, segmentation-models-pytorch and kornia take part where they are
installed. On 2 cores the regression section takes about 4 minutes with its compilations; the GPU
sections run where there is a GPU. Writes runs/loss_speed.json after every work size.

Each round runs forward + backward of every contestant once, in a shuffled order. Before that,
the value and the gradient of each are compared with its formula in float64.
To add a contestant: one line in loss_contestants.py.

On a busy machine, threads spin while they wait for one that lost its core, and 0.3 ms become 30.
Put OMP_WAIT_POLICY=passive before the command there, and trust "x min", or pass --threads 1:
one thread is timed by its CPU seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler, which counts bytes, is talkative

import torch
from interleaved import (
    Contestant,
    Disagreement,
    check_same_value,
    prepare,
    summary,
    time_interleaved,
)
from loss_contestants import (
    classification_contestants,
    make_frames,
    make_labels,
    regression_contestants,
)
from region_contestants import make_regions, region_contestants
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from value_contestants import make_values, value_contestants

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Section:
    """Work sizes and their contestants."""

    device: str
    make_data: Callable[..., Any]
    contestants: Callable[..., list[Contestant]]
    shapes: tuple[Shape, ...]


LEGEND = (
    "x: median over the first row's median (quartiles: of the ratio within a round; x min: of the "
    "fastest runs). kept: allocated when the forward returns. peak: most allocated during forward "
    "+ backward, the prediction's gradient included. Both come from the allocator, do not count "
    "the inputs, and are in buffers of the prediction's size."
)
FRAME = (1, 128, 88)
SECTIONS = {
    "regression": Section(
        "cpu",
        make_frames,
        regression_contestants,
        ((16, *FRAME), (64, *FRAME), (256, *FRAME), (8, 1, 512, 512), (2, 1, 96, 96, 96)),
    ),
    "classification": Section(
        "cpu",
        make_labels,
        classification_contestants,
        ((16, 4, 128, 88), (4, 4, 512, 512), (4, 21, 256, 256), (1, 4, 96, 96, 96)),
    ),
    "regions": Section(
        "cpu",
        make_regions,
        region_contestants,
        (
            (16, 4, 128, 88),
            (4, 1, 512, 512),
            (4, 2, 512, 512),
            (4, 4, 512, 512),
            (4, 21, 256, 256),
            (1, 4, 96, 96, 96),
        ),
    ),
    # a cover of cells, and Balanced MSE: of all values, and of a sample of an image's
    "values": Section(
        "cpu",
        make_values,
        value_contestants,
        ((2, 1, 64, 64, 64), (1, 1, 1024), (1, 1, 2**19)),
    ),
    # the last sizes are larger than any L2 cache
    "gpu-regression": Section(
        "cuda",
        make_frames,
        regression_contestants,
        ((256, *FRAME), (1024, *FRAME), (8192, *FRAME)),
    ),
    "gpu-regions": Section(
        "cuda",
        make_regions,
        region_contestants,
        ((64, 4, 128, 88), (16, 21, 512, 512), (16, 4, 96, 96, 96)),
    ),
    "gpu-classification": Section(
        "cuda",
        make_labels,
        classification_contestants,
        ((64, 4, 128, 88), (16, 21, 512, 512), (16, 4, 96, 96, 96)),
    ),
}


def entries(section: Section, data: Any, options: argparse.Namespace) -> list[Contestant]:
    """Return the floor, and the wanted contestants, plain and compiled."""
    chosen = []
    for contestant in section.contestants(data):
        chosen.append(contestant)
        if contestant.is_compiled and not options.no_compile:
            chosen.append(contestant.compiled())
    return chosen[:1] + [c for c in chosen[1:] if is_wanted(c.name, options.only)]


def is_wanted(name: str, only: Sequence[str] | None) -> bool:
    return only is None or any(part.lower() in name.lower() for part in only)


def plan(options: argparse.Namespace) -> list[tuple[str, Shape]]:
    """Return the wanted work sizes of the sections that have contestants."""
    works, names = [], []
    for section_name in options.sections:
        section = SECTIONS[section_name]
        shapes = section.shapes
        is_regression = section.make_data in (make_frames, make_values)
        if options.sizes is not None:
            takes_any = section.make_data is make_regions
            shapes = tuple(
                shape for shape in options.sizes if takes_any or (shape[1] == 1) == is_regression
            )
        for shape in shapes:
            example = (2, 1 if is_regression else 3, *[4] * (len(shape) - 2))
            data = section.make_data(example, "cpu")
            listed = [contestant.name for contestant in entries(section, data, options)]
            if len(listed) > 1:
                works.append((section_name, shape))
            names += listed
    for part in options.only or []:
        if not any(is_wanted(name, [part]) for name in names):
            raise ValueError(f"Expected `--only` to name contestants, got {part!r}, which is none.")
    return works


def measure(
    section_name: str, shape: Shape, options: argparse.Namespace, progress: Progress, title: str
) -> dict[str, Any]:
    """Measure one work size: its rows, and the contestants that were skipped."""
    section = SECTIONS[section_name]
    torch.compiler.reset()  # every size compiles afresh; else the limit of recompilations is met
    load = os.getloadavg()[0]
    data = section.make_data(shape, section.device)
    runners, skipped = prepare(entries(section, data, options), data.prediction, data.target)
    task = progress.add_task(title, total=options.warmup + options.rounds)

    def show(name: str) -> None:
        progress.update(task, description=f"{title}: checking {name}")
        progress.refresh()

    def done_one() -> None:  # between rounds: a bar that draws itself would disturb the clock
        progress.update(task, advance=1, description=title)
        progress.refresh()

    check_same_value(runners, show)
    time_interleaved(runners, options.rounds, options.warmup, done_one)
    return {
        "section": section_name,
        "shape": list(shape),
        "load_average": load,
        "rows": [summary(runner, runners[0]) for runner in runners],
        "skipped": skipped,
    }


def as_text(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)


def table_of(work: dict[str, Any], settings: dict[str, Any]) -> Table:
    shape = as_text(work["shape"])
    table = Table(
        title=f"{work['section']} {shape}: forward + backward, {settings['rounds']} rounds, "
        f"{settings['threads']} threads, load {work['load_average']:.1f}",
    )
    waits_known = any(row["waits_for_device"] is not None for row in work["rows"])
    for name in ("", "ms", "x", "quartiles", "x min", "kept", "peak"):
        table.add_column(name, justify="right" if name else "left")
    if waits_known:
        table.add_column("waits")
    for row in work["rows"]:
        lower, upper = row["ratio_quartiles"]
        cells = [
            row["contestant"],
            f"{row['median_ms']:.2f}",
            f"{row['ratio']:.2f}",
            f"{lower:.2f} to {upper:.2f}",
            f"{row['ratio_of_min']:.2f}",
            f"{row['kept_bytes'] / row['prediction_bytes']:.2f}",
            f"{row['peak_bytes'] / row['prediction_bytes']:.2f}",
        ]
        if waits_known:
            cells.append("yes" if row["waits_for_device"] else "no")
        table.add_row(*cells, style="bold" if row["kind"] == "ours" else None)
    return table


def skipped_of(work: dict[str, Any]) -> list[str]:
    """Return a line for each reason."""
    names: dict[str, list[str]] = {}
    for name, reason in work["skipped"].items():
        names.setdefault(reason, []).append(name)
    return [f"skipped, {reason}: {'; '.join(named)}" for reason, named in names.items()]


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that all work sizes of a file share."""
    devices = {SECTIONS[name].device for name in options.sections}
    return {
        "rounds": options.rounds,
        "warmup": options.warmup,
        "threads": options.threads,
        "wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "only": options.only,
        "compile": not options.no_compile,
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "gpu": torch.cuda.get_device_name() if "cuda" in devices else None,
    }


def commit() -> str | None:
    """Return the commit of the library, with -dirty where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def write(path: Path, result: dict[str, Any]) -> None:
    """Replace the file as a whole, so that an interrupted run leaves the last good one."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def earlier_result(options: argparse.Namespace, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the work sizes of an interrupted run with the same settings."""
    path = options.out
    if not path.exists() or options.overwrite:
        return []
    if not options.resume:
        raise ValueError(f"Expected no file {path}, got one; pass --resume or --overwrite.")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        earlier, works = result["settings"], list(result["works"])
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(
            f"Expected a result of this script in {path}, got something else; pass --overwrite."
        ) from None
    for name, value in settings.items():
        if earlier.get(name) != value:
            raise ValueError(
                f"Expected to resume {path} with {name} = {earlier.get(name)!r}, as it was begun, "
                f"got {value!r}; pass --overwrite to begin again."
            )
    return works


def shape_argument(text: str) -> tuple[int, ...]:
    with contextlib.suppress(ValueError):
        shape = tuple(int(size) for size in text.split("x"))
        if len(shape) >= 3 and all(size > 0 for size in shape):
            return shape
    raise argparse.ArgumentTypeError(
        f"Expected images x channels x pixels, like 64x1x128x88, got {text!r}."
    )


def positive(text: str) -> int:
    with contextlib.suppress(ValueError):
        if int(text) > 0:
            return int(text)
    raise argparse.ArgumentTypeError(f"Expected a whole number of at least 1, got {text!r}.")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=SECTIONS,
        help="what to compare; by default everything that this machine can run",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=shape_argument,
        metavar="BxCxHxW",
        help="these work sizes in place of the section's; one channel is regression",
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="contestants whose name contains one of these"
    )
    parser.add_argument("--rounds", type=positive, default=40, help="timed runs of each contestant")
    parser.add_argument("--warmup", type=positive, default=3, help="rounds before the timed ones")
    parser.add_argument(
        "--threads", type=positive, default=2, help="number of CPU threads of torch"
    )
    parser.add_argument("--no-compile", action="store_true", help="omit torch.compile")
    parser.add_argument("--out", type=Path, default=Path("runs/loss_speed.json"), help="the result")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="keep the work sizes in the file")
    existing.add_argument("--overwrite", action="store_true", help="replace the file")
    return parser.parse_args(arguments)


def begin(options: argparse.Namespace) -> tuple[list[tuple[str, Shape]], dict[str, Any]]:
    """Return the work sizes to measure, and the result so far; refuse bad input."""
    has_gpu = torch.cuda.is_available()
    if options.sections is None:
        options.sections = [name for name in SECTIONS if has_gpu or SECTIONS[name].device == "cpu"]
    elif not has_gpu and any(SECTIONS[name].device == "cuda" for name in options.sections):
        raise ValueError("Expected a GPU for the gpu sections, torch.cuda.is_available() says no.")
    torch.set_num_threads(options.threads)
    planned = plan(options)
    settings = settings_of(options)
    works = earlier_result(options, settings)
    is_done = {(work["section"], tuple(work["shape"])) for work in works}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=options.out.parent):
        pass  # a folder that cannot be written is known now, not after ten minutes
    return [work for work in planned if work not in is_done], {"settings": settings, "works": works}


def run(
    planned: Sequence[tuple[str, Shape]], result: dict[str, Any], options: argparse.Namespace
) -> None:
    """Measure the work sizes; print the table of each and save all of them."""
    console = Console(width=None if sys.stdout.isatty() else 100)
    columns = (BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    for number, (section_name, shape) in enumerate(planned, 1):
        title = f"{number} of {len(planned)}, {section_name} {as_text(shape)}"
        with Progress(
            TextColumn("{task.description}"),
            *columns,
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
        ) as progress:
            work = measure(section_name, shape, options, progress, title)
        result["works"].append(work)
        write(options.out, result)
        console.print(table_of(work, result["settings"]))
        for line in skipped_of(work):
            console.print(line, style="dim", markup=False)
    console.print(LEGEND, style="dim")
    console.print(f"{options.out}: {len(result['works'])} work sizes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, 1 if a contestant is wrong or a file cannot be written, 2 on bad input."""
    options = parse(arguments)
    try:
        planned, result = begin(options)
    except (ValueError, OSError) as problem:
        print(f"loss_speed: error: {problem}", file=sys.stderr)
        return 2
    try:
        run(planned, result, options)
    except (Disagreement, OSError) as problem:
        print(f"loss_speed: error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"loss_speed: stopped; --resume continues {options.out}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
