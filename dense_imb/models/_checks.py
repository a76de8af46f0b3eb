"""Checks of the arguments and the input of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from dense_imb.base.refusals import suggest


def refuse_unknown_options(network: str, given: Mapping[str, object], known: Sequence[str]) -> None:
    """Refuse an option that the network does not have, and suggest the nearest one."""
    for option in given:
        if option not in known:
            raise TypeError(
                f"Expected options of {network!r} among {', '.join(known)}; "
                f"got {option!r}.{suggest(option, known)}"
            )


def check_frames(network: str, frames: Tensor, in_channels: int, spatial_dims: int = 2) -> None:
    """Refuse frames whose channels or axes do not fit the network."""
    if frames.dim() != spatial_dims + 2 or frames.shape[1] != in_channels:
        axes = ", ".join(("height", "width", "depth")[:spatial_dims])
        raise ValueError(
            f"Expected frames (batch, {in_channels}, {axes}) for this {network}, "
            f"got {tuple(frames.shape)}."
        )


def check_whole(name: str, value: object, least: int = 1) -> None:
    """Refuse anything but a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Expected `{name}` to be a whole number, got {value!r}.")
    if value < least:
        raise ValueError(f"Expected `{name}` of at least {least}, got {value}.")


def check_frame(frame: object, spatial_dims: int = 2) -> tuple[int, ...]:
    """Return the size of a frame as a tuple; refuse anything but whole numbers above 0."""
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
