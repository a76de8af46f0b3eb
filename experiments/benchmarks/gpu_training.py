"""Sections of gpu.py about networks: steps, events a second, runs on two devices, limits."""

from __future__ import annotations

import hashlib
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from gpu_losses import copy_rate, traffic
from gpu_tables import Setting, Table, one_line
from hit_speed import TASKS, network_and_hits
from torch.utils.flop_counter import FlopCounterMode

from dense_imb.data.events.simulated import write_simulated
from dense_imb.engine import Callback, Interrupted, Loop, LoopSettings
from dense_imb.hits import Degradation, open_hits
from dense_imb.runs import (
    HitsConfig,
    ImagesConfig,
    ModelConfig,
    OptimizerConfig,
    Recipe,
    Run,
    TrainConfig,
    ValuesConfig,
    denoise,
    train,
)

SIGNAL, NOISE = 30, 200


# --- data ---------------------------------------------------------------------------------------


def write_data(setting: Setting) -> Path:
    """Write simulated hits, and images of bright lines with masks and maps of values."""
    folder = setting.folder / "data"
    if (folder / "done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    n_clean, n_raw = (64, 64) if setting.is_small else (4000, 8192)
    write_simulated(
        folder / "clean.h5", n_clean, pattern="arc", seed=0, progress=False, overwrite=True
    )
    noisy = Degradation(signal=SIGNAL, noise=NOISE)
    write_simulated(
        folder / "raw.h5", n_raw, pattern="arc", seed=1, degradation=noisy, progress=False,
        overwrite=True,
    )  # fmt: skip
    _write_images(folder, *((6, 32) if setting.is_small else (40, 384)))
    (folder / "done").touch()
    return folder


def _write_images(folder: Path, n_images: int, side: int) -> None:
    rng = np.random.default_rng(0)
    for name in ("images", "masks", "maps"):
        (folder / name).mkdir(exist_ok=True)
    for i in range(n_images):
        image, mask = rng.normal(90, 12, (side, side)), np.zeros((side, side), np.uint8)
        for k in (1, 2):
            row, column = rng.integers(0, side // 2, 2)
            length = rng.integers(side // 4, side // 2)
            steps = np.arange(length)
            mask[row + steps // 2, column + steps] = k
            image[row + steps // 2, column + steps] += 30 * k
        np.save(folder / "images" / f"{i}.npy", image.clip(0, 255).astype(np.uint8))
        np.save(folder / "masks" / f"{i}.npy", mask)
        np.save(folder / "maps" / f"{i}.npy", 0.5 * mask.astype(np.float32))


def configs(data: Path, *, is_small: bool) -> dict[str, TrainConfig]:
    """Return the configuration of each kind of run that is timed."""
    hits = HitsConfig(
        train=str(data / "clean.h5"), signal=SIGNAL, noise=NOISE,
        validation_events=8 if is_small else 400,
    )  # fmt: skip
    patch = [16, 16] if is_small else [128, 128]
    folder = str(data / "images")
    images = ImagesConfig(train=folder, masks=str(data / "masks"), patch=patch)
    values = ValuesConfig(train=folder, targets=str(data / "maps"), patch=patch)
    unet = ModelConfig("fast_unet", {"widths": [4, 8]} if is_small else {})
    rate = OptimizerConfig(learning_rate=1e-2)
    named = {
        "hits:tiny": TrainConfig(hits=hits, model=ModelConfig("hits:tiny")),
        "hits": TrainConfig(hits=hits, model=ModelConfig("hits")),
        "hits:base": TrainConfig(hits=hits, model=ModelConfig("hits:base")),
        "hits, fast_unet": TrainConfig(hits=hits, model=unet, optimizer=rate),
        "images, fast_unet": TrainConfig(images=images, model=unet),
        "values, fast_unet": TrainConfig(values=values, model=unet, loss="ACBMSELoss"),
    }
    if is_small:
        return {
            name: named[name] for name in ("hits:tiny", "images, fast_unet", "values, fast_unet")
        }
    return named


# --- steps --------------------------------------------------------------------------------------


WATCHED = range(3, 6)  # steps whose waits are counted, before the timed ones


class _Clock(Callback):
    """Notes the moment of each step; waits for the device every few steps only."""

    def __init__(self, setting: Setting, every: int) -> None:
        self.setting, self.every = setting, every
        self.moments: list[float] = []
        self.scores: dict[str, float] = {}

    def on_step(self, loop: Loop) -> None:
        if self.setting.is_cuda and loop.state.step in (WATCHED.start, WATCHED.stop):
            is_watched = loop.state.step == WATCHED.start
            torch.cuda.set_sync_debug_mode("warn" if is_watched else "default")
        if loop.state.step % self.every == 0:
            self.setting.wait()
            self.moments.append(time.perf_counter())

    def on_validation(self, loop: Loop, scores: dict[str, float]) -> None:
        self.scores = {loop.task.monitor: scores[loop.task.monitor]}

    @property
    def seconds(self) -> float:
        """Seconds of a step: the median over groups, without the first."""
        pairs = zip(self.moments[1:], self.moments[2:], strict=False)
        return statistics.median(after - before for before, after in pairs) / self.every


def training(setting: Setting) -> list[Table]:
    """Seconds a step and memory of each kind of run, in float32, bf16, compiled, and on the CPU."""
    data = write_data(setting)
    steps = 12 if setting.is_small else 120
    table = Table(
        "Training steps of 16 samples",
        (
            "run",
            "device",
            "precision",
            "ms a step",
            "waits a step",
            "peak MB",
            "score after the steps",
        ),
        remarks=[
            f"{steps} steps (CPU: a tenth), the median over groups; batches are made ahead.",
            "waits: calls that make the host wait for the GPU, a few to make the batch.",
        ],
    )
    for name, config in configs(data, is_small=setting.is_small).items():
        ways = [(setting.device, "no", False), (setting.device, "bf16", False)]
        if name == "images, fast_unet":
            ways.append((setting.device, "bf16", True))
        if setting.is_cuda and name != "hits:base":
            ways.append(("cpu", "no", False))
        for device, number_format, is_compiled in ways:
            wanted = replace(config, precision=number_format, compile=is_compiled)
            label = f"{number_format}, compiled" if is_compiled else number_format
            try:
                row = _timed_steps(wanted, setting, device, steps, table.remarks)
            except Exception as problem:
                row = (None, None, None, one_line(problem))
            table.add(name, device, label.replace("no", "float32"), *row)
    return [table]


def _timed_steps(
    config: TrainConfig, setting: Setting, device: str, steps: int, remarks: list[str]
) -> tuple[float, float | None, float | None, str]:
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.manual_seed(0)
    recipe, _ = Recipe.of(replace(config, steps=steps)).resolved()
    task = recipe.build_task()
    on_device = device == "cuda"
    steps = steps if on_device or not setting.is_cuda else max(steps // 10, 9)
    rate = config.optimizer.learning_rate or 1e-3
    optimizer = torch.optim.AdamW(task.network.parameters(), rate)
    clock = _Clock(setting, every=3 if steps < 50 else 10)
    loop = Loop(
        task,
        optimizer,
        LoopSettings(steps=steps, batch_size=config.batch_size, validate_every=steps),
        accelerator=Accelerator(cpu=not on_device, mixed_precision=config.precision),
        callbacks=[clock],
        compile_network=config.compile,
    )
    if on_device:
        torch.cuda.reset_peak_memory_stats()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.run()
    waits = [f"{Path(one.filename).name}:{one.lineno}" for one in caught if _is_wait(one)]
    if waits:
        counted = ", ".join(f"{place} {n}" for place, n in Counter(waits).most_common(12))
        remarks.append(f"waits in {len(WATCHED)} steps of {config.model.name}: {counted}")
    peak = torch.cuda.max_memory_allocated() / 1e6 if on_device else None
    (score,) = clock.scores.items()
    n_waits = len(waits) / len(WATCHED) if on_device else None
    return 1000 * clock.seconds, n_waits, peak, f"{score[0]} {score[1]:.3g}"


def _is_wait(caught: warnings.WarningMessage) -> bool:
    return "synchronizing CUDA operation" in str(caught.message)


# --- events a second ----------------------------------------------------------------------------


def events(setting: Setting) -> list[Table]:
    """Events a second of networks of hits, and of `denoise` from file to file."""
    return [_networks(setting), _denoised(setting)]


def _networks(setting: Setting) -> Table:
    rate = copy_rate(setting)
    table = Table(
        "Networks of hits, random weights, without gradient",
        ("network", "events", "precision", "device", "events/s", "GFLOP/event", "TFLOP/s",
         "MB/event", "share of the copy's rate"),
        remarks=[
            "MB/event: bytes that the operations read and write; the copy moves "
            f"{rate / 1e12:.2f} TB/s.",
        ],
    )  # fmt: skip
    for name, (size, n_hits, _, n_axes, n_features) in TASKS.items():
        n_events = 2 if setting.is_small else 256 if n_hits < 1000 else 16
        network, hits = network_and_hits(size, n_hits, n_events, n_axes, n_features)
        for device in dict.fromkeys([setting.device, "cpu"]):
            if device == "cpu" and setting.is_cuda and "base" in name:
                continue
            on_gpu = device == "cuda"
            network.to(device)
            moved = type(hits)(*(part.to(device) for part in hits))
            for number_format in ("float32", "bf16") if on_gpu else ("float32",):
                is_half = number_format == "bf16"
                with (
                    torch.inference_mode(),
                    torch.autocast(device, torch.bfloat16, enabled=is_half),
                ):
                    seconds = _seconds(lambda: network(moved), setting, device)  # noqa: B023
                with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=is_half):
                    n_bytes, n_operations = _counted(lambda: network(moved))  # noqa: B023
                table.add(
                    name, n_events, number_format, device, n_events / seconds,
                    n_operations / n_events / 1e9, n_operations / seconds / 1e12,
                    n_bytes / n_events / 1e6, n_bytes / seconds / rate if on_gpu else None,
                )  # fmt: skip
    return table


def _seconds(run: Callable[[], Any], setting: Setting, device: str) -> float:
    times = []
    for i in range(13 if device == "cuda" else 3):
        setting.wait()
        start = time.perf_counter()
        run()
        setting.wait()
        if i >= min(3, 1 if device == "cpu" else 3):
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def _counted(run: Callable[[], Any]) -> tuple[int, int]:
    with traffic() as moved:
        run()
    with FlopCounterMode(display=False) as operations:
        run()
    return moved.n_bytes, operations.get_total_flops()


def _denoised(setting: Setting) -> Table:
    data = write_data(setting)
    table = Table(
        "`denoise` of a file, hits:tiny and fast_unet, reading and writing included",
        ("network", "device", "events", "batch", "events/s", "ms of scoring an event"),
    )
    all_configs = configs(data, is_small=setting.is_small)
    for name in ("hits:tiny", "hits, fast_unet"):
        if name not in all_configs:
            continue
        run = _trained(
            all_configs[name], setting.folder / "denoise" / name.split()[-1], setting, 20
        )
        for device in dict.fromkeys([setting.device, "cpu"]):
            source = data / "raw.h5"
            if device == "cpu" and setting.is_cuda:
                source = _part(source, setting.folder / "part.h5", 1000)
            with open_hits(source, in_memory=False) as there:
                n_events = len(there)
            for batch_size in (256, 2048) if device == "cuda" else (256,):
                target = setting.folder / "out.h5"
                start = time.perf_counter()
                denoise(run, source, target, device=device, batch_size=batch_size, overwrite=True)
                seconds = time.perf_counter() - start
                scorer = run.trained(device=device)
                with open_hits(source, in_memory=False) as there:
                    part = there[: min(1024, n_events)]
                scorer.score(part)
                setting.wait()
                begun = time.perf_counter()
                scorer.score(part)
                setting.wait()
                scoring = (time.perf_counter() - begun) / len(part)
                table.add(name, device, n_events, batch_size, n_events / seconds, 1000 * scoring)
    return table


def _part(source: Path, target: Path, n: int) -> Path:
    from dense_imb.hits import HitsWriter

    with open_hits(source, in_memory=False) as there:
        part = there[: min(n, len(there))]
    with HitsWriter(target, part.geometry, overwrite=True) as writer:
        writer.append(part)
    return target


def _trained(
    config: TrainConfig,
    folder: Path,
    setting: Setting,
    steps: int,
    *,
    resume: bool = False,
    **changes: Any,
) -> Run:
    config = replace(config, **{"steps": steps, "validate_every": steps, **changes})
    device = "auto" if setting.is_cuda else "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few steps collapse, and say so
        return train(config, folder, resume=resume, device=device, is_quiet=True)


# --- runs on two devices ------------------------------------------------------------------------


def runs(setting: Setting) -> list[Table]:
    """Repeat a run, stop it and go on with it elsewhere, and open it where there is no GPU."""
    data = write_data(setting)
    table = Table("Runs", ("run", "question", "answer"))
    for name, config in configs(data, is_small=setting.is_small).items():
        if name not in ("hits:tiny", "images, fast_unet", "values, fast_unet"):
            continue
        folder = setting.folder / "runs" / name.split()[0].strip(",").replace(":", "_")
        for question, answer in (
            ("same seed twice: equal weights", _repeats),
            ("stop and resume on the same device: equal weights", _resumes),
            ("stopped, resumed on the CPU and back", _moves),
            ("auto precision, stopped on the device, resumed on the CPU", _moves_precision),
        ):
            try:
                text = answer(config, folder / answer.__name__.strip("_"), setting)
            except Exception as problem:
                text = one_line(problem, 300)
            table.add(name, question, text)
    return [table]


def _digest(run: Run) -> str:
    digest = hashlib.sha256()
    for _, value in sorted(run.weights("last").items()):
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _difference(one: Run, other: Run) -> str:
    if _digest(one) == _digest(other):
        return "yes, to the bit"
    first, second = one.weights("last"), other.weights("last")
    pairs = [(first[name].double(), second[name].double()) for name in first]
    error = sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5
    norm = sum(float(a.square().sum()) for a, _ in pairs) ** 0.5
    return f"no: relative difference {error / norm:.2g}, {_score(one)} and {_score(other)}"


def _score(run: Run) -> str:
    monitor = run.metrics["monitor"]
    return f"{monitor} {run.history[-1][monitor]:.4g}"


N_STEPS, EVERY = 30, {"validate_every": 10}


def _repeats(config: TrainConfig, folder: Path, setting: Setting) -> str:
    first, second = (_trained(config, folder / name, setting, N_STEPS) for name in "ab")
    answer = _difference(first, second)
    if answer.startswith("yes"):
        return answer
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        first, second = (_trained(config, folder / name, setting, N_STEPS) for name in "cd")
    finally:
        torch.use_deterministic_algorithms(False)
    return f"{answer}; under deterministic algorithms: {_difference(first, second)}"


def _stopped_after(step: int, folder: Path, go: Callable[[], Run]) -> str:
    """Train, and send SIGTERM to the process once the checkpoint of a step is there."""

    is_over = threading.Event()
    path = folder / "checkpoints" / f"step-{step:08d}.pt"

    def watch() -> None:
        while not is_over.wait(0.01):
            if path.exists():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one that comes too late
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        go()
    except Interrupted as stopped:
        return str(stopped)
    finally:
        is_over.set()
        watcher.join()
        signal.signal(signal.SIGTERM, before)
    raise RuntimeError("Expected the run to stop, got its end.")


def _resumes(config: TrainConfig, folder: Path, setting: Setting) -> str:
    whole = _trained(config, folder / "whole", setting, N_STEPS, **EVERY)

    def go() -> Run:
        return _trained(config, folder / "stopped", setting, N_STEPS, resume=True, **EVERY)

    _stopped_after(10, folder / "stopped", go)
    return _difference(whole, go())


def _moves(config: TrainConfig, folder: Path, setting: Setting) -> str:
    elsewhere = replace(setting, device="cpu")

    def go(where: Setting) -> Run:
        return _trained(config, folder / "moved", where, N_STEPS, resume=True, **EVERY)

    whole = _trained(config, folder / "whole", setting, N_STEPS, **EVERY)
    on_cpu = _trained(config, folder / "cpu", elsewhere, N_STEPS, **EVERY)
    _stopped_after(10, folder / "moved", lambda: go(setting))
    _stopped_after(20, folder / "moved", lambda: go(elsewhere))
    moved = go(setting)
    return (
        f"moved against {setting.device} alone: {_difference(whole, moved)}; "
        f"CPU alone against {setting.device} alone: {_difference(whole, on_cpu)}"
    )


def _moves_precision(config: TrainConfig, folder: Path, setting: Setting) -> str:
    every = {**EVERY, "precision": "auto"}

    def go(where: Setting) -> Run:
        return _trained(config, folder, where, N_STEPS, resume=True, **every)

    _stopped_after(10, folder, lambda: go(setting))
    return _score(go(replace(setting, device="cpu")))


# --- commands -----------------------------------------------------------------------------------


def commands(setting: Setting) -> list[Table]:
    """Commands on one GPU: two processes, too little memory, export, a machine without a GPU."""
    data = write_data(setting)
    small = ["--model.name", "hits:tiny", "--steps", "20", "--validate_every", "10", "--quiet"]
    hits = [
        *("train", "hits", "--hits.train", str(data / "clean.h5"), "--hits.signal", str(SIGNAL)),
        *("--hits.noise", str(NOISE), "--hits.validation_events", "8", *small, "--report", "false"),
    ]
    images = [
        *("train", "images", "--images.train", str(data / "images"), "--quiet"),
        *("--images.masks", str(data / "masks"), "--steps", "20", "--batch_size", "64"),
        *("--images.patch", *(["16", "16"] if setting.is_small else ["256", "256"])),
    ]
    base = setting.folder / "commands"
    base.mkdir(exist_ok=True)
    config = configs(data, is_small=setting.is_small)["hits:tiny"]
    trained = _trained(config, base / "trained", setting, 20)
    raw = _part(data / "raw.h5", base / "raw.h5", 200)
    run = str(trained.folder)
    python = [sys.executable, "-m", "dense_imb"]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
           "-m", "dense_imb"]  # fmt: skip
    starved = [
        sys.executable, "-c",
        "import sys, torch; torch.cuda.set_per_process_memory_fraction(0.004); "
        "from dense_imb.cli import main; sys.exit(main(sys.argv[1:]))",
    ]  # fmt: skip
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    out = [str(base / f"out{i}") for i in range(12)]
    listed: list[tuple[str, list[str], dict[str, str]]] = [
        ("train --devices 2", [*python, *hits, "--out", out[0], "--devices", "2"], {}),
        ("train --devices 2 --device cpu",
         [*python, *hits, "--out", out[1], "--devices", "2", "--device", "cpu"], {}),
        ("torchrun, 2 processes, train", [*two, *hits, "--out", out[2]], {}),
        ("torchrun, 2 processes, train --device cpu",
         [*two, *hits, "--out", out[3], "--device", "cpu"], {}),
        ("torchrun, 2 processes, denoise", [*two, "denoise", run, str(raw), f"{out[4]}.h5"], {}),
        ("torchrun, 2 processes, denoise --device cpu",
         [*two, "denoise", run, str(raw), f"{out[5]}.h5", "--device", "cpu"], {}),
        ("denoise on the GPU", [*python, "denoise", run, str(raw), f"{out[6]}.h5"], {}),
        ("denoise without a GPU", [*python, "denoise", run, str(raw), f"{out[7]}.h5"], hidden),
        ("export", [*python, "export", run, str(base / "model.onnx")], {}),
        ("export without a GPU", [*python, "export", run, str(base / "cpu.onnx")], hidden),
        ("evaluate --device cuda without a GPU",
         [*python, "evaluate", run, "--device", "cuda"], hidden),
    ]  # fmt: skip
    if setting.is_cuda:
        listed.append(
            ("train with too little GPU memory", [*starved, *images, "--out", out[8]], {})
        )
    table = Table("Commands on one GPU", ("command", "exit code", "seconds", "last line"))
    with ThreadPoolExecutor(max(1, min((os.cpu_count() or 1) // 2, len(listed)))) as pool:
        for name, ended in zip(
            [one[0] for one in listed], pool.map(_ended, [one[1:] for one in listed]), strict=True
        ):
            table.add(name, *ended)
    for name, first, second in (("on the GPU and without one", 6, 7), ("by one and by two", 7, 5)):
        table.remarks.append(f"scores {name}: {_score_difference(out[first], out[second])}")
    if setting.is_cuda:
        table.remarks.append(f"loss of two processes on one GPU (gloo): {_two_on_one_card()}")
    return [table]


def _ended(command: tuple[Sequence[str], dict[str, str]]) -> tuple[int | None, float, str]:
    words, more = command
    start = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "2", **more}
    try:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=150)
    except subprocess.TimeoutExpired:
        return None, time.perf_counter() - start, "did not end in 150 s"
    texts = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    said = [line for line in texts if "error:" in line.lower()] if done.returncode else []
    is_torchrun = any("torch.distributed.run" in word for word in words)  # it prints its own
    is_traced = "Traceback (most recent call last)" in done.stderr and not is_torchrun
    traced = "TRACEBACK; " if is_traced else ""
    line = said[0] if said else texts[-1] if texts else ""
    return done.returncode, time.perf_counter() - start, f"{traced}{line[:400]}"


def _score_difference(first: str, second: str) -> str:
    paths = [f"{one}.h5" for one in (first, second)]
    if not all(Path(path).exists() for path in paths):
        return "a file is missing"
    scores = []
    for path in paths:
        with open_hits(path) as there:
            scores.append(np.asarray(there[:].hit["score"], np.float64))
    return f"largest difference {np.abs(scores[0] - scores[1]).max():.2g}"


def _two_on_one_card() -> str:
    """Compare a global loss of two processes that share a GPU with that of one."""
    import tempfile

    import torch.multiprocessing as spawning

    with tempfile.TemporaryDirectory() as folder:
        try:
            spawning.spawn(_one_of_two, args=(folder,), nprocs=2)
            parts = [torch.load(f"{folder}/{rank}.pt") for rank in range(2)]
        except Exception as problem:
            return one_line(problem, 300)
    whole = _global_loss(slice(None))
    error = abs(parts[0][0] - whole[0]) / abs(whole[0])
    gradient = torch.cat([part[1] for part in parts])
    # DDP averages the gradients of the processes
    relative = float((gradient / 2 - whole[1]).norm() / whole[1].norm())
    return f"value {error:.1g} and gradient {relative:.1g} relative to one process"


def _global_loss(part: slice) -> tuple[float, torch.Tensor]:
    from dense_imb.losses import Balance, CrossEntropyLoss

    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 16, 16, generator=rng, dtype=torch.float64)[part].cuda()
    target = torch.randint(0, 3, (4, 16, 16), generator=rng)[part].cuda()
    logits.requires_grad_()
    value = CrossEntropyLoss(balance=Balance(scope="global"))(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    return float(value.detach()), gradient.cpu()


def _one_of_two(rank: int, folder: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.cuda.set_device(0)
    torch.save(_global_loss(slice(2 * rank, 2 * rank + 2)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
