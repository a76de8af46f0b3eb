"""The short form of the fault harness, see docs/reliability.md: `make soak` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import COMMANDS
from tests.faults.faults import FAULTS
from tests.faults.soak import SHORT, case_name, table
from tests.scripts import json_lines

_ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """The results of all cases, in a process of one thread, which forks."""
    return {row["name"]: row for row in json_lines("tests.faults", "--short", "--json")}


@pytest.mark.parametrize("name", SHORT)
def test_command_survives(name, results):
    row = results[name]
    again = f"python -m tests.faults --case '{name}'"
    assert row["outcome"] == "survived", "\n".join([again, *row["problems"]])


def test_short_form_holds_every_command_and_fault():
    pairs = [name.split("/") for name in SHORT]
    assert {command for command, _, _ in pairs} == {*COMMANDS}
    assert {fault for _, fault, _ in pairs} == {*FAULTS}


def test_harness_knows_every_command():
    from dense_imb.cli import COMMANDS as PUBLIC

    known = {row.words.split(" {")[0].split(" --")[0] for row in COMMANDS.values()}
    assert {*PUBLIC} - known == {"losses", "nnunet-path"}  # which write nothing


def test_a_seed_draws_the_same_cases():
    first, again = ([case_name(3, k) for k in range(50)] for _ in range(2))
    assert first == again
    assert first != [case_name(4, k) for k in range(50)]


def test_moments_are_the_changes_of_a_folder(tmp_path):
    code = """if True:
        import os, sys
        from pathlib import Path
        from tests.faults.moments import watch
        folder = Path(sys.argv[1])
        watch(folder, lambda n, begun: os.write(1, f"{n} {begun is not None} ".encode()))
        Path(os.devnull).write_text("elsewhere")
        with (folder / "a").open("w") as file:
            os.fsync(file.fileno())
        (folder / "a").read_text()
        (folder / "a").rename(folder / "b")
        (folder / "b").unlink()
    """
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], cwd=_ROOT, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout == "0 True 1 False 2 False 3 False "


def test_table_counts_what_survived():
    counts = {"denoise": {"kill": {"survived": 3, "failed": 1}, "clock": {"survived": 2}}}
    stored = {"counts": counts, "date": "2026-01-31", "commit": "abc", "seed": 0, "seconds": 60.0}
    text = table(stored)
    row = next(line for line in text.splitlines() if line.startswith("| `denoise` |"))
    assert row.split(" | ")[1] == "**3 of 4**"
    assert row.rstrip(" |").endswith("2")
    assert text.endswith("5 of 6 survived; 2026-01-31, commit abc, seed 0, 1 min.")
