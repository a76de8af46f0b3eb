"""The script that runs the tests on the oldest and the newest releases; the wheel."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import versions
from tests.limits import HANG_SECONDS

ROOT = Path(__file__).parents[1]


def test_each_library_has_a_floor():
    oldest = versions.floors()
    assert {"torch", "numpy", "monai", "scipy", "onnx", "lightning", "pytest"} <= set(oldest)
    with pytest.raises(ValueError, match="a floor for tqdm in pyproject.toml, got 'tqdm'"):
        versions.floors({"dependencies": ["tqdm"]})


def test_the_floor_of_python_is_that_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={versions._PYTHON}"


def test_the_table_has_both_environments():
    counts = {
        "floors": versions.Counts(10, 2, 1, 0.5),
        "newest": versions.Counts(12, 0, 1, 0.5),
    }
    releases = {
        "floors": {"python": "3.11.7", "torch": "2.10.0"},
        "newest": {"python": "3.11.7", "torch": "2.15.0"},
    }
    oldest = {"torch": "2.10", "lightning": "2.5"}  # the second is in neither
    text = versions.table(oldest, releases, counts, {"floors": False, "newest": True})
    assert text.splitlines() == [
        "|  | floor | floors | newest |",
        "| --- | --- | --- | --- |",
        "| python | 3.11 | 3.11.7 | 3.11.7 |",
        "| torch | 2.10 | 2.10.0 | 2.15.0 |",
        "| passed |  | 10 | 12 |",
        "| failed |  | 2 | 0 |",
        "| skipped |  | 1 | 1 |",
        "| pip-audit |  | not clean | clean |",
    ]


def test_an_environment_of_floors_gets_them_as_constraints(monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr(versions.shutil, "which", lambda name: None)
    monkeypatch.setattr(versions.subprocess, "run", lambda words, **_: commands.append(words))
    python = versions.make_environment(
        tmp_path / "floors", python="python3.11", extras="test", oldest={"torch": "2.10"}
    )
    assert (tmp_path / "floors.constraints").read_text() == "torch==2.10\n"
    make, install = [[str(word) for word in words] for words in commands]
    assert make == ["python3.11", "-m", "venv", str(tmp_path / "floors")]
    assert install[:4] == [str(python), "-m", "pip", "install"]
    assert install[-1] == f"{ROOT}[test]"


def build_wheel(folder, *, mask, time):
    """Build the wheel in a copy of the package; return its digest."""
    shutil.copytree(ROOT / "dense_imb", folder / "dense_imb")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICES.md"):
        shutil.copy(ROOT / name, folder)
    for path in folder.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
        os.utime(path, (time, time))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"],
        cwd=folder,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        umask=mask,
        check=True,
        capture_output=True,
        timeout=HANG_SECONDS,
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_the_wheel_is_the_same_wherever_and_whenever_it_is_built(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling, the build backend, is not installed")
    first = build_wheel(tmp_path / "one", mask=0o022, time=1_000_000_000)
    second = build_wheel(tmp_path / "a second place", mask=0o077, time=1_500_000_000)
    assert first == second
