"""Digests of the files of a folder, without what differs from run to run: dates, seconds, paths."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

# entries of JSON, and columns of CSV, that are of one run of a command
_OF_ONE_RUN = re.compile(r"second|date|cpu|^command$|^typed$|^git$|^threads$")
_TIMES = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d[+-]\d\d:\d\d|\b\d+(\.\d+)? (s|CPU s|min)\b"
    r"|[\d.,]+(?=</td></tr>)"  # events a second, the last column of a report
)
_TEXTS = (".html", ".md", ".txt", ".yaml", ".svg")


def raw(folder: Path) -> dict[str, str]:
    """Return the digest of the bytes of each file, by its path below a folder."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in _files(folder)}


def content(folder: Path, others: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """Return the digest of the content of each file, by its path below a folder.

    Args:
        folder: the folder.
        others: names that the case has instead of the usual ones, with the usual ones.
    """

    def usual(text: str) -> str:
        for name, replaced in others:
            text = text.replace(name, replaced)
        return text

    found = {usual(name): path for name, path in _files(folder)}
    return {
        name: _digest(path, usual) for name, path in found.items() if not _is_older(name, found)
    }


def _is_older(name: str, names: Iterable[str]) -> bool:
    """Tell whether a file is of a checkpoint that is not the last: a stop saves one more."""
    start, is_step, _ = name.partition("/checkpoints/step-")
    others = (other for other in names if other.startswith(start + is_step))
    return bool(is_step) and name < max(others)[: len(name)]


def _files(folder: Path) -> list[tuple[str, Path]]:
    return [
        (str(path.relative_to(folder)), path)
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() and path.name != ".lock"
    ]


def _digest(path: Path, usual: Callable[[str], str]) -> str:
    """Return a digest of what a file says; of its bytes if it cannot be read."""
    data = path.read_bytes()
    try:
        said = _said(path, data, usual)
    except Exception as problem:  # a damaged file is no equal of another one
        said = [f"unreadable: {type(problem).__name__}", data]
    digest = hashlib.sha256()
    for part in said:
        digest.update(part if isinstance(part, bytes) else part.encode(errors="surrogateescape"))
        digest.update(b"\0")
    return digest.hexdigest()


def _said(path: Path, data: bytes, usual: Callable[[str], str]) -> list[str | bytes]:
    if path.suffix == ".json":
        return [json.dumps(_lasting(json.loads(data), usual), sort_keys=True)]
    if path.suffix == ".csv":
        rows = [*csv.DictReader(io.StringIO(data.decode()))]
        return [json.dumps(_lasting(rows, usual))]
    if path.suffix in _TEXTS:
        return [_TIMES.sub("", usual(data.decode(errors="surrogateescape")))]
    if path.suffix == ".h5":
        return _of_hdf5(path, usual)
    if path.suffix == ".pt":
        return [*_of_checkpoint(torch.load(path, weights_only=True))]
    if path.suffix == ".sha256":
        return []  # of a checkpoint, whose seconds differ
    return [data]


def _lasting(value: Any, usual: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {
            usual(str(k)): _lasting(v, usual) for k, v in value.items() if not _OF_ONE_RUN.search(k)
        }
    if isinstance(value, list):
        return [_lasting(one, usual) for one in value]
    return _TIMES.sub("", usual(value)) if isinstance(value, str) else value


def _of_hdf5(path: Path, usual: Callable[[str], str]) -> list[str | bytes]:
    said: list[str | bytes] = []

    def add(name: str, item: Any) -> None:
        said.append(name)
        for key, value in sorted(item.attrs.items()):
            said.append(f"{key}={usual(str(value))}")
        if isinstance(item, h5py.Dataset):
            said.extend([str(item.dtype), str(item.shape), np.asarray(item[()]).tobytes()])

    with h5py.File(path, "r", locking=False) as file:
        add("/", file)
        file.visititems(add)
    return said


def _of_checkpoint(value: Any, name: str = "") -> Iterable[str | bytes]:
    """Yield names, numbers and tensors of a checkpoint; paths in its setup are left out."""
    if isinstance(value, dict):
        for key, one in value.items():
            if not _OF_ONE_RUN.search(str(key)):
                yield from _of_checkpoint(one, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for k, one in enumerate(value):
            yield from _of_checkpoint(one, f"{name}/{k}")
    elif isinstance(value, torch.Tensor):
        yield f"{name} {value.dtype} {tuple(value.shape)}"
        yield value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif not isinstance(value, str):
        yield f"{name} {value!r}"


def raw_of(path: Path) -> str | None:
    """Return the digest of the bytes of a file; None if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
