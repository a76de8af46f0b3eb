"""Every notebook runs from its first cell to its last, in an empty folder, without other data."""

from __future__ import annotations

import importlib.util

import pytest

from tests.notebooks.execute import FOLDER, NAMES, execute, without_traces

NEEDED = ("nbclient", "nbformat", "ipykernel")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
NEEDS = {"losses_in_monai": ("ignite", "scipy")}

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"pip install {' '.join(MISSING)}"),
    pytest.mark.slow,
    # of the kernel's libraries, about sockets and event loops
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, tmp_path):
    for module in NEEDS.get(name, ()):
        pytest.importorskip(module)
    notebook = without_traces(execute(FOLDER / f"{name}.ipynb", tmp_path))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
