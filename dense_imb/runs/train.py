"""A run from its config: what is built, where it is kept, what watches over it."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from textwrap import shorten
from typing import IO, Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import broadcast_object_list
from torch import nn

from dense_imb.config import TrainConfig
from dense_imb.engine.callbacks import (
    COLLAPSED,
    CollapseAlarm,
    EarlyStopping,
    GradientShares,
    LossParts,
    ProgressBar,
    Trackers,
)
from dense_imb.engine.checkpoint import CheckpointError
from dense_imb.engine.loop import Callback, Loop, LoopSettings
from dense_imb.engine.signals import Interrupted
from dense_imb.engine.task import TaughtTask
from dense_imb.models import head_of
from dense_imb.runs.read import Run, open_run
from dense_imb.runs.stages import FIRST, check_same_data, of_second, stages_of
from dense_imb.runs.write import CHECKPOINTS, RunFiles, write_config
from dense_imb.tasks.build import build_task
from dense_imb.tasks.recipe import SamplingWarning, check_config, read_config

_TIMEOUT = timedelta(minutes=10)  # that a process waits for the others
_LONGEST = 200  # what torch says of weights that don't fit
_STAGES = ("stage 1 of 2", "stage 2 of 2")


def train(
    config: TrainConfig,
    folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    warm_start: str | os.PathLike[str] | None = None,
    is_quiet: bool = False,
) -> Run:
    """Train a denoiser, segmenter or classifier, and keep all there is to know in a folder.

    Args:
        config: the whole run; with a second stage the first one is a run of its own, in
            `folder`/first.
        folder: new or empty; one with a run is refused unless `resume`.
        resume: go on where the run in the folder stopped; start afresh in an empty folder.
        warm_start: another run whose weights to begin with.
        is_quiet: no progress bar.
    """
    check_config(config)
    folder = Path(folder)
    check_folder(folder, config, resume=resume)
    first, second = stages_of(config)
    own = folder if second is None else folder / FIRST
    if warm_start is None and not (_has_checkpoint(folder) or _has_checkpoint(own)):
        _check_parts(first)
    accelerator = _accelerator(first, own)
    is_done = [second is not None and _is_first_done(folder)]
    broadcast_object_list(is_done)  # one process may see what another one has just written
    task = None
    if not is_done[0]:
        task = build_task(first)
        if warm_start is not None:
            _warm_start(task, open_run(warm_start), config)
        if second is not None:  # what is wrong with it is told now, not after the first
            _build_second(second)
    with _locked(folder, accelerator):
        if accelerator.is_main_process:
            write_config(folder, config)
        if task is not None:
            with nullcontext() if second is None else _locked(own, accelerator):
                stage = "" if second is None else _STAGES[0]
                _fit(first, own, task, accelerator, stage, resume=resume, is_quiet=is_quiet)
        if second is not None:
            with warnings.catch_warnings():
                if task is not None:
                    warnings.simplefilter("ignore", SamplingWarning)  # it was told before
                del task
                task = _build_second(second)
            accelerator = _accelerator(second, folder)
            before = _begin_second(folder, task, second)
            _fit(
                second,
                folder,
                task,
                accelerator,
                _STAGES[1],
                resume=resume,
                is_quiet=is_quiet,
                first=before,
            )
        if dist.is_initialized():
            accelerator.wait_for_everyone()
            accelerator.end_training()
    return Run(folder)


def _fit(
    config: TrainConfig,
    folder: Path,
    task: Any,
    accelerator: Accelerator,
    stage: str,
    *,
    resume: bool,
    is_quiet: bool,
    first: Mapping[str, Any] | None = None,
) -> None:
    """One stage, to its end.

    Args:
        config: of the stage.
        folder: of the stage.
        task: of the stage.
        accelerator: devices, precision and processes.
        stage: one of `_STAGES`, "" where there is no other.
        resume: go on from the newest checkpoint.
        is_quiet: no progress bar.
        first: what `metrics.json` of the stage before holds.
    """
    callbacks: list[Callback] = [
        LossParts(),  # before anybody else asks the loss
        GradientShares(),
        CollapseAlarm(config.collapse),
        ProgressBar(is_quiet, stage or "train"),
        RunFiles(folder, config, task, first),
    ]
    if config.patience is not None:
        callbacks.insert(3, EarlyStopping(config.patience))
    if config.trackers:
        callbacks.append(Trackers())
    settings = LoopSettings(
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        schedule=config.optimizer.schedule,
        clip=config.optimizer.clip,
        validate_every=config.validate_every or max(config.steps // 10, 1),
        save_every=config.save_every,
    )
    if isinstance(task, TaughtTask):
        task.follow(task.network, 0)
    loop = Loop(
        task,
        _optimizer(config, task.network),
        settings,
        folder / CHECKPOINTS,
        accelerator=accelerator,
        callbacks=callbacks,
        compile_network=config.compile,
    )
    try:
        loop.run(resume=resume)
    except Interrupted as stopped:
        raise Interrupted(stopped.number, stopped.step, stage) from None
    if stage == _STAGES[0] and loop.late_signal:
        raise Interrupted(loop.late_signal, loop.state.step, stage)


def _accelerator(config: TrainConfig, folder: Path) -> Accelerator:
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    return Accelerator(
        cpu=not torch.accelerator.is_available(),  # or Accelerate overlooks processes on CPUs
        mixed_precision=_precision(config.precision),
        log_with=_trackers(config.trackers) or None,
        project_dir=folder,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_TIMEOUT)],
    )


def _has_checkpoint(folder: Path) -> bool:
    return any((folder / CHECKPOINTS).glob("step-*.pt"))


def _is_first_done(folder: Path) -> bool:
    """Whether nothing is left to do for the first stage of the run in a folder."""
    if _has_checkpoint(folder):
        return True
    own = folder / FIRST
    if not (own / "config.yaml").exists() or not (own / "last.safetensors").exists():
        return False
    return bool(open_run(own).metrics().get("is_finished"))


def _build_second(config: TrainConfig) -> Any:
    try:
        return build_task(config)
    except (ValueError, TypeError) as problem:
        raise of_second(problem) from problem


def _begin_second(folder: Path, task: Any, config: TrainConfig) -> Mapping[str, Any] | None:
    """Give the second stage the first one's best network, and say what that one's metrics are."""
    if _has_checkpoint(folder):
        return None  # it is in there, as are the scores
    run = open_run(folder / FIRST)
    metrics = run.metrics()
    if str(metrics.get("stopped")).startswith(COLLAPSED):
        raise ValueError(
            f"Expected a first stage to go on from in {run.folder}, got one that was stopped "
            f"({metrics['stopped']}); train in a new folder."
        )
    check_same_data(task.describe(), run.checkpoint()["setup"], run.folder)
    _warm_start(task, run, config)
    return metrics


def _trackers(wanted: list[str]) -> list[str]:
    there = {str(one.value) for one in get_available_trackers()}
    for name in wanted:
        if name not in there:
            raise ValueError(
                f"Expected trackers that are installed ({', '.join(sorted(there)) or 'none is'}), "
                f"got {name!r}; pip install {name}."
            )
    return wanted


def _precision(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    has: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "no"


def _optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Moves the weights that a config wants moved; the others are frozen."""
    wanted = config.optimizer
    weights = network.parameters()
    if wanted.parts == "head":
        network.requires_grad_(False)
        weights = head_of(network).requires_grad_(True).parameters()
    rate, decay = wanted.learning_rate, wanted.weight_decay
    if wanted.name == "sgd":
        return torch.optim.SGD(weights, rate, momentum=0.9, weight_decay=decay)
    kind = torch.optim.AdamW if wanted.name == "adamw" else torch.optim.Adam
    return kind(weights, rate, weight_decay=decay, fused=True)


