"""Hostile tensors, the losses and scores that get them, and the judge of the outcome.

A hostile tensor is made of one input of a sound call. Every call must give the number of plain,
contiguous float64 and int64 copies of the same tensors, or refuse in one sentence.
"""

from __future__ import annotations

import itertools
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dense_imb import losses, metrics
from dense_imb.losses import Balance
from dense_imb.statistics import ClassStatistics

from .cases import CASES, Case

Inputs = dict[str, Tensor]
_PACKAGE = str(Path(losses.__file__).parents[1])
_SENTENCE = 420  # characters: longer ones are not one sentence


# --- subjects ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A loss, or a score. `call(inputs)` returns one tensor; `roles` says what an input holds."""

    id: str
    call: Callable[[Inputs], Tensor]
    inputs: Callable[[], Inputs]
    roles: dict[str, str]  # "value", "logit", "class", "mask", "weight" or "number"
    needs_values: bool = False  # a score, or a loss that reads its labels: no meta tensors
    is_loss: bool = True


def _subject_of(case: Case, is_masked: bool) -> Subject:
    def inputs() -> Inputs:
        made = case.inputs(3, size=4)
        if is_masked:
            rng = torch.Generator().manual_seed(5)
            first, second = list(made.values())[:2]
            is_dense = "logits" in made
            shape = (first.shape[0], *first.shape[2:]) if is_dense else second.shape
            made["mask"] = torch.rand(shape, generator=rng) < 0.7
            made["pixel_weight"] = 0.5 + torch.rand(shape, generator=rng, dtype=torch.float64)
        return made

    def call(made: Inputs) -> Tensor:
        first, second, *rest = made
        value: Tensor = case.make()(made[first], made[second], **{n: made[n] for n in rest})
        return value

    roles = {}
    for name, tensor in inputs().items():
        roles[name] = {
            "prediction": "value", "logits": "logit", "mask": "mask", "pixel_weight": "weight",
            "label": "mask" if case.is_cover else "class", "instance": "number",
        }.get(name, "value" if case.is_regression else "class")  # fmt: skip
        if name == "target" and tensor.is_floating_point() and not case.is_regression:
            roles[name] = "share"
    return Subject(f"{case.id}{', masked' if is_masked else ''}", call, inputs, roles)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _logits(n_classes: int = 3) -> Inputs:
    rng = _generator()
    logits = torch.randn(3, n_classes, 4, 5, generator=rng, dtype=torch.float64)
    return {"logits": logits, "target": torch.randint(0, n_classes, (3, 4, 5), generator=rng)}


def _frames(*names: str, shape: tuple[int, ...] = (3, 1, 4, 5)) -> Inputs:
    rng = _generator()
    return {name: torch.rand(shape, generator=rng, dtype=torch.float64) for name in names}


def _masked(inputs: Inputs, *, weight: bool = False) -> Inputs:
    first = next(iter(inputs.values()))
    shape = (first.shape[0], *first.shape[2:]) if "logits" in inputs else first.shape
    rng = torch.Generator().manual_seed(5)
    inputs["mask"] = torch.rand(shape, generator=rng) < 0.7
    if weight:
        inputs["pixel_weight"] = 0.5 + torch.rand(shape, generator=rng, dtype=torch.float64)
    return inputs


def _loss(make: Callable[[], Any]) -> Callable[[Inputs], Tensor]:
    def call(made: Inputs) -> Tensor:
        first, second, *rest = made.values()
        names = list(made)[2:]
        value: Tensor = make()(first, second, **dict(zip(names, rest, strict=True)))
        return value

    return call


def _features() -> Inputs:
    rng = _generator()
    features = 3 * torch.randn(3, 4, 2, 3, generator=rng, dtype=torch.float64)
    return {"features": features, "label": torch.randint(0, 3, (3, 2, 3), generator=rng)}


def _errors() -> Inputs:
    rng = _generator()
    error = torch.rand(3, 4, 5, generator=rng, dtype=torch.float64)
    return {"error": error, "label": torch.randint(0, 3, (3, 4, 5), generator=rng)}


