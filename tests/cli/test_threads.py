"""The option --threads of the commands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dense_imb.cli import COMMANDS, main
from tests.limits import HANG_SECONDS

# these work on one core, whatever the number of threads
SINGLE = {"convert", "losses", "nnunet-path", "simulate"}

PROBE = """
import os, sys
from dataclasses import replace
from dense_imb import cli

def run(options):
    names = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")
    print("torch" in sys.modules, "numpy" in sys.modules, *map(os.environ.get, names))

cli.COMMANDS["inspect"] = replace(cli.COMMANDS["inspect"], run=run)
sys.exit(cli.main(["inspect", "hits.h5", *sys.argv[1:]]))
"""


def probe(*arguments, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP", "GO"))}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - SINGLE))
def test_commands_that_compute_take_threads(name):
    parser = COMMANDS[name].make_parser()
    assert parser.option_named("threads") == "--threads"


def test_threads_are_chosen_before_torch_and_numpy_are_imported():
    assert probe("--threads", "3") == ["False", "False", "3", "1000"]
    chosen = {"OMP_NUM_THREADS": "5", "OMP_WAIT_POLICY": "active"}
    assert probe(**chosen) == ["False", "False", "5", "None"]


def test_no_thread_is_one_sentence(capsys):
    assert main(["report", "runs/none", "--threads", "0"]) == 2
    error = capsys.readouterr().err
    assert error == "dense-imb report: error: Expected --threads of at least 1, got 0.\n"
