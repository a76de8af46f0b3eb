"""`dense-imb train KIND`: train a network in a folder that keeps the whole run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from docstring_parser import parse as parse_docstring

from dense_imb.base.refusals import Refused, refusal, render, suggest
from dense_imb.base.values import build_dataclass, option_types, read_words
from dense_imb.cli._device import add_device, chosen_device
from dense_imb.cli._parser import (
    Namespace,
    Parser,
    one_line_warnings,
    print_next,
    quoted,
    type_metavar,
)
from dense_imb.cli._script import continuable
from dense_imb.cli._threads import add_threads
from dense_imb.config import (
    KINDS,
    NETWORKS,
    OF_FRAMES,
    OF_HITS,
    SAVED,
    TrainConfig,
    renamed,
    upgrade,
)

SUMMARIES = {
    "hits": "train a network that scores the hits of a detector",
    "images": "train a network that segments images with masks",
    "labels": "train a network that classifies whole images",
    "values": "train a network that predicts maps of values",
}
_FIRST_OPTIONS = {
    "hits": ("hits.train", "hits.signal", "hits.noise", "hits.validation"),
    "images": ("images.train", "images.masks", "images.labels", "images.patch"),
    "labels": ("labels.train", "labels.images", "labels.size", "labels.imb_ratio"),
    "values": ("values.train", "values.targets", "values.cells", "values.patch"),
}
_ALWAYS_FIRST = ("out", "model.name", "loss", "steps", "batch_size", "resume")
_EXAMPLES = {
    "hits": (
        "dense-imb train hits --out runs/arc --hits.train arc.h5 --hits.signal 30 --hits.noise 200",
    ),
    "images": (
        "dense-imb train images --out runs/cracks --images.train images --images.masks masks "
        "--images.labels 0 255",
        "dense-imb train images --out runs/two --images.train images --images.masks masks "
        "--second.steps 500 --second.loss 'FocalLoss(balance={})'",
    ),
    "labels": (
        "dense-imb train labels --out runs/skin --labels.train train.csv --labels.images images "
        "--model.name resnet32",
        "dense-imb train labels --out runs/tail --labels.train cifar-10-python.tar.gz "
        "--labels.imb_ratio 100 --model.name resnet32 --loss hmld10000000g05a75",
    ),
    "values": (
        "dense-imb train values --out runs/dose --values.train images --values.targets dose",
        "dense-imb train values --out runs/organs --values.train dose.h5 --values.cells organs "
        "--values.cell_kind bits --model.name monai:UNet "
        '--loss \'BalancedRegressionLoss("l1", "masks")\'',
    ),
}
_DESCRIPTIONS = {
    "hits": "Train a network that scores each hit: signal or noise. Each epoch degrades the clean "
    "events anew: it keeps --hits.signal signal hits and adds --hits.noise noise hits.",
    "images": "Train a network that segments images, 2-D or 3-D, from images with a mask each.",
    "labels": "Train a network that classifies whole images, from a CSV file with a folder of "
    "images, or from CIFAR.",
    "values": "Train a network that predicts maps of values, 2-D or 3-D, from images with a map "
    "each: dose, heat maps, times, densities.",
}
_THINGS = {"hits": "FILE", "images": "FOLDER", "labels": "CSV", "values": "FOLDER"}
_FOLDER = (
    "The folder --out keeps the whole run. SIGTERM saves the run after the current step and ends "
    f"it with exit code {SAVED}; --resume continues it, or starts it if the folder is empty."
)
_TITLES = {
    "": "training",
    "unlabelled": "unlabelled samples (semi-supervised training)",
    "second": "second stage",
    "model": "network",
}
_GROUPS = {
    **{f"hits.{name}": "networks of hits" for name in OF_HITS},
    **{f"hits.{name}": "networks of frames" for name in OF_FRAMES},
}
_METAVARS = {
    "hits.train": "FILE",
    "hits.validation": "FILE",
    "hits.measured_noise": "FILE",
    "hits.profiles": "PROFILE",
    "hits.channels": "CHANNEL",
    "hits.value_loss": "LOSS",
    "images.train": "FOLDER",
    "images.masks": "FOLDER",
    "images.validation": "FOLDER",
    "images.validation_masks": "FOLDER",
    "images.names": "NAME",
    "values.train": "FOLDER",
    "values.targets": "FOLDER",
    "values.cells": "FOLDER",
    "values.cell_names": "NAME",
    "values.validation": "FOLDER",
    "values.validation_targets": "FOLDER",
    "values.validation_cells": "FOLDER",
    "values.names": "NAME",
    "labels.train": "CSV",
    "labels.images": "FOLDER",
    "labels.validation": "CSV",
    "labels.validation_images": "FOLDER",
    "labels.name_column": "NAME",
    "labels.label_column": "NAME",
    "labels.group_column": "NAME",
    "labels.classes": "NAME",
    "model.name": "NAME",
    "model.options": "'{\"NAME\": VALUE}'",
    "loss": "LOSS",
    "allow_import": "PACKAGE",
    "feature_loss": "LOSS",
    "second.loss": "LOSS",
    "unlabelled.train": "PATH",
    "unlabelled.loss": "LOSS",
    "trackers": "NAME",
}


class _Help(argparse.Action):
    """`--help` with the ten options that matter first, `--help all` with every option."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        parser.shows_all = values == "all"
        parser.print_help()
        parser.exit()


