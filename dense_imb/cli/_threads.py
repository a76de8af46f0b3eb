"""The option --threads of commands that compute."""

from __future__ import annotations

from typing import Any


def add_threads(parser: Any) -> None:
    """Add the option --threads to a parser or to one of its groups."""
    parser.add_argument(
        "--threads",
        type=int | None,
        help="number of CPU threads of each process; by default as many as the machine, the "
        "container and Slurm let it use",
    )
