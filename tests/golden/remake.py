"""Rewrites pins.json from the runs as they are now.

    python -m tests.golden.remake

Allowed only where a change of behaviour is wanted, and said in CHANGELOG.md; read the diff of
pins.json before it is committed. A move, a new name or a new structure changes no row. The pins
also hold what they were made with: on another processor, or with another PyTorch, the hashes of
weights and history differ by rounding and are not compared, so remake them where the pins still
pass, before the change, if they are to be of that machine.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tests.golden.configs import RUNS
from tests.golden.data import write_data
from tests.golden.runs import PINS, fingerprint, golden_row


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        data.mkdir()
        write_data(data)
        rows = {name: golden_row(name, data, Path(folder, "run", name)) for name in RUNS}
    pins = {"made_with": fingerprint(), "runs": rows}
    PINS.write_text(json.dumps(pins, indent=1) + "\n")


if __name__ == "__main__":
    main()
