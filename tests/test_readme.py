"""The Python examples of the README and of some pages run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dense_imb.losses.foreign.catalogue import CATALOGUE

ROOT = Path(__file__).parents[1]
LOSSES = (ROOT / "docs" / "guide" / "losses.md").read_text()


def examples_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


PAGES = (
    "README.md",
    *(
        f"docs/{path.parent.name}/{path.name}"
        for folder in ("start", "guide", "howto")
        for path in sorted((ROOT / "docs" / folder).glob("*.md"))
    ),
    "docs/probabilities.md",
    "docs/region_losses.md",
    "docs/value_losses.md",
    "docs/values.md",
    "docs/key_points_and_dose.md",
    "docs/notebooks.md",
)
EXAMPLES = {page: examples_of(page) for page in PAGES}


@pytest.mark.parametrize(
    ("page", "number"),
    [(page, number) for page, listed in EXAMPLES.items() for number in range(len(listed))],
)
def test_example_runs(page, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples may write files
    # in one namespace: an example may build on the ones above it
    namespace: dict[str, object] = {}
    for example in EXAMPLES[page][: number + 1]:
        exec(compile(example, f"{page}, example {number}", "exec"), namespace)


def test_every_loss_has_its_row():
    for entry in CATALOGUE:
        assert f"`{entry.name}(" in LOSSES


def test_readme_has_two_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
