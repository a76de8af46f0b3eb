"""Options that losses share: each is written, checked and shown once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar

from torch import Tensor

from dense_imb.base.refusals import suggest
from dense_imb.losses.core.balance import Balance
from dense_imb.losses.core.instances import Per
from dense_imb.losses.core.spread import Spread

Callee = TypeVar("Callee", bound=Callable[..., Any])


class ValueCallOptions(TypedDict, total=False):
    """Options of every loss of values at call time."""

    mask: Tensor | None
    pixel_weight: Tensor | None
    class_count: Tensor | Sequence[float] | None
    return_parts: bool


class CallOptions(ValueCallOptions, total=False):
    """Options of every loss at call time that may have means over instances."""

    instance: Tensor | None


class ReducedCallOptions(ValueCallOptions, total=False):
    """Options of a functional loss of values, which takes its reduction at call time too."""

    reduction: str


class MeanOptions(TypedDict, total=False):
    """Options of every classification loss at construction."""

    class_weight: Sequence[float] | Tensor | None
    ignore_index: int | None
    balance: Balance | None
    per: Per
    max_instances: int | None
    spread: Spread | None
    reduction: str
    validate: bool


class PixelOptions(MeanOptions, CallOptions, total=False):
    """Options of every functional classification loss."""


# options of other libraries' losses
_LOGITS = "our losses take logits"
_OF_OTHERS = {
    **dict.fromkeys(("softmax", "sigmoid", "use_softmax", "from_logits", "other_act"), _LOGITS),
    "mode": f"{_LOGITS}, of one channel or of one for each class",
    "to_onehot_y": "our losses take class indices as well as one-hot targets",
}
# None for all other options
_DEFAULTS: dict[str, Any] = {
    "per": "pixel",
    "reduction": "mean",
    "return_parts": False,
    "validate": False,
}


_MODES = ("binary", "multiclass", "multilabel")


def refuse_mode(loss: str, first: object) -> None:
    """Refuse segmentation-models-pytorch's `mode` in place of the first argument of a loss."""
    if isinstance(first, str) and first in _MODES:
        more = "; multilabel is one call a channel" if first == "multilabel" else ""
        raise TypeError(f"`{loss}` takes no `mode`: {_OF_OTHERS['mode']}{more}; drop it.")


def check_options(
    loss: str, given: Mapping[str, object], known: type, also: Callable[..., Any] | None = None
) -> None:
    """Refuse an option that the loss does not have, and name the nearest one.

    Args:
        loss: name of the loss in the error.
        given: options of the call.
        known: TypedDict of the options that exist.
        also: a callable whose parameters are options, too.
    """
    for name in given:
        if name not in known.__annotations__:
            if name in _OF_OTHERS:
                subject = "The loss" if loss == "the loss" else f"`{loss}`"
                raise TypeError(f"{subject} takes no `{name}`: {_OF_OTHERS[name]}; drop it.")
            options = [
                *(inspect.signature(also).parameters if also else ()),
                *known.__annotations__,
            ]
            raise TypeError(
                f"Expected an option of {loss} ({', '.join(dict.fromkeys(options))}), got {name!r}."
                f"{suggest(name, options)}"
            )


def shows_options(
    options: type, defaults: Mapping[str, object] = _DEFAULTS
) -> Callable[[Callee], Callee]:
    """Let help() and inspect.signature spell out **options.

    Args:
        options: TypedDict of the options.
        defaults: their defaults, None for all that it leaves out.
    """

    def decorate(callee: Callee) -> Callee:
        signature = inspect.signature(callee)
        shown = [
            parameter
            for parameter in signature.parameters.values()
            if parameter.kind != parameter.VAR_KEYWORD
        ]
        for name, annotation in options.__annotations__.items():
            shown.append(
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=defaults.get(name),
                    annotation=getattr(annotation, "__forward_arg__", annotation),
                )
            )
        callee.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
        return callee

    return decorate
