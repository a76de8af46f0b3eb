"""Why does this HDF5 file read so slowly? Looks at how its frames are chunked, and cures it.

    python data_tools/repack.py frames.h5                     measure the speed
    python data_tools/repack.py frames.h5 fast.h5             write one frame a chunk
    python data_tools/repack.py frames.h5 hits.h5 --hits      write a hits file: smaller and faster
    python data_tools/repack.py hits.h5 small.h5 --compression 4    compress a hits file

h5py's automatic chunks are small in every direction: of 10,000 frames of 128 x 88 a chunk spans
625, so that reading one frame unpacks hundreds. Without a target the script exits with 1 if a data
set is slow.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser

_SLOW = 4.0  # times the bytes of a frame; below, other costs are larger
_TRIAL_SECONDS = 1.0
_TRIAL_FRAMES = 50


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    parser.add_argument("file", type=str, help="dense frames in HDF5, or a hits file")
    parser.add_argument("target", type=str | None, nargs="?", help="file to write")
    parser.add_argument("--hits", action="store_true", help="write the frames as a hits file")
    parser.add_argument("--key", type=str | None, help="with --hits: data set of the frames")
    parser.add_argument("--labels", type=str | None, help="with --hits: data set of the labels")
    parser.add_argument("--compression", type=int | None, help="gzip level of hits files, 1 to 9")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    return parser


def run(options: Namespace) -> int:
    from dense_imb.base.files import refuse_inputs
    from dense_imb.base.refusals import Refused
    from dense_imb.data.events.combine import merge_hits
    from dense_imb.data.events.convert import to_hits
    from dense_imb.data.events.formats import hdf5_frames_source
    from dense_imb.data.events.formats.hdf5 import is_hits_file

    source, target = Path(options.file), options.target
    if is_hits_file(source):
        if target is None or options.hits:
            wrong = "no target" if target is None else "{hits}"
            raise Refused(f"a target and no {{hits}} for {source}, which is a hits file", wrong)
        merge_hits([source], target, compression=options.compression, overwrite=options.overwrite)
    elif options.hits:
        if target is None:
            raise Refused("a target with {hits}", "none")
        frames = hdf5_frames_source(source, options.key, options.labels)
        refuse_inputs([target], [source])
        to_hits(frames, target, compression=options.compression, overwrite=options.overwrite)
    else:
        layouts = measure_layouts(source)
        if not layouts:
            raise ValueError(f"Expected frames (N, H, W) in {source}, got none.")
        print(*layouts, sep="\n")
        if target is None:
            return 1 if any(layout.is_slow for layout in layouts) else 0
        for name in repack(source, target, overwrite=options.overwrite):
            print(f"left out, being of variable length: {name}", file=sys.stderr)
        print(*measure_layouts(target), sep="\n")
    before, after = source.stat().st_size, Path(target).stat().st_size
    print(f"{target}: {after / 1e6:.2f} MB after {before / 1e6:.2f} MB")
    return 0


class Layout(NamedTuple):
    """Storage of the frames in a data set, and the cost of reading one.

    Args:
        name: path of the data set.
        shape: (N, ...).
        chunks: shape of a chunk; None where the data set is contiguous.
        cost: bytes unpacked to read one frame, as a multiple of its own.
        frames_per_s: measured speed in random order.
    """

    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...] | None
    cost: float
    frames_per_s: float

    @property
    def is_slow(self) -> bool:
        """Whether repacking would pay."""
        return self.cost > _SLOW

    def __str__(self) -> str:
        speed = f"{self.frames_per_s:,.0f} frames/s in random order"
        if not self.is_slow:
            return f"{self.name}: {self.shape}, chunks {self.chunks}: {speed}"
        return (
            f"{self.name}: {self.shape}, chunks {self.chunks}: SLOW, {speed}: a chunk spans "
            f"{self.chunks[0] if self.chunks else 1} frames, so one frame costs the unpacking of "
            f"{self.cost:,.0f}; repack it"
        )


def measure_layouts(path: str | Path) -> list[Layout]:
    """Return the layout of each data set of frames, (N, H, W) or more dimensions."""
    from dense_imb.data.events.formats.hdf5 import open_datasets

    with open_datasets(path) as known:
        return [_measure(name, dataset) for name, dataset in known.items() if _is_frames(dataset)]


def repack(
    path: str | Path, target: str | Path, *, overwrite: bool = False, progress: bool = True
) -> list[str]:
    """Write an HDF5 file again with one frame a chunk; values and other data sets stay.

    Groups without data sets are dropped.

    Args:
        path: file to read; a dangerous one is refused before data is read.
        target: another file to write.
        overwrite: replace a file that exists.
        progress: show a bar.

    Returns:
        Names of the data sets and attributes that were left out. Their length is variable, which a
        damaged file can make endless.
    """
    import h5py

    from dense_imb.base.files import refuse_existing, refuse_inputs, write_whole
    from dense_imb.data.events.formats.hdf5 import open_datasets

    refuse_existing(Path(target), overwrite)
    refuse_inputs([target], [path])
    left_out: list[str] = []

    def write(partial: Path) -> None:
        with (
            h5py.File(partial, "x", libver=("v110", "v110")) as new,
            open_datasets(path) as known,
        ):
            for name, dataset in known.items():
                if dataset.dtype.kind not in "biufcS":
                    left_out.append(f"/{name}")
                    continue
                _copy(new, name, dataset, Path(target), progress)
                _copy_attributes(dataset, new[name], f"/{name}", left_out)
            old = next(iter(known.values())).file if known else None
            parents = {parent for name in known for parent in PurePosixPath(f"/{name}").parents}
            for place in sorted(map(str, parents)):
                if place in new and old is not None:
                    _copy_attributes(old[place], new[place], place, left_out)

    write_whole(target, write)
    return left_out


def _is_frames(dataset: Any) -> bool:
    return dataset.ndim >= 3 and dataset.size > 0 and dataset.dtype.kind in "biuf"


def _measure(name: str, dataset: Any) -> Layout:
    import numpy as np

    frame = math.prod(dataset.shape[1:])
    cost = 1.0
    if dataset.chunks:
        touched = [
            math.ceil(size / chunk) * chunk
            for size, chunk in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)
        ]
        cost = dataset.chunks[0] * math.prod(touched) / frame
    order = np.random.default_rng(0).integers(0, len(dataset), _TRIAL_FRAMES)
    start, n_read = time.perf_counter(), 0
    for i in order:
        dataset[int(i)]
        n_read += 1
        if time.perf_counter() - start > _TRIAL_SECONDS:
            break
    speed = n_read / max(time.perf_counter() - start, 1e-9)
    return Layout(name, tuple(dataset.shape), dataset.chunks, cost, speed)


def _copy(new: Any, name: str, dataset: Any, target: Path, progress: bool) -> None:
    from dense_imb.base.files import check_space
    from dense_imb.base.progress import tqdm
    from dense_imb.data.events.dense import create_frames
    from dense_imb.data.events.formats.source import BATCH_BYTES

    check_space(target, (1 << 20) + min(dataset.nbytes, BATCH_BYTES))
    if not _is_frames(dataset):
        if dataset.ndim == 0:
            new.create_dataset(name, data=dataset[()])
            return
        copied = new.create_dataset(
            name, dataset.shape, dataset.dtype, maxshape=dataset.maxshape, chunks=dataset.chunks,
            compression="gzip" if dataset.compression else None,
        )  # fmt: skip
    else:
        copied = create_frames(new, name, dataset.shape, dataset.dtype)
    with tqdm(
        total=len(dataset), desc=f"repack {name}", unit="row", disable=not progress, leave=False
    ) as bar:
        for rows in _blocks(dataset, BATCH_BYTES):
            block = dataset[rows]
            check_space(target, block.nbytes + (1 << 20))
            copied[rows] = block
            new.flush()
            bar.update(len(block))


def _blocks(dataset: Any, n_bytes: int) -> Iterator[slice]:
    """Yield the rows to read together: whole chunks of about `n_bytes` in all."""
    row = max(1, dataset.dtype.itemsize * math.prod(dataset.shape[1:]))
    step = max(1, n_bytes // row)
    if dataset.chunks and dataset.chunks[0] * row <= 32 * n_bytes:
        step = max(step // dataset.chunks[0], 1) * dataset.chunks[0]
    for start in range(0, len(dataset), step):
        yield slice(start, min(start + step, len(dataset)))


def _copy_attributes(old: Any, new: Any, place: str, left_out: list[str]) -> None:
    for name in old.attrs:
        handle = old.attrs.get_id(name)
        if handle.dtype.kind in "biufcS":
            new.attrs[name] = old.attrs[name]
        else:
            left_out.append(f"{place}@{name}")


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("repack.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
