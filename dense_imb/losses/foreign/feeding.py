"""Input of any loss, ours or another library's: logits or values, and the form of its target.

It is decided by the class, module and attributes of a loss; no library is imported for it.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dense_imb.base.checks import (
    check_choice,
    check_floating,
    check_tensor,
    values_are_readable,
    wide_label,
    widen_half,
)
from dense_imb.losses.core.cover import Cover
from dense_imb.losses.core.target import check_not_swapped, without_channel
from dense_imb.losses.foreign.catalogue import OUR_INPUTS

# class indices (B, *spatial); the same as (B, 1, *spatial); one number for each class,
# (B, C, *spatial); and 0 or 1 for a sigmoid of each channel, in the logits' shape
TARGET_FORMS = ("indices", "channel", "one-hot", "binary")
_OF_VALUES = ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")  # torch's own
_CALL_OPTIONS = ("mask", "pixel_weight", "class_count", "instance", "return_parts")


class Intake(NamedTuple):
    """Input of a loss, and its options at call time."""

    name: str
    feeds_on: str  # "logits", "values" or "features"
    form: str  # one of TARGET_FORMS
    takes: tuple[str, ...] = ()  # options at call time
    is_ours: bool = False  # takes every form of our contract
    is_sigmoid: bool = False  # one channel is a logit, not the only class of a softmax
    is_one_logit: bool = False  # takes one channel only
    takes_shares: bool = False  # takes one number for each class, as well as indices
    takes_log_probability: bool = False
    ignore_index: int | None = None
    ignored_share: float = 0.0  # value of its one-hot target at ignored pixels
    wants: str | None = None  # option without which it takes probabilities


def feeds_on(loss: nn.Module) -> str:
    """Return the input of a loss: "logits", "values" or "features".

    Your own loss may declare it in an attribute `feeds_on`. An unknown loss without this attribute
    is tried on a small label map.

    Example:
        >>> feeds_on(torch.nn.BCEWithLogitsLoss()), feeds_on(torch.nn.MSELoss())
        ('logits', 'values')
    """
    declared = getattr(loss, "feeds_on", None)
    if declared is not None:
        return str(declared)
    ours = _our_name(loss)
    if ours is not None:
        return OUR_INPUTS[ours]
    if type(loss).__name__ in _OF_VALUES:
        return "values"
    is_known = _package(loss) == "monai" or _known_form(loss) is not None
    return "logits" if is_known or _accepts_labels(loss) else "values"


def takes_logits(loss: nn.Module) -> bool:
    """Whether a loss is fed logits, unlike torch's regression losses and ours of values."""
    return feeds_on(loss) == "logits"


def wants_instances(loss: nn.Module) -> bool:
    """Whether a loss, or a part of it, has means over instances and wants their map in each call.

    Your own loss may declare it in an attribute `per` with the value "instance". The map is the
    call option `instance`: integers (B, *spatial), 0 for no instance.

    Example:
        >>> wants_instances(torch.nn.CrossEntropyLoss())
        False
    """
    return any(getattr(part, "per", None) == "instance" for part in loss.modules())


def wants_cells(loss: nn.Module) -> bool:
    """Whether a loss of values, or a part of it, has means over the cells of the option `label`.

    Example:
        >>> wants_cells(torch.nn.MSELoss())
        False
    """
    return any(
        isinstance(partition, Cover) or partition in ("labels", "masks")
        for part in loss.modules()
        if isinstance(partition := getattr(part, "partition", None), (Cover, str))
    )


def target_form(loss: nn.Module) -> str:
    """Return the form of a loss's target, one of `TARGET_FORMS`.

    Your own loss may declare it in an attribute `target_form`.

    Example:
        >>> target_form(torch.nn.CrossEntropyLoss()), target_form(torch.nn.BCEWithLogitsLoss())
        ('indices', 'binary')
    """
    if _our_name(loss) is not None:
        return "indices"
    if hasattr(loss, "feeds_on"):  # a loss of the user's that declares its input
        form = str(getattr(loss, "target_form", "indices"))
        check_choice("target_form", form, TARGET_FORMS)
        return form
    return _known_form(loss) or "indices"


