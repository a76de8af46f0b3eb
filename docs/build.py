"""Build the documentation in docs/_build/html, with warnings as errors; `make docs` calls this."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
_NEEDED = {
    "dense_imb": "dense_imb",
    "sphinx": "Sphinx",
    "myst_nb": "myst-nb",
    "furo": "furo",
    "sphinx_copybutton": "sphinx-copybutton",
    "ignite": "pytorch-ignite",
}


def missing() -> list[str]:
    """Return the libraries that the documentation needs and that are not installed."""
    return [name for module, name in _NEEDED.items() if find_spec(module) is None]


def main(arguments: list[str]) -> int | str:
    """Build, or only look for the libraries with `--check`; return an exit code or a sentence."""
    lacking = missing()
    if lacking:
        return f'The documentation needs {", ".join(lacking)}: pip install -e ".[docs]".'
    if arguments == ["--check"]:
        return 0
    from sphinx.cmd.build import main as build

    out = Path(arguments[0]) if arguments else HERE / "_build"
    words = ["--builder", "html", "--doctree-dir", str(out / "doctrees"), "--jobs", "auto"]
    words += ["--quiet", "--nitpicky", "--fail-on-warning", str(HERE), str(out / "html")]
    start = time.perf_counter()
    code = build(words)
    if code == 0:
        n_pages = len([*(out / "html").rglob("*.html")])
        seconds = time.perf_counter() - start
        print(f"{n_pages} pages in {seconds:.0f} s: {out / 'html' / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
