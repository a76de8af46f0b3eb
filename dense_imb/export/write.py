"""Export of a run: trace the network, compare it with PyTorch, then move the file into place."""

from __future__ import annotations

import copy
import importlib
import io
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.files import decoding, refuse_existing, write_whole
from dense_imb.base.refusals import Refused
from dense_imb.export.base import Answer, Exportable, Inputs, as_list
from dense_imb.export.card import card_facts, render_card
from dense_imb.export.network import exportable
from dense_imb.runs import Run, open_run

# suffixes of the files that `export_run` writes
FORMATS = (".onnx", ".pt2")
METADATA = "dense_imb"  # key of the facts inside the file
# for probabilities and scaled times: another order of sums changes deep networks by up to 1e-4
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Exported:
    """An exported network and its model card.

    Args:
        path: file of the network.
        card: model card for people.
        facts: model card for machines, also in the network's file and in `path` + ".json".
        max_difference: largest difference from PyTorch, over all sample inputs and outputs.

    Example:
        >>> from pathlib import Path
        >>> from dense_imb.export import Exported
        >>> done = Exported(Path("arc.onnx"), Path("arc.onnx.md"), {"kind": "denoiser"}, 1e-7)
        >>> done.card.name, done.max_difference < 1e-3
        ('arc.onnx.md', True)
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
    progress: Callable[[str], object] | None = None,
) -> Exported:
    """Write a run's best network as ONNX (.onnx) or torch.export (.pt2), with its model card.

    The exported network takes pixels, hits or frames of hit times as they are in a file, and
    returns probabilities. It takes batches of any size. A segmenter takes images of any size, too,
    if its network allows it. A network of hits takes padded events, and is exact for those that
    fit its window. The file is compared with PyTorch before it gets its name.

    Args:
        run: the run, or its folder.
        out: name of the file; FILE.md and FILE.json are written beside it.
        tolerance: largest accepted difference between PyTorch and the file.
        overwrite: replace existing files.
        progress: called with what is done next, in words; tracing a network takes half a minute,
            and longer in 3-D.

    Example:
        >>> import pathlib, tempfile
        >>> from dense_imb import HitsConfig, ModelConfig, TrainConfig, train
        >>> from dense_imb.export import export_run
        >>> from dense_imb.hits import Geometry, HitsWriter, simulate
        >>> rings = simulate("ring", 8, 1, Geometry(24, 24, 50))
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> with HitsWriter(folder / "rings.h5", rings.geometry) as writer:
        ...     writer.append(rings)
        >>> hits = HitsConfig(str(folder / "rings.h5"), signal=20, noise=50, validation_share=0.5)
        >>> tiny = ModelConfig("hits", {"width": 8, "depth": 1, "heads": 1})
        >>> config = TrainConfig(hits, model=tiny, steps=2, validate_every=2)
        >>> run = train(config, folder / "run", is_quiet=True, device="cpu")
        >>> done = export_run(run, folder / "rings.pt2")
        >>> done.max_difference < 1e-3, [one["name"] for one in done.facts["inputs"]]
        (True, ['coordinate', 'is_hit'])
    """
    say = progress or (lambda text: None)
    path = Path(out)
    if path.suffix not in FORMATS:
        raise Refused("a file name that ends in .onnx or .pt2", repr(os.fspath(out)))
    beside = [path.with_name(path.name + suffix) for suffix in (".md", ".json")]
    for one in (path, *beside):
        refuse_existing(one, overwrite)
    if path.suffix == ".onnx":
        onnx_runtime()
    run = run if isinstance(run, Run) else open_run(run)
    what = exportable(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    written: dict[str, Any] = {}

    def write(partial: Path) -> None:
        for any_size in what.sizes_to_try:
            facts = card_facts(what, path.name, any_size=any_size)
            try:
                _write(what, partial, path.suffix, facts, any_size=any_size, say=say)
                say("compare the file with PyTorch")
                answer = _answer(partial, path.suffix)
                difference = _difference(what, answer, any_size=any_size)
                if not difference <= tolerance:
                    raise Refused(
                        f"the exported network to differ from PyTorch by at most {tolerance:g}",
                        f"{difference:g}",
                        "nothing was written",
                    )
            # tracing raises errors of many types
            except Exception as problem:
                if any_size is not what.sizes_to_try[-1]:
                    continue
                if isinstance(problem, (OSError, MemoryError, Refused)):
                    raise
                raise Refused(
                    f"a network that {path.suffix[1:]} can hold",
                    f"{run.config.model.name}, which can't be exported ({_first_line(problem)})",
                    what.cure,
                ) from problem
            check: dict[str, Any] = {"max_difference": difference, "tolerance": tolerance}
            check |= {"n_inputs": len(what.samples), "on": what.source}
            check |= what.file_scores(answer) if any_size else {}
            written.update(facts, check=check)
            return

    write_whole(path, write)
    card = _in_utf8(render_card(written))
    write_whole(beside[0], lambda partial: partial.write_text(card, encoding="utf-8"))
    text = json.dumps(written, indent=1, allow_nan=False)
    write_whole(beside[1], lambda partial: partial.write_text(text + "\n"))
    return Exported(path, beside[0], written, written["check"]["max_difference"])


def traced(what: Exportable, *, any_size: bool) -> torch.export.ExportedProgram:
    """Trace a network for batches of any size, and inputs of any size if `any_size`."""
    example, axes = what.example(any_size)
    # torch.export stores weights in another order than rows, as if they were parts of others
    network = copy.deepcopy(what.network)
    for weight in (*network.parameters(), *network.buffers()):
        weight.data = weight.data.contiguous()
    with torch.no_grad(), _quiet_torch():
        return torch.export.export(network, example, dynamic_shapes=axes)


def _write(
    what: Exportable,
    partial: Path,
    suffix: str,
    facts: dict[str, Any],
    *,
    any_size: bool,
    say: Callable[[str], object],
) -> None:
    say(f"trace the network{' for inputs of any size' if any_size else ''}")
    program = traced(what, any_size=any_size)
    text = json.dumps(facts, allow_nan=False)
    if suffix == ".pt2":
        content = io.BytesIO()  # a name must end in .pt2, and a partial one does not
        torch.export.save(program, content, extra_files={METADATA: text})
        partial.write_bytes(content.getvalue())
        return
    say("translate it to ONNX")
    with _quiet_torch():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(what.inputs),
            output_names=list(what.outputs),
            verbose=False,
        )
    assert exported is not None
    for node in exported.model.graph.all_nodes():  # where in the source it was traced
        node.metadata_props.clear()
    # ONNX Runtime would warn of constants that the branches leave unused
    _import("onnx_ir.passes.common").RemoveUnusedNodesPass()(exported.model)
    exported.model.metadata_props[METADATA] = text
    exported.model.producer_name, exported.model.producer_version = (
        "dense_imb",
        facts["versions"]["dense_imb"],
    )
    exported.model.doc_string = _in_utf8(f"{facts['kind']} {facts['name']}, see {facts['file']}.md")
    exported.save(str(partial), external_data=False)


def _in_utf8(text: str) -> str:
    """Return a text whose names of files may be no UTF-8, with question marks in their place."""
    return text.encode(errors="replace").decode()


@contextmanager
def _quiet_torch() -> Iterator[None]:
    """Ignore warnings about torch's own code, which torch 2.10 raises as it exports."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        # `torch.cond` compiles its branches
        nested = "You are calling torch.compile inside torch.export"
        warnings.filterwarnings("ignore", nested, UserWarning)
        yield


