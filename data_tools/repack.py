"""Why does this HDF5 file read so slowly? Looks at how its frames are chunked, and cures it.

    python data_tools/repack.py frames.h5                     how fast is it now
    python data_tools/repack.py frames.h5 fast.h5             the same, one frame a chunk
    python data_tools/repack.py frames.h5 hits.h5 --hits      a hits file: smaller, and faster still
    python data_tools/repack.py hits.h5 small.h5 --compression 4    a hits file, packed

Without a target it exits with 1 if a data set is slow.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    parser.add_argument("file", type=str, help="dense frames in HDF5, or a hits file")
    parser.add_argument("target", type=str | None, nargs="?", help="the file to write")
    parser.add_argument("--hits", action="store_true", help="write the frames as a hits file")
    parser.add_argument("--key", type=str | None, help="with --hits: the data set of the frames")
    parser.add_argument("--labels", type=str | None, help="with --hits: the data set of labels")
    parser.add_argument("--compression", type=int | None, help="of hits files: gzip level, 1 to 9")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    return parser


def run(options: Namespace) -> int:
    from dense_imb.data.events.combine import merge_hits
    from dense_imb.data.events.convert import to_hits
    from dense_imb.data.events.formats import hdf5_frames_source
    from dense_imb.data.events.formats.hdf5 import is_hits_file
    from dense_imb.data.events.repack import layouts, repack

    source, target = Path(options.file), options.target
    if is_hits_file(source):
        if target is None or options.hits:
            raise ValueError(f"Expected a target and no --hits for {source}, a hits file already.")
        merge_hits([source], target, compression=options.compression, overwrite=options.overwrite)
    elif options.hits:
        if target is None:
            raise ValueError("Expected a target with --hits, got none.")
        frames = hdf5_frames_source(source, options.key, options.labels)
        to_hits(frames, target, compression=options.compression, overwrite=options.overwrite)
    else:
        found = layouts(source)
        if not found:
            raise ValueError(f"Expected frames (N, H, W) in {source}, got none.")
        print(*found, sep="\n")
        if target is None:
            return 1 if any(layout.is_slow for layout in found) else 0
        for name in repack(source, target, overwrite=options.overwrite):
            print(f"left out, being of variable length: {name}", file=sys.stderr)
        print(*layouts(target), sep="\n")
    before, after = source.stat().st_size, Path(target).stat().st_size
    print(f"{target}: {after / 1e6:.2f} MB after {before / 1e6:.2f} MB")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("repack.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
