"""`dense-imb train`: a denoiser, segmenter or classifier, in a folder that holds all about it."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import Namespace

from dense_imb.cli._parser import Parser, one_line_warnings
from dense_imb.config import SAVED, TrainConfig

# options that take lists, of what
_LISTS = {
    "--hits.train": str, "--hits.validation": str, "--hits.signal": int, "--hits.noise": int,
    "--hits.profiles": str, "--images.labels": int, "--images.patch": int, "--images.names": str,
    "--labels.classes": str, "--labels.size": int, "--hits.channels": str, "--trackers": str,
    "--unlabelled.train": str,
}  # fmt: skip
SUMMARY = "train a network on hits, or on images with masks or labels"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Train a network that tells the hits of a pattern from noise: clean events "
        "are degraded anew each epoch, --hits.signal hits are kept, --hits.noise are added. Or one "
        "that tells the classes of the pixels of images: --images.train and --images.masks. Or the "
        "class of whole images: --labels.train or --labels.train. All "
        "about the run is kept in a folder. SIGTERM ends it after the step, saved, with exit "
        f"code {SAVED}; --resume goes on, and starts afresh in an empty folder, so that one job "
        "script can be queued again and again.",
        epilog="Examples:\n  dense-imb train --out runs/arc --hits.train arc.h5 --hits.signal 30 "
        "--hits.noise 200 --steps 2000\n  dense-imb train --out runs/cracks --images.train images "
        "--images.masks masks --images.labels '[0, 255]'\n  dense-imb train --out runs/tail "
        "--labels.train cifar-10-python.tar.gz --labels.imb_ratio 100 --model.name resnet32 "
        "--loss hmld10000000g05a75\n  dense-imb train --out runs/two --images.train images "
        "--images.masks masks --second.steps 500 --second.loss 'FocalLoss(balance={})'"
        "  (a second stage, images by class; the first is kept in runs/two/first)",
    )
    parser.add_argument("--config", action="config", help="a YAML file; options override it")
    parser.add_argument("--out", type=str, required=True, help="the folder of the run")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in the folder; its config is read there",
    )
    parser.add_argument(
        "--warm-start", type=str | None, help="another run, whose weights to begin with"
    )
    parser.add_argument(
        "--devices", type=int, default=1, help="processes on this machine, one for each GPU"
    )
    parser.add_argument(
        "--report",
        type=bool,
        default=True,
        help="write RUN/report.html at the end, some 20 s (of whole images there is none yet); no "
        "part of the config: say it again with --resume",
    )
    parser.add_argument(
        "--imb-ratio", type=float | None, help="short for --labels.imb_ratio: 100, or 0.01"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_class_arguments(TrainConfig)
    return parser


def as_lists(typed: Sequence[str]) -> list[str]:
    """The words typed, where several behind an option of a list became one.

    Example:
        >>> as_lists(["train", "--images.labels", "0", "255", "--images.patch=96,96"])
        ['train', '--images.labels', '[0, 255]', '--images.patch', '[96, 96]']
    """
    found: list[str] = []
    words = [*typed]
    while words:
        option, is_joined, value = words.pop(0).partition("=")
        if option not in _LISTS:
            found.append(option + is_joined + value)
            continue
        behind = [value] if is_joined else []
        while not is_joined and words and not words[0].startswith("--"):
            behind.append(words.pop(0))
        text = " ".join(behind)
        numbers = re.split(r"[\s,]+", text)
        if len(numbers) > 1 and all(re.fullmatch(r"-?\d+", one) for one in numbers):
            behind = [f"[{', '.join(numbers)}]"]
        elif len(behind) > 1 and _LISTS[option] is str:
            behind = [json.dumps(behind)]
        found += [option, *behind]
    return found


def run(options: Namespace) -> None:
    """Do what the options say."""
    from dense_imb.base.checks import check_at_least
    from dense_imb.engine import Interrupted, is_launched, launch
    from dense_imb.runs import check_config, check_folder
    from dense_imb.runs import train as train_run
    from dense_imb.tasks.recipe import read_config

    check_at_least("devices", options.devices, 1)
    folder = Path(options.out)
    stored = folder / "config.yaml"
    if options.resume and stored.exists():
        read_config(stored)  # says what is wrong with it
        options = _with_stored(options, stored)  # what is not typed is as it was
    config: TrainConfig = _config(options)
    if options.resume and not stored.exists() and config == TrainConfig():
        raise ValueError(f"Expected a run in {folder} to go on with (--resume), got none.")
    check_config(config)
    if options.devices > 1 and not is_launched():
        check_folder(folder, config, resume=options.resume)
        arguments = [*Parser.typed]
        sys.exit(launch(_main, arguments, options.devices))
    is_main = os.environ.get("RANK", "0") == "0"
    was_finished = options.resume and _is_finished(folder)
    with one_line_warnings("train"), _stoppable():
        try:
            trained = train_run(
                config,
                folder,
                resume=options.resume,
                warm_start=options.warm_start,
                is_quiet=options.quiet,
            )
        except Interrupted as stopped:
            if is_main:
                print(f"dense-imb train: {stopped}; --resume goes on", file=sys.stderr)
            sys.exit(stopped.exit_code)
    if is_main:
        if was_finished:
            print(f"{folder}: this run was finished before, nothing was left to do")
        print(trained.summary())
        if options.report and not (was_finished or config.trains_on_classes):
            from dense_imb.report import write_report

            report = write_report(folder, show_progress=not options.quiet)
            print(f"{report.headline}\n{report.path}")


def _with_stored(options: Namespace, stored: Path) -> Namespace:
    """The options, those of a stored config where others were not typed."""
    typed = as_lists(Parser.typed)
    behind = typed[typed.index("train") + 1 :] if "train" in typed else typed
    found: Namespace = make_parser().parse_args(["--config", str(stored), *behind])
    return found


@contextmanager
def _stoppable() -> Iterator[None]:
    """End a run that has not begun to train, with the code of one that can go on."""

    def leave(number: int, frame: Any) -> NoReturn:
        sys.exit(SAVED)

    # signals arrive in the main thread only
    is_asked = threading.current_thread() is threading.main_thread()
    noted = (signal.SIGTERM, signal.SIGUSR1) if is_asked else ()
    before = {number: signal.signal(number, leave) for number in noted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_finished(folder: Path) -> bool:
    from dense_imb.runs import open_run

    return (folder / "config.yaml").exists() and bool(open_run(folder).metrics().get("is_finished"))


def _config(options: Namespace) -> TrainConfig:
    parser = make_parser()
    built = parser.instantiate(options)
    config = TrainConfig(**{one.name: built[one.name] for one in fields(TrainConfig)})
    if options.imb_ratio is not None:
        config.labels.imb_ratio = options.imb_ratio
    return config


def _main(arguments: Sequence[str]) -> int:
    from dense_imb.cli import main

    return main(arguments)
