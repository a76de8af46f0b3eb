"""Public names and help texts change on purpose only: `python -m tests.snapshots.remake`."""

from __future__ import annotations

import difflib

import pytest

from tests.snapshots.public import (
    FOLDER,
    command_name,
    commands,
    help_text,
    names_text,
    packages,
    snapshot_path,
)


def assert_as_stored(kind: str, name: str, got: str) -> None:
    wanted = snapshot_path(kind, name).read_text()
    lines = difflib.unified_diff(
        wanted.splitlines(), got.splitlines(), f"{kind} of {name}, stored", "now", "", "", 1, ""
    )
    if diff := "\n".join(lines):
        pytest.fail(f"{diff}\n\nWanted? python -m tests.snapshots.remake", pytrace=False)


@pytest.mark.parametrize("package", packages())
def test_public_names(package):
    try:
        got = names_text(package)
    except ModuleNotFoundError as problem:
        if str(problem.name).startswith("dense_imb"):
            raise
        pytest.skip(f"needs {problem.name}")
    assert_as_stored("names", package, got)


@pytest.mark.parametrize("words", commands(), ids=command_name)
def test_help(words):
    assert_as_stored("help", command_name(words), help_text(words))


def test_nothing_that_is_gone_is_stored():
    stored = {f"{path.parent.name}/{path.stem}" for path in FOLDER.glob("*/*.txt")}
    public = {f"names/{package}" for package in packages()}
    assert stored == public | {f"help/{command_name(words)}" for words in commands()}