def apply_loss(loss: nn.Module, logits: Tensor, label: Tensor, **call_options: Any) -> Any:
    """Return the value of any loss, ours or another library's, of logits and a label map.

    Labels outside the classes are refused on the CPU, and give NaN elsewhere, unless they are the
    loss's own `ignore_index`. A loss with a softmax over two classes gets one logit z as [0, z]. A
    loss of one logit gets two channels as z_1 - z_0. Both are the same model, exactly.

    Args:
        loss: a loss of logits, or one of values, whose prediction are the logits.
        logits: (B, C, *spatial); C = 1 is binary.
        label: class indices (B, *spatial) or (B, 1, *spatial), or one number for each class,
            (B, C, *spatial).
        call_options: `mask`, `pixel_weight`, `class_count`, `instance`, `return_parts`. An option
            that the loss lacks is refused.

    Example:
        >>> logits, label = torch.zeros(1, 1, 2, 2), torch.tensor([[[0, 1], [0, 0]]])
        >>> apply_loss(torch.nn.BCEWithLogitsLoss(), logits, label)
        tensor(0.6931)
        >>> apply_loss(torch.nn.CrossEntropyLoss(), logits, label)
        tensor(0.6931)
    """
    return feed(loss, intake_of(loss), logits, label, call_options)


def intake_of(loss: nn.Module) -> Intake:
    """Return the input of a loss, and refuse a loss that cannot take label maps."""
    if not isinstance(loss, nn.Module):
        raise TypeError(f"Expected a loss to be a torch.nn.Module, got {loss!r}.")
    intake = look_at(loss)
    if intake.feeds_on == "features":
        raise ValueError(f"Expected a loss of logits or values, got {intake.name}, of features.")
    if intake.wants is not None:
        raise ValueError(
            f"Expected {intake.wants}; without it, {intake.name} would read logits as "
            "probabilities."
        )
    return intake


def can_ignore(loss: nn.Module) -> bool:
    """Whether a loss can leave pixels out, by `mask` or by an `ignore_index`.

    A sum can if each of its parts takes a `mask`.

    Example:
        >>> can_ignore(torch.nn.CrossEntropyLoss()), can_ignore(torch.nn.BCEWithLogitsLoss())
        (True, False)
    """
    parts = getattr(loss, "losses", None)
    if _our_name(loss) == "CompoundLoss" and isinstance(parts, nn.ModuleDict):
        return all("mask" in look_at(part).takes for part in parts.values())
    intake = look_at(loss)
    return "mask" in intake.takes or intake.ignore_index is not None


def look_at(loss: nn.Module) -> Intake:
    """Like `intake_of`, but does not raise for losses that cannot be used."""
    name = type(loss).__name__
    package = _package(loss)
    form = target_form(loss)
    ignore_index = getattr(_wrapped(loss) or loss, "ignore_index", None)
    is_ours = _our_name(loss) is not None
    return Intake(
        name,
        feeds_on(loss),
        form,
        takes=_options_of(loss),
        is_ours=is_ours,
        is_sigmoid=_is_sigmoid(loss),
        is_one_logit=(
            getattr(loss, "mode", "") == "binary"
            or name == "LovaszHingeLoss"
            or (form == "binary" and hasattr(loss, "feeds_on"))
        ),
        takes_shares=package == "torch" and name == "CrossEntropyLoss",
        takes_log_probability=package == "torch" and name == "NLLLoss",
        ignore_index=ignore_index if isinstance(ignore_index, int) else None,
        ignored_share=0.0 if package == "monai" or ignore_index is None else float(ignore_index),
        wants=None if is_ours else _missing_option(loss),
    )


def feed(
    loss: nn.Module, intake: Intake, logits: Tensor, label: Tensor, options: Mapping[str, Any]
) -> Any:
    """Return the value of the loss; see `apply_loss`."""
    given = {n: value for n, value in options.items() if value is not None and value is not False}
    for name in given:
        if name not in intake.takes:
            raise TypeError(f"`{intake.name}` takes no `{name}`; drop it or use a dense_imb loss.")
    if intake.is_ours and intake.feeds_on == "logits":
        return loss(logits, label, **given)
    check_not_swapped("logits", logits, label)
    check_floating("logits", logits)
    check_tensor("target", label)
    if logits.dim() < 2 or logits.shape[1] == 0:
        raise ValueError(
            f"Expected `logits` of the shape (B, C, *spatial), got {tuple(logits.shape)}."
        )
    logits = widen_half(logits)  # 16-bit sums of other libraries overflow
    has_channels = label.shape == logits.shape and logits.shape[1] > 1
    if intake.feeds_on == "values" and label.is_floating_point():
        if label.shape == logits.shape:
            return loss(logits, label.to(logits.dtype), **given)
        has_channels = False
    logits, label, has_channels = _in_channels(intake, logits, label, has_channels)
    if has_channels:
        target, is_broken = _from_shares(intake, label.to(logits.dtype))
    else:
        target, is_broken = _from_label(intake, logits, label)
    value = loss(logits, target, **given)
    return value if is_broken is None else torch.where(is_broken, torch.nan, value)


