"""Train a run from its configuration: folder, devices, stages and callbacks."""

from __future__ import annotations

import json
import os
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import broadcast_object_list
from torch import nn

from dense_imb.base.refusals import Refused
from dense_imb.config import AUTO, TrainConfig
from dense_imb.engine.callbacks import (
    COLLAPSED,
    CollapseAlarm,
    EarlyStopping,
    GradientShares,
    LossParts,
    ProgressBar,
    Trackers,
)
from dense_imb.engine.checkpoint import CheckpointError, newest_checkpoint
from dense_imb.engine.loop import Callback, Loop, LoopSettings
from dense_imb.engine.optimizers import build_optimizer
from dense_imb.engine.processes import wait_for_all
from dense_imb.engine.score_lines import ScoreLines, has_bars
from dense_imb.engine.signals import Interrupted
from dense_imb.engine.task import TaughtTask
from dense_imb.models import head_of
from dense_imb.runs.folder import (
    LIVE,
    check_folder,
    config_differences,
    has_checkpoint,
    has_files,
    locked,
    with_stored_loss,
)
from dense_imb.runs.natural import write_natural
from dense_imb.runs.read import Run, open_run
from dense_imb.runs.read_out import write_read_out
from dense_imb.runs.seen import HASHES, write_hashes
from dense_imb.runs.stages import FIRST, check_same_data
from dense_imb.runs.write import CHECKPOINTS, RunFiles, write_config
from dense_imb.tasks.kind import kind_of
from dense_imb.tasks.recipe import Recipe, SamplingWarning
from dense_imb.tasks.stages import in_second_stage

_TIMEOUT = timedelta(minutes=10)  # until a process gives up waiting for the others
_LONGEST = 200  # characters of torch's message about weights that do not fit
_STAGES = ("stage 1 of 2", "stage 2 of 2")
DEVICES = ("auto", "cpu")


class OtherWeightsError(Refused, CheckpointError):
    """Weights of another network than that of the run."""


@dataclass(frozen=True)
class _How:
    """Options of running a training, beside its configuration."""

    resume: bool
    device: str
    is_quiet: bool
    callbacks: Sequence[Callback]


