"""The README's Python examples run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dense_imb.losses.foreign.catalogue import CATALOGUE

README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_runs(number):
    # in one namespace: an example may build on the ones above it
    namespace: dict[str, object] = {}
    for example in EXAMPLES[: number + 1]:
        exec(compile(example, f"README example {number}", "exec"), namespace)


def test_every_loss_has_its_row():
    for entry in CATALOGUE:
        assert f"`{entry.name}(" in README
