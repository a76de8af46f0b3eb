"""Refusals: data in, one sentence out, for Python and for the command line."""

from __future__ import annotations

import pytest

from dense_imb.base.refusals import Refused, RefusedFile, RefusedType, literal, refusal, render


def on_command_line(name: str, value: str | None) -> str:
    return f"--{name}" if value is None else f"--{name} {value}"


def test_an_option_has_the_spelling_of_its_reader():
    problem = Refused("masks", "none", "add {images.masks=FOLDER} or drop {images.train}")
    assert str(problem).endswith("add `images.masks=FOLDER` or drop `images.train`.")
    sentence = render(problem.sentence, on_command_line)
    assert sentence.endswith("add --images.masks FOLDER or drop --images.train.")


def test_what_came_is_never_markup():
    problem = Refused("a new folder", "runs/{fold}", "choose another name")
    assert str(problem) == "Expected a new folder, got runs/{fold}; choose another name."
    assert render(problem.sentence, on_command_line) == str(problem)


def test_a_path_in_a_cure_can_be_kept_from_being_markup():
    problem = refusal(f"Nothing in {literal('{a}')}; add {{masks=FOLDER}}.")
    assert str(problem) == "Nothing in {a}; add `masks=FOLDER`."


@pytest.mark.parametrize("text", ['{"head": "cosine"}', "balance={}", "{'widths': [4]}"])
def test_other_braces_stay(text):
    assert text in str(Refused("x", "y", f"write {text}"))


@pytest.mark.parametrize(
    ("kind", "also"), [(Refused, ValueError), (RefusedType, TypeError), (RefusedFile, OSError)]
)
def test_a_refusal_is_the_exception_that_python_expects(kind, also):
    problem = kind("a", "b")
    assert isinstance(problem, also)
    assert isinstance(problem, ValueError)
    assert str(problem) == "Expected a, got b."