def _check_parts(config: TrainConfig) -> None:
    """Refuse a head on features that nobody has ever trained."""
    options = config.model.options
    is_trained = options.get("pretrained") or options.get("encoder_weights")
    if config.optimizer.parts == "head" and not is_trained:
        raise ValueError(
            "Expected a run whose network to begin with (--warm-start RUN) with an "
            "optimizer.parts of head, got none: all but the head would stay random."
        )


def _warm_start(task: Any, other: Run, config: TrainConfig) -> None:
    content = other.checkpoint("best")
    try:
        task.network.load_state_dict(content["network"])
    except RuntimeError as problem:
        theirs, ours = ({"model": asdict(one.model)} for one in (other.config, config))
        if differences := _differences(theirs, ours):
            told = _told(differences)
            options = [f"--{name} {_typed(there)}" for name, there, _ in differences]
            cure = f"train with the model of that run ({' '.join(options)})"
        else:
            told = shorten(
                str(problem).splitlines()[-1].strip().rstrip("."), _LONGEST, placeholder=" ..."
            )
            cure = "the models are the same, so train on data of that run's channels and classes"
        name = f"{other.config.model.name} ({content['setup'].get('network')})"
        raise CheckpointError(
            f"Expected the network of {other.folder} to be this one, {task.describe()['network']}, "
            f"got the weights of {name}: {told}; {cure}."
        ) from problem