def _balanced_mean(made: Inputs) -> Tensor:
    error, label, *rest = made.values()
    options = dict(zip(list(made)[2:], rest, strict=True))
    value: Tensor = losses.balanced_mean(error, label, 3, balance=Balance(), **options)
    return value


def _overlap(made: Inputs) -> Tensor:
    return torch.cat([part.reshape(-1) for part in losses.overlap(**made)]).sum()


_VALUES = {"prediction": "value", "target": "value"}
_WEIGHTS = {"mask": "mask", "pixel_weight": "weight"}
_CLASSES = {"logits": "logit", "target": "class"}

LOSSES: tuple[Subject, ...] = (
    *(_subject_of(case, is_masked) for case in CASES for is_masked in (False, True)),
    Subject(
        "balanced mse", _loss(losses.BalancedMSELoss), partial(_frames, "prediction", "target"),
        _VALUES,
    ),
    Subject(
        "balanced mse of samples, masked", _loss(partial(losses.BalancedMSELoss, n_samples=20)),
        lambda: _masked(_frames("prediction", "target"), weight=True), {**_VALUES, **_WEIGHTS},
    ),
    Subject(
        "range", _loss(partial(losses.RangeLoss, inter_weight=1.0, intra_weight=1.0)),
        lambda: {**_features(), "mask": torch.rand(3, 2, 3, generator=_generator()) < 0.9},
        {"features": "value", "label": "class", "mask": "mask"}, needs_values=True,
    ),
    Subject(
        "balanced mean", _balanced_mean, lambda: _masked(_errors(), weight=True),
        {"error": "value", "label": "class", **_WEIGHTS},
    ),
    Subject(
        "overlap", _overlap, lambda: _masked(_logits(), weight=True), {**_CLASSES, **_WEIGHTS}
    ),
    Subject(
        "dice of 1,000 classes", _loss(losses.DiceLoss), partial(_logits, 1000), _CLASSES
    ),
    Subject(
        "cross entropy of 1,000 classes",
        _loss(partial(losses.CrossEntropyLoss, balance=Balance())), partial(_logits, 1000),
        _CLASSES,
    ),
    Subject(
        "label to ignore", _loss(partial(losses.CrossEntropyLoss, ignore_index=-1)), _logits,
        _CLASSES,
    ),
)  # fmt: skip


def _score(
    make: Callable[[], Any], *, method: str = "update", **fixed: Any
) -> Callable[[Inputs], Tensor]:
    """Return the sums of a new score after one update."""

    def call(made: Inputs) -> Tensor:
        score = make()
        getattr(score, method)(*list(made.values())[:2], **fixed,
                               **dict(list(made.items())[2:]))  # fmt: skip
        tensors = score._tensors()
        return torch.cat([torch.as_tensor(one).reshape(-1).double() for one in tensors])

    return call


def _hits() -> Inputs:
    rng = _generator()
    return {
        "score": torch.rand(30, generator=rng, dtype=torch.float64),
        "label": torch.randint(0, 3, (30,), generator=rng),
        "event": torch.randint(0, 4, (30,), generator=rng),
        "time": torch.rand(30, generator=rng, dtype=torch.float64),
        "true_time": torch.rand(30, generator=rng, dtype=torch.float64),
        "is_visible": torch.rand(30, generator=rng) < 0.8,
    }


def _scored() -> Inputs:
    rng = _generator()
    score = torch.rand(3, 4, 5, generator=rng, dtype=torch.float64)
    return {"score": score, "is_true": torch.rand(3, 4, 5, generator=rng) < 0.3}


def _images() -> Inputs:
    return _frames("prediction", "target", "measured", shape=(2, 1, 12, 12))


def _doses() -> Inputs:
    dose = {n: 70 * v for n, v in _frames("prediction", "dose", shape=(2, 1, 4, 5, 6)).items()}
    structures = torch.stack([dose["dose"][:, 0] > low for low in (5, 40, 60)], 1)
    return {**dose, "structures": structures}


def _maps() -> Inputs:
    made = _frames("prediction", "target")
    cells = torch.randint(0, 4, (3, 4, 5), generator=_generator())
    return {**made, "cells": cells, "mask": torch.rand(3, 4, 5, generator=_generator()) < 0.7}


