"""Which way imports point, and what an import of the losses costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import dense_imb

ROOT = Path(dense_imb.__file__).parent

# a room may import the rooms on lower floors only; rooms on one floor don't know each other
FLOORS = (
    {"base", "config"},
    {"losses", "models"},
    {"metrics", "statistics"},
    {"hits"},
    {"data"},
    {"curves", "engine"},
    {"inspection", "tasks"},
    {"runs"},
    {"report"},
    {"demo", "integrations", "compare", "export"},
    {"cli"},
)
# arrows that the floors would allow and the design does not
FORBIDDEN = {
    ("data", "models"), ("hits", "models"), ("curves", "models"), ("curves", "metrics"),
    ("curves", "hits"), ("curves", "data"), ("tasks", "curves"), ("runs", "curves"),
    ("engine", "data"), ("engine", "hits"), ("inspection", "engine"),
}  # fmt: skip


def floor(room: str) -> int:
    for height, rooms in enumerate(FLOORS):
        if room in rooms:
            return height
    raise AssertionError(f"{room} stands on no floor: add it to FLOORS")


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(source: str) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            module = node.module or ""
            names = [module]
            if module == "dense_imb":
                names = [f"dense_imb.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("dense_imb.")}
    return rooms - {"__version__"}


def wrong_arrows(room: str, source: str) -> list[str]:
    return [
        f"{room} -> {other}"
        for other in sorted(imported_rooms(source) - {room})
        if floor(other) >= floor(room) or (room, other) in FORBIDDEN
    ]


FILES = [
    path for path in sorted(ROOT.rglob("*.py")) if path.name not in ("__init__.py", "__main__.py")
    or path.parent != ROOT
]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    assert wrong_arrows(room_of(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("losses", "from dense_imb.engine import loop"),
        ("losses", "from dense_imb import cli"),
        ("hits", "import dense_imb.models.unet"),
        ("engine", "def f():\n    from dense_imb.cli import main"),
    ],
)
def test_a_wrong_arrow_is_seen(room, source):
    assert len(wrong_arrows(room, source)) == 1


def borrowed_private_names(room: str, source: str) -> list[str]:
    """List the underscore names of other rooms that a file imports, or reads off an import."""
    private, modules = [], {}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            places = [(alias.name, alias.asname or alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            places = [(f"{node.module}.{a.name}", a.asname or a.name) for a in node.names]
        else:
            continue
        for place, name in places:
            package, *parts = place.split(".")
            if package != "dense_imb" or not parts or parts[0] == room:
                continue
            if any(part.startswith("_") and not part.startswith("__") for part in parts):
                private.append(place)
            modules[name] = place
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            owner = ast.unparse(node.value)
            if owner in modules and not node.attr.startswith("__"):
                private.append(f"{modules[owner]}.{node.attr}")
    return private


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_room_borrows_private_names(path):
    assert borrowed_private_names(room_of(path), path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "from dense_imb.data.images.labelled import _Moments",
        "def f():\n    from dense_imb.losses import _checks",
        "from dense_imb.losses._checks import check_choice",
        "import dense_imb.losses._checks",
        "from dense_imb.data.images import labelled as images\nx = images._Moments(3)",
        "import dense_imb.hits.reader\nx = dense_imb.hits.reader._MAX_OPEN",
    ],
)
def test_a_private_name_is_seen(source):
    assert len(borrowed_private_names("report", source)) == 1


def test_own_private_names_and_dunders_are_free():
    source = (
        "from dense_imb.report._page import _heading\nfrom dense_imb import __version__\n"
        "from dense_imb.hits import Events\nx = self._file\n"
    )
    assert borrowed_private_names("report", source) == []


@cache
def _modules_after(statement: str) -> set[str]:
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    return {name.split(".")[0] for name in json.loads(printed)}


def test_losses_cost_torch_and_nothing_else():
    extra = _modules_after("import dense_imb.losses") - _modules_after("import torch")
    assert extra == {"dense_imb"}


def test_our_own_networks_cost_torch_and_nothing_else():
    extra = _modules_after("import dense_imb.models") - _modules_after("import torch")
    assert extra == {"dense_imb"}


def test_version_and_help_do_not_wait_for_torch():
    assert "torch" not in _modules_after("import dense_imb.cli")
