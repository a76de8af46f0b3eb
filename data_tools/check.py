"""Are these hits files whole? Opens each, checks every hit and the content hash.

    python data_tools/check.py runs/*.h5
    python data_tools/check.py a_folder

Prints a line a file: ok, DAMAGED, MISSING or NO HITS FILE; exits with 1 if any is not ok.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    parser.add_argument("files", type=str, nargs="+", help="hits files, or folders with .h5 files")
    return parser


def run(options: Namespace) -> int:
    import h5py

    from dense_imb.data.events.formats.hdf5 import is_hits_file
    from dense_imb.hits import HitsFile, verify

    paths: list[Path] = []
    for name in options.files:
        files = sorted(Path(name).glob("*.h5")) if Path(name).is_dir() else [Path(name)]
        if not files:
            raise ValueError(f"Expected .h5 files in {name}, got none.")
        paths += files
    n_bad = 0
    for path in paths:
        if not path.exists():
            n_bad += 1
            print(f"MISSING  {path}: there is no such file.")
            continue
        try:
            # a file of another kind may be whole
            if not h5py.is_hdf5(path) or not is_hits_file(path):
                n_bad += 1
                print(f"NO HITS FILE  {path}: `dense-imb convert` makes one of data that it "
                      "knows.")  # fmt: skip
                continue
            with HitsFile(path, in_memory=False) as hits:
                verify(path)
                columns = sorted(hits.columns.keys() - {"/event/offset"})
                print(f"ok       {path}: {len(hits)} events, {hits.n_hits} hits, "
                      f"{path.stat().st_size / 1e6:.1f} MB, {', '.join(columns)}")  # fmt: skip
        except (ValueError, OSError) as problem:
            n_bad += 1
            system = getattr(problem, "strerror", None)
            sentence = f"{system}." if system else str(problem)
            print(f"DAMAGED  {path}: {sentence}")
    return 1 if n_bad else 0


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("check.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
