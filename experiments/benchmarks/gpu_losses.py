"""Sections of gpu.py about the losses: waits, numbers of half precision, speed, bytes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from gpu_tables import Setting, Table, one_line
from interleaved import (
    Contestant,
    Disagreement,
    Runner,
    check_same_value,
    memory,
    prepare,
    time_interleaved,
    waits_for_device,
)
from loss_contestants import (
    EDGES,
    Labels,
    classification_contestants,
    make_frames,
    plain_copy,
    regression_contestants,
)
from region_contestants import make_regions, region_contestants
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dense_imb import losses
from dense_imb.losses import Balance

N_CLASSES, N_INSTANCES = 4, 100
Loss = Callable[..., Tensor]


class Feed(NamedTuple):
    """Inputs of one kind of loss."""

    prediction: Tensor
    target: Tensor
    more: dict[str, Tensor]


def feeds(side: int, n_images: int, device: str) -> dict[str, Feed]:
    """Return inputs for losses of values, of logits, and of features."""
    frames = make_frames((n_images, 1, side, side), device)
    regions = make_regions((n_images, N_CLASSES, side, side), device)
    instance = regions.instance[N_INSTANCES]
    logits = regions.prediction
    return {
        "values": Feed(frames.prediction, frames.target, {}),
        "logits": Feed(logits, regions.target, {}),
        "instances": Feed(logits, regions.target, {"instance": instance}),
        "features": Feed(logits, regions.target, {}),
    }


def every_loss(counts: Sequence[int]) -> Iterator[tuple[str, str, Loss]]:
    """Yield name, kind of input and loss: torch's own, then every Module of dense_imb.losses."""
    yield "torch mse_loss", "values", torch.nn.functional.mse_loss
    yield "torch cross_entropy", "logits", torch.nn.functional.cross_entropy
    bins = losses.ValueBins(EDGES)
    yield "ACBMSELoss", "values", losses.ACBMSELoss()
    yield "OutcomeBalancedMSELoss", "values", losses.OutcomeBalancedMSELoss()
    yield "BalancedRegressionLoss, hits", "values", losses.BalancedRegressionLoss("mse", "hits")
    yield "BalancedRegressionLoss, bins", "values", losses.BalancedRegressionLoss("l1", bins)
    for spread in (losses.Hardest(0.1), losses.WorstNeighbour(3)):
        loss = losses.BalancedRegressionLoss("huber", "hits", spread=spread)
        yield f"BalancedRegressionLoss, {type(spread).__name__}", "values", loss
    yield "BalancedMSELoss", "values", losses.BalancedMSELoss(0.1, 1024)
    for name in ("CrossEntropy", "Focal", "HardMining", "ComplementCrossEntropy"):
        make = getattr(losses, f"{name}Loss")
        yield f"{name}Loss", "logits", make()
        yield f"{name}Loss, balance", "logits", make(balance=Balance())
    for name in ("BalancedSoftmax", "ClassDependentTemperature", "BiasCompensated", "LDAM"):
        make = getattr(losses, f"{name}Loss")
        yield f"{name}Loss", "logits", make(class_counts=counts)
        yield f"{name}Loss, balance", "logits", make(class_counts=counts, balance=Balance())
    yield "PixelLoss, Linear", "logits", losses.PixelLoss(losses.Linear())
    spread = losses.Hardest(0.1)
    yield "CrossEntropyLoss, Hardest", "logits", losses.CrossEntropyLoss(spread=spread)
    yield "DiceLoss", "logits", losses.DiceLoss()
    yield "TverskyLoss", "logits", losses.TverskyLoss()
    yield "RegionLoss, Matthews", "logits", losses.RegionLoss(losses.Matthews())
    both = losses.CompoundLoss(losses.DiceLoss(), losses.CrossEntropyLoss())
    yield "CompoundLoss, Dice + CE", "logits", both
    most = N_INSTANCES * N_CLASSES
    yield "DiceLoss, instance", "instances", losses.DiceLoss(per="instance")
    bounded = losses.DiceLoss(per="instance", max_instances=most)
    yield "DiceLoss, instance, max_instances", "instances", bounded
    balanced = losses.CrossEntropyLoss(balance=Balance(), per="instance", max_instances=most)
    yield "CrossEntropyLoss, instance, max_instances", "instances", balanced
    yield "RangeLoss", "features", losses.RangeLoss(max_pixels=64)


def value_and_gradient(loss: Loss, feed: Feed) -> tuple[Tensor, Tensor]:
    prediction = feed.prediction.detach().requires_grad_()
    value = loss(prediction, feed.target, **feed.more)
    return value.detach(), torch.autograd.grad(value, prediction)[0]


# --- the host -----------------------------------------------------------------------------------


