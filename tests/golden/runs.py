"""Makes a golden run and reduces it to a row of pins.json."""

from __future__ import annotations

import csv
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from dense_imb.runs import train
from dense_imb.runs.read import config_from
from tests.golden.configs import config_text

PINS = Path(__file__).with_name("pins.json")


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums of floating-point numbers depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def golden_row(name: str, data: Path, folder: Path) -> dict[str, Any]:
    """Train a run in `folder`, and return its row."""
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ten steps collapse, and say so
        run = train(config_from(config_text(name, data)), folder, is_quiet=True)
    columns, history = _history(folder / "history.csv")
    teacher = run.checkpoint("last").get("teacher", {})
    read_out = run.read_out
    text = None if read_out is None else json.dumps(read_out.read_out.to_dict())
    return {
        "best": digest_of_tensors(run.weights("best")),
        "last": digest_of_tensors(run.weights("last")),
        "teacher": digest_of_tensors(teacher) if teacher else None,
        "read_out": None if text is None else hashlib.sha256(text.encode()).hexdigest(),
        "history": history,
        "columns": columns,
        "setup": {key: str(value) for key, value in run.checkpoint()["setup"].items()},
    }


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _history(path: Path) -> tuple[list[str], str]:
    """The columns of a history, and the SHA-256 of those that don't depend on time."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in rows[0] if "second" not in name]
    values = [[row[name] for name in columns] for row in rows]
    return columns, hashlib.sha256(json.dumps([columns, values]).encode()).hexdigest()


def fingerprint() -> dict[str, str]:
    """Return what the bits of a trained network depend on, beside our code."""
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,  # RandAugment
        "accelerator": str(torch.accelerator.current_accelerator(check_available=True)),
        "reference": _reference(),
    }


def _reference() -> str:
    """The SHA-256 of a small computation, whose rounding depends on processor and libraries."""
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(3, 4, 24, 20, generator=draw, requires_grad=True)
    kernel = torch.randn(8, 4, 3, 3, generator=draw, requires_grad=True)
    matrix = torch.randn(480, 16, generator=draw, requires_grad=True)
    with one_thread():
        found = functional.conv2d(image, kernel, padding=1)
        found = functional.group_norm(found, 2).flatten(2) @ matrix
        weight = found.exp()
        weight.log_softmax(1).mean().backward()
        batch = image.detach().contiguous(memory_format=torch.channels_last)
        flat = nn.BatchNorm2d(4)(batch) + functional.max_pool2d(batch, 3, 1, 1)
    parts = {"weight": weight, "flat": flat}
    grads = {"image": image.grad, "kernel": kernel.grad, "matrix": matrix.grad}
    return digest_of_tensors(
        parts | {name: grad for name, grad in grads.items() if grad is not None}
    )