def _answer(path: Path, suffix: str) -> Answer:
    """Return a function that runs the network of a file."""
    if suffix == ".pt2":
        with _quiet_torch():
            module = torch.export.load(io.BytesIO(path.read_bytes())).module()
        return lambda given: as_list(module(*given))
    session = onnx_session(path)
    names = [one.name for one in session.get_inputs()]

    def answer(given: Inputs) -> list[Tensor]:
        feed = {name: one.numpy() for name, one in zip(names, given, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return answer


@torch.no_grad()
def _difference(what: Exportable, answer: Answer, *, any_size: bool) -> float:
    """Return the largest difference, over single samples, their batch and another size."""
    largest = 0.0
    for one in what.inputs_to_compare(any_size):
        pairs = zip(what.answers(one), answer(one), strict=True)
        for wanted, got in pairs:
            if wanted.shape != got.shape:
                return math.inf
            difference = float((wanted - got).abs().max()) / what.unit_of_outputs
            largest = max(largest, math.inf if math.isnan(difference) else difference)
    return largest


def onnx_runtime() -> Any:
    """Return ONNX Runtime; refuse if a package for writing ONNX is missing."""
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
    """Open a file in ONNX Runtime, on the CPU."""
    runtime = onnx_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised, too
    with decoding(f"a network as ONNX in {path}"):
        content = path.read_bytes()  # the path may be no UTF-8
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _first_line(problem: Exception) -> str:
    lines = [line for line in str(problem).splitlines() if line.strip()]
    line = " ".join(lines[0].split()) if lines else type(problem).__name__
    return line[:200].rstrip(".")