class TrainParser(Parser):
    """The parser of `train` for one kind of data.

    Args:
        kind: a name of `KINDS`.
    """

    def __init__(self, kind: str) -> None:
        examples = _EXAMPLES[kind]
        super().__init__(
            description=f"{_DESCRIPTIONS[kind]} {_FOLDER}",
            epilog=f"Example{'s' if len(examples) > 1 else ''}:\n  " + "\n  ".join(examples),
        )
        self.usage = f"dense-imb train {kind} --out FOLDER [OPTION ...]"
        self.kind, self.shows_all = kind, True
        self.types = _types_of(kind)
        texts = _texts_of(TrainConfig)
        defaults = {**_defaults_of(TrainConfig), "model.name": NETWORKS[kind]}
        run = self.add_argument_group("the run")
        run.add_argument("--out", metavar="FOLDER", help="folder of the run, new or empty")
        run.add_argument("--config", metavar="FILE", help="YAML file of options; typed ones win")
        run.add_argument("--resume", action="store_true", help="continue the run in the folder")
        run.add_argument(
            "--warm-start", metavar="RUN", help="folder of a run; training begins with its weights"
        )
        run.add_argument(
            "--allow-overlap",
            action="store_true",
            help="do not warn of validation samples that are trained on, too",
        )
        add_device(run)
        add_threads(run)
        run.add_argument(
            "--devices",
            type=int,
            default=1,
            help="number of processes on this machine, one for each GPU",
        )
        run.add_argument(
            "--report",
            type=bool,
            default=True,
            help="write RUN/report.html at the end, which takes some 20 s; type false with "
            "--resume, too",
        )
        run.add_argument(
            "--live",
            action="store_true",
            help="write RUN/live.html while the network is trained: curves, examples with its "
            "output, time left. Open it in a browser; it refreshes itself",
        )
        run.add_argument("--quiet", action="store_true", help="show no progress bar and no table")
        groups: dict[str, Any] = {}
        for name, hint in self.types.items():
            section = _GROUPS.get(name, name.rpartition(".")[0].partition(".")[0])
            if section not in groups:
                groups[section] = self.add_argument_group(_TITLES.get(section, section))
            names = [f"--{name}"]
            if name == "allow_import":
                names = ["--allow-import"]
            if name == "labels.imb_ratio":
                names.append("--imb-ratio")
            groups[section].add_argument(
                *names,
                dest=name,
                nargs="*" if _takes_list(hint) else None,
                action="extend" if name == "allow_import" else "store",
                default=argparse.SUPPRESS,
                metavar=_METAVARS.get(name) or type_metavar(hint),
                help=_with_default(texts[name], defaults[name]),
            )

    def add_help_option(self) -> None:
        """Add the option --help, with the value all."""
        self.add_argument(
            "-h",
            "--help",
            action=_Help,
            nargs="?",
            const="ten",
            metavar="all",
            help="show the ten options that matter first, or all of them",
        )

    def format_help(self) -> str:
        """Return the help; only the ten options that matter first unless `shows_all`."""
        if self.shows_all:
            return super().format_help()
        kept = {*_ALWAYS_FIRST, *_FIRST_OPTIONS[self.kind], "help"}
        hidden = {a: a.help for a in self._actions if a.dest not in kept}
        for action in hidden:
            action.help = argparse.SUPPRESS
        try:
            text = super().format_help()
        finally:
            for action, help_text in hidden.items():
                action.help = help_text
        return f"{text}\nAll {len(self._actions)} options: dense-imb train {self.kind} --help all\n"

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Namespace:  # type: ignore[override]
        """Parse words; the options also hold the kind, and the words for other processes."""
        words = [*(sys.argv[1:] if args is None else args)]
        options = super().parse_args(words, namespace)
        options.kind, options.words = self.kind, words
        return options

    def _unknown(self, word: str) -> Refused:
        """Name the command of an option of another kind, and the new name of an old one."""
        option = word.partition("=")[0]
        name = _plain(option)
        today = renamed(name) or name
        other = today.partition(".")[0]
        if other in KINDS and other != self.kind and today in _types_of(other):
            return refusal(
                f"{option} is an option of {other}, not of {self.kind}; drop it, or type dense-imb "
                f"train {other} --{today}."
            )
        if today != name:
            return refusal(f"{option} was renamed; type --{today}.")
        return super()._unknown(word)