def train(
    config: TrainConfig | Recipe,
    folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    warm_start: str | os.PathLike[str] | None = None,
    device: str = "auto",
    is_quiet: bool = False,
    allow_overlap: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train a network, and keep everything about the run in a folder.

    Args:
        config: configuration of the run, or its recipe. The first of two stages is a run of its
            own, in `folder`/first.
        folder: new or empty folder; one with a run is refused unless `resume` is set.
        resume: continue the run in the folder; start afresh in an empty folder.
        warm_start: folder of a run; training begins with its weights.
        device: "auto" for a GPU if there is one, or "cpu".
        is_quiet: show no progress bar and no table.
        allow_overlap: do not warn of validation samples that are trained on, too.
        callbacks: further callbacks of every stage, for example `dense_imb.report.LivePage`;
            they run last.

    Example:
        >>> import tempfile
        >>> from dense_imb import HitsConfig, ModelConfig, TrainConfig, train
        >>> from dense_imb.hits import Geometry, HitsWriter, simulate
        >>> folder, rings = tempfile.mkdtemp(), simulate("ring", 8, 1, Geometry(24, 24, 50))
        >>> with HitsWriter(folder + "/rings.h5", rings.geometry) as writer:
        ...     writer.append(rings)
        >>> hits = HitsConfig(folder + "/rings.h5", signal=20, noise=50, validation_share=0.5)
        >>> tiny = ModelConfig("hits", {"width": 8, "depth": 1, "heads": 1})
        >>> config = TrainConfig(hits, model=tiny, steps=2, validate_every=2)
        >>> run = train(config, folder + "/run", is_quiet=True)
        >>> run.metrics["is_finished"], run.history[0]["step"]
        (True, 2.0)
    """
    recipe = config if isinstance(config, Recipe) else Recipe.of(config)
    how = _How(resume, device, is_quiet, callbacks)
    folder = Path(folder)
    if resume:
        recipe = with_stored_loss(recipe, folder)
    check_folder(folder, recipe, resume=resume)
    recipe, _ = recipe.resolved()
    second = recipe.second
    own = folder if second is None else folder / FIRST
    if warm_start is None and not (has_checkpoint(folder) or has_checkpoint(own)):
        _check_parts(recipe.config)
    accelerator = _accelerator(recipe.config, own, device)
    is_done = [second is not None and _is_first_done(folder)]
    broadcast_object_list(is_done)  # one process may see what another one has just written
    task = None
    if not is_done[0]:
        has_weights = warm_start is not None or has_checkpoint(own)
        task = (recipe.without_download() if has_weights else recipe).build_task()
        if warm_start is not None:
            _warm_start(task, open_run(warm_start), recipe.config)
        if second is not None:  # refused before the first stage is trained
            _build_second(second)
    with locked(folder, accelerator, lambda: check_folder(folder, recipe, resume=resume)):
        begun = [one for one in {folder, own} if not (one / "config.yaml").exists()]
        if accelerator.is_main_process:
            write_config(folder, recipe.whole_config)
        if task is not None:
            with (
                nullcontext() if second is None else locked(own, accelerator),
                _forgotten_if_refused(begun if accelerator.is_main_process else []),
            ):
                if accelerator.is_main_process:
                    samples = recipe.kind.samples
                    write_hashes(folder, task, samples, allow_overlap=allow_overlap)
                stage = "" if second is None else _STAGES[0]
                _fit(recipe.config, own, task, accelerator, how, stage)
        if second is not None:
            with warnings.catch_warnings():
                if task is not None:
                    warnings.simplefilter("ignore", SamplingWarning)  # shown before
                del task
                task = _build_second(second)
            accelerator = _accelerator(second.config, folder, device)
            before = _begin_second(folder, task, second.config)
            _fit(second.config, folder, task, accelerator, how, _STAGES[1], before)
        if dist.is_initialized():
            wait_for_all(accelerator.device)
            accelerator.end_training()
    return Run(folder)


@contextmanager
def _forgotten_if_refused(begun: Sequence[Path]) -> Iterator[None]:
    """Remove the configuration of a run that fails before it writes anything else.

    The corrected command may then use the same folder.

    Args:
        begun: folders whose configuration is new.
    """
    try:
        yield
    except Exception:
        names = ("config.yaml", "environment.json", HASHES, LIVE)
        if not any(has_files(folder, except_for=names) for folder in begun):
            for folder in begun:
                for name in names:
                    (folder / name).unlink(missing_ok=True)
        raise


def _fit(
    config: TrainConfig,
    folder: Path,
    task: Any,
    accelerator: Accelerator,
    how: _How,
    stage: str,
    first: Mapping[str, Any] | None = None,
) -> None:
    """Train one stage to its end.

    Args:
        config: configuration of the stage.
        folder: folder of the stage.
        task: task of the stage.
        accelerator: devices, precision and processes.
        how: whether to resume, and to show progress.
        stage: one of `_STAGES`, or "" for a run in one stage.
        first: content of `metrics.json` of the stage before.
    """
    callbacks: list[Callback] = [
        LossParts(),  # must run before another callback calls the loss
        GradientShares(),
        CollapseAlarm(config.collapse),
        ProgressBar(how.is_quiet or not has_bars(), stage or "train"),
        RunFiles(folder, config, task, first),
        ScoreLines(kind_of(config).watched, is_quiet=how.is_quiet, name=stage or "train"),
    ]
    if config.patience is not None:
        callbacks.insert(3, EarlyStopping(config.patience))
    if config.trackers:
        callbacks.append(Trackers())
    callbacks += how.callbacks
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
        loop.run(resume=how.resume)
    except Interrupted as stopped:
        raise Interrupted(stopped.number, stopped.step, stage) from None
    write_natural(config, folder, task, loop)
    write_read_out(folder, task, loop)
    if stage == _STAGES[0] and loop.late_signal:
        raise Interrupted(loop.late_signal, loop.state.step, stage)


def _accelerator(config: TrainConfig, folder: Path, device: str) -> Accelerator:
    # an earlier run of this process may have had another precision, or another device
    AcceleratorState._reset_state(reset_partial_state=not dist.is_initialized())
    on_cpu = device == "cpu" or not torch.accelerator.is_available()
    return Accelerator(
        cpu=on_cpu,  # or Accelerate overlooks processes on CPUs
        mixed_precision=_precision(config.precision, folder, on_cpu=on_cpu),
        log_with=_trackers(config.trackers) or None,
        project_dir=folder,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_TIMEOUT)],
    )


def _is_first_done(folder: Path) -> bool:
    """Tell whether the first stage of the run in a folder is finished."""
    if has_checkpoint(folder):
        return True
    own = folder / FIRST
    if not (own / "config.yaml").exists() or not (own / "last.safetensors").exists():
        return False
    return bool(open_run(own).metrics.get("is_finished"))


def _build_second(recipe: Recipe) -> Any:
    try:
        return recipe.without_download().build_task()  # it begins with weights of the first
    except (ValueError, TypeError) as problem:
        raise in_second_stage(problem) from problem


def _begin_second(folder: Path, task: Any, config: TrainConfig) -> Mapping[str, Any] | None:
    """Load the first stage's best network into the second stage; return the first's metrics."""
    if has_checkpoint(folder):
        return None  # it holds them
    run = open_run(folder / FIRST)
    metrics = run.metrics
    if str(metrics.get("stopped")).startswith(COLLAPSED):
        raise ValueError(
            f"Expected a finished first stage in {run.folder}, got one that was stopped "
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


def _precision(wanted: str, folder: Path, *, on_cpu: bool) -> str:
    if wanted != AUTO:
        return wanted
    with warnings.catch_warnings(action="ignore"):  # the loop warns of damaged checkpoints
        begun = newest_checkpoint(folder / CHECKPOINTS)
    if begun is not None:  # a run keeps its precision on another device
        return str(begun["setup"]["precision"])
    if torch.cuda.is_available() and not on_cpu:
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    has: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "no"


def _optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of the trained parameters; the others are frozen."""
    wanted = config.optimizer
    assert wanted.learning_rate is not None  # both are filled in
    assert wanted.weight_decay is not None
    if wanted.parts == "head":
        network.requires_grad_(False)
        head_of(network).requires_grad_(True)
    return build_optimizer(
        wanted.name,
        network,
        learning_rate=wanted.learning_rate,
        weight_decay=wanted.weight_decay,
    )


def _check_parts(config: TrainConfig) -> None:
    """Refuse to train a head on features with random weights."""
    options = config.model.options
    is_trained = options.get("pretrained") or options.get("encoder_weights")
    if config.optimizer.parts == "head" and not is_trained:
        raise Refused(
            "a run to begin with, for {optimizer.parts=head}",
            "none: all layers but the head would stay random",
            "add {warm_start=RUN}",
        )


def _warm_start(task: Any, other: Run, config: TrainConfig) -> None:
    content = other.checkpoint("best")
    try:
        task.network.load_state_dict(content["network"])
    except RuntimeError as problem:
        theirs, ours = ({"model": asdict(one.model)} for one in (other.config, config))
        if differences := config_differences(theirs, ours):
            reason = "; ".join(f"{n}: {there} there, {here} here" for n, there, here in differences)
            options = [f"{{{name}}} {_quoted(there)}" for name, there, _ in differences]
            cure = f"train with the model of that run ({', '.join(options)})"
        else:
            reason = shorten(
                str(problem).splitlines()[-1].strip().rstrip("."), _LONGEST, placeholder=" ..."
            )
            cure = "the models are the same, so train on data of that run's channels and classes"
        name = f"{other.config.model.name} ({content['setup'].get('network')})"
        raise OtherWeightsError(
            f"the network of {other.folder} to be this one, {task.describe()['network']}",
            f"the weights of {name}: {reason}",
            cure,
        ) from problem


def _quoted(value: Any) -> str:
    """Return a value of a configuration as one would type it.

    Example:
        >>> print(_quoted({"widths": [4, 8]}), _quoted("resnet32"), _quoted(None))
        '{"widths": [4, 8]}' resnet32 null
    """
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))
