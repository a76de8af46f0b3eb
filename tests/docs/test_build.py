"""The build of the site without its libraries, and docstrings as Markdown."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import pytest

import dense_imb.losses
from tests.docs.pages import DOCS, blocks_of, split_commands, written_pages


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{path.stem}", path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch):
    build = load(DOCS / "build.py")
    monkeypatch.setitem(build._NEEDED, "no_such_library", "no-such-library")
    sentence = build.main([])
    assert re.fullmatch(
        r'The documentation needs (.*, )?no-such-library: pip install -e "\.\[docs\]"\.', sentence
    )
    assert build.main(["--check"]) == sentence


def test_arguments_and_examples_become_markdown():
    to_markdown = load(DOCS / "_ext" / "docstrings.py").to_markdown
    made = to_markdown(
        "Mean of <n> errors.\n\n    loss = sum_i e_i\n\nArgs:\n    a, b: two numbers,\n"
        "        by default 1.\n    *rest: `<others>`.\nExample:\n    Add:\n\n"
        "    >>> 1 + 1\n    2\n\n    >>> 3\n    3"
    )
    assert made.startswith("Mean of &lt;n> errors.\n\n```text\nloss = sum_i e_i\n```\n\n")
    assert "`a`, `b`\n: two numbers,\n  by default 1.\n\n`*rest`\n: `<others>`." in made
    assert made.endswith("Add:\n\n```pycon\n>>> 1 + 1\n2\n\n>>> 3\n3\n```")


def test_the_page_of_a_loss_shows_inherited_methods(monkeypatch):
    pytest.importorskip("sphinx", reason='the site needs the extra: pip install -e ".[docs]"')
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    api_pages, public_names = map(importlib.import_module, ("api_pages", "public_names"))
    losses = [one for one in dense_imb.losses.__all__ if one.endswith("Loss")]
    for name in losses:
        one = public_names.Name("dense_imb.losses", name, getattr(dense_imb.losses, name))
        page = api_pages.page_of_name(one)
        found = re.findall(r"^::::\{py:(?:method|property)\} (\w+)", page, re.MULTILINE)
        assert {"forward", "probability", "natural"} <= set(found), name
        assert len(found) == len(set(found)), name
        assert not {"train", "state_dict", "extra_repr"} & set(found), name  # torch's own
        bare = re.findall(r"^::::\{py:\w+\} (\w+).*\n\n\n::::", page, re.MULTILINE)
        assert bare == [], name


def test_every_written_page_is_in_the_first_pages_list():
    lines = (DOCS / "index.md").read_text(encoding="utf-8").splitlines()
    names = {page.removeprefix("docs/").removesuffix(".md") for page in written_pages()[1:]}
    listed = {name for name in names if any(fnmatch(name, line) for line in lines)}
    assert names - listed == {"index"}


@pytest.mark.parametrize("page", written_pages()[1:])
def test_page_has_one_title(page):
    text = (DOCS.parent / page).read_text(encoding="utf-8")
    if "```{include}" in text:
        return
    for block in blocks_of(page):
        text = text.replace(block.text, "")
    assert len(re.findall(r"^# ", text, flags=re.MULTILINE)) == 1


def test_commands_are_split_as_a_shell_does():
    line = "A=1 dense-imb losses 'a|b' --x > out.txt 2>&1 && ls | wc # comment"
    assert split_commands(line)[0] == ["A=1", "dense-imb", "losses", "a|b", "--x"]


def test_a_notebook_gets_its_download_below_the_title():
    sources = load(DOCS / "_ext" / "sources.py")
    stored = {"cells": [{"cell_type": "markdown", "source": ["# Title\n", "\n", "Text."]}]}
    made = json.loads(sources.add_download(json.dumps(stored), "one"))
    link = "{download}`Download this notebook <one.ipynb>`"
    assert made["cells"][0]["source"] == f"# Title\n\n{link}\n\nText."


def test_a_number_and_its_spread_stay_on_one_line_in_tables_only():
    sources = load(DOCS / "_ext" / "sources.py")
    text = "| 0.5 +- 0.1 | a +- b |\n0.5 +- 0.1"
    kept = "| 0.5\u00a0+-\u2060\u00a00.1 | a +- b |\n0.5 +- 0.1"
    assert sources.keep_spreads_together(text) == kept
