"""The command: what it prints, and one sentence with exit code 2 on bad input."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dense_imb import __version__, losses
from dense_imb.cli import main
from dense_imb.losses.foreign.catalogue import CATALOGUE


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"dense-imb {__version__}\n", "")


def test_python_m_is_the_same_command():
    command = [sys.executable, "-m", "dense_imb", "--version"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed == f"dense-imb {__version__}\n"


def test_losses_lists_each_in_one_line(capsys):
    code, out, err = run(capsys, "losses")
    assert (code, err) == (0, "")
    lines = out.split("\n\n")[0].splitlines()  # the short names follow
    names = sorted(line.split()[0] for line in lines)
    assert names == [name for name in losses.__all__ if name.endswith("Loss")]
    for line, entry in zip(lines, CATALOGUE, strict=True):
        assert entry.formula in line


def test_losses_as_json(capsys):
    code, out, _ = run(capsys, "losses", "--format", "json")
    assert code == 0
    assert {"name", "feeds_on", "formula", "source"} == set(json.loads(out)[0])


def test_one_loss_is_explained(capsys):
    code, out, _ = run(capsys, "losses", "acb_mse_loss")
    assert code == 0
    assert out.startswith("acb_mse_loss(prediction: Tensor, target: Tensor, *, empty_weight")
    assert "w_h mean" in out
    assert "scope: Scope = 'batch'" in out
    assert "-> Any" in out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["loses"], "got 'loses'. Did you mean 'losses'?"),
        (["losses", "--fromat", "json"], "got --fromat. Did you mean --format?"),
        (
            ["losses", "--format", "yaml"],
            "Expected --format to be one of 'text', 'json', got 'yaml'",
        ),
        (["curves", "--points", "many"], "Expected a whole number in --points, got 'many'"),
        (["curves", "--value", "nan"], "Expected `value` to be a number of at least 0, got nan"),
        (["curves", "--loss", "FocalLoss(gama=2)"], "Did you mean 'gamma'?"),
        (["curves", "--loss", "FocalLoss(balance=1)"], "write balance={}"),
        (["curves", "--loss", "./mine.py:Loss"], "drop the .py"),
        (["losses", "ACBMSELos"], "Did you mean 'ACBMSELoss'?"),
        (["losses", "os.system"], "os.system"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(capsys, arguments, named):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "error: " in err
    assert named in err


def test_the_command_alone_shows_the_jobs(capsys):
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    for job in ("Denoise sparse detector data", "Segment images", "Draw how losses respond"):
        assert job in out
    assert run(capsys, "--help")[1] == out


def test_nothing_is_imported_because_a_user_typed_its_name(capsys):
    sys.modules.pop("this", None)
    for name in ("this", "this.s"):
        assert run(capsys, "losses", name)[0] == 2
    assert "this" not in sys.modules


def test_every_command_teaches(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "list every loss with its formula" in out
    code, out, _ = run(capsys, "losses", "--help")
    assert "Example:\n  dense-imb losses" in out