def _places() -> Inputs:
    return {n: 9 * v for n, v in _frames("prediction", "target", shape=(3, 2, 2)).items()}


def _dose_volume(made: Inputs) -> Tensor:
    values = metrics.dose_volume(made["dose"], made["structure"], (4.0, 4.0, 2.5))
    return torch.tensor(list(values.values()), dtype=torch.float64)


def _fitted(made: Inputs) -> Tensor:
    natural = metrics.fit_probability(made["logits"], made["target"])
    return torch.tensor([*natural.slope, *natural.bias], dtype=torch.float64)


def _many_logits() -> Inputs:
    rng = _generator()
    label = torch.randint(0, 3, (8, 40), generator=rng)
    logits = torch.randn(8, 3, 40, generator=rng, dtype=torch.float64)
    return {"logits": logits + torch.nn.functional.one_hot(label, 3).movedim(-1, 1),
            "target": label}  # fmt: skip


_POINT = metrics.OperatingPoint(0.4, "probability", 0.97, 0.5, 0.5, n_signal=10, n_noise=10)
_SCORED = {"score": "score", "is_true": "mask"}

SCORES: tuple[Subject, ...] = tuple(
    Subject(name, call, inputs, roles, needs_values=True, is_loss=False)
    for name, call, inputs, roles in (
        (
            "ScoreHistogram", _score(metrics.ScoreHistogram),
            lambda: dict(zip(("score", "is_signal"), _scored().values(), strict=True)),
            {"score": "score", "is_signal": "mask"},
        ),
        (
            "HitScores", _score(lambda: metrics.HitScores(_POINT)), _hits,
            {"score": "score", "label": "class", "event": "number", "time": "value",
             "true_time": "value", "is_visible": "mask"},
        ),
        (
            "SegmentationScores", _score(lambda: metrics.SegmentationScores(3)),
            lambda: _masked(_logits()), {**_CLASSES, "mask": "mask"},
        ),
        (
            "ObjectScores", _score(metrics.ObjectScores),
            lambda: _masked({"is_predicted": _scored()["score"] > 0.5,
                             "is_true": _scored()["is_true"]}),
            {"is_predicted": "mask", "is_true": "mask", "mask": "mask"},
        ),
        (
            "ImageQuality", _score(metrics.ImageQuality), _images,
            {"prediction": "value", "target": "value", "measured": "value"},
        ),
        (
            "TolerantF1", _score(metrics.TolerantF1), lambda: _masked(_scored()),
            {**_SCORED, "mask": "mask"},
        ),
        (
            "ClassificationScores", _score(lambda: metrics.ClassificationScores(3)),
            lambda: {"logits": _logits()["logits"][..., 0, 0],
                     "label": _logits()["target"][:, 0, 0]},
            {"logits": "logit", "label": "class"},
        ),
        (
            "ValueScores",
            _score(lambda: metrics.ValueScores(level=0.5, value_edges=[0.2, 0.9],
                                               cells=["a", "b"], rest=True)),
            _maps, {**_VALUES, "cells": "number", "mask": "mask"},
        ),
        (
            "ReadOutTally", _score(metrics.ReadOutTally),
            lambda: _masked(_frames("prediction", "target")), {**_VALUES, "mask": "mask"},
        ),
        (
            "KeyPointScores", _score(lambda: metrics.KeyPointScores(["nose", "tail"])), _places,
            _VALUES,
        ),
        (
            "DoseScores",
            _score(lambda: metrics.DoseScores(["possible_dose_mask", "Cord", "PTV70"]),
                   voxel_mm=(4.0, 4.0, 2.5)),
            _doses, {"prediction": "value", "dose": "value", "structures": "mask"},
        ),
        (
            "dose_volume", _dose_volume,
            lambda: {"dose": _doses()["dose"], "structure": _doses()["structures"][:, :1]},
            {"dose": "value", "structure": "mask"},
        ),
        (
            "dose_score",
            lambda made: torch.tensor(metrics.dose_score(**made), dtype=torch.float64),
            lambda: {"prediction": _doses()["prediction"], "dose": _doses()["dose"],
                     "possible": _doses()["structures"][:, :1]},
            {"prediction": "value", "dose": "value", "possible": "mask"},
        ),
        (
            "dose_volume_curve", lambda made: metrics.dose_volume_curve(**made),
            lambda: {"dose": _doses()["dose"], "structure": _doses()["structures"][:, :1],
                     "at": torch.tensor([5.0, 20.0, 60.0]).double()},
            {"dose": "value", "structure": "mask", "at": "value"},
        ),
        (
            "fit_probability", _fitted, _many_logits, {"logits": "logit", "target": "class"},
        ),
        (
            "best_f1_threshold",
            lambda made: torch.tensor(metrics.best_f1_threshold(**made)).double(),
            lambda: {"probability": _scored()["score"]}, {"probability": "score"},
        ),
        (
            "ClassStatistics",
            _score(lambda: ClassStatistics(3)), lambda: {"target": _logits()["target"]},
            {"target": "class"},
        ),
        (
            "ClassStatistics of hits",
            _score(lambda: ClassStatistics(partition="hits")), lambda: _frames("target"),
            {"target": "value"},
        ),
        (
            "ClassStatistics, masked",
            lambda made: _score(lambda: ClassStatistics(3, ignore_index=2))(made),
            lambda: {"target": _logits()["target"]}, {"target": "class"},
        ),
    )
)  # fmt: skip


