"""The training loop: steps, validations, checkpoints; independent of tasks, losses and networks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.base.random import epoch_order
from dense_imb.engine.checkpoint import (
    OtherSetupError,
    load_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from dense_imb.engine.loss_errors import check_cost, named_loss_errors
from dense_imb.engine.processes import wait_for_all
from dense_imb.engine.schedule import rate_factor, step_seed
from dense_imb.engine.signals import Interrupted, noted_signals
from dense_imb.engine.task import CLASS_NAMES, OrderedTask, Task, TaughtTask

_CHECK_EVERY = 16  # steps on an accelerator between two checks of the losses, each of which waits


class TrainingError(ValueError):
    """Training cannot continue; the message says why and which checkpoints are kept.

    Example:
        >>> from dense_imb.engine import TrainingError
        >>> issubclass(TrainingError, ValueError)  # "Expected a finite loss, got nan in step 8 ..."
        True
    """


@dataclass(frozen=True)
class LoopSettings:
    """Settings of a loop.

    Args:
        steps: number of optimizer steps.
        batch_size: samples of a step, over all processes together.
        seed: random seed of the order of samples and of the network, for example dropout.
        schedule: "one-cycle", "cosine" or "constant", see `rate_factor`.
        clip: largest norm of the gradient; inf does not clip.
        validate_every: steps between two validations; the last step is validated, too.
        save_every: seconds between two checkpoints; each validation saves one, too.

    Example:
        >>> from dense_imb.engine import LoopSettings
        >>> settings = LoopSettings(steps=2000, batch_size=16, validate_every=200)
        >>> settings.schedule, settings.clip
        ('one-cycle', 1.0)
    """

    steps: int
    batch_size: int
    seed: int = 0
    schedule: str = "one-cycle"
    clip: float = 1.0
    validate_every: int = 500
    save_every: float = 60.0


@dataclass
class State:
    """State of a run, stored in checkpoints.

    Example:
        >>> from dense_imb.engine import State
        >>> state = State(step=40, best=0.75, best_step=20)
        >>> State(**state.as_dict()) == state
        True
    """

    step: int = 0  # steps done
    rate_scale: float = 1.0  # of the learning rate, lowered by a roll-back
    best: float = -math.inf
    best_step: int = -1
    cost_sums: list[float] = field(default_factory=list)  # since the last validation, by process
    cost_count: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # a row for each validation
    memory: dict[str, Any] = field(default_factory=dict)  # state of callbacks, by name
    stop: str | None = None  # reason of a callback to stop before the last step
    roll_back: bool = False  # request of a callback, executed after the validation

    def as_dict(self) -> dict[str, Any]:
        """Return the content of a checkpoint."""
        return {name: value for name, value in self.__dict__.items() if name != "roll_back"}


class Callback:
    """Base class of callbacks.

    Every process runs the same callbacks, and they must take the same decisions.

    Example:
        >>> from types import SimpleNamespace
        >>> from dense_imb.engine import Callback, State
        >>> class StopWhenGood(Callback):
        ...     def on_validation(self, loop, scores):
        ...         if scores["auc"] > 0.99:
        ...             loop.state.stop = "good enough"
        >>> loop = SimpleNamespace(state=State())
        >>> StopWhenGood().on_validation(loop, {"auc": 0.995})
        >>> loop.state.stop
        'good enough'
    """

    def on_start(self, loop: Loop) -> None:
        """Run before the first step, after a resume."""

    def on_step(self, loop: Loop) -> None:
        """Run after each step; the loss in `loop.cost` may still be computed on the device."""

    def on_validation(self, loop: Loop, scores: dict[str, float]) -> None:
        """Run after each validation; may add to the scores, and set `loop.state.stop`."""

    def on_best(self, loop: Loop) -> None:
        """Run in the main process, when the network just validated is the best so far."""

    def on_saved(self, loop: Loop) -> None:
        """Run in the main process, after a checkpoint was written."""

    def on_end(self, loop: Loop) -> None:
        """Run after the last step, but not after an error."""

    def on_close(self, loop: Loop) -> None:
        """Run at the very end, after an error too."""


class Loop:
    """One run of a task.

    Args:
        task: task to train.
        optimizer: optimizer of the task's network.
        settings: numbers of steps and intervals.
        folder: folder of the checkpoints; None keeps none.
        accelerator: devices, precision and processes.
        callbacks: callbacks, called in this order.
        compile_network: whether to compile the network by torch.compile.

    Example:
        >>> import numpy as np, torch
        >>> from dense_imb.data.labels.classified import ArrayImages, ClassifiedImages
        >>> from dense_imb.engine import Loop, LoopSettings
        >>> from dense_imb.tasks import LabelsReading, LabelsTask, TrainingData
        >>> pixels = np.zeros((8, 3, 8, 8), np.uint8)
        >>> images = ClassifiedImages(ArrayImages(pixels), [0] * 6 + [1] * 2, ["sound", "cracked"])
        >>> reading = LabelsReading(("sound", "cracked"), (6, 2), (0.0,) * 3, (1.0,) * 3, (8, 8))
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
        >>> data = TrainingData(images, images, class_counts=(6, 2))
        >>> task = LabelsTask(network, torch.nn.CrossEntropyLoss(), data, reading)
        >>> optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        >>> state = Loop(task, optimizer, LoopSettings(steps=4, batch_size=4)).run()
        >>> state.step, state.history[-1]["balanced_accuracy"]
        (4, 0.5)
    """

    def __init__(
        self,
        task: Task,
        optimizer: torch.optim.Optimizer,
        settings: LoopSettings,
        folder: Path | None = None,
        *,
        accelerator: Accelerator | None = None,
        callbacks: Sequence[Callback] = (),
        compile_network: bool = False,
    ) -> None:
        self.task, self.settings, self.folder = task, settings, folder
        self.accelerator = accelerator or Accelerator(cpu=not torch.accelerator.is_available())
        self.callbacks = callbacks
        if settings.batch_size < self.accelerator.num_processes:
            raise ValueError(
                f"Expected `batch_size` of at least {self.accelerator.num_processes}, one sample "
                f"for each process, got {settings.batch_size}."
            )
        self.state = State(cost_sums=[0.0] * self.accelerator.num_processes)
        self.cost: Tensor | None = None
        # received after the last step; stops the command before the next stage
        self.late_signal = 0
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._n_weights = sum(weight.numel() for weight in task.network.parameters())
        self._n_moved = sum(w.numel() for group in optimizer.param_groups for w in group["params"])
        task.loss.to(self.accelerator.device)
        if isinstance(task, TaughtTask):
            task.teacher.to(self.accelerator.device)
        self._frozen = _frozen(task.network)
        self._scheduled: list[Any] = [
            module for module in task.loss.modules() if hasattr(module, "set_progress")
        ]
        prepared = self.accelerator.prepare(task.network, optimizer)
        self.network: nn.Module = prepared[0]
        self.optimizer: Any = prepared[1]
        self._called: Any = torch.compile(self.network) if compile_network else self.network
        self._unchecked: list[tuple[int, Tensor]] = []
        self._saved_at = time.monotonic()
        self._setup: dict[str, str] | None = None
        self._order: tuple[int, NDArray[np.int64]] | None = None  # of an epoch

    @property
    def process(self) -> int:
        """Rank of this process."""
        return int(self.accelerator.process_index)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return bool(self.accelerator.is_main_process)

    @property
    def rate(self) -> float:
        """Learning rate of the first group of parameters."""
        return float(self.optimizer.param_groups[0]["lr"])

    def run(self, *, resume: bool = False) -> State:
        """Train to the last step.

        Args:
            resume: continue from the newest undamaged checkpoint; start afresh without one.
        """
        if resume and self.folder is not None:
            self._restore(newest_checkpoint(self.folder))
        try:
            for callback in self.callbacks:
                callback.on_start(self)
            with (
                _repeatable_kernels(),
                named_loss_errors(self.task.loss, self.state),
                noted_signals() as received,
                self._batches(self.state.step) as batches,
            ):
                while self.state.step < self.settings.steps and self.state.stop is None:
                    self._one_step(next(batches))
                    for callback in self.callbacks:
                        callback.on_step(self)
                    self._after_step(received)
                self.late_signal, _ = self._agreed(received, False)
            for callback in self.callbacks:
                callback.on_end(self)
        finally:
            for callback in self.callbacks:
                callback.on_close(self)
        return self.state

    def _after_step(self, received: list[int]) -> None:
        """Validate, save or stop, alike on every process."""
        is_last = self.state.step == self.settings.steps
        is_due = time.monotonic() - self._saved_at > self.settings.save_every
        number, is_due = self._agreed(received, is_due)
        if is_last or self.state.step % self.settings.validate_every == 0:
            self._validate()
            is_last = is_last or self.state.stop is not None
        elif is_due or number:
            self.save()
        if number and not is_last:
            wait_for_all(self.accelerator.device)  # the main process has written the checkpoint
            raise Interrupted(number, self.state.step)

    def _one_step(self, batch: Any) -> None:
        settings, state = self.settings, self.state
        torch.manual_seed(step_seed(settings.seed, state.step, self.process))
        factor = rate_factor(settings.schedule, state.step / settings.steps) * state.rate_scale
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self.network.train()
        for module in self._frozen:
            module.eval()
        for scheduled in self._scheduled:
            scheduled.set_progress(state.step / settings.steps)
        self._share(self.task.loss)  # as DDP does with the network's
        with self.accelerator.autocast():
            cost = self.task.cost(self._called, batch)
        check_cost(cost, self.task.loss)
        self.accelerator.backward(cost)
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), settings.clip)
        self.cost = cost.detach()
        self._check(self.cost, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        if isinstance(self.task, TaughtTask):
            bare = self.accelerator.unwrap_model(self.network)
            self._share(bare)  # as the next forward pass would
            self.task.follow(bare, state.step)

    def _check(self, cost: Tensor, norm: Any) -> None:
        """Stop if loss or gradient is not finite; an accelerator is checked every few steps."""
        is_last = self.state.step + 1 == self.settings.steps
        self._unchecked.append((self.state.step, torch.stack([cost.float(), norm.float()])))
        is_cpu = cost.device.type == "cpu"
        if is_cpu or is_last or len(self._unchecked) >= _CHECK_EVERY:
            self._look()

    def _look(self) -> None:
        if not self._unchecked:
            return
        values = torch.stack([value for _, value in self._unchecked]).cpu()
        for (step, _), (cost, norm) in zip(self._unchecked, values.tolist(), strict=True):
            if not (math.isfinite(cost) and math.isfinite(norm)):
                what, got = ("loss", cost) if not math.isfinite(cost) else ("gradient", norm)
                listed = ", ".join(str(int(i)) for i in self.samples_of(step)[:8])
                raise TrainingError(
                    f"Expected a finite {what}, got {got} in step {step + 1} (samples {listed}, "
                    "...); earlier checkpoints are kept. Lower the learning rate, or inspect "
                    "these samples."
                )
            self.state.cost_sums[self.process] += cost
            self.state.cost_count += 1
        self._unchecked.clear()

    def samples_of(self, step: int) -> NDArray[np.int64]:
        """Return the samples of a step in this process; they depend on seed and step alone."""
        size = min(self.settings.batch_size, self.task.n_samples)
        epoch, place = divmod(step, self.task.n_samples // size)
        order = self._order  # another thread may be in another epoch
        if order is None or order[0] != epoch:
            order = self._order = epoch, self._order_of(epoch)
        samples = order[1][place * size : (place + 1) * size]
        return samples[self.process :: self.accelerator.num_processes]

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        """Return the samples of an epoch: in the order of the task, or else each once."""
        n_samples, seed = self.task.n_samples, self.settings.seed
        if not isinstance(self.task, OrderedTask):
            return epoch_order(n_samples, seed, epoch)
        order = self.task.order(seed, epoch)
        assert len(order) == n_samples
        return order

    def epoch_of(self, step: int) -> int:
        """Return the epoch of a step."""
        return step // (self.task.n_samples // min(self.settings.batch_size, self.task.n_samples))

    @property
    def _makes_ahead(self) -> bool:
        return bool(self.accelerator.device.type != "cpu")

    @contextmanager
    def _batches(self, first: int) -> Iterator[Iterator[Any]]:
        """Yield the batches from a step on, prefetched if the network runs on an accelerator."""
        device = self.accelerator.device

        def make(step: int) -> Any:
            return self.task.batch(self.samples_of(step), self.epoch_of(step), device)

        if not self._makes_ahead:
            yield (make(step) for step in range(first, self.settings.steps))
            return
        is_taught = isinstance(self.task, TaughtTask)
        with ThreadPoolExecutor(1, "batch") as maker:

            def ahead() -> Iterator[Any]:
                coming: Future[Any] = maker.submit(make, first)
                for step in range(first + 1, self.settings.steps + 1):
                    ready = coming.result()
                    waits = is_taught and step % self.settings.validate_every == 0
                    if step < self.settings.steps and not waits:
                        coming = maker.submit(make, step)
                    yield ready
                    if step < self.settings.steps and waits:  # it changes the teacher
                        coming = maker.submit(make, step)

            yield ahead()

    def _validate(self) -> None:
        state = self.state
        self._look()
        bare = self.accelerator.unwrap_model(self.network)
        bare.eval()
        self._share(bare)  # buffers differ: each process had other samples in the last step
        with torch.no_grad():  # in full precision, as thresholds are applied later
            scores = self.task.validate(
                bare, self.accelerator.device, self.process, self.accelerator.num_processes
            )
        mean = state.cost_sums[self.process] / max(state.cost_count, 1)
        row = {
            "step": float(state.step),
            "epoch": float(self.epoch_of(state.step - 1)),
            "learning_rate": self.rate,
            "loss": self._mean_over_processes(mean),
        }
        state.cost_sums, state.cost_count = [0.0] * self.accelerator.num_processes, 0
        for callback in self.callbacks:
            callback.on_validation(self, scores)
        state.history.append({**row, **scores})
        score = scores[self.task.monitor]
        if score > state.best:
            state.best, state.best_step = score, state.step
            self._save_best()
            if self.is_main:
                for callback in self.callbacks:
                    callback.on_best(self)
        if state.roll_back:
            self._roll_back()
        if isinstance(self.task, TaughtTask):
            with torch.no_grad():
                self.task.refresh(
                    self.accelerator.device, self.process, self.accelerator.num_processes
                )
        self.save()

    def _mean_over_processes(self, value: float) -> float:
        if not self._is_shared:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.accelerator.device)
        dist.all_reduce(total)
        return float(total) / dist.get_world_size()

    def _agreed(self, received: list[int], is_due: bool) -> tuple[int, bool]:
        """Return a signal that any process received, else 0, and whether any wants to save.

        Signals and clocks reach each process at another step.
        """
        number = received[0] if received else 0
        if self._is_shared:
            largest = torch.tensor([number, int(is_due)], device=self.accelerator.device)
            dist.all_reduce(largest, op=dist.ReduceOp.MAX)
            number, is_due = int(largest[0]), bool(largest[1])
        return number, is_due

    @property
    def _is_shared(self) -> bool:
        return dist.is_available() and dist.is_initialized()

    def _share(self, module: nn.Module) -> None:
        """Copy the buffers of the first process to all."""
        if self._is_shared:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    # checkpoints

    def setup(self) -> dict[str, str]:
        """Return the setup that a checkpoint must have, for a resume to be exact.

        It is computed once: a task reads all of its files for it.
        """
        if self._setup is not None:
            return self._setup
        settings = self.settings
        self._setup = {
            "processes": str(self.accelerator.num_processes),
            "precision": str(self.accelerator.mixed_precision),
            "batch_size": str(settings.batch_size),
            "steps": str(settings.steps),
            "seed": str(settings.seed),
            "schedule": settings.schedule,
            "clip": str(settings.clip),
            "samples": str(self.task.n_samples),
            "optimizer": f"{type(self.optimizer.optimizer).__name__} {self._rates}",
            **self._parts(),
            **self.task.describe(),
        }
        return self._setup

    def _parts(self) -> dict[str, str]:
        if self._n_moved == self._n_weights:
            return {}  # as in checkpoints of older versions
        return {"parts": f"{self._n_moved} of {self._n_weights} weights"}

    def snapshot(self) -> dict[str, Any]:
        """Return the content of a checkpoint."""
        self._look()
        if self._is_shared:
            sums: list[Any] = [None] * self.accelerator.num_processes
            dist.all_gather_object(sums, self.state.cost_sums[self.process])
            self.state.cost_sums = sums
        return {
            "setup": self.setup(),
            "state": self.state.as_dict(),
            "network": self.accelerator.unwrap_model(self.network).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loss": self.task.loss.state_dict(),
            **(
                {"teacher": self.task.teacher.state_dict()}
                if isinstance(self.task, TaughtTask)
                else {}
            ),
        }

    def save(self) -> None:
        """Write a checkpoint, and remove old ones."""
        self._saved_at = time.monotonic()
        content = self.snapshot()
        if self.folder is not None and self.is_main:
            save_checkpoint(self.folder / f"step-{self.state.step:08d}.pt", content)
            prune_checkpoints(self.folder)
            for callback in self.callbacks:
                callback.on_saved(self)

    def _save_best(self) -> None:
        content = self.snapshot()
        if self.folder is not None and self.is_main:
            save_checkpoint(self.best_path(), content)

    def best_path(self) -> Path:
        """Return the checkpoint of the best network so far."""
        assert self.folder is not None
        return self.folder / f"best-{self.state.best_step:08d}.pt"

    def _restore(self, content: dict[str, Any] | None) -> None:
        if content is None:
            return
        mine, theirs = self.setup(), content["setup"]
        # classes may be renamed: no number depends on it
        bound = [name for name in mine | theirs if name != CLASS_NAMES]
        differ = [name for name in bound if mine.get(name) != theirs.get(name)]
        if differ:
            pairs = "; ".join(f"{n}: {theirs.get(n)} there, {mine.get(n)} here" for n in differ)
            raise OtherSetupError(
                "the setup of the checkpoint",
                f"another ({pairs})",
                "train in a new folder, with {warm_start=RUN} to begin from these weights",
            )
        self._load(content)
        self.state = State(**content["state"])

    def _load(self, content: dict[str, Any]) -> None:
        self.accelerator.unwrap_model(self.network).load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.task.loss.load_state_dict(content["loss"])
        if isinstance(self.task, TaughtTask):
            self.task.teacher.load_state_dict(content["teacher"])

    def _roll_back(self) -> None:
        """Restore the best network and its optimizer, and halve the learning rate."""
        self.state.roll_back = False
        if self.folder is None:
            raise ValueError(
                "Expected a folder with the best checkpoint to roll back to, got none."
            )
        wait_for_all(self.accelerator.device)
        self._load(load_checkpoint(self.best_path()))
        self.state.rate_scale /= 2


@contextmanager
def _repeatable_kernels() -> Iterator[None]:
    """Take cuDNN's kernels that add in one order, or a resumed run would have other bits."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def _frozen(network: nn.Module) -> list[nn.Module]:
    """Return the largest frozen parts of a network.

    Their batch norms must keep their statistics, too.
    """
    weights = list(network.parameters())
    if weights and not any(weight.requires_grad for weight in weights):
        return [network]
    return [one for child in network.children() for one in _frozen(child)]
