"""The sentences that networks answer bad input with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor


def nearest(name: str, known: Iterable[str]) -> str:
    """ " Did you mean ...?" or nothing, to end a sentence with."""
    # what people get wrong is upper case first of all
    spelt = {choice.lower(): choice for choice in known}
    near = difflib.get_close_matches(name.lower(), spelt, n=1, cutoff=0.5)
    return f" Did you mean {spelt[near[0]]!r}?" if near else ""


def refuse_unknown_options(network: str, given: Mapping[str, object], known: Sequence[str]) -> None:
    """Refuse an option that the network does not have, naming the nearest one."""
    for option in given:
        if option not in known:
            raise TypeError(
                f"Expected options of {network!r} among {', '.join(known)}; "
                f"got {option!r}.{nearest(option, known)}"
            )


def check_frames(network: str, frames: Tensor, in_channels: int, spatial_dims: int = 2) -> None:
    """Refuse frames of other channels or axes than the network's."""
    if frames.dim() != spatial_dims + 2 or frames.shape[1] != in_channels:
        axes = ", ".join(("height", "width", "depth")[:spatial_dims])
        raise ValueError(
            f"Expected frames (batch, {in_channels}, {axes}) for this {network}, "
            f"got {tuple(frames.shape)}."
        )


def check_whole(name: str, value: object, least: int = 1) -> None:
    """Refuse what is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Expected `{name}` to be a whole number, got {value!r}.")
    if value < least:
        raise ValueError(f"Expected `{name}` of at least {least}, got {value}.")


def check_frame(frame: object, spatial_dims: int = 2) -> tuple[int, ...]:
    """A frame's size as a tuple of whole numbers."""
    if (
        not isinstance(frame, Sequence)
        or isinstance(frame, str)
        or len(frame) != spatial_dims
        or not all(type(size) is int and size >= 1 for size in frame)
    ):
        example = "(128, 88)" if spatial_dims == 2 else "(128, 88, 32)"
        raise ValueError(
            f"Expected `frame` to hold {spatial_dims} whole numbers of at least 1, "
            f"such as {example}, got {frame!r}."
        )
    return tuple(frame)
