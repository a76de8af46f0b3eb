"""Comparison of samplers, mixing, two stages and unlabelled images for long-tailed data.

    DENSE_IMB_DATA=DATA OMP_NUM_THREADS=1 python experiments/long_tail/answers.py runs/long_tail
    ... --tasks cracks --methods instance two-stage --losses plain --seeds 1       # a part of it
    ... --full                                         # meant for a GPU; choose another folder

Each method is trained with a plain and a balanced loss and several seeds on three tasks; all else
is equal. Scores are those of test images. The tasks are kinds (simulated hits of four patterns, a
class each, 25 % of the frames labelled), cracks (10 % of the photographs labelled) and images
(shapes, one label an image, half of them labelled). Finished runs are kept, stopped ones continue.
The tables lie beside the runs as .txt, .csv and .json.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from shapes import SHAPES, write_shapes

from dense_imb.base.files import write_whole
from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser
from dense_imb.compare import ComparisonTable, Contestant
from dense_imb.config import (
    ImagesConfig,
    LabelsConfig,
    MixingConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    SecondConfig,
    TrainConfig,
    UnlabelledConfig,
)
from dense_imb.data.events.labelled_frames import write_labelled_frames
from dense_imb.data.events.simulated import write_simulated
from dense_imb.engine import CollapseWarning, Interrupted
from dense_imb.hits import Degradation, Geometry, open_hits
from dense_imb.runs import Recipe, Run, SamplingWarning, check_folder, train
from dense_imb.tasks.images.evaluate import evaluate_images
from dense_imb.tasks.images.recipe import open_test_images
from dense_imb.tasks.labels.evaluate import evaluate_labels
from dense_imb.tasks.labels.recipe import open_test_table
from dense_imb.tasks.recipe import build_task

LOSSES = {"plain": "CrossEntropyLoss", "balanced": "BalancedSoftmaxLoss"}
BASES = ("instance (plain)", "instance (balanced)")  # the first that is there the others meet
N_VALIDATIONS = 3  # of a run; the best of them is measured


def _in_two_stages(config: TrainConfig, parts: Literal["all", "head"] = "all") -> TrainConfig:
    first = config.steps - config.steps // 3
    # where drawing by class balances the second stage, its loss must not do so again
    loss = "CrossEntropyLoss" if config.kinds == ("labels",) else None
    return replace(config, steps=first, second=SecondConfig(config.steps - first, loss, parts))


METHODS: dict[str, Callable[[TrainConfig], TrainConfig]] = {
    "instance": lambda config: config,
    "class": lambda config: replace(config, sampling=SamplingConfig("class")),
    "progressive": lambda config: replace(config, sampling=SamplingConfig("progressive")),
    "balanced-mixup": lambda config: replace(config, mixing=MixingConfig("balanced-mixup", 0.2)),
    "two-stage": _in_two_stages,
    "two-stage-head": lambda config: _in_two_stages(config, "head"),
    "semi-supervised": lambda config: replace(config, unlabelled=UnlabelledConfig(rest=True)),
}


@dataclass(frozen=True)
class Size:
    """Size of a task.

    Args:
        steps: steps of a run; a multiple of 9, which stages and validations divide.
        batch_size: images or crops in a step.
        model: options of the network.
        number: number of frames, or of images of the largest class.
        pixels: height and width of a frame, of a crop or of an image.
    """

    steps: int
    batch_size: int
    model: dict[str, Any]
    number: int
    pixels: tuple[int, int]


@dataclass(frozen=True)
class Task:
    """Data and scores that methods are compared on.

    Args:
        scores: names of the scores; the first one decides.
        config: makes the config of "instance" from a folder for data and the size.
        measure: returns the scores of a run on test images.
    """

    scores: tuple[str, ...]
    config: Callable[[Path, Size], TrainConfig]
    measure: Callable[[Run], dict[str, float]]


def kinds_config(folder: Path, size: Size) -> TrainConfig:
    """Return the config of `kinds` in experiments/which_loss, with a quarter of frames labelled."""
    height, width = size.pixels
    frames = folder / f"kinds-{size.number}-{height}x{width}.h5"
    if not frames.exists():
        hits = frames.with_suffix(".hits.h5")
        write_simulated(
            hits, size.number, pattern=["arc", "ring", "line", "cross"],
            frequency=[60, 25, 10, 5], patterns_per_event=(1, 3), geometry=Geometry(width, height),
            degradation=Degradation(signal=60, noise=100), seed=0, progress=False,
        )  # fmt: skip
        with open_hits(hits) as source:
            write_labelled_frames(
                source, frames, kinds=["arc", "ring", "line", "cross"], noise_is_background=True,
                progress=False,
            )  # fmt: skip
        hits.unlink()
    return replace(
        segmenter_config(size),
        images=ImagesConfig(train=str(frames), test_share=0.25),
        labelled_share=0.25,
    )


def cracks_config(folder: Path, size: Size) -> TrainConfig:
    data = os.environ.get("DENSE_IMB_DATA")
    if not data:
        raise ValueError(
            "Expected the folder of crackforest in the environment variable DENSE_IMB_DATA, got "
            "none; omit cracks (--tasks kinds images)."
        )
    place = Path(data) / "crackforest"
    images = ImagesConfig(
        train=str(place / "images"), masks=str(place / "masks"), labels=[0, 255],
        patch=list(size.pixels), test_share=0.25,
    )  # fmt: skip
    return replace(segmenter_config(size), images=images, labelled_share=0.1)


def segmenter_config(size: Size) -> TrainConfig:
    return TrainConfig(
        model=ModelConfig(options=size.model), steps=size.steps, batch_size=size.batch_size
    )


def images_config(folder: Path, size: Size) -> TrainConfig:
    height, _ = size.pixels
    place = folder / f"shapes-{size.number}-{height}"
    if not (place / "test.csv").exists():  # written last
        write_shapes(place, largest=size.number, imb_ratio=50, n_held_out=50, side=height)
    return TrainConfig(
        labels=LabelsConfig(
            train=str(place / "train.csv"), validation=str(place / "validation.csv"),
            images=str(place / "images"), classes=list(SHAPES), flips="both", padding=2,
            many=size.number / 8, few=size.number / 25,
        ),
        model=ModelConfig(name="resnet32", options=size.model),
        optimizer=OptimizerConfig(learning_rate=2e-2),
        steps=size.steps,
        batch_size=size.batch_size,
        labelled_share=0.5,
    )  # fmt: skip


def measure_segmenter(run: Run) -> dict[str, float]:
    """Return means over the foreground classes, and scores of the last one, the rarest."""
    rows = evaluate_images([run.trained()], open_test_images(run.config.images)).rows
    mean, rarest = rows[0], rows[-1]
    return {
        "average_precision": float(mean["average_precision"]),
        "tolerant_f1": float(mean["tolerant_f1"]),
        "rarest_AP": float(rarest["average_precision"]),
    }


def measure_classifier(run: Run) -> dict[str, float]:
    classifier = run.trained()
    path = Path(str(run.config.labels.train)).with_name("test.csv")
    images = open_test_table(run.config.labels, str(path), run.config.labels.images)
    row = evaluate_labels([classifier], images, classifier.reading)[classifier.name]
    names = ("balanced_accuracy", "head_accuracy", "middle_accuracy", "tail_accuracy", "auc")
    return {name: float(row[name]) for name in names}


TASKS = {
    "kinds": Task(
        ("average_precision", "rarest_AP", "tolerant_f1"), kinds_config, measure_segmenter
    ),
    "cracks": Task(("average_precision", "tolerant_f1"), cracks_config, measure_segmenter),
    "images": Task(
        ("balanced_accuracy", "head_accuracy", "middle_accuracy", "tail_accuracy", "auc"),
        images_config, measure_classifier,
    ),
}  # fmt: skip
SMALL = {
    "kinds": Size(360, 8, {"widths": [8, 16, 32, 64]}, 800, (64, 44)),
    "cracks": Size(360, 8, {"widths": [8, 16, 32, 64]}, 0, (96, 96)),
    "images": Size(900, 32, {"depth": 8, "width": 8}, 800, (24, 24)),
}
FULL = {
    "kinds": Size(4500, 16, {}, 4000, (128, 88)),
    "cracks": Size(4500, 16, {}, 0, (128, 128)),
    "images": Size(9000, 128, {}, 2000, (32, 32)),
}


def row_name(method: str, loss: str) -> str:
    return f"{method} ({loss})"


def draws_as_instance(config: TrainConfig) -> bool:
    """Whether each image holds the same classes, so that sampling by class changes nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", SamplingWarning)
        try:
            build_task(config)
        except SamplingWarning:
            return True
    return False


