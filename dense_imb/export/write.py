"""Exporting a run: traced, checked against PyTorch on sample frames, then moved into place."""

from __future__ import annotations

import copy
import importlib
import io
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.files import refuse_existing, write_whole
from dense_imb.export.card import card, facts_of
from dense_imb.export.network import Exportable, as_list, exportable
from dense_imb.runs import Run, open_run

FORMATS = (".onnx", ".pt2")
METADATA = "dense_imb"  # key of the facts inside the file
# of probabilities and of scaled times; sums of another order differ by up to 1e-4 in deep networks
TOLERANCE = 1e-3
_TRACED = 61  # side of the frames to trace with: odd, so that all padding is seen

Answer = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        path: of the network.
        card: of its description, for people.
        facts: the same for machines, also in the network's file and in `path` + ".json".
        max_difference: between PyTorch and the file, over all sample frames and outputs.
    """

    path: Path
    card: Path
    facts: dict[str, Any]
    max_difference: float


def export_run(
    run: Run | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
) -> Exported:
    """Write a run's best network as ONNX (.onnx) or torch.export (.pt2), with its model card.

    What is exported takes what a user has: pixels as they are in a file, or frames of hit times;
    it gives probabilities. It takes any number of frames at once, and those of a segmenter in any
    size where its network allows that. The file is compared with PyTorch before it gets its name.

    Args:
        run: opened, or its folder.
        out: name of the file; FILE.md and FILE.json are written beside it.
        tolerance: largest difference between PyTorch and the file that is accepted.
        overwrite: replace files that are there.
    """
    path = Path(out)
    if path.suffix not in FORMATS:
        raise ValueError(
            f"Expected a file name that ends in .onnx or .pt2, got {os.fspath(out)!r}."
        )
    beside = [path.with_name(path.name + suffix) for suffix in (".md", ".json")]
    for one in (path, *beside):
        refuse_existing(one, overwrite)
    if path.suffix == ".onnx":
        onnx_runtime()
    run = run if isinstance(run, Run) else open_run(run)
    what = exportable(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}

    def write(partial: Path) -> None:
        nonlocal found
        sizes = [True, False] if what.fits_any_size else [False]
        for any_size in sizes:
            facts = facts_of(run, what, path.name, any_size=any_size)
            try:
                _write(what, partial, path.suffix, facts, any_size=any_size)
                difference = _difference(what, _answer(partial, path.suffix), any_size=any_size)
                if not difference <= tolerance:
                    raise ValueError(
                        f"Expected the exported network to differ from PyTorch by at most "
                        f"{tolerance:g}, got {difference:g}; nothing was written."
                    )
            # what can't be traced in any size raises what it likes
            except Exception as problem:
                if any_size:
                    continue
                if isinstance(problem, (OSError, MemoryError)) or "nothing was" in str(problem):
                    raise
                raise ValueError(
                    f"Expected a network that {path.suffix[1:]} can hold, got "
                    f"{run.config.model.name}, which can't be exported ({_first_line(problem)})."
                ) from problem
            check = {"max_difference": difference, "tolerance": tolerance}
            found = {**facts, "check": {**check, "n_frames": len(what.samples), "on": what.source}}
            return

    write_whole(path, write)
    write_whole(beside[0], lambda partial: partial.write_text(card(found)))
    text = json.dumps(found, indent=1, allow_nan=False)
    write_whole(beside[1], lambda partial: partial.write_text(text + "\n"))
    return Exported(path, beside[0], found, found["check"]["max_difference"])


def traced(what: Exportable, *, any_size: bool) -> torch.export.ExportedProgram:
    """The graph of a network, of any batch and perhaps any size."""
    dynamic = torch.export.Dim.DYNAMIC
    sides: Sequence[int] = what.frame
    dims: dict[int, Any] = {0: dynamic}
    if any_size:
        sides = [max(side, _TRACED) + 2 * k + 1 - side % 2 for k, side in enumerate(sides)]
        dims |= {2 + k: dynamic for k in range(len(sides))}
    example = torch.zeros(2, what.channels, *sides)
    # torch.export stores weights that lie channels last as if they were parts of others
    network = copy.deepcopy(what.network).to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        return torch.export.export(network, (example,), dynamic_shapes=(dims,))


def _write(
    what: Exportable, partial: Path, suffix: str, facts: dict[str, Any], *, any_size: bool
) -> None:
    program = traced(what, any_size=any_size)
    text = json.dumps(facts, allow_nan=False)
    if suffix == ".pt2":
        content = io.BytesIO()  # a name must end in .pt2, and a partial one does not
        torch.export.save(program, content, extra_files={METADATA: text})
        partial.write_bytes(content.getvalue())
        return
    exported = torch.onnx.export(
        program,
        dynamo=True,
        input_names=[what.input],
        output_names=list(what.outputs),
        verbose=False,
    )
    assert exported is not None
    exported.model.metadata_props[METADATA] = text
    exported.model.producer_name, exported.model.producer_version = (
        "dense_imb",
        facts["versions"]["dense_imb"],
    )
    exported.model.doc_string = f"{facts['kind']} {facts['name']}, see {facts['file']}.md"
    exported.save(str(partial), external_data=False)


def _answer(path: Path, suffix: str) -> Answer:
    """What a file answers."""
    if suffix == ".pt2":
        module = torch.export.load(io.BytesIO(path.read_bytes())).module()
        return lambda given: as_list(module(given))
    session = onnx_session(path)
    name = session.get_inputs()[0].name
    return lambda given: [torch.from_numpy(x) for x in session.run(None, {name: given.numpy()})]


@torch.no_grad()
def _difference(what: Exportable, answer: Answer, *, any_size: bool) -> float:
    """The largest, over single samples, all of them at once and other sizes."""
    given = [*what.samples, torch.cat(what.samples)]
    if any_size:
        given.append(what.of_another_size())
    largest = 0.0
    for one in given:
        pairs = zip(what.answers(one), answer(one), strict=True)
        for wanted, got in pairs:
            if wanted.shape != got.shape:
                return math.inf
            difference = float((wanted - got).abs().max())
            largest = max(largest, math.inf if math.isnan(difference) else difference)
    return largest


def onnx_runtime() -> Any:
    """ONNX Runtime, where all is there that it takes to write ONNX."""
    for name in ("onnx", "onnxscript"):
        _import(name)
    return _import("onnxruntime")


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        raise ImportError(
            f"Expected {name} for ONNX, got none; install it with `pip install "
            "'dense-imb[export]'`, or export to a .pt2 file, which needs nothing else."
        ) from problem


def onnx_session(path: Path, threads: int | None = None) -> Any:
    """A file in ONNX Runtime, on the CPU."""
    runtime = onnx_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it refuses it raises, too
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _first_line(problem: Exception) -> str:
    lines = [line for line in str(problem).splitlines() if line.strip()]
    line = " ".join(lines[0].split()) if lines else type(problem).__name__
    return line[:200].rstrip(".")
