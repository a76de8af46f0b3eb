"""Draw the figures of the documentation from stored numbers.

    python experiments/gallery/make.py --out docs/figures
    python experiments/gallery/make.py --out figures --only event
    python experiments/gallery/make.py --out figures --only event --measure

Each figure has a module beside this one: `draw` draws it, and `measure` makes its numbers anew,
from a training where there is one. All figures together take some 10 s to draw; to measure one
takes at most 3 minutes of one core.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dense_imb.base.files import write_whole

FIGURES = (
    "concept_balance", "concept_cells", "concept_combination", "concept_read_out",
    "event", "retention", "collapse", "curves", "gradient_share", "dvh", "cracks",
)  # fmt: skip
HERE = Path(__file__).parent
NUMBERS = HERE / "numbers"


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the PNG files")
    parser.add_argument(
        "--only", metavar="NAME", nargs="+", choices=FIGURES, default=FIGURES,
        help=f"figures to draw: {', '.join(FIGURES)}; all by default",
    )  # fmt: skip
    parser.add_argument(
        "--measure",
        action="store_true",
        help="measure the stored numbers of these figures anew; others are only drawn",
    )
    return parser


def read_numbers(name: str) -> dict[str, Any]:
    """Return the stored numbers of a figure; none if it computes all that it draws."""
    for path in NUMBERS.glob(f"{name}.*"):
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                return dict(arrays)
        return json.loads(path.read_text())
    return {}


def hash_of_sources(name: str) -> str:
    """Return the hash of the code and the numbers of a figure, which its picture holds too."""
    paths = [HERE / "style.py", HERE / f"{name}.py", *NUMBERS.glob(f"{name}.*")]
    if name == "collapse":
        paths.append(HERE.parent / "values" / "collapse.json")
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def write_numbers(name: str, numbers: dict[str, Any]) -> None:
    """Store the numbers of a figure: arrays as NPZ, others as JSON, one name a line."""
    if all(isinstance(value, np.ndarray) for value in numbers.values()):
        write_whole(NUMBERS / f"{name}.npz", lambda to: save_arrays(to, numbers))
        return
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in numbers.items())
    text = f"{{\n{lines}\n}}\n"
    write_whole(NUMBERS / f"{name}.json", lambda to: to.write_text(text))


def save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    with path.open("wb") as file:  # savez would add a suffix to the name
        np.savez_compressed(file, **arrays)


def main(arguments: Sequence[str] | None = None) -> None:
    options = make_parser().parse_args(arguments)
    from style import write_figure

    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        module = importlib.import_module(name)
        if options.measure and hasattr(module, "measure"):
            write_numbers(name, module.measure())
        numbers = read_numbers(name)
        path = options.out / f"{name}.png"
        draw = partial(module.draw, numbers=numbers)
        write_figure(draw, module.SIZE, path, hash_of_sources(name))
        print(path)


if __name__ == "__main__":
    main()