# --- hostile tensors --------------------------------------------------------------------------

Change = Callable[[Tensor], Any]
SPECIAL = {"NaN": torch.nan, "inf": torch.inf, "-inf": -torch.inf, "1e30": 1e30,
           "denormal": 1e-310}  # fmt: skip
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
LABELS = (-1, -100, 255, 1000, 2**31, 2**40, -(2**40), 2**63 - 1, -(2**63))
INTEGERS = (
    torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip


def _strided(value: Tensor) -> Tensor:
    return value.transpose(0, -1).contiguous().transpose(0, -1)


def _channels_last(value: Tensor) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if value.dim() not in formats:
        return value
    return value.contiguous(memory_format=formats[value.dim()])


def _every_other(value: Tensor) -> Tensor:
    """A view with gaps, and with an offset into its storage."""
    wide = torch.stack([value, value], -1).repeat(2, *[1] * value.dim())
    return wide[len(value) :, ..., 1]


def _expanded(value: Tensor) -> Tensor:
    return value[:1].expand(value.shape) if value.dim() else value


def _one_number(value: Tensor) -> Tensor:
    return value.reshape(-1)[:1].view((1,) * value.dim()).expand(value.shape)


def _negative_view(value: Tensor) -> Tensor:
    """A view with the negative bit, which reads as the same numbers."""
    return torch.complex(torch.zeros_like(value), -value).conj().imag


def _inference(value: Tensor) -> Tensor:
    with torch.inference_mode():
        return value.clone()


def _meta_tensor(value: Tensor) -> Tensor:
    from monai.data import MetaTensor

    return MetaTensor(value)


def _quantised(value: Tensor) -> Tensor:
    return torch.quantize_per_tensor(value.float(), 0.1, 10, torch.quint8)


def _nested(value: Tensor, layout: torch.layout) -> Tensor:
    return torch.nested.nested_tensor(list(value), layout=layout)


def _with(value: Tensor, numbers: tuple[float, ...]) -> Tensor:
    changed = value.clone().contiguous()
    flat = changed.view(-1)
    for place, number in enumerate(numbers[: len(flat)]):  # the places repeat
        if number == SPECIAL["denormal"] and value.dtype != torch.float64:
            number = 1e-40
        flat[(7 * place + 1) % len(flat)] = number
    return changed


LAYOUTS: dict[str, Change] = {
    "strided": _strided,
    "channels-last": _channels_last,
    "with gaps": _every_other,
    "expanded": _expanded,
    "one number": _one_number,
    "inference": _inference,
    "MetaTensor": _meta_tensor,
    "Parameter": lambda value: torch.nn.Parameter(value, requires_grad=False),
}
OTHER_KINDS: dict[str, Change] = {
    "sparse COO": lambda value: value.to_sparse(),
    "sparse CSR": lambda value: value.reshape(len(value), -1).to_sparse_csr(),
    "nested": partial(_nested, layout=torch.strided),
    "jagged": partial(_nested, layout=torch.jagged),
    "quantised": _quantised,
    "MKLDNN": lambda value: value.float().to_mkldnn(),
    "float8": lambda value: value.to(torch.float8_e4m3fn),
    "float8 without zero": lambda value: value.to(torch.float8_e8m0fnu),
    "complex64": lambda value: value.to(torch.complex64),
    "complex128": lambda value: value.to(torch.complex128),
    "complex32": lambda value: value.to(torch.complex32),
    "NumPy": lambda value: value.numpy(),
    "list": lambda value: value.tolist(),
    "string": lambda value: "tensor",
    "meta": lambda value: value.to("meta"),
}
SIZES: dict[str, Change] = {
    "no image": lambda value: value[:0],
    "no pixel": lambda value: value[..., :0],
    "no channel": lambda value: value[:, :0] if value.dim() > 1 else value[:0],
    "scalar": lambda value: value.reshape(-1)[0],
    "one more dimension": lambda value: value.unsqueeze(-1),
}


@dataclass(frozen=True)
class Hostile:
    """One change of some inputs. `wants` is "number", "sentence" or "" for what the copy gives."""

    id: str
    change: Callable[[Inputs], dict[str, Any]]
    wants: str = ""
    with_gradient: tuple[str, ...] = ()


def _at(name: str, change: Change) -> Callable[[Inputs], dict[str, Any]]:
    return lambda inputs: {**inputs, name: change(inputs[name])}


def _everywhere(change: Change) -> Callable[[Inputs], dict[str, Any]]:
    return lambda inputs: {name: change(value) for name, value in inputs.items()}


def _numbers_of(role: str, with_combinations: bool) -> dict[str, tuple[float, ...]]:
    """Return numbers to put into an input, by name: one at a time, or several together."""
    if role in ("value", "logit", "score", "weight"):
        n_most = len(SPECIAL) if with_combinations and role in ("value", "logit") else 1
        groups = [
            names for n in range(1, n_most + 1) for names in itertools.combinations(SPECIAL, n)
        ]
        made = {" ".join(names): tuple(SPECIAL[name] for name in names) for names in groups}
        return {**made, "-1": (-1,), "all NaN": (torch.nan,) * 10_000}
    if role in ("class", "number"):
        return {str(number): (number,) for number in LABELS}
    return {}


def hostiles(subject: Subject) -> Iterator[Hostile]:
    """Yield the rows of one loss or score."""
    inputs, roles = subject.inputs(), subject.roles
    for name in roles:
        for row in (_layouts, _other_kinds, _types, _numbers):
            yield from row(subject, name, inputs[name])
    yield from _all_at_once(subject)
    names = list(roles)
    if len(names) > 1 and inputs[names[0]].shape == inputs[names[1]].shape:
        yield Hostile(
            f"{names[1]} is {names[0]}", lambda given: {**given, names[1]: given[names[0]]}
        )


def _layouts(subject: Subject, name: str, value: Tensor) -> Iterator[Hostile]:
    for kind, change in LAYOUTS.items():
        yield Hostile(f"{name} {kind}", _at(name, change), "number")
    if value.is_floating_point():
        yield Hostile(f"{name} negative view", _at(name, _negative_view), "number")
        if name != next(iter(subject.roles)):
            yield Hostile(f"{name} with gradient", _at(name, torch.clone), "number", (name,))


def _other_kinds(subject: Subject, name: str, value: Tensor) -> Iterator[Hostile]:
    for kind, change in OTHER_KINDS.items():
        if value.is_floating_point() or kind != "float8 without zero":
            yield Hostile(f"{name} {kind}", _at(name, change), "sentence")
    for kind, change in SIZES.items():
        yield Hostile(f"{name} {kind}", _at(name, change))


def _types(subject: Subject, name: str, value: Tensor) -> Iterator[Hostile]:
    is_float = value.is_floating_point() and subject.roles[name] != "share"
    for dtype in (*FLOATS, torch.float64, *INTEGERS, torch.bool):
        wants = "number" if is_float and dtype.is_floating_point else ""
        yield Hostile(f"{name} {_short(dtype)}", _at(name, partial(Tensor.to, dtype=dtype)), wants)


def _numbers(subject: Subject, name: str, value: Tensor) -> Iterator[Hostile]:
    role = subject.roles[name]
    for kind, numbers in _numbers_of(role, "mask" not in subject.roles).items():
        put = partial(_with, numbers=numbers)
        yield Hostile(f"{name} {kind}", _at(name, put))
        # the slope of |d| rises to 1 over the denormal numbers d of float32
        is_soft_slope = subject.id.startswith("l1") and "denormal" in kind
        if role in ("value", "logit") and not is_soft_slope:
            yield Hostile(f"{name} float32 {kind}", _at(name, lambda v, p=put: p(v.float())))
    if not value.is_floating_point():
        for number in (torch.nan, torch.inf, 0.5, 1e30):
            put = partial(_with, numbers=(number,))
            yield Hostile(f"{name} {number}", _at(name, lambda v, p=put: p(v.double())))


def _all_at_once(subject: Subject) -> Iterator[Hostile]:
    for kind, change in LAYOUTS.items():
        yield Hostile(f"everything {kind}", _everywhere(change), "number")
    for kind in ("no image", "no pixel"):
        yield Hostile(f"everything {kind}", _everywhere(SIZES[kind]))
    wants = "sentence" if subject.needs_values else "shape"
    yield Hostile("everything meta", _everywhere(lambda v: v.to("meta")), wants)
    for dtype in FLOATS:
        change = partial(_narrowed, dtype=dtype)
        yield Hostile(f"everything {_short(dtype)}", _everywhere(change))


def _narrowed(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# --- the judge --------------------------------------------------------------------------------


def judge(subject: Subject, hostile: Hostile) -> tuple[str, str]:
    """Return the verdict on one call, and why it is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inputs = hostile.change(subject.inputs())
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return "", ""  # torch has no such tensor
    before = {name: _copy(value) for name, value in inputs.items()}
    found = _outcome(subject, hostile, inputs)
    if isinstance(found, Exception):
        why = _is_no_sentence(found)
        if why:
            return "wrong", why
        if hostile.wants == "shape":
            return "wrong", f"refused: {found}"
        if hostile.wants == "number":  # the same numbers in another layout or type
            copy = {name: _plain(value) for name, value in inputs.items()}
            if not isinstance(_outcome(subject, hostile, copy), Exception):
                return "wrong", f"refused: {found}"
        return "sentence", ""
    if hostile.wants == "sentence":
        return "wrong", f"not refused: {found[0]}"
    if hostile.wants == "shape":
        return ("number", "") if found[0].is_meta else ("wrong", "not a meta tensor")
    for name, value in inputs.items():
        if not _is_equal(value, before[name]):
            return "wrong", f"changed its input {name}"
    expected = _outcome(subject, hostile, {name: _plain(v) for name, v in inputs.items()})
    if isinstance(expected, Exception):
        return "wrong", f"a number, {found[0]}, where the copy is refused: {expected}"
    if len(found) < len(expected) and not next(iter(inputs.values())).is_inference():
        return "wrong", "no gradient"
    for part, wanted in zip(found, expected, strict=False):
        why = _differs(part, wanted, inputs)
        if why:
            return "wrong", why
    return "number", ""


def _outcome(
    subject: Subject, hostile: Hostile, inputs: dict[str, Any]
) -> tuple[Tensor, ...] | Exception:
    """Return value and gradients, or the error."""
    given, leaves = dict(inputs), []
    wanted = [next(iter(inputs)), *hostile.with_gradient] if subject.is_loss else []
    for name in wanted:
        value = inputs[name]
        can_train = isinstance(value, Tensor) and value.is_floating_point()
        if can_train and not value.is_inference() and value.layout == torch.strided:
            given[name] = value.detach().requires_grad_()
            leaves.append(given[name])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = subject.call(given)
            if not leaves or value.is_meta or not value.requires_grad:
                return (value,)
            return value, *torch.autograd.grad(value, leaves, materialize_grads=True)
    except Exception as problem:  # the judge's to name
        return problem


def _is_no_sentence(problem: Exception) -> str:
    """Return why an error is no sentence of ours; "" if it is one."""
    text, frames = str(problem), traceback.extract_tb(problem.__traceback__)
    is_ours = frames[-1].filename.startswith(_PACKAGE)
    is_one = text.endswith(".") and "\n" not in text and len(text) < _SENTENCE
    if isinstance(problem, (TypeError, ValueError)) and is_ours and is_one:
        return ""
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
    return f"{type(problem).__name__} in {where}: {text.splitlines()[:1]}"


def _copy(value: Any) -> Tensor | None:
    """Return a copy of a tensor whose numbers can be compared."""
    if not isinstance(value, Tensor) or value.is_meta or value.is_nested or value.is_quantized:
        return None
    return value.detach().clone() if value.layout == torch.strided else None


def _is_equal(value: Any, before: Tensor | None) -> bool:
    if before is None or value.dtype.itemsize == 1 or value.dtype == torch.complex32:
        return True
    return bool(((value == before) | ((value != value) & (before != before))).all())


def _plain(value: Any) -> Any:
    if hasattr(value, "as_tensor"):
        value = value.as_tensor()
    if not isinstance(value, Tensor):
        return value
    value = value.detach().clone(memory_format=torch.contiguous_format)
    if value.is_floating_point():
        return value.double()
    return value if value.dtype == torch.bool else value.long()


def _differs(found: Tensor, wanted: Tensor, inputs: dict[str, Any]) -> str:
    """Return in what a number differs from that of the copy; "" if in nothing.

    Where a square is beyond float32, a narrow gradient may be NaN or infinite, but not wrong.
    """
    found = found.as_tensor() if hasattr(found, "as_tensor") else found
    types = [v.dtype for v in inputs.values() if isinstance(v, Tensor) and v.is_floating_point()]
    eps = max(torch.finfo(dtype).eps for dtype in (found.dtype, *types))
    if found.dim() == 0:  # a loss of 16-bit floats is computed in float32
        eps = min(eps, torch.finfo(torch.float32).eps)
    rtol = 1e-9 if eps < 1e-12 else max(eps, 1e-4)
    wanted = wanted.to(found.dtype)
    if found.dim() and found.dtype != torch.float64 and _overflows(inputs):
        known = found.isfinite()
        found, wanted = found[known], wanted[known]
    atol, found, wanted = rtol * 1e-2, found.double(), wanted.double()
    is_close = found.shape == wanted.shape and torch.allclose(
        found, wanted, rtol=rtol, atol=atol, equal_nan=True
    )
    if not is_close:
        return f"{found.flatten()[:3].tolist()} is not {wanted.flatten()[:3].tolist()}"
    return ""


def _overflows(inputs: dict[str, Any]) -> bool:
    """Whether a square in float32 is infinite where one in float64 is not."""
    floats = [v for v in inputs.values() if isinstance(v, Tensor) and v.is_floating_point()]
    sizes = [v.detach().double().abs() for v in floats]
    return any(bool(((size > 1e19) & size.isfinite()).any()) for size in sizes)


def count(subjects: tuple[Subject, ...]) -> tuple[Counter[str], list[str]]:
    """Return the verdicts on all rows of some subjects, and a line for each wrong one."""
    verdicts: Counter[str] = Counter()
    wrong = []
    for subject in subjects:
        for hostile in hostiles(subject):
            verdict, why = judge(subject, hostile)
            if verdict:
                verdicts[verdict] += 1
            if why:
                wrong.append(f"{subject.id}: {hostile.id}: {why}")
    return verdicts, wrong


def table(counted: dict[str, Counter[str]]) -> str:
    """Return the counts as lines of text."""
    lines = [f"{'':8}{'tried':>9}{'number':>9}{'sentence':>10}{'wrong':>7}"]
    for name, verdicts in counted.items():
        n, of = verdicts.total(), verdicts
        lines.append(f"{name:8}{n:9,}{of['number']:9,}{of['sentence']:10,}{of['wrong']:7,}")
    return "\n".join(lines)
