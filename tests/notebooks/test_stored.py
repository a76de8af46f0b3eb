"""The notebooks as they are stored: executed in order, without errors, small and without traces."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.notebooks.execute import FOLDER, NAMES

LARGEST = 250_000  # bytes of a notebook with its outputs
# paths of a machine, durations, and places of objects in memory
TRACES = re.compile(
    r"(?<![\w.:/])/(home|root|work|tmp|usr|Users|private)/|[A-Z]:\\|\bs/it\b|0x[0-9a-f]{8}"
)


def load(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def code_cells(name: str) -> list[dict[str, Any]]:
    return [cell for cell in load(name)["cells"] if cell["cell_type"] == "code"]


def texts(output: dict[str, Any]) -> list[str]:
    """Return the texts of an output; pictures are left out."""
    parts = [output.get("text", ""), *output.get("data", {}).values()]
    kinds = ["text", *output.get("data", {})]
    return [
        "".join(part)
        for kind, part in zip(kinds, parts, strict=True)
        if not kind.startswith("image/")
    ]


def test_there_are_five():
    assert NAMES == (
        "denoise_your_hits", "draw_losses", "key_points", "losses_in_monai", "which_loss",
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_cells_were_executed_in_order(name):
    cells = code_cells(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_have_no_errors_and_no_warnings(name):
    outputs = [output for cell in code_cells(name) for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {
        "stream", "display_data", "execute_result",
    }  # fmt: skip
    assert all(output.get("name", "stdout") == "stdout" for output in outputs)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_have_no_traces_of_a_machine(name):
    for cell in code_cells(name):
        assert cell["metadata"] == {}
        for text in (text for output in cell["outputs"] for text in texts(output)):
            assert not TRACES.search(text), TRACES.search(text)
    assert load(name)["metadata"]["kernelspec"]["name"] == "python3"
    assert load(name)["metadata"]["language_info"] == {"name": "python"}


@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_has_pictures_and_is_small(name):
    outputs = [output for cell in code_cells(name) for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert (FOLDER / f"{name}.ipynb").stat().st_size < LARGEST


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_has_a_title(name):
    first = load(name)["cells"][0]
    assert first["cell_type"] == "markdown"
    title, empty, text, *_ = "".join(first["source"]).splitlines()
    assert title.startswith("# ")
    assert empty == ""
    assert text


@pytest.mark.parametrize("name", NAMES)
def test_the_prose_has_no_markup_of_the_site(name):
    # it is shown raw where the notebook is opened elsewhere
    for cell in load(name)["cells"]:
        if cell["cell_type"] == "markdown":
            assert not re.search(r"\{[a-z-]+\}`|^:::|^```\{", "".join(cell["source"]), re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_links_to_pages_are_relative(name):
    prose = "".join(
        "".join(cell["source"]) for cell in load(name)["cells"] if cell["cell_type"] == "markdown"
    )
    links = re.findall(r"\]\(([^)#]+)", prose)
    assert links
    for link in links:
        assert link.startswith("http") or (FOLDER / link).suffix in (".md", ".ipynb"), link


@pytest.mark.parametrize(
    "text", ["in /home/ann/x.py", "C:\\data", "12.5 s/it", "<Axes at 0x7f43de530250>"]
)
def test_traces_are_seen(text):
    assert TRACES.search(text)
    assert not TRACES.search("runs/tmp/a, https://x.org/home/, and 1/2")
