"""Examples of README and of every page: Python runs, and commands have the options named."""

from __future__ import annotations

import contextlib
import io

import pytest

from dense_imb import cli
from dense_imb.losses.foreign.catalogue import CATALOGUE
from tests.docs.pages import ROOT, blocks_of, commands_of, inline_commands_of, written_pages

PAGES = written_pages()
WITH_PYTHON = [
    page
    for page in PAGES
    if any(block.language == "python" and block.reason is None for block in blocks_of(page))
]


SLOW = {"docs/start/monai.md"}  # trains in 2-D and in 3-D: 6 s


@pytest.mark.parametrize(
    "page",
    [pytest.param(one, marks=[pytest.mark.slow] if one in SLOW else []) for one in WITH_PYTHON],
)
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples may write files
    monkeypatch.setenv("MPLBACKEND", "agg")
    # in one namespace: an example may build on the ones above it
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.language == "python" and block.reason is None:
            # empty lines in front, so that a traceback has the lines of the page
            exec(compile("\n" * block.line + block.text, page, "exec"), namespace)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_that_do_not_run_say_why(page):
    for block in blocks_of(page):
        if block.language in ("py", "python3", "pycon"):
            assert block.reason, f"{page}:{block.line}: <!-- not run: reason --> is missing"
        assert block.reason != "", f"{page}:{block.line}: a comment without a reason"


@pytest.mark.parametrize("page", PAGES)
def test_commands_parse(page):
    for line, words in commands_of(page):
        problem = problem_of(words)
        assert problem == "", f"{page}:{line}: {problem}"


@pytest.mark.parametrize("page", PAGES)
def test_options_in_the_text_exist(page):
    for words in inline_commands_of(page):
        name = name_of(words)
        if name is None:
            assert words[0] in ("COMMAND", "train", "--help", "--version", "..."), (page, words)
            continue
        parser = cli.COMMANDS[name].make_parser()
        for word in words:
            option = word.partition("=")[0]
            if option.startswith("--") and option != "--help":
                known = parser.option_named(option.rstrip(",.;:")) or option == "--..."
                assert known, f"{page}: dense-imb {name} has no {option}"


def problem_of(words: list[str]) -> str:
    """Return the refusal of a command's words, empty if they parse; nothing is run."""
    name = name_of(words)
    if name is None:
        is_help = not words or words[0] in ("--help", "--version") or words[-1] == "--help"
        return "" if is_help else f"dense-imb {' '.join(words)}: no such command"
    parser = cli.COMMANDS[name].make_parser()
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
        try:
            parser.parse_args(words[len(name.split()) :])
        except SystemExit as end:
            if end.code:
                return printed.getvalue().strip()
    return ""


def name_of(words: list[str]) -> str | None:
    """Return the command that words begin with."""
    names = (" ".join(words[:n_words]) for n_words in (2, 1))
    return next((name for name in names if name in cli.COMMANDS), None)


def test_a_wrong_option_is_a_problem():
    assert problem_of(["denoise", "--retentoin", "0.9"]).endswith("Did you mean --retention?")
    assert problem_of(["train", "hits", "--out", "runs/a"]) == ""
    assert "no such command" in problem_of(["denoice", "a"])


def test_every_loss_has_its_row():
    guide = (ROOT / "docs" / "guide" / "losses.md").read_text(encoding="utf-8")
    for entry in CATALOGUE:
        assert f"`{entry.name}(" in guide


def test_readme_has_two_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
