"""The option --device of commands that run a network."""

from __future__ import annotations

from typing import Any, Literal

from dense_imb.base.refusals import Refused
from dense_imb.cli._parser import Namespace


def add_device(parser: Any) -> None:
    """Add the option --device to a parser or to one of its groups."""
    parser.add_argument(
        "--device",
        type=Literal["auto", "cpu", "cuda"],
        default="auto",
        help="device of the network; auto is a GPU if there is one. CUDA_VISIBLE_DEVICES selects "
        "one of several GPUs",
    )


def chosen_device(options: Namespace) -> str | None:
    """Return the device for a function's argument `device`; None for auto."""
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise Refused("a GPU for {device=cuda}", "none", "use {device=cpu}")
    return None if options.device == "auto" else str(options.device)