def parser_maker(kind: str) -> Callable[[], Parser]:
    """Return a function that makes the parser of a kind."""
    return lambda: TrainParser(kind)


def help_text() -> str:
    """Return the help of `dense-imb train` without a kind."""
    lines = [f"  dense-imb train {kind:6}  {summary}" for kind, summary in SUMMARIES.items()]
    return "\n".join(
        [
            "usage: dense-imb train hits|images|labels|values --out FOLDER [OPTION ...]",
            "",
            "Train a network. Choose the kind of data first:",
            *lines,
            "",
            "dense-imb train KIND --help shows the ten options that matter first, --help all every "
            "option.",
        ]
    )


def kind_refusal(words: Sequence[str]) -> str:
    """Return the sentence for `train` without a kind of data, with the command that was meant."""
    typed = words[0]
    if not typed.startswith("-"):
        near = suggest(typed, KINDS)
        return f"Expected hits, images, labels or values after train, got {typed!r}.{near}"
    kind = _kind_meant(words) or "hits|images|labels|values"
    return (
        f"Expected the kind of data after train, got {typed}; type dense-imb train {kind} "
        f"{quoted(words)}."
    )


def _kind_meant(words: Sequence[str]) -> str | None:
    """Return the kind of data of options, of their --config, or of the run that they continue."""
    from dense_imb.runs.read import read_yaml

    pairs = [*zip(words, [*words[1:], ""], strict=True)]
    for word, value in pairs:
        name, joined, behind = word.partition("=")
        section = _plain(renamed(_plain(name)) or name).partition(".")[0]
        if section in KINDS:
            return section
        if name in ("--config", "--out"):
            path = Path(behind if joined else value)
            try:
                stored = upgrade(read_yaml(path / "config.yaml" if name == "--out" else path))
            except (ValueError, OSError):
                continue
            sections = [kind for kind in KINDS if (stored.get(kind) or {}).get("train")]
            if sections:
                return sections[0]
    return None