def _in_channels(
    intake: Intake, logits: Tensor, label: Tensor, has_channels: bool
) -> tuple[Tensor, Tensor, bool]:
    """Return the same model in a number of channels that the loss accepts."""
    n_channels = logits.shape[1]
    if intake.takes_log_probability and n_channels > 1:
        return logits.log_softmax(1), label, has_channels
    if intake.is_one_logit and n_channels > 1:
        if n_channels > 2:
            raise ValueError(
                f"Expected logits of one or two channels for {intake.name}, which is binary, "
                f"got {n_channels}."
            )
        label = label[:, 1:] if has_channels else label
        return logits[:, 1:] - logits[:, :1], label, False
    is_softmax = not (intake.is_sigmoid or intake.is_one_logit or intake.form == "binary")
    if n_channels == 1 and is_softmax and intake.feeds_on == "logits":
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
        if intake.takes_log_probability:
            logits = logits.log_softmax(1)
    return logits, label, has_channels


def _from_shares(intake: Intake, share: Tensor) -> tuple[Tensor, Tensor | None]:
    """Convert a target with one number for each class to the form of the loss.

    The second value is True where that is impossible.
    """
    if intake.form in ("one-hot", "binary") or intake.takes_shares or intake.feeds_on == "values":
        return share, None
    highest, index = share.max(1)
    is_hard = (highest == 1) & (share.sum(1) == 1)
    broken: Tensor | None = ~is_hard.all()
    if values_are_readable(is_hard):
        if not bool(is_hard.all()):
            raise ValueError(
                f"Expected `target` to hold one class for each pixel, got probabilities, which "
                f"{intake.name} does not take; use their argmax, or another loss."
            )
        broken = None
    return (index.unsqueeze(1) if intake.form == "channel" else index), broken


def _from_label(intake: Intake, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor | None]:
    """Convert a label map to the form of the loss.

    The second value is True where the map holds a label that is no class.
    """
    n_channels = logits.shape[1]
    n_classes = max(n_channels, 2)
    label = wide_label(without_channel("target", label, logits[:, 0], shown=logits))
    form = "binary" if intake.is_sigmoid and n_channels == 1 else intake.form
    if intake.feeds_on == "values":
        form = "one-hot" if n_channels > 1 else "binary"
    if not label.is_floating_point():
        label = label.long()  # numbers of classes wrap in narrow types
    is_soft = label.is_floating_point() and n_classes == 2 and form in ("one-hot", "binary")
    is_legal = (label >= 0) & (label <= n_classes - 1)
    if label.is_floating_point() and not is_soft:
        is_legal = is_legal & (label == label.round())
    is_ignored = None if intake.ignore_index is None else label == intake.ignore_index
    if is_ignored is not None:
        is_legal = is_legal | is_ignored
    broken: Tensor | None = ~is_legal.all()
    if values_are_readable(is_legal):
        if not bool(is_legal.all()):
            raise ValueError(_no_class_sentence(intake, n_classes, label[~is_legal][0].item()))
        broken = None
    else:
        label = torch.where(is_legal, label, 0)
    if form == "indices":
        return label.long(), broken
    if form == "channel":
        return label.long().unsqueeze(1), broken
    if form == "binary" and n_channels == 1:
        return label.to(logits.dtype).unsqueeze(1), broken
    if is_soft:
        share = torch.stack([1 - label, label], 1)
    else:
        number = torch.arange(n_classes, device=label.device)
        share = label.unsqueeze(1) == number.view((1, -1) + (1,) * (label.dim() - 1))
    share = share.to(logits.dtype)
    if is_ignored is not None:
        share = torch.where(is_ignored.unsqueeze(1), intake.ignored_share, share)
    return share, broken