def waits(setting: Setting) -> list[Table]:
    """Whether the host waits for the GPU, and whether equal calls give equal bits."""
    table = Table(
        "Host synchronisation and repeatability of forward and backward",
        ("loss", "host waits", "same bits twice", "deterministic algorithms"),
        remarks=[
            "host waits: torch.cuda.set_sync_debug_mode('error') raised.",
            "deterministic algorithms: runs under torch.use_deterministic_algorithms(True).",
        ],
    )
    side, n_images = (16, 2) if setting.is_small else (256, 4)
    inputs = feeds(side, n_images, setting.device)
    for name, kind, loss in every_loss(_counts(inputs["logits"])):
        feed = inputs[kind]
        first, second = (_drawn_alike(loss, feed) for _ in range(2))
        is_same = all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
        table.add(name, _waits(loss, feed), is_same, _is_deterministic(loss, feed))
    return [table]


def _drawn_alike(loss: Loss, feed: Feed) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)  # some losses draw pixels, others in each call
    return value_and_gradient(copy.deepcopy(loss), feed)


def _counts(feed: Feed) -> list[int]:
    return torch.bincount(feed.target.flatten(), minlength=N_CLASSES).clamp(min=1).tolist()


def _waits(loss: Loss, feed: Feed) -> bool | None:
    def call(prediction: Tensor, target: Tensor) -> Tensor:
        return loss(prediction, target, **feed.more)

    contestant = Contestant("", "ours", lambda: call)
    return waits_for_device(Runner(contestant, call, feed.prediction, feed.target))


def _is_deterministic(loss: Loss, feed: Feed) -> bool:
    torch.use_deterministic_algorithms(True)
    try:
        value_and_gradient(loss, feed)
    except RuntimeError as problem:
        if "deterministic" not in str(problem):
            raise
        return False
    finally:
        torch.use_deterministic_algorithms(False)
    return True


# --- half precision -----------------------------------------------------------------------------

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision(setting: Setting) -> list[Table]:
    """Relative errors of value and gradient against float64, from the same rounded logits."""
    columns = [f"{name} {part}" for name in DTYPES for part in ("value", "gradient")]
    side, n_images = (16, 2) if setting.is_small else (512, 2)
    table = Table(
        f"Relative error under autocast, {n_images} x {side} x {side} pixels",
        ("loss", *columns),
        remarks=[
            "Reference: the same loss in float64, of the prediction rounded to the format.",
            "gradient: norm of the difference over the norm. It is returned in the format of the "
            "prediction, whose own rounding is 2e-3 (bf16) and 3e-4 (fp16).",
        ],
    )
    inputs = feeds(side, n_images, setting.device)
    for name, kind, loss in every_loss(_counts(inputs["logits"])):
        if name not in ("RangeLoss", "BalancedMSELoss"):  # another type draws other pixels
            errors = [
                _errors(loss, inputs[kind], dtype, setting.device) for dtype in DTYPES.values()
            ]
            table.add(name, *(error for pair in errors for error in pair))
    return [table]


def _errors(loss: Loss, feed: Feed, dtype: torch.dtype, device: str) -> tuple[float, float]:
    rounded = feed.prediction.detach().to(dtype)
    wide = feed.target.double() if feed.target.is_floating_point() else feed.target
    value, gradient = value_and_gradient(loss, Feed(rounded.double(), wide, feed.more))
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        got_value, got_gradient = value_and_gradient(loss, Feed(rounded, feed.target, feed.more))
    return (
        float((got_value.double() - value).abs() / value.abs()),
        float((got_gradient.double() - gradient).norm() / gradient.norm()),
    )


# --- speed --------------------------------------------------------------------------------------

SHAPES = (
    (64, 1, 128, 88),
    (256, 1, 128, 88),
    (4, 2, 512, 512),
    (4, 21, 256, 256),
    (1, 4, 96, 96, 96),
)
LARGE = ((8192, 1, 128, 88), (16, 21, 512, 512))  # several times any L2 cache
SMALL = ((2, 1, 8, 8), (2, 3, 8, 8))
COMPILED = (
    "torch mse_loss", "ACBMSELoss", "torch.where", "torch cross_entropy", "CrossEntropyLoss",
    "CrossEntropyLoss balance", "HardMiningLoss", "DiceLoss", "DiceLoss + CE",
)  # fmt: skip
LEFT_OUT = ("plain copy", "blob Dice, 1 instances", "blob Dice, 5000 instances", "Matthews",
            "CCE as published", "HMLoss as published", "LDAM as published")  # fmt: skip


def contestants_of(
    shape: Sequence[int], device: str, *, compiles: bool
) -> tuple[Any, list[Contestant]]:
    """Return the data of a work size, and the losses that take part, plain and compiled."""
    if shape[1] == 1:
        data: Any = make_frames(shape, device)
        listed = regression_contestants(data)
    else:
        data = make_regions(shape, device)
        counts = torch.bincount(data.target.flatten(), minlength=shape[1]).clamp(min=1).tolist()
        of_pixels = classification_contestants(Labels(data.prediction, data.target, counts))
        named = {one.name for one in of_pixels}
        of_regions = [one for one in region_contestants(data) if one.name not in named]
        listed = [*of_pixels, *of_regions]
    chosen = []
    for contestant in listed:
        if contestant.name not in LEFT_OUT:
            chosen.append(contestant)
            if compiles and contestant.name in COMPILED:
                chosen.append(contestant.compiled())
    return data, chosen


