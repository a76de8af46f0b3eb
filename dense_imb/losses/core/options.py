"""Options that losses share, so that each is written, checked and shown once."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar

from torch import Tensor

from dense_imb.losses.core.balance import Balance

Callee = TypeVar("Callee", bound=Callable[..., Any])


class CallOptions(TypedDict, total=False):
    """What every balanced or classification loss takes at call time."""

    mask: Tensor | None
    pixel_weight: Tensor | None
    class_count: Tensor | Sequence[float] | None
    return_parts: bool


class ReducedCallOptions(CallOptions, total=False):
    """The same for a function, which is told its reduction at call time too."""

    reduction: str


class MeanOptions(TypedDict, total=False):
    """What every classification loss takes when it is made."""

    class_weight: Sequence[float] | Tensor | None
    ignore_index: int | None
    balance: Balance | None
    reduction: str
    validate: bool


class PixelOptions(MeanOptions, CallOptions, total=False):
    """What every functional classification loss takes."""


# of the others None
_DEFAULTS: dict[str, Any] = {"reduction": "mean", "return_parts": False, "validate": False}


def check_options(
    loss: str, given: Mapping[str, object], known: type, also: Callable[..., Any] | None = None
) -> None:
    """Refuse an option that the loss does not have, naming the nearest one.

    Args:
        loss: what the sentence calls the loss.
        given: the options.
        known: the TypedDict of those that exist.
        also: a callable whose parameters are options, too.
    """
    for name in given:
        if name not in known.__annotations__:
            options = [
                *(inspect.signature(also).parameters if also else ()),
                *known.__annotations__,
            ]
            near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
            cure = f" Did you mean `{near[0]}`?" if near else ""
            listed = ", ".join(dict.fromkeys(options))
            raise TypeError(f"Expected options of {loss} among {listed}; got `{name}`.{cure}")


def shows_options(options: type) -> Callable[[Callee], Callee]:
    """Let help() and inspect.signature spell out **options."""

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
                    default=_DEFAULTS.get(name),
                    annotation=getattr(annotation, "__forward_arg__", annotation),
                )
            )
        callee.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
        return callee

    return decorate