def _typed(value: Any) -> str:
    """A value of a config, as one would type it.

    Example:
        >>> print(_typed({"widths": [4, 8]}), _typed("resnet32"), _typed(None))
        '{"widths": [4, 8]}' resnet32 null
    """
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))


def check_folder(folder: Path, config: TrainConfig, *, resume: bool) -> None:
    """Refuse to write over a run, and to go on with another one."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected a folder for the run, got the file {folder}.")
    stored = folder / "config.yaml"
    if stored.exists() and not resume:
        raise ValueError(
            f"Expected a new folder for the run, got {folder}, which holds one; --resume goes on "
            "with it, or choose another name."
        )
    if folder.is_dir() and not stored.exists() and _has_files(folder):
        raise ValueError(f"Expected a new or empty folder for the run, got {folder}, with files.")
    if stored.exists():
        if told := _told_differences(folder, config):
            raise ValueError(
                f"Expected the config of the run in {folder} to go on with, got another ({told}); "
                "choose a new folder, with --warm-start to begin from its weights."
            )
        if config.second.steps > 0:
            _check_first(folder / FIRST, stages_of(config)[0])


def _check_first(folder: Path, config: TrainConfig) -> None:
    """Refuse a first stage that is not this run's; none may be there yet."""
    if not (folder / "config.yaml").exists():
        check_folder(folder, config, resume=True)
    elif told := _told_differences(folder, config):
        raise ValueError(
            f"Expected the first stage of this run in {folder}, got another run ({told}); bring "
            "it back, or train in a new folder."
        )


def _told_differences(folder: Path, config: TrainConfig) -> str:
    """In what the config of the run in a folder differs from one that is to go on with it."""
    differ = _differences(asdict(read_config(folder / "config.yaml")), asdict(config))
    free = ("save_every", "trackers")  # changes nothing that is learnt
    return _told([one for one in differ if one[0] not in free])


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Names whose values differ, with both values."""
    there, here = _flat(before), _flat(now)
    return [(n, there.get(n), here[n]) for n in here if there.get(n) != here[n]]


def _told(differences: Sequence[tuple[str, Any, Any]]) -> str:
    return "; ".join(f"{n}: {there} there, {here} here" for n, there, here in differences)


def _has_files(folder: Path) -> bool:
    """Whether anything is in a folder but what a run begins with."""
    return any(
        path.is_file() and path.name != ".lock" and path.suffix != ".partial"
        for path in folder.rglob("*")
    )


def _flat(nested: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, dict) and name != "options":
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[before + name] = value
    return flat


@contextmanager
def _locked(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """One run at a time in a folder; the lock goes with the process, however that ends."""
    with ExitStack() as held:
        problem: list[OSError | ValueError | None] = [None]
        if accelerator.is_main_process:
            try:
                (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
                _lock(held.enter_context((folder / ".lock").open("w")), folder)
                for partial in folder.rglob("*.partial"):  # of a run that was killed while saving
                    partial.unlink()
            except (OSError, ValueError) as met:
                problem = [met]
        broadcast_object_list(problem)  # or the others would wait for the main process
        if problem[0] is not None:
            raise problem[0]
        yield


def _lock(file: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ValueError(
            f"Expected a folder that no other run works in, got {folder}, which one does; "
            "wait for it or choose another name."
        ) from None