def speed(setting: Setting) -> list[Table]:
    """Time and memory of forward and backward, in multiples of torch's own loss."""
    return [_speed(shape, setting) for shape in (SMALL if setting.is_small else SHAPES)]


def _speed(shape: Sequence[int], setting: Setting) -> Table:
    torch.compiler.reset()
    data, contestants = contestants_of(shape, setting.device, compiles=setting.compiles)
    runners, skipped = prepare(contestants, data.prediction, data.target)
    remarks = [f"skipped: {name} ({reason})" for name, reason in skipped.items()]
    runners = [runner for runner in runners if _takes_part(runner, remarks)]
    time_interleaved(runners, setting.rounds, 3, lambda: None)
    table = Table(
        f"Forward + backward at {'x'.join(map(str, shape))}, float32, {setting.rounds} rounds",
        ("loss", "ms", "x", "kept", "peak", "host waits"),
        remarks=remarks,
    )
    floor = _median(runners[0].seconds)
    n_bytes = data.prediction.nbytes
    for runner in runners:
        kept, peak = memory(runner)
        median = _median(runner.seconds)
        table.add(
            runner.contestant.name,
            1000 * median,
            median / floor,
            kept / n_bytes,
            peak / n_bytes,
            waits_for_device(runner),
        )
    return table


def _takes_part(runner: Runner, remarks: list[str]) -> bool:
    """Check its value and gradient, and note a failure."""
    try:
        check_same_value([runner], lambda name: None)
    except Disagreement as problem:
        remarks.append(str(problem))
    except Exception as problem:
        remarks.append(f"failed: {runner.contestant.name} ({one_line(problem)})")
    else:
        return True
    return False


def _median(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).median())


# --- bytes --------------------------------------------------------------------------------------


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write, as if nothing stayed in a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.n_bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        is_view = function.is_view or function.overloadpacket.__name__ in _FREE
        if not is_view:
            for tensor in tree_leaves((args, kwargs, result)):
                if isinstance(tensor, Tensor):
                    self.n_bytes += tensor.numel() * tensor.element_size()
        return result


_FREE = ("detach", "empty", "empty_like", "new_empty", "empty_strided", "_unsafe_view", "reshape")


@contextmanager
def traffic() -> Iterator[Traffic]:
    with Traffic() as counted:
        yield counted


def copy_rate(setting: Setting) -> float:
    """Return the bytes a second that a copy reads and writes, between device events."""
    n = 2**16 if setting.is_small else 2**28
    source = torch.rand(n, device=setting.device)
    runner = Runner(Contestant("", "limit", lambda: plain_copy), plain_copy, source, source)
    time_interleaved([runner], 10, 3, lambda: None)
    return 2 * source.nbytes / _median(runner.seconds)


def limit(setting: Setting) -> list[Table]:
    """Time against the least bytes that forward and backward must move."""
    rate = copy_rate(setting)
    tables = []
    for shape in SMALL if setting.is_small else LARGE:
        torch.compiler.reset()
        data, contestants = contestants_of(shape, setting.device, compiles=setting.compiles)
        wanted = [one for one in contestants if one.name.removesuffix(", compiled") in COMPILED]
        runners, _ = prepare(wanted, data.prediction, data.target)
        runners = [runner for runner in runners if _takes_part(runner, [])]
        time_interleaved(runners, setting.rounds, 3, lambda: None)
        least = 3 * data.prediction.nbytes + 2 * data.target.nbytes
        table = Table(
            f"Bytes against the limit at {'x'.join(map(str, shape))}, float32",
            ("loss", "ms", "x limit", "TB/s of the least bytes", "bytes of its operations / least"),
            remarks=[
                f"limit: the least bytes, {least / 1e6:,.0f} MB (prediction and target read twice, "
                "the gradient written once), at the rate of a copy, "
                f"{rate / 1e12:.2f} TB/s, in {1000 * least / rate:.3g} ms.",
                "bytes of its operations: inputs and outputs of every eager operation.",
            ],
        )
        for runner in runners:
            median = _median(runner.seconds)
            counted = None
            if not runner.contestant.name.endswith(", compiled"):
                runner.prediction.grad = None
                with traffic() as moved:
                    runner()
                counted = moved.n_bytes / least
            table.add(
                runner.contestant.name, 1000 * median, median * rate / least,
                least / median / 1e12, counted,
            )  # fmt: skip
        tables.append(table)
    return tables
