"""A run from its config: what is built, where it is kept, what watches over it."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import broadcast_object_list
from torch import nn

from dense_imb.config import TrainConfig
from dense_imb.training.build import check_config, read_config
from dense_imb.training.callbacks import (
    CollapseAlarm,
    EarlyStopping,
    GradientShares,
    LossParts,
    ProgressBar,
    Trackers,
)
from dense_imb.training.checkpoint import CheckpointError
from dense_imb.training.loop import Callback, Loop, LoopSettings
from dense_imb.training.records import CHECKPOINTS, RunFiles
from dense_imb.training.run import Run, open_run
from dense_imb.training.task import TaughtTask
from dense_imb.training.tasks import build_task

_TIMEOUT = timedelta(minutes=10)  # that a process waits for the others


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
        config: the whole run.
        folder: new or empty; one with a run is refused unless `resume`.
        resume: go on where the run in the folder stopped; start afresh in an empty folder.
        warm_start: another run whose weights to begin with.
        is_quiet: no progress bar.
    """
    check_config(config)
    folder = Path(folder)
    check_folder(folder, config, resume=resume)
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # or Accelerate overlooks processes on CPUs
        mixed_precision=_precision(config.precision),
        log_with=_trackers(config.trackers) or None,
        project_dir=folder,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_TIMEOUT)],
    )
    task = build_task(config)
    if warm_start is not None:
        _warm_start(task.network, open_run(warm_start))
    if isinstance(task, TaughtTask):
        task.follow(task.network, 0)
    with _locked(folder, accelerator):
        callbacks: list[Callback] = [
            LossParts(),  # before anybody else asks the loss
            GradientShares(),
            CollapseAlarm(config.collapse),
            ProgressBar(is_quiet),
            RunFiles(folder, config, task),
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
        finally:
            if dist.is_initialized() and sys.exc_info()[0] is None:
                accelerator.wait_for_everyone()
                accelerator.end_training()
    return Run(folder)


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
    wanted = config.optimizer
    rate, decay = wanted.learning_rate, wanted.weight_decay
    if wanted.name == "sgd":
        return torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=decay)
    kind = torch.optim.AdamW if wanted.name == "adamw" else torch.optim.Adam
    return kind(network.parameters(), rate, weight_decay=decay, fused=True)


def _warm_start(network: nn.Module, other: Run) -> None:
    try:
        network.load_state_dict(other.weights("best"))
    except RuntimeError as problem:
        raise CheckpointError(
            f"Expected the network of {other.folder} to be this one, got other weights "
            f"({str(problem).splitlines()[-1].strip()})."
        ) from problem


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
        before, now = _flat(asdict(read_config(stored))), _flat(asdict(config))
        free = ("save_every", "trackers")  # changes nothing that is learnt
        differ = [name for name in now if before.get(name) != now[name] and name not in free]
        if differ:
            told = "; ".join(f"{n}: {before.get(n)} there, {now[n]} here" for n in differ)
            raise ValueError(
                f"Expected the config of the run in {folder} to go on with, got another ({told}); "
                "choose a new folder, with --warm-start to begin from its weights."
            )


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
