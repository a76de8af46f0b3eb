"""The model card: what an exported network is, for machines (`facts_of`) and people (`card`)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

from dense_imb import __version__
from dense_imb.data.images.labelled import numbered_classes
from dense_imb.export.network import Exportable
from dense_imb.hits.frames import TURNS
from dense_imb.runs import Run
from dense_imb.runs.stages import FIRST
from dense_imb.tasks.images.evaluate import chosen_thresholds
from dense_imb.tasks.images.task import ImagesReading

_FORMAT, _VERSION = "dense-imb-export", 1
_PACKAGES = ("torch", "numpy", "onnx", "onnxscript", "onnxruntime")
_AXES = {2: ("height", "width"), 3: ("depth", "height", "width")}
_GAPPED = "r + (1 - r) t / T at a hit, 0 elsewhere"
_WORDS = {
    "gapped": _GAPPED,
    "hit": "1 at a hit, 0 elsewhere",
    "fourier": "sin and cos of {} turns of 2 pi t / T at a hit, 0 elsewhere",
}


def facts_of(run: Run, what: Exportable, file: str, *, any_size: bool) -> dict[str, Any]:
    """All that is known of the network, in strict JSON.

    Args:
        run: where it comes from.
        what: is exported.
        file: its name.
        any_size: whether the file takes frames of any size.
    """
    content, config, metrics = run.checkpoint(), run.config, run.metrics()
    first = None
    if FIRST in metrics:
        first = {"loss": run.whole_config.loss, "best_step": metrics[FIRST].get("step")}
    setup = content["setup"]
    on_images = config.trains_on_images
    data = config.images if on_images else config.hits
    names = {"train": _names(data.train), "validation": _names(data.validation)}
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "file": file,
        "name": run.name,
        "kind": "segmenter" if on_images else "denoiser",
        "network": {
            "name": config.model.name,
            "options": config.model.options,
            "parameters": sum(p.numel() for p in what.network.parameters()),
        },
        "input": _input(what, any_size),
        "outputs": [_output(what, name, any_size) for name in what.outputs],
        "fits_any_size": any_size,
        "trained_on_size": list(what.frame),
        "training": {
            **{name: files for name, files in names.items() if files},
            "sizes": what.sizes,
            "data": setup.get("data"),
            "validation_data": setup.get("validation data"),
            **({} if on_images else {"degradation": setup.get("degradation")}),
            "loss": config.loss,
            **({"value_loss": config.hits.value_loss} if config.hits.output == "both" else {}),
            "steps": metrics.get("steps"),
            **({} if first is None else {"first_stage": first}),
            "batch_size": config.batch_size,
            "seed": config.seed,
        },
        "scores": {
            "measured_on": "validation images of the run, mean of the foreground classes"
            if on_images
            else "validation events of the run, hits that a frame shows",
            "best": metrics.get("best") or {},
        },
        "operating_point": _operating_point(run),
        "versions": _versions(),
        "limitations": _limitations(what, any_size),
    }


def _names(paths: str | Sequence[str] | None) -> list[str]:
    """The last two parts of each path: a card travels, and the rest is nobody's business.

    Example:
        >>> _names("/home/jo/cracks/images"), _names(["a.h5", "/data/b.h5"])
        (['cracks/images'], ['a.h5', 'data/b.h5'])
    """
    found = [paths] if isinstance(paths, str) else paths or []
    return ["/".join(PurePath(path).parts[-2:]).lstrip("/") for path in found]


def _input(what: Exportable, any_size: bool) -> dict[str, Any]:
    reading = what.reading
    shape: list[Any] = ["batch", what.channels, *_sides(what, any_size)]
    found: dict[str, Any] = {"name": what.input, "dtype": "float32", "shape": shape}
    if isinstance(reading, ImagesReading):
        words = "pixels in the units of the files, as they are read; normalised inside"
        return {**found, "is": words, "mean": list(reading.mean), "std": list(reading.std)}
    assert what.geometry is not None
    words = (
        f"time of the hit in each pixel, 1 to T = {what.geometry.time_steps} time steps, 0 where "
        "no hit is; of several hits in a pixel the largest time; encoded inside"
    )
    turns = ", ".join(map(str, TURNS[:-1])) + f" and {TURNS[-1]}"
    return {
        **found,
        "is": words,
        "time_steps": what.geometry.time_steps,
        "threshold_r": reading.threshold,
        "channels": {name: _WORDS[name].format(turns) for name in reading.channels},
    }


def _output(what: Exportable, name: str, any_size: bool) -> dict[str, Any]:
    reading, sides = what.reading, _sides(what, any_size)
    if isinstance(reading, ImagesReading):
        values = reading.labels or range(reading.n_classes)
        names = reading.names or numbered_classes(reading.n_classes)
        return {
            "name": name,
            "dtype": "float32",
            "shape": ["batch", reading.n_classes, *sides],
            "is": "probability of each class; they sum to 1",
            "classes": {
                str(k): {"name": names[k], "value_in_masks": value}
                for k, value in enumerate(values)
            },
        }
    words = f"the time that the network gives a pixel, scaled: {_GAPPED}"
    if name == "score":
        words = "from 0, noise, to 1, signal; read it at the pixels of the hits"
        if reading.output == "value":
            words += "; 1 - |value - v| / v, at least 0, v = r + (1 - r) t / T of the hit"
    return {"name": name, "dtype": "float32", "shape": ["batch", 1, *sides], "is": words}


def _sides(what: Exportable, any_size: bool) -> list[Any]:
    return list(_AXES[len(what.frame)] if any_size else what.frame)


def _operating_point(run: Run) -> dict[str, Any] | None:
    """The threshold that the validation chose; None where its counts are gone."""
    try:
        if not run.config.trains_on_images:
            return {
                "chosen_at_retention": run.config.hits.retention,
                **run.operating_point().as_json(),
            }
        scores = run.scores()
        found = {}
        for k, threshold in enumerate(chosen_thresholds(scores)):
            f1 = scores.best_f1()[k][0]
            probability = 1 / (1 + math.exp(-threshold)) if threshold > -700 else 0.0
            found[str(k)] = {"threshold": probability, "f1": f1 if math.isfinite(f1) else None}
        return {"scale": "probability", "chosen_for": "best F1 of each class", "classes": found}
    except (ValueError, OSError):
        return None


def _versions() -> dict[str, str]:
    found = {"dense_imb": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _limitations(what: Exportable, any_size: bool) -> list[str]:
    frame = " x ".join(map(str, what.frame))
    found = []
    if isinstance(what.reading, ImagesReading):
        if any_size:
            found.append(
                f"Trained on crops of {frame} pixels. Any size is taken, but scores and thresholds "
                "of larger images were measured through overlapping windows of that size (a "
                "quarter of overlap, Gaussian weights), as `dense_imb` does it."
            )
        else:
            found.append(
                f"This network has a fixed size: images of {frame} pixels. Look at larger ones "
                "through overlapping windows of that size (a quarter of overlap, Gaussian weights)."
            )
        found.append("The images must have the units and the channels of the training images.")
    else:
        assert what.geometry is not None
        found += [
            f"Frames of {frame} pixels and {what.geometry.time_steps} time steps only, those of "
            "the training.",
            "Hits behind another one in their pixel are not seen"
            + (
                "; they share the score of the one that is."
                if what.reading.output != "value"
                else "; score them by their own time with the formula of the score."
            ),
        ]
    return [
        *found,
        "The threshold was chosen, and the scores measured, on the validation data that also chose "
        "the network: a little too good.",
        "Not measured: data of another detector, camera or noise, other versions of the runtimes, "
        "accelerators, half precision, quantisation.",
    ]


def card(facts: dict[str, Any]) -> str:
    """The facts for people, in Markdown."""
    network, training, given = facts["network"], facts["training"], facts["input"]
    stage = training.get("first_stage")
    options = f" {json.dumps(network['options'])}" if network["options"] else ""
    does = {
        "segmenter": "tells the class of each pixel of an image",
        "denoiser": "tells hits of a pattern from noise",
    }[facts["kind"]]
    parts = [
        f"# {facts['name']}: a {facts['kind']}",
        f"`{facts['file']}` {does}. {network['name']}{options}, {network['parameters']:,} "
        f"parameters, trained with dense_imb {facts['versions']['dense_imb']} on "
        f"{'images' if facts['kind'] == 'segmenter' else 'hits'}; loss `{training['loss']}`"
        + (f", after a first stage with `{stage['loss']}`." if stage else "."),
        "## Use",
        f"```python\n{example(facts)}\n```",
        "## Input and outputs",
        _bullets([_port(given), *(_port(one) for one in facts["outputs"])]),
    ]
    if "mean" in given:
        parts.append(
            "Normalised inside to (x - mean) / std of each channel: "
            f"mean {_numbers(given['mean'])}, std {_numbers(given['std'])}."
        )
        rows = [
            (k, _one_line(one["name"]), str(one["value_in_masks"]))
            for k, one in facts["outputs"][0]["classes"].items()
        ]
        parts.append(_table(("class", "name", "value in the masks"), rows))
    else:
        parts.append(
            f"Encoded inside, T = {given['time_steps']}, r = {given['threshold_r']:g}:\n\n"
            + _bullets(f"{name}: {words}" for name, words in given["channels"].items())
        )
    parts += [
        "## Threshold",
        _threshold(facts),
        "## Scores",
        _scores(facts["scores"]),
        "## Trained on",
        _table(
            ("what", "which"),
            [
                (name.replace("_", " "), _one_line(v))
                for name, v in training.items()
                if v is not None
            ],
        ),
        "## Checked",
        f"Largest difference between PyTorch and this file: {facts['check']['max_difference']:.2g} "
        f"over {facts['check']['n_frames']} frames ({facts['check']['on']}), one by one and "
        f"together{', and another size' if facts['fits_any_size'] else ''}; "
        f"{facts['check']['tolerance']:g} was allowed.",
        "## Limits",
        _bullets(facts["limitations"]),
        "## Versions",
        _bullets(f"{name} {number}" for name, number in facts["versions"].items()),
        "## Licence",
        "Not stated: whoever shares this network says under which licence, and whether its "
        "training data allow that.",
    ]
    return "\n\n".join(parts) + "\n"


def example(facts: dict[str, Any]) -> str:
    """Lines of Python that run the network where the file lies; no dense_imb."""
    is_onnx = facts["file"].endswith(".onnx")
    sides = facts["trained_on_size"]
    shape = ", ".join(map(str, [1, facts["input"]["shape"][1], *sides]))
    name, point = facts["input"]["name"], facts["operating_point"]
    lines = ["import numpy as np", "import onnxruntime" if is_onnx else "import torch"]
    if is_onnx:
        lines.append(f'session = onnxruntime.InferenceSession("{facts["file"]}")')
        answer = f'session.run(None, {{"{name}": {name}}})[0]'
    else:
        lines.append(f'network = torch.export.load("{facts["file"]}").module()')
        first = "[0]" if len(facts["outputs"]) > 1 else ""
        answer = f"network(torch.from_numpy({name})){first}.detach()"
    lines.append(f"{name} = np.zeros(({shape}), np.float32)")
    if facts["kind"] == "segmenter":
        lines[-1] += "  # your pixels"
        lines.append(f"probability = {answer}")
        threshold = _of_class_1(point)
        lines.append(f"is_class_1 = probability[:, 1] >= {threshold:.9g}")
        return "\n".join(lines)
    lines.append(f"{name}[0, 0, [5, 7], [3, 4]] = [120.0, 90.0]  # your hits: y, x, time")
    threshold = 0.5 if point is None else float(point["threshold"])
    lines.append(f"is_kept = {answer}[0, 0, [5, 7], [3, 4]] >= {threshold:.9g}")
    return "\n".join(lines)


def _of_class_1(point: dict[str, Any] | None) -> float:
    return 0.5 if point is None else float(point["classes"]["1"]["threshold"])


def _threshold(facts: dict[str, Any]) -> str:
    point = facts["operating_point"]
    if point is None:
        return (
            "None was chosen: the counts of the run's validation can't be read. 0.5 is no choice."
        )
    if facts["kind"] == "denoiser":
        return (
            f"Keep a hit where its score is at least **{float(point['threshold']):.9g}**. On the "
            f"validation events that kept {_percent(point['retention'])} of the signal (wanted: "
            f"{_percent(point['chosen_at_retention'])}) and removed {_percent(point['removal'])} "
            f"of the noise ({point['n_signal']:,} signal hits, {point['n_noise']:,} of noise)."
        )
    classes = facts["outputs"][0]["classes"]
    rows = [
        (
            _one_line(classes[k]["name"]),
            f"{one['threshold']:.9g}",
            "-" if one["f1"] is None else f"{one['f1']:.3f}",
        )
        for k, one in point["classes"].items()
    ]
    return "Of each class's probability, for its best F1 on the validation images.\n\n" + _table(
        ("class", "threshold", "F1"), rows
    )


def _scores(scores: dict[str, Any]) -> str:
    rows = [
        (name.replace("_", " "), "-" if value is None else f"{value:.4g}")
        for name, value in scores["best"].items()
        if not name.startswith(("loss", "gradient_share", "learning_rate", "epoch"))
    ]
    if not rows:
        return "None: the run has not come to a validation with a score."
    return f"Measured on the {scores['measured_on']}.\n\n" + _table(("score", "value"), rows)


def _port(port: dict[str, Any]) -> str:
    shape = ", ".join(map(str, port["shape"]))
    return f"`{port['name']}` ({shape}) {port['dtype']}: {port['is']}"


def _percent(share: float | str) -> str:
    return f"{100 * float(share):.4g} %"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _one_line(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return str(value).replace("|", "\\|")


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