def trained_methods(methods: Sequence[str], base: TrainConfig) -> tuple[list[str], tuple[str, ...]]:
    """Return the methods that differ from "instance" on these data, and notes on the others."""
    if not draws_as_instance(METHODS["class"](base)):
        return list(methods), ()
    only_sample = ("class", "progressive")
    known = {
        "class": "class: not trained, it equals instance here.",
        "progressive": "progressive: not trained, it equals instance here.",
        "balanced-mixup": "balanced-mixup: the other image of a pair is any image.",
        "two-stage": "two-stage: the second stage differs in its lower learning rate only.",
        "two-stage-head": "two-stage-head: the second stage trains the head only.",
    }
    notes = [known[method] for method in methods if method in known]
    if notes:
        notes.insert(
            0, "Every image holds every class: sampling by class draws all with equal weight."
        )
    return [method for method in methods if method not in only_sample], tuple(notes)


def result_of(task: Task, config: TrainConfig, place: Path, is_quiet: bool) -> dict[str, float]:
    """Train and measure a run, or read its result."""
    asked = json.loads(json.dumps(asdict(config)))
    stored = place / "result.json"
    if stored.exists():
        result = json.loads(stored.read_text())
        if result["config"] != asked:
            check_folder(place, Recipe.of(config), resume=True)  # says what differs
        return {name: float(value) for name, value in result["scores"].items()}
    start = time.process_time()
    with warnings.catch_warnings():  # a method may go blank, or draw alike: the table says so
        warnings.simplefilter("ignore", CollapseWarning)
        warnings.simplefilter("ignore", SamplingWarning)
        run = train(config, place, resume=True, is_quiet=is_quiet)
    row = task.measure(run) | {"cpu_seconds": time.process_time() - start}
    write(stored, json.dumps({"config": asked, "scores": row}, indent=1))
    return row


