"""Execute the notebooks of the documentation.

    python -m tests.notebooks.execute                # all, and store their outputs
    python -m tests.notebooks.execute draw_losses    # this one

Each notebook runs in an empty folder, in a process of its own, without `DENSE_IMB_DATA`: stored
outputs are those of generated data. Needs nbclient and ipykernel, the extra `notebooks`.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tests.limits import HANG_SECONDS

_ROOT = Path(__file__).parents[2]
FOLDER = _ROOT / "docs" / "notebooks"
# tqdm warns of bars without ipywidgets, which no notebook shows
_NO_BARS = "ignore:IProgress not found"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb")))


def execute(path: Path, folder: Path, **environment: str) -> Any:
    """Return a notebook with the outputs of this machine; an error in a cell is raised.

    Args:
        path: the notebook.
        folder: an empty folder, in which its cells run.
        environment: further variables of the kernel.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=HANG_SECONDS,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    with tempfile.TemporaryDirectory() as own:
        client.execute(env=_environment(own) | environment)
    return notebook


def _environment(own: str) -> dict[str, str]:
    """Return the variables of a kernel that imports this checkout and has settings of its own."""
    path = os.pathsep.join([str(_ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    kept = {name: value for name, value in os.environ.items() if name != "DENSE_IMB_DATA"}
    return kept | {
        "PYTHONPATH": path.strip(os.pathsep),
        "IPYTHONDIR": own,
        "MPLCONFIGDIR": own,
        "PYTHONWARNINGS": _NO_BARS,
    }


def without_traces(notebook: Any) -> Any:
    """Remove what differs from machine to machine: versions, and 24-bit colours."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _smaller(output.data["image/png"])
    return notebook


def _smaller(picture: str) -> str:
    """Return a PNG, as base64, with at most 96 colours: a third of the bytes."""
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        small = image.convert("RGB").quantize(96, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def main(names: Sequence[str]) -> None:
    """Execute notebooks, and store their outputs in place."""
    import nbformat

    for name in names or NAMES:
        path = FOLDER / f"{name}.ipynb"
        with tempfile.TemporaryDirectory() as folder:
            notebook = without_traces(execute(path, Path(folder)))
        nbformat.write(notebook, path)
        print(f"{path.relative_to(_ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
