"""Run a script of this repository inside the test process, or a module of its tests beside it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tests.limits import HANG_SECONDS

_ROOT = Path(__file__).parents[1]


class Finished(NamedTuple):
    """The result of a script, in the names of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def run_script(path: Path, *arguments: object, **environment: str | None) -> Finished:
    """Run a script as `python PATH ARGUMENTS` would, and leave no trace in the process.

    Args:
        path: the script; its folder comes first on the import path.
        arguments: its words on the command line.
        environment: variables to set, or to unset where None.
    """
    out, err = io.StringIO(), io.StringIO()
    code: object = None
    with contextlib.ExitStack() as stack:
        stack.callback(_restore, dict(os.environ), list(sys.path), list(sys.argv), set(sys.modules))
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # a warning of a script goes to stderr and fails nothing
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        sys.argv = [str(path), *map(str, arguments)]
        sys.path.insert(0, str(path.parent))
        os.environ.update({key: value for key, value in environment.items() if value is not None})
        for key in [key for key, value in environment.items() if value is None]:
            os.environ.pop(key, None)
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:
            code = end.code
    if isinstance(code, str):
        return Finished(1, out.getvalue(), f"{err.getvalue()}{code}\n")
    return Finished(int(code or 0), out.getvalue(), err.getvalue())  # type: ignore[call-overload]


def json_lines(module: str, *arguments: str) -> list[Any]:
    """Run a module as `python -m` does, in a process of one thread, and return what it prints.

    Args:
        module: name of the module; it prints lines of JSON, and ends with 0 or 1.
        arguments: its words on the command line.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert done.returncode in (0, 1), done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def _restore(
    environment: dict[str, str], places: list[str], words: list[str], modules: set[str]
) -> None:
    """Put the process back; modules of the scripts' folders are imported afresh by the next."""
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:], sys.argv[:] = places, words
    scripts = _ROOT / "experiments"
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_relative_to(scripts):
            del sys.modules[name]
