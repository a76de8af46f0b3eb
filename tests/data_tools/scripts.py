"""The scripts of data_tools, loaded from their files."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "data_tools"


@functools.cache
def load(script: str) -> ModuleType:
    name = f"data_tools_{script}"
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run(script: str, *arguments: object) -> int:
    try:
        code: int = load(script).main([str(argument) for argument in arguments])
    except SystemExit as stopped:  # --help, and options that the parser refuses
        return int(stopped.code or 0)
    return code