def _no_class_sentence(intake: Intake, n_classes: int, label: float) -> str:
    if intake.ignore_index is None:
        why = f"{intake.name} has no `ignore_index`"
    else:
        why = f"the `ignore_index` of {intake.name} is {intake.ignore_index}"
    return (
        f"Expected labels from 0 to {n_classes - 1} for {intake.name}, got {label:g}: {why}, so "
        "such pixels would count as a class; use a loss that can ignore them."
    )


def _package(loss: nn.Module) -> str:
    return type(loss).__module__.split(".")[0]


def _our_name(loss: nn.Module) -> str | None:
    """Return the name of the dense_imb loss that this is or inherits from; None for others.

    A subclass with its own `target_form` counts as another loss.
    """
    if hasattr(loss, "target_form"):
        return None
    for base in type(loss).__mro__:
        if base.__module__.startswith("dense_imb.") and base.__name__ in OUR_INPUTS:
            return base.__name__
    return None


def _known_form(loss: nn.Module) -> str | None:
    """Return the target form of a known library's loss; None for an unknown loss."""
    name, package = type(loss).__name__, _package(loss)
    if package == "monai":
        inner = _wrapped(loss)
        if inner is not None:
            form = target_form(inner)
            return "channel" if form == "indices" else form
        if _has(loss, "to_onehot_y"):
            return "channel"
        return "binary" if _is_sigmoid(loss) else "one-hot"
    # of segmentation-models-pytorch
    mode = getattr(loss, "mode", "")
    if mode in ("binary", "multilabel") or "BCEWithLogits" in name:
        return "binary"
    if package == "kornia" and name == "BinaryFocalLossWithLogits":
        return "binary"
    is_torchs = package == "torch" and name in ("CrossEntropyLoss", "NLLLoss")
    is_of_indices = mode == "multiclass" or name == "LovaszHingeLoss"
    return "indices" if is_torchs or is_of_indices else None


def _wrapped(loss: nn.Module) -> nn.Module | None:
    """Return the loss inside one of MONAI's wrappers, like DeepSupervisionLoss."""
    inner = getattr(loss, "loss", None) if _package(loss) == "monai" else None
    return inner if isinstance(inner, nn.Module) else None


def _is_sigmoid(loss: nn.Module) -> bool:
    """Whether a loss of MONAI takes a sigmoid of each channel; False for other libraries."""
    if _package(loss) != "monai":
        return False
    if _has(loss, "sigmoid"):
        return True
    is_focal = any(hasattr(module, "use_softmax") for module in loss.modules())
    return is_focal and not (_has(loss, "use_softmax") or _has(loss, "softmax"))


def _missing_option(loss: nn.Module) -> str | None:
    """Return the option without which a loss takes probabilities, if it is missing."""
    if _package(loss) == "torch" and type(loss).__name__ == "BCELoss":
        return "BCEWithLogitsLoss in place of BCELoss"
    if getattr(loss, "from_logits", True) is False:
        return f"from_logits=True of {type(loss).__name__}"
    if _package(loss) != "monai" or not any(hasattr(m, "other_act") for m in loss.modules()):
        return None
    if any(_has(loss, name) for name in ("sigmoid", "softmax", "other_act")):
        return None
    return f"sigmoid=True or softmax=True of {type(loss).__name__}"


def _has(loss: nn.Module, name: str) -> bool:
    """Whether an option is on in a loss or in one of its submodules."""
    return any(bool(getattr(module, name, False)) for module in loss.modules())


def _options_of(loss: nn.Module) -> tuple[str, ...]:
    parameters = inspect.signature(type(loss).forward).parameters
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
        return _CALL_OPTIONS
    return tuple(name for name in _CALL_OPTIONS if name in parameters)


def _accepts_labels(loss: nn.Module) -> bool:
    """Whether the loss takes logits and class indices.

    A loss of values cannot broadcast the example's logits and labels against each other.
    """
    loss = copy.deepcopy(loss)  # a call may change its state
    logits, label = torch.zeros(3, 2, 4, 5), torch.zeros(3, 4, 5, dtype=torch.long)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            loss(logits, label)
        except Exception:  # a loss may raise anything
            return False
    return True