def _plain(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def run(options: Namespace) -> None:
    """Train as the options say."""
    with continuable(f"dense-imb train {options.kind}", "--resume goes on"):
        _train(options)


def _train(options: Namespace) -> None:
    from dense_imb.engine import Interrupted, is_launched, launch
    from dense_imb.runs import Recipe, check_folder
    from dense_imb.runs import train as train_run
    from dense_imb.tasks.kind import has_report

    kind: str = options.kind
    if options.out is None:
        raise Refused("a folder for the run", "none", "add {out=runs/NAME}")
    if options.devices < 1:
        raise Refused("{devices} of at least 1", options.devices)
    device = chosen_device(options)
    folder = Path(options.out)
    config = config_of(options, kind, folder)
    if not config.kinds:
        raise Refused(f"{kind} to train on", "none", f"add {{{kind}.train={_THINGS[kind]}}}")
    recipe = Recipe.of(config)
    check_folder(folder, recipe, resume=options.resume)
    if options.devices > 1 and not is_launched():
        words = ["train", kind, *options.words]
        sys.exit(launch(_main, words, options.devices, on_cpu=device == "cpu"))
    is_main = os.environ.get("RANK", "0") == "0"
    was_finished = options.resume and _is_finished(folder)
    if is_main and not options.resume and (remark := recipe.remark()):
        sentence = render(remark, TrainParser(kind).write_option)
        print(f"dense-imb train {kind}: note: {sentence}", file=sys.stderr)
    with one_line_warnings(f"train {kind}"):
        recipe, chosen = recipe.resolved()
        if is_main and chosen:
            print(render(chosen, TrainParser(kind).write_option), flush=True)
        callbacks = _live_page(folder, is_main) if options.live else []
        try:
            trained = train_run(
                recipe,
                folder,
                resume=options.resume,
                warm_start=options.warm_start,
                device=device or "auto",
                is_quiet=options.quiet,
                allow_overlap=options.allow_overlap,
                callbacks=callbacks,
            )
        except Interrupted as stopped:
            if is_main:
                print(f"dense-imb train {kind}: {stopped}; --resume goes on", file=sys.stderr)
            sys.exit(stopped.exit_code)
    if not is_main:
        return
    if was_finished:
        print(f"{folder}: this run was finished before, nothing was left to do")
    print(trained.summary())
    is_reported = was_finished and (folder / "report.html").exists()
    if options.report and not is_reported and has_report(trained.kind):
        from dense_imb.report import write_report

        report = write_report(folder, show_progress=not options.quiet)
        print(f"{report.headline}\n{report.path}")
    next_words = {
        "hits": ("denoise", folder, "raw.h5", "clean.h5"),
        "images": ("segment", folder, "IMAGES", "MASKS"),
        "labels": ("evaluate", folder, "TEST.csv"),
        "values": ("predict", folder, "IMAGES", "OUT"),
    }
    if kind == "hits":
        print_next("evaluate", folder, "test.h5")
        print(f"then: dense-imb {quoted([str(word) for word in next_words[kind]])}")
    else:
        print_next(*next_words[kind])


def _live_page(folder: Path, is_main: bool) -> list[Any]:
    """Return the callback of the live page, and print the path of the page."""
    from dense_imb.report import LivePage

    page = LivePage(folder)
    if is_main:
        print(f"live page: {page.path}", flush=True)
    return [page]


def config_of(options: Namespace, kind: str, folder: Path) -> TrainConfig:
    """Return the configuration: a stored one, a file and typed options, the later ones win."""
    from dense_imb.runs.confined import check_confined
    from dense_imb.runs.read import read_yaml

    types = _types_of(kind)
    stored = folder / "config.yaml"
    nested: dict[str, Any] = {"model": {"name": NETWORKS[kind]}}
    for path in (stored if options.resume and stored.exists() else None, options.config):
        if path == stored:
            check_confined(folder)
        if path is not None:
            content = upgrade(read_yaml(Path(path)), is_run=path == stored)
            build_dataclass(TrainConfig, content)  # says what is wrong with it
            content.pop("allow_import", None)  # a permission is typed
            _merge(nested, content)
    for name, hint in types.items():
        if hasattr(options, name):
            words = getattr(options, name)
            words = words if isinstance(words, list) else [words]
            _merge(nested, _nested(name, read_words(name, words, hint)))
    config: TrainConfig = build_dataclass(TrainConfig, nested)
    if options.resume and not stored.exists() and not config.kinds:
        raise Refused(
            f"a run in {folder} to resume",
            "none",
            f"start one with {{{kind}.train={_THINGS[kind]}}}",
        )
    if config.kinds and kind not in config.kinds:
        raise refusal(
            f"Expected a configuration of {kind}, got one of {config.kinds[0]}; dense-imb train "
            f"{config.kinds[0]} takes it."
        )
    return config


def _nested(name: str, value: Any) -> dict[str, Any]:
    head, dot, tail = name.partition(".")
    return {head: _nested(tail, value)} if dot else {name: value}


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Merge nested values; options of a network are replaced as one value."""
    for name, value in other.items():
        if isinstance(value, Mapping) and name != "options":
            place = into.setdefault(name, {})
            _merge(place, value)
        else:
            into[name] = value


def _types_of(kind: str) -> dict[str, Any]:
    """Return the types of the options of a kind of data, its own first."""
    others = tuple(f"{other}." for other in KINDS if other != kind)
    types = {n: t for n, t in option_types(TrainConfig).items() if not n.startswith(others)}
    return dict(sorted(types.items(), key=lambda item: not item[0].startswith(f"{kind}.")))


def _texts_of(of: Any, before: str = "") -> dict[str, str]:
    """Return the help of every option, from the docstrings of the dataclasses."""
    documented = {one.arg_name: one.description for one in parse_docstring(of.__doc__ or "").params}
    texts: dict[str, str] = {}
    for one in fields(of):
        factory: Any = one.default_factory
        if is_dataclass(_section_class(factory)):
            texts |= _texts_of(_section_class(factory), f"{before}{one.name}.")
        else:
            text = " ".join((documented.get(one.name) or "").split())
            is_open = text.endswith("...")
            texts[before + one.name] = (text if is_open else text.removesuffix(".")).replace(
                "%", "%%"
            )
    return texts


def _defaults_of(of: Any, before: str = "") -> dict[str, Any]:
    """Return the default of every option."""
    defaults: dict[str, Any] = {}
    for one in fields(of):
        factory: Any = one.default_factory
        default = factory() if one.default is MISSING else one.default
        if is_dataclass(default):
            for inner in fields(default):
                value = getattr(default, inner.name)
                name = f"{before}{one.name}.{inner.name}"
                if is_dataclass(value):
                    for last in fields(value):
                        defaults[f"{name}.{last.name}"] = getattr(value, last.name)
                else:
                    defaults[name] = value
        else:
            defaults[before + one.name] = default
    return defaults


def _section_class(factory: Any) -> Any:
    """Return the dataclass that a default factory makes; None if it makes something else."""
    if factory is MISSING:
        return None
    made = factory()
    return type(made) if is_dataclass(made) else None


def _takes_list(hint: Any) -> bool:
    return any(get_origin(choice) is list for choice in (hint, *get_args(hint)))


def _with_default(text: str, default: Any) -> str:
    if default is None or default in ([], {}, "") or "default" in text:
        return text
    shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
    shown = shown.lower() if isinstance(default, bool) else shown
    return f"{text} (default: {shown.replace('%', '%%')})"


def _is_finished(folder: Path) -> bool:
    from dense_imb.runs import open_run

    return (folder / "config.yaml").exists() and bool(open_run(folder).metrics.get("is_finished"))


def _main(arguments: Sequence[str]) -> int:
    from dense_imb.cli import main

    return main(arguments)
