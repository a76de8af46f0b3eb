"""Help can be copied from, says what options are of, and bars leave logs alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dense_imb.cli import COMMANDS, main
from dense_imb.cli._parser import Parser


def help_of(*arguments: str, capsys) -> str:
    with pytest.raises(SystemExit):
        main([*arguments, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "compare"])
def test_examples_stand_on_lines_of_their_own(name, capsys):
    _, _, epilog = help_of(name, capsys=capsys).rpartition("\nExample")
    title, *lines = epilog.rstrip().splitlines()
    assert title in (":", "s:")
    assert (len(lines) > 1) == (title == "s:")
    for line in lines:
        assert line.startswith(f"  dense-imb {name} ")
        assert line.count("dense-imb ") == 1


def test_the_first_help_begins_with_an_example(capsys):
    assert "\n  dense-imb demo\n" in help_of(capsys=capsys)


def test_segment_says_how_classes_are_chosen(capsys):
    said = " ".join(help_of("segment", capsys=capsys).split())
    assert "with more than two each pixel has the likeliest class" in said


def test_help_of_a_config_says_what_each_number_is_of():
    parser: Parser = COMMANDS["train"].make_parser()
    for action in parser._actions:
        text = str(action.help or "")
        assert not text.startswith(("of ", "the same", "at ", "its ", "that ")), action.dest


@pytest.mark.parametrize(
    "name",
    ["demo", "denoise", "evaluate", "export", "inspect", "report", "segment", "simulate", "train"],
)
def test_long_commands_can_be_quiet(name):
    assert "--quiet" in COMMANDS[name].make_parser()._option_string_actions


@pytest.mark.parametrize(("typed", "most"), [([], 5), (["--quiet"], 0)])
def test_bars_do_not_flood_a_log(tmp_path, typed, most):
    words = ["simulate", str(tmp_path / "a.h5"), "--events", "1500", *typed]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TQDM")}
    done = subprocess.run(
        [sys.executable, "-m", "dense_imb", *words],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert done.stderr.count("simulate:") <= most
