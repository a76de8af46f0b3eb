"""Help texts: examples to copy, noun phrases, groups; progress bars in log files."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from dense_imb.cli import COMMANDS, main
from dense_imb.cli._parser import Parser

KINDS = ("hits", "images", "labels")


def help_of(*arguments: str, capsys) -> str:
    with contextlib.suppress(SystemExit):
        assert main(arguments) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "compare"])
def test_examples_stand_on_lines_of_their_own(name, capsys):
    _, _, epilog = help_of(*name.split(), "--help", capsys=capsys).rpartition("\nExample")
    title, *lines = epilog.partition("\n\n")[0].rstrip().splitlines()
    assert title in (":", "s:")
    assert (len(lines) > 1) == (title == "s:")
    for line in lines:
        assert line.startswith(f"  dense-imb {name} ")
        assert line.count("dense-imb ") == 1


def test_the_first_help_begins_with_an_example(capsys):
    assert "\n  dense-imb demo\n" in help_of("--help", capsys=capsys)


def test_segment_says_how_classes_are_chosen(capsys):
    said = " ".join(help_of("segment", "--help", capsys=capsys).split())
    assert "with more than two each pixel has the class that exceeds its threshold most" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_help_texts_are_noun_phrases(name):
    parser: Parser = COMMANDS[name].make_parser()
    for action in parser._actions:
        text = str(action.help or "")
        assert text, action.dest
        forbidden = ("of ", "the same", "at ", "its ", "that ", "how ", "whether ", "what ", "the ")
        assert not text.lower().startswith(forbidden), action.dest
        assert "told" not in text.split(), action.dest
        assert not text.endswith(".") or text.endswith("..."), action.dest


@pytest.mark.parametrize("name", COMMANDS)
def test_values_have_placeholders(name):
    for action in COMMANDS[name].make_parser()._actions:
        if action.option_strings and action.nargs != 0:
            assert action.metavar, action.dest  # argparse would write the name of the option


@pytest.mark.parametrize("kind", KINDS)
def test_help_of_training_shows_ten_options_and_all_of_them_if_asked(kind, capsys):
    def options_in(text):
        lines = [
            line.split()[0].rstrip(",") for line in text.splitlines() if line.startswith("  -")
        ]
        return [line for line in lines if line.startswith("--")]

    ten = options_in(help_of("train", kind, "--help", capsys=capsys))
    everything = options_in(help_of("train", kind, "--help", "all", capsys=capsys))
    assert len(ten) == 10
    assert set(ten) < set(everything)
    names = set(COMMANDS[f"train {kind}"].make_parser()._option_string_actions)
    assert set(everything) | {"-h", "--help", "--imb-ratio"} == names | {"--imb-ratio"}
    for other in KINDS:
        assert other == kind or not any(name.startswith(f"--{other}.") for name in everything)


def test_train_without_a_kind_shows_the_kinds(capsys):
    text = help_of("train", capsys=capsys)
    assert all(f"dense-imb train {kind}" in text for kind in KINDS)
    assert help_of("train", "--help", capsys=capsys) == text


def test_long_helps_have_groups():
    for name, command in COMMANDS.items():
        parser = command.make_parser()
        groups = [group for group in parser._action_groups if group._group_actions]
        assert max(len(group._group_actions) for group in groups) <= 22, name
        n_options = len([one for one in parser._actions if one.option_strings])
        assert n_options <= 11 or len(groups) > 2, name


@pytest.mark.parametrize(
    "name",
    [
        "convert",
        "demo",
        "denoise",
        "evaluate",
        "export",
        "inspect",
        "report",
        "segment",
        "simulate",
        "train hits",
        "train images",
        "train labels",
    ],
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