def write(path: Path, text: str) -> None:
    write_whole(path, lambda partial: partial.write_text(text))


@dataclass(frozen=True)
class MethodsTable(ComparisonTable):
    """Table of scores with rows "method (loss)"."""

    notes: tuple[str, ...] = ()

    def advice(self) -> str:
        lead = [self.lead("method")] if len(self.rows) > 1 else []
        return "\n".join([*lead, *self.notes])


def table_of(name: str, size: Size, options: Namespace, folder: Path) -> MethodsTable:
    """Train and measure every row of a task; the first seed of all comes before any second."""
    task = TASKS[name]
    (folder / "data").mkdir(parents=True, exist_ok=True)
    base = task.config(folder / "data", size)
    base = replace(base, validate_every=base.steps // N_VALIDATIONS)
    methods, notes = trained_methods(options.methods, base)
    if not methods:
        raise ValueError(
            f"Expected a method that differs from instance on {name}, got "
            f"{', '.join(options.methods)}: every image holds every class."
        )
    rows = [(method, loss) for method in methods for loss in options.losses]
    runs: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        for method, loss in rows:
            config = replace(METHODS[method](base), loss=LOSSES[loss], seed=seed)
            place = folder / name / f"{method}-{loss}-{seed}"
            row = result_of(task, config, place, options.quiet)
            runs.append({"loss": row_name(method, loss), "seed": seed, **row})
            print(
                f"{name} {len(runs)}/{len(rows) * options.seeds} {row_name(method, loss)}, seed "
                f"{seed}: {task.scores[0]} {row[task.scores[0]]:.3f} ({row['cpu_seconds']:.0f} "
                "CPU s)", flush=True,
            )  # fmt: skip
    named = [Contestant(row_name(method, loss), LOSSES[loss]) for method, loss in rows]
    names = [one.name for one in named]
    compared = [name for name in BASES if name in names]
    plain = compared[0] if compared else None
    table = MethodsTable.from_runs(runs, task.scores, named, size.steps, plain=plain)
    table = replace(table, notes=notes)
    for suffix in ("json", "csv"):
        table.save(folder / f"{name}.{suffix}")
    write(folder / f"{name}.txt", table.text() + "\n")
    return table


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    parser.add_argument("folder", type=str, help="folder of data, runs and tables")
    for option, known in (("tasks", TASKS), ("methods", METHODS), ("losses", LOSSES)):
        parser.add_argument(
            f"--{option}", type=Literal[tuple(known)], nargs="+", default=list(known),
            help=f"some {option}; all by default",
        )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, help="number of runs of each row")
    parser.add_argument(
        "--steps", type=int | None, help="steps of each run, in place of the task's"
    )
    parser.add_argument("--full", action="store_true", help="full size, for a GPU")
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")
    return parser


def run(options: Namespace) -> int:
    for name in ("seeds", "steps"):
        least = 1 if name == "seeds" else 3
        if options[name] is not None and options[name] < least:
            raise ValueError(f"Expected --{name} of {least} or more, got {options[name]}.")
    seconds = 0.0
    for name in options.tasks:
        size = (FULL if options.full else SMALL)[name]
        size = replace(size, steps=options.steps or size.steps)
        try:
            table = table_of(name, size, options, Path(options.folder))
        except Interrupted as stopped:
            print(f"answers.py: {stopped}; the same command goes on", file=sys.stderr)
            return stopped.exit_code
        seconds += sum(float(one["cpu_seconds"]) for one in table.runs)
        print(f"\n{name}\n{table.text()}\n", flush=True)
    print(f"{seconds / 60:.1f} CPU minutes of training and measuring, torch {torch.__version__}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("answers.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
