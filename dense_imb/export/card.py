"""The model card of an exported network: facts for machines, and their text for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any

from dense_imb import __version__
from dense_imb.export.base import Exportable
from dense_imb.runs.natural import NaturalRecord
from dense_imb.runs.stages import FIRST

_TEMPLATE = "card.md.jinja"
_FORMAT, _VERSION = "dense-imb-export", 2
_PACKAGES = ("torch", "numpy", "onnx", "onnxscript", "onnxruntime")
_NOT_SCORES = ("loss", "gradient_share", "learning_rate", "epoch", "step")


def card_facts(what: Exportable, file: str, *, any_size: bool) -> dict[str, Any]:
    """Return everything known of an exported network, as strict JSON.

    Args:
        what: network to export.
        file: name of its file.
        any_size: whether the file takes frames of any size, or any number of hits.
    """
    run, config, metrics = what.run, what.run.config, what.run.metrics
    setup = run.checkpoint()["setup"]
    data = what.training_facts()
    for name in ("train", "validation"):
        data[name] = short_paths(data[name])
    training = {
        **{name: value for name, value in data.items() if value},
        "data": setup.get("data"),
        "validation_data": setup.get("validation data"),
        "loss": config.loss,
    }
    if FIRST in metrics:
        first = metrics[FIRST].get("step")
        training["first_stage"] = {"loss": run.whole_config.loss, "best_step": first}
    best = metrics.get("best") or {}
    training |= {"steps": metrics.get("steps"), "best_step": best.get("step")}
    training |= {"batch_size": config.batch_size}
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "file": file,
        "name": run.name,
        "kind": what.kind,
        "purpose": what.purpose,
        "network": {
            "name": config.model.name,
            "options": config.model.options,
            "parameters": sum(p.numel() for p in what.network.parameters()),
        },
        "inputs": what.input_facts(any_size),
        "outputs": what.output_facts(any_size),
        "fits_any_size": any_size,
        "trained_on_size": what.trained_on_size,
        **what.further_facts(),
        "training": {**training, "seed": config.seed},
        "scores": {"measured_on": what.measured_on, **_scores(what, best)},
        "operating_point": what.operating_point(),
        "versions": _versions(),
        "limitations": [
            *what.limitations(any_size),
            *([] if run.natural is None else [_probabilities(run.natural)]),
            "Not measured: data of another detector, camera or noise, other versions of the "
            "runtimes, accelerators, half precision, quantisation.",
        ],
    }


def _scores(what: Exportable, best: dict[str, Any]) -> dict[str, Any]:
    """Return the validation scores of the probabilities, or values, that the file returns.

    Those of the training are of the outputs as trained.
    """
    record = what.run.natural
    if what.run.read_out is not None:
        scores = {n: v if math.isfinite(v) else None for n, v in what.read_out_scores().items()}
        step = {name: best[name] for name in ("step", "epoch") if name in best}
        where = "validation images of the run, with the read-out, as in the file"
        return {"measured_on": where, "best": {**step, **scores}}
    if record is None:
        return {"best": best}
    natural = {} if record.natural is None else what.natural_scores()
    known = {name: value if math.isfinite(value) else None for name, value in natural.items()}
    return {"probabilities": "natural" if natural else "as trained", "best": {**best, **known}}


def _probabilities(record: NaturalRecord) -> str:
    """Return what the outputs say as probabilities, in a sentence."""
    line = record.summary()
    if record.natural is not None:
        line += "; data with other class frequencies than the validation data move them"
    return f"{line[0].upper()}{line[1:]}."


def render_card(facts: dict[str, Any]) -> str:
    """Render the facts as Markdown."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _cell
    environment.filters["percent"] = lambda share: f"{100 * float(share):.4g} %"
    scores = {
        name: value
        for name, value in facts["scores"]["best"].items()
        if not name.startswith(_NOT_SCORES)
    }
    return environment.get_template(_TEMPLATE).render(facts, scores_to_show=scores)


def short_paths(paths: str | Sequence[str] | None) -> list[str]:
    """Return the last two parts of each path; the card travels, the rest is private.

    Example:
        >>> short_paths("/home/jo/cracks/images"), short_paths(["a.h5", "/data/b.h5"])
        (['cracks/images'], ['a.h5', 'data/b.h5'])
    """
    listed = [paths] if isinstance(paths, str) else paths or []
    return ["/".join(PurePath(path).parts[-2:]).lstrip("/") for path in listed]


def _versions() -> dict[str, str]:
    versions = {"dense_imb": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _cell(value: Any) -> str:
    """Return a value as a cell of a Markdown table."""
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return str(value).replace("|", "\\|").replace("\n", " ")
